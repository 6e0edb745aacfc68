"""One restart under way: how its orders are carried out on store and units.

`checkpointing.md` 4.  What is decided is in `restart`; here is what is done.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

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
# A lazy restart proves only files up to this size beforehand, so all but memory: that is proved
# when it is read, and what cannot be read ends the job.
LAZY_PROVED_BYTES = 1 << 20


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

    def actions(self) -> dict[Order, Action]:
        """Return how each order of the restart is carried out."""
        limits = self.parts.deadlines
        return {
            Order.VERIFY: Action(self.verify, Event.VERIFIED, limits.verify_s),
            Order.PLACE: Action(self.place, Event.PLACED, limits.resume_s),
            Order.REBUILD: Action(self.rebuild, Event.REBUILT, limits.rebuild_s),
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
        """Read and hash every byte of the version before any of them is used (G5).

        Lazy: all but memory.  Supervisors and namespaces are made meanwhile; they touch nothing,
        and a damaged version takes them down again.
        """
        failures: list[CkptfsError] = []
        try:
            async with trio.open_nursery() as nursery:
                for unit in self.facts:
                    nursery.start_soon(self._make_ready, unit, failures)
                await self._prove(failures)
            if failures:
                raise failures[0]
        except BaseException:
            with trio.CancelScope(shield=True):
                for unit in self.facts:
                    await self.parts.node.drop_ready(self.job.id, unit)
            raise

    async def _prove(self, failures: list[CkptfsError]) -> None:
        try:
            damage = await self.parts.store.prove(
                self.source, self.version, up_to_bytes=LAZY_PROVED_BYTES if self.request.lazy else 0
            )
        except CkptfsError as error:
            failures.insert(0, error)
            return
        if damage:
            self.parts.registry.changed(self.source, self.version)
            failures.insert(0, Corrupt(str(damage[0])))

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
        port = await self.parts.node.rebuild(
            self.job.id,
            unit,
            self.job.spec,
            self.facts[unit],
            self.parts.image_directory(self.source, self.version, unit),
            suffix=f"after-{self.version}",
            logs_shown_as=self.job.logs_shown_as,
            logs_copied_from=self.source if self.source != self.job.id else None,
            lazy=self.request.lazy,
        )
        self.ports[unit] = port
        self.parts.registry.incarnations[self.job.id].ports[unit] = port
        status = self.job.units[unit]
        status.pid, status.state = port.pid, "frozen"
        self.parts.registry.changed(self.job.id)

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
        """Keep the outcome's byte counts fresh until cancelled."""
        outcome = self.job.restart
        while outcome is not None:
            share = self.parts.store.verify_progress(self.source, self.version)
            if share is not None:
                outcome.done_bytes = int(share * outcome.total_bytes)
            await trio.sleep(PROGRESS_S)
