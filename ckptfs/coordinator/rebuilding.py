"""One restart under way: how its orders are carried out on store and units.

What is decided is in `restart`; here is what is done.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import partial

import trio

from ..errors import CkptfsError, Corrupt, NotFound
from ..ids import JobId, UnitName, Version
from ..model import UnitFacts
from ..node.api import Exit, UnitPort
from .api import Job, RestartRequest, UnitStatus
from .driver import Action
from .events import Event, Order
from .parts import Parts

log = logging.getLogger(__name__)
PROGRESS_S = 0.2
# Files up to this size are proved before anything else, so all but memory.  That is proved beside
# the rebuild; in a lazy restart when it is read, and what cannot be read ends the job.
PROVED_FIRST_BYTES = 1 << 20


class Proof:
    """Reading all of the version, while its units are rebuilt and held frozen."""

    def __init__(self) -> None:
        self.wanted = trio.Event()  # all but memory is proved, units may be rebuilt
        self.passed = trio.Event()  # everything is whole
        self.over = trio.Event()
        self.refusal: CkptfsError | None = None
        self._rebuilds: list[trio.CancelScope] = []

    def end(self, refusal: CkptfsError | None) -> None:
        """Take the result, and cut short the rebuilds that came to nothing by it."""
        self.refusal = refusal
        if refusal is None:
            self.passed.set()
        self.over.set()
        if refusal is not None:
            for scope in self._rebuilds:
                scope.cancel()

    async def guard(self, rebuild: Callable[[], Awaitable[UnitPort]]) -> UnitPort | None:
        """Return what *rebuild* returns, None when it came to nothing by what is wrong here.

        Who waits for the proof then says it.
        """
        with trio.CancelScope() as scope:
            self._rebuilds.append(scope)
            try:
                return await rebuild()
            except CkptfsError:
                # a block that cannot be read, perhaps: the proof says which
                await self.over.wait()
                if self.refusal is None:
                    raise
        return None

    async def wait(self) -> None:
        """Return when everything is whole.  Raises Corrupt, naming file and block."""
        await self.over.wait()
        if self.refusal is not None:
            raise self.refusal


@dataclass(slots=True)
class Rebuilding:
    """State of one restart between its orders.  *source* has the version; *job* comes to life."""

    parts: Parts
    job: Job
    source: JobId
    version: Version
    request: RestartRequest
    facts: Mapping[UnitName, UnitFacts]
    begun_s: float
    journal_id: int = 0
    ports: dict[UnitName, UnitPort] = field(default_factory=dict[UnitName, UnitPort])
    proof: Proof = field(default_factory=Proof)

    def actions(self) -> dict[Order, Action]:
        """Return how each order of the restart is carried out."""
        limits = self.parts.deadlines
        return {
            Order.VERIFY: Action(self.verify, Event.VERIFIED, limits.verify_s),
            Order.PLACE: Action(self.place, Event.PLACED, limits.resume_s),
            # files of the job wait for the proof, which goes on meanwhile
            Order.REBUILD: Action(self.rebuild, Event.REBUILT, limits.verify_s + limits.rebuild_s),
            Order.PROVE: Action(self.prove, Event.PROVED, limits.verify_s),
            Order.RESUME_RST: Action(self.resume, Event.RESUMED, limits.resume_s),
            Order.KILL: Action(self.undo, Event.KILLED, limits.kill_s),
        }

    async def place(self, _service: UnitName) -> None:
        """Find a node for every unit; on one machine that is this one (B18: from the cpx)."""
        here = self.parts.node.name
        for unit in self.facts:
            wanted = self.request.placement.get(unit, here)
            if wanted != here:
                raise NotFound(f"no node is called {wanted}")
            self.job.units[unit] = UnitStatus(here, 0, self.facts[unit].translib, "rebuilding")
        self.parts.registry.changed(self.job.id)
        await trio.lowlevel.checkpoint()

    async def verify(self, _service: UnitName) -> None:
        """Read and hash all but memory before any of it is used, and begin with the rest.

        The rest is proved while units are rebuilt: no file of the job is changed and none of them
        runs before it is (lazy: it is proved when it is read).  Supervisors and namespaces are
        made meanwhile; they touch nothing, and a damaged version takes them down again.
        """
        failures: list[CkptfsError] = []
        try:
            async with trio.open_nursery() as nursery:
                for unit in self.facts:
                    nursery.start_soon(self._make_ready, unit, failures)
                refusal = await self._prove(up_to_bytes=PROVED_FIRST_BYTES)
            if refusal is not None:
                raise refusal
            if failures:
                raise failures[0]
        except BaseException:
            with trio.CancelScope(shield=True):
                for unit in self.facts:
                    await self.parts.node.drop_ready(self.job.id, unit)
            raise

        self.proof.wanted.set()

    async def _prove(self, *, up_to_bytes: int) -> CkptfsError | None:
        """Return what is wrong with the version, None when nothing is."""
        store = self.parts.store
        try:
            damage = await store.prove(self.source, self.version, up_to_bytes=up_to_bytes)
        except CkptfsError as error:
            return error
        if not damage:
            return None
        self.parts.registry.changed(self.source, self.version)
        return Corrupt(str(damage[0]))

    async def _prove_rest(self) -> None:
        await self.proof.wanted.wait()
        self.proof.end(None if self.request.lazy else await self._prove(up_to_bytes=0))

    async def _make_ready(self, unit: UnitName, failures: list[CkptfsError]) -> None:
        job = self.job
        try:
            await self.parts.node.make_ready(
                job.id, unit, job.spec, self.facts[unit], logs_shown_as=job.logs_shown_as
            )
        except CkptfsError as error:
            failures.append(error)

    async def rebuild(self, unit: UnitName) -> None:
        """Put files back and rebuild one unit, held frozen at the barrier."""
        rebuild = partial(
            self.parts.node.rebuild,
            self.job.id,
            unit,
            self.job.spec,
            self.facts[unit],
            self.parts.image_directory(self.source, self.version, unit),
            suffix=f"after-{self.version}",
            logs_shown_as=self.job.logs_shown_as,
            logs_copied_from=self.source if self.source != self.job.id else None,
            lazy=self.request.lazy,
            proved=self.proof.passed,
        )
        with self._reading_through(unit):
            port = await self.proof.guard(rebuild)
        if port is None:
            return
        self.ports[unit] = port
        self.parts.registry.incarnations[self.job.id].ports[unit] = port
        status = self.job.units[unit]
        status.pid, status.state = port.pid, "frozen"
        self.parts.registry.changed(self.job.id)

    @contextlib.contextmanager
    def _reading_through(self, unit: UnitName) -> Generator[None]:
        """Say so while the image of a unit is read in one go.

        A lazy restart reads pages as they are touched, and of several processes those that a child
        may share with its parent are read one by one, to be compared.
        """
        images, image = self.parts.registry.get(self.source).read_through, (self.version, unit)
        if not self.request.lazy and len(self.facts[unit].pids) == 1:
            images.add(image)
        try:
            yield
        finally:
            images.discard(image)

    async def prove(self, _service: UnitName) -> None:
        """Wait until everything is known to be whole.  Raises Corrupt, naming file and block."""
        await self.proof.wait()

    async def resume(self, unit: UnitName) -> None:
        """Let one rebuilt unit go."""
        port, registry = self.ports[unit], self.parts.registry
        await port.resume_rst(stopped=self.request.stopped)
        if unit not in registry.incarnations[self.job.id].exits:
            self.job.units[unit].state = "loading" if port.is_loading else "running"
        if port.is_loading:
            registry.loading[self.job.id] = (self.source, self.version)
        self.parts.registry.changed(self.job.id)

    async def undo(self, unit: UnitName) -> None:
        """Leave nothing of one unit behind, also when its rebuild was cut off in the middle."""
        port = self.ports.get(unit) or await self.parts.node.attach(self.job.id, unit)
        if port is None or isinstance(port, Exit):
            return
        await port.kill()
        await self.parts.registry.wait_exit(self.job.id, unit, self.parts.deadlines.thaw_s)

    async def report_progress(self) -> None:
        """Prove what is left when it is time, and keep the outcome's byte counts fresh.

        Until cancelled.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._prove_rest)
            await self._count_bytes()

    async def _count_bytes(self) -> None:
        outcome = self.job.restart
        while outcome is not None:
            share = self.parts.store.verify_progress(self.source, self.version)
            if share is not None:
                outcome.done_bytes = int(share * outcome.total_bytes)
            await trio.sleep(PROGRESS_S)
