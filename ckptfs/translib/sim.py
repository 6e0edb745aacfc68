"""A translib without processes: deterministic, in memory, on trio's clock.

For tests of the layers above.  A simulated unit counts seconds while it runs;
its image is that number in ``sim.img``.  `Script` says how long each primitive
takes, which one fails, which one never returns.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from ..errors import CheckpointerFailed, CkptfsError, NoSuchProcess, Unsupported
from ..ids import UnitName
from .api import Availability, Capability, Preparation, UnitHandle
from .order import Order, Phase, Primitive, Step

IMAGE = "sim.img"


@dataclass(slots=True)
class Script:
    """What happens to whom.  Keys are primitives; a failure is used up when it has happened."""

    delays_s: dict[Primitive, float] = field(default_factory=dict[Primitive, float])
    failures: dict[Primitive, CkptfsError] = field(default_factory=dict[Primitive, CkptfsError])
    hangs: set[Primitive] = field(default_factory=set[Primitive])
    blockers: tuple[str, ...] = ()
    available: bool = True
    padding_bytes: int = 0  # added to each image
    load_s: float = 0.0  # what a lazy rebuild leaves to be read
    load_failure: CheckpointerFailed | None = None  # how that reading ends


@dataclass(slots=True)
class SimProcess:
    """One simulated unit; *progress* is in seconds."""

    is_running: bool = True
    has_ended: bool = False
    _counted_s: float = 0.0
    _since_s: float = 0.0

    @classmethod
    def started(cls, counted_s: float = 0.0, *, is_running: bool = True) -> SimProcess:
        """Return a unit that has counted so far."""
        return cls(is_running, _counted_s=counted_s, _since_s=trio.current_time())

    @property
    def progress(self) -> float:
        """Seconds counted: grows while it runs, stands while it is stopped."""
        if not self.is_running or self.has_ended:
            return self._counted_s
        return self._counted_s + trio.current_time() - self._since_s

    def freeze(self) -> None:
        """Stand still."""
        self._counted_s, self.is_running = self.progress, False

    def thaw(self) -> None:
        """Go on."""
        if not self.is_running:
            self._since_s, self.is_running = trio.current_time(), True

    def end(self) -> None:
        """End, for good."""
        self._counted_s, self.has_ended = self.progress, True


class SimTranslib:
    """`Translib` over `SimProcess`."""

    name = "sim"

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.processes: dict[UnitName, SimProcess] = {}
        self.calls: list[tuple[Primitive, UnitName]] = []
        self._orders: dict[UnitName, Order] = {}
        self._loaded_s: dict[UnitName, float] = {}

    def start(self, unit: UnitName) -> SimProcess:
        """Start a simulated unit."""
        process = self.processes[unit] = SimProcess.started()
        self._orders.pop(unit, None)
        return process

    async def probe(self) -> Availability:
        """Say what the script says."""
        await trio.lowlevel.checkpoint()
        return Availability(
            available=self.script.available,
            version="1",
            capabilities=frozenset(Capability),
            reason="" if self.script.available else "the script says so",
        )

    async def prepare(self, unit: UnitHandle) -> Preparation:
        """Return the scripted blockers."""
        async with self._primitive(unit.unit, Primitive.PREPARE):
            return Preparation(blockers=self.script.blockers, facts={"sim_version": "1"})

    async def stop(self, unit: UnitHandle) -> None:
        """Make it stand still."""
        async with self._primitive(unit.unit, Primitive.STOP) as step:
            if step.act:
                self._process(unit.unit).freeze()

    async def checkpoint(
        self, unit: UnitHandle, directory_fd: int, *, streams: bool = False
    ) -> None:
        """Write ``sim.img``.  Raises Unsupported with *streams*."""
        if streams:
            raise Unsupported("the simulated checkpointer has no pipes")
        async with self._primitive(unit.unit, Primitive.CHECKPOINT):
            image = {"counted_s": self._process(unit.unit).progress}
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            fd = os.open(IMAGE, flags, 0o600, dir_fd=directory_fd)
            try:
                os.write(fd, json.dumps(image).encode("ascii") + b" " * self.script.padding_bytes)
            finally:
                os.close(fd)

    async def confirm(self, unit: UnitHandle, directory_fd: int) -> None:
        """Nothing was sent through pipes, so nothing can be confirmed.  Raises Unsupported."""
        await trio.lowlevel.checkpoint()
        raise Unsupported("the simulated checkpointer has no pipes")

    async def resume_cp(self, unit: UnitHandle) -> None:
        """Let it count again."""
        async with self._primitive(unit.unit, Primitive.RESUME_CP) as step:
            if step.act:
                self._process(unit.unit).thaw()

    async def rebuild(self, unit: UnitHandle, directory_fd: int, *, lazy: bool = False) -> None:
        """Read ``sim.img`` and stand still with its count; *lazy*: `Script.load_s` more to read."""
        async with self._primitive(unit.unit, Primitive.REBUILD) as step:
            if step.act:
                counted_s = _read_image(directory_fd)
                self.processes[unit.unit] = SimProcess.started(counted_s, is_running=False)
                loaded_s = trio.current_time() + self.script.load_s if lazy else 0
                self._loaded_s[unit.unit] = loaded_s

    async def resume_rst(self, unit: UnitHandle) -> None:
        """Let it count on from the image."""
        async with self._primitive(unit.unit, Primitive.RESUME_RST) as step:
            if step.act:
                self._process(unit.unit).thaw()

    def is_loading(self, unit: UnitHandle) -> bool:
        """Whether the time of the script is not over and the unit lives."""
        process = self.processes.get(unit.unit)
        there = process is not None and not process.has_ended
        return there and trio.current_time() < self._loaded_s.get(unit.unit, 0)

    async def wait_loaded(self, unit: UnitHandle) -> None:
        """Let the time of the script go by; then it may say that reading fails."""
        if not self.is_loading(unit):
            return
        await trio.sleep_until(self._loaded_s[unit.unit])
        failure, self.script.load_failure = self.script.load_failure, None
        if failure is not None:
            self.processes[unit.unit].end()
            raise failure

    async def end_loading(self, unit: UnitHandle) -> str:
        """Forget what was missing."""
        await trio.lowlevel.checkpoint()
        self._loaded_s.pop(unit.unit, None)
        return ""

    def _process(self, unit: UnitName) -> SimProcess:
        process = self.processes.get(unit)
        if process is None or process.has_ended:
            raise NoSuchProcess("the unit has ended")
        return process

    @asynccontextmanager
    async def _primitive(self, unit: UnitName, primitive: Primitive) -> AsyncGenerator[Step]:
        """Keep the order, and play the script before the work."""
        there = unit in self.processes and not self.processes[unit].has_ended
        order = self._orders.setdefault(unit, Order(Phase.RUNNING if there else Phase.EMPTY))
        step = order.begin(primitive)
        done = False
        try:
            if primitive is not Primitive.REBUILD:
                self._process(unit)
            self.calls.append((primitive, unit))
            await trio.sleep(self.script.delays_s.get(primitive, 0))
            if primitive in self.script.hangs:
                await trio.sleep_forever()
            failure = self.script.failures.pop(primitive, None)
            if failure is not None:
                raise failure
            yield step
            done = True
        finally:
            order.end(step, done=done)


def _read_image(directory_fd: int) -> float:
    try:
        fd = os.open(IMAGE, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory_fd)
    except OSError as bad:
        raise CheckpointerFailed(f"{IMAGE} cannot be read: {bad.strerror}") from None
    try:
        with os.fdopen(os.dup(fd), "rb") as file:
            return float(json.loads(file.read())["counted_s"])
    except (ValueError, KeyError, TypeError) as bad:
        raise CheckpointerFailed(f"{IMAGE} does not parse: {bad}") from None
    finally:
        os.close(fd)
