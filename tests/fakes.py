"""A node without processes: `NodePort` and `UnitPort` over `SimTranslib`, for the layers above.

Scripted: delays, failures, hangs (`sim.Script`), exits, silence.  It has no
timing of its own but trio's clock, so it runs under a mock clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from ckptfs.errors import Busy, CkptfsError, NoSuchProcess, OutOfRange
from ckptfs.ids import JobId, UnitName
from ckptfs.model import JobSpec, OpenFile, UnitFacts
from ckptfs.node.api import Exit, Prepared, Process
from ckptfs.translib.api import Availability, UnitHandle
from ckptfs.translib.sim import Script, SimProcess, SimTranslib

ExitCallback = Callable[[JobId, UnitName, Exit | None], None]
FIRST_PID = 5000


@contextmanager
def opened(directory: Path):
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


class FakeUnit:
    """One simulated unit.  ``files`` are what ``stop`` reports; ``script`` is the translib's."""

    def __init__(self, node: FakeNode, job: JobId, unit: UnitName, pid: int) -> None:
        self.node, self.job, self.unit, self.pid = node, job, unit, pid
        self.files: tuple[OpenFile, ...] = ()
        self.signals: list[int] = []
        self.is_loading = False
        self.lease_s: float | None = None
        self._lease: trio.CancelScope | None = None
        self._translib = node.translib
        # Units of several jobs share one translib: its names are made unique here.
        self._handle = UnitHandle(
            UnitName(f"{job}:{unit}"), 0, 1000, Path("/nonexistent"), 0, 0, Path("/nonexistent")
        )

    @property
    def process(self) -> SimProcess:
        """The simulated unit itself: ``progress``, ``is_running``."""
        return self._translib.processes[self._handle.unit]

    async def prepare(self) -> Prepared:
        if self.is_loading:
            raise Busy("memory of the lazy restart is still being loaded")
        preparation = await self._translib.prepare(self._handle)
        facts = UnitFacts(
            self.unit, self.node.name, "sim", dict(preparation.facts), (1000,), (65534,), ()
        )
        return Prepared(preparation.blockers, facts, self.node.image_bytes)

    async def stop(self, *, lease_s: float) -> Sequence[OpenFile]:
        await self._translib.stop(self._handle)
        self.lease_s = lease_s
        self._end_lease()
        if self.node.nursery is not None:
            self._lease = trio.CancelScope(deadline=trio.current_time() + lease_s)
            self.node.nursery.start_soon(self._watch_lease, self._lease)
        return self.files

    async def _watch_lease(self, lease: trio.CancelScope) -> None:
        with lease:
            await trio.sleep_forever()
        if self._lease is lease:
            await self.lose_lease()

    async def lose_lease(self) -> None:
        """What a supervisor does when the daemon has gone or the lease is over."""
        self._lease = None
        await self._translib.resume_cp(self._handle)

    def _end_lease(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.cancel()

    async def checkpoint(self, directory: Path) -> Sequence[OpenFile]:
        with opened(directory) as fd:
            await self._translib.checkpoint(self._handle, fd)
        return self.files

    async def resume_cp(self) -> None:
        self._end_lease()
        await self._translib.resume_cp(self._handle)

    async def rebuild(self, directory: Path, *, lazy: bool = False) -> None:
        with opened(directory) as fd:
            await self._translib.rebuild(self._handle, fd, lazy=lazy)

    async def resume_rst(self, *, stopped: bool = False) -> None:
        await self._translib.resume_rst(self._handle)
        self.is_loading = self._translib.is_loading(self._handle)
        if stopped:
            self.signals.append(19)
            self.process.freeze()

    async def kill(self) -> None:
        await trio.lowlevel.checkpoint()
        self.node.end(self.job, self.unit, Exit(-1, 9))

    async def signal(
        self,
        number: int,
        *,
        only: Sequence[int] = (),
        others: Sequence[int] = (),
        master: bool = False,
    ) -> None:
        await trio.lowlevel.checkpoint()
        if not 1 <= number <= 64:
            raise OutOfRange(f"there is no signal {number}; signals are 1 to 64")
        if not self.pid or set(only) - {self.pid}:
            raise NoSuchProcess("the unit has ended" if not self.pid else "not one of the unit's")
        if self.pid not in others:
            self.signals.append(number)

    async def processes(self) -> Sequence[Process]:
        await trio.lowlevel.checkpoint()
        if not self.pid:
            return ()
        state = "S" if self.process.is_running else "D"
        return (Process(self.pid, 1000, self.process.progress, 0.0, state, "sim"),)


@dataclass(slots=True)
class _Place:
    port: FakeUnit | None = None
    ended: Exit | None = None


class FakeNode:
    """One node.  *nursery*: where leases run out; None: they never do.

    ``start_failure`` / ``rebuild_failure`` are raised once; ``restart_refusal`` is what
    ``check_restart`` says.
    """

    def __init__(
        self, name: str = "n1", *, script: Script | None = None, nursery: trio.Nursery | None = None
    ) -> None:
        self.image_bytes = 4096  # what units say their images will take
        self.name = name
        self.nursery = nursery
        self.translib = SimTranslib(script)
        self.start_failure: CkptfsError | None = None
        self.rebuild_failure: CkptfsError | None = None
        self.rebuild_held: trio.Event | None = None  # a rebuild waits for it
        self.proofs: list[trio.Event] = []  # handed over with each rebuild
        self.restart_refusal = ""
        self.forgotten: list[tuple[JobId, UnitName]] = []
        self.rebuilds: list[tuple[JobId, UnitName, str, JobId | None]] = []
        self.ready: set[tuple[JobId, UnitName]] = set()
        self.ready_failure: CkptfsError | None = None
        self._places: dict[tuple[JobId, UnitName], _Place] = {}
        self._callbacks: list[ExitCallback] = []
        self._loaded: list[Callable[[JobId, UnitName], None]] = []
        self._next_pid = FIRST_PID

    @property
    def script(self) -> Script:
        """The script of every primitive of every unit here."""
        return self.translib.script

    def unit(self, job: JobId, unit: UnitName) -> FakeUnit:
        """Return the running unit."""
        port = self._places[job, unit].port
        assert port is not None, f"{job} {unit} does not run"
        return port

    def running(self) -> Sequence[FakeUnit]:
        """Return all units that have not ended."""
        return [place.port for place in self._places.values() if place.port is not None]

    def end(self, job: JobId, unit: UnitName, how: Exit | None) -> None:
        """End a unit; how=None: its supervisor was lost.  Repeating is harmless."""
        place = self._places.get((job, unit))
        if place is None or place.port is None:
            return
        port, place.port, place.ended = place.port, None, how
        port.pid = 0
        port._end_lease()
        port.process.end()
        for callback in self._callbacks:
            callback(job, unit, how)

    async def probe(self) -> Mapping[str, Availability]:
        return {"sim": await self.translib.probe()}

    async def start(self, job: JobId, unit: UnitName, spec: JobSpec) -> FakeUnit:
        await trio.lowlevel.checkpoint()
        failure, self.start_failure = self.start_failure, None
        if failure is not None:
            raise failure
        port = self._new(job, unit)
        self.translib.start(port._handle.unit)
        self._places[job, unit] = _Place(port)
        return port

    def check_restart(self, facts: UnitFacts, availability: Mapping[str, Availability]) -> str:
        return self.restart_refusal

    async def make_ready(
        self,
        job: JobId,
        unit: UnitName,
        spec: JobSpec,
        facts: UnitFacts,
        *,
        logs_shown_as: JobId | None = None,
    ) -> None:
        await trio.lowlevel.checkpoint()
        failure, self.ready_failure = self.ready_failure, None
        if failure is not None:
            raise failure
        self.ready.add((job, unit))

    async def drop_ready(self, job: JobId, unit: UnitName) -> None:
        self.ready.discard((job, unit))

    async def rebuild(
        self,
        job: JobId,
        unit: UnitName,
        spec: JobSpec,
        facts: UnitFacts,
        directory: Path,
        *,
        suffix: str,
        logs_shown_as: JobId | None = None,
        logs_copied_from: JobId | None = None,
        lazy: bool = False,
        proved: trio.Event | None = None,
    ) -> FakeUnit:
        self.ready.discard((job, unit))
        if proved is not None:
            self.proofs.append(proved)
        if self.rebuild_held is not None:
            await self.rebuild_held.wait()
        await trio.lowlevel.checkpoint()
        failure, self.rebuild_failure = self.rebuild_failure, None
        if failure is not None:
            raise failure
        port = self._new(job, unit)
        self.translib.processes.pop(port._handle.unit, None)
        self.translib._orders.pop(port._handle.unit, None)
        await port.rebuild(directory, lazy=lazy)
        self.rebuilds.append((job, unit, suffix, logs_copied_from))
        self._places[job, unit] = _Place(port)
        return port

    def _new(self, job: JobId, unit: UnitName) -> FakeUnit:
        place = self._places.get((job, unit))
        if place is not None and place.port is not None:
            raise Busy("the unit is running")
        self._next_pid += 1
        return FakeUnit(self, job, unit, self._next_pid)

    async def attach(self, job: JobId, unit: UnitName) -> FakeUnit | Exit | None:
        await trio.lowlevel.checkpoint()
        place = self._places.get((job, unit), _Place())
        return place.port or place.ended

    def forget(self, job: JobId, unit: UnitName) -> None:
        self.forgotten.append((job, unit))
        self._places.pop((job, unit), None)

    def on_loaded(self, callback: Callable[[JobId, UnitName], None]) -> None:
        self._loaded.append(callback)

    def loaded(self, job: JobId, unit: UnitName) -> None:
        """Say that the last page of a unit is there."""
        self.unit(job, unit).is_loading = False
        for callback in self._loaded:
            callback(job, unit)

    def on_exit(self, callback: ExitCallback) -> None:
        self._callbacks.append(callback)
