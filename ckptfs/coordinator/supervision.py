"""What happens to a job by itself: its units end, its time is over, somebody kills it."""

from __future__ import annotations

import logging

import trio

from ..errors import CkptfsError, NoSuchProcess
from ..ids import JobId, UnitName
from ..model import JobState
from ..node.api import Exit
from .api import Job
from .parts import Parts
from .registry import Incarnation, Operation
from .side_by_side import side_by_side

log = logging.getLogger(__name__)
KILLED = Exit(-1, 9)


def exit_of_job(exits: dict[UnitName, Exit | None]) -> Exit | None:
    """Return the exit of the first unit that did not end well, else of the first.  Pure."""
    known = [ended for _, ended in sorted(exits.items()) if ended is not None]
    return next(
        (ended for ended in known if ended.signal or ended.code), known[0] if known else None
    )


class Supervision:
    """Follows units that end, and ends units."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        parts.node.on_exit(self.note_exit)
        parts.node.on_loaded(self.note_loaded)
        parts.registry.on_release(self._released)

    def note_exit(self, job_id: JobId, unit: UnitName, ended: Exit | None) -> None:
        """Take in the end of a unit (None: its supervisor is lost).  No await."""
        registry = self._parts.registry
        if not registry.note_exit(job_id, unit, ended):
            return
        job = registry.get(job_id)
        status = job.units.get(unit)
        if status is not None:
            status.pid, status.state = 0, "lost" if ended is None else "ended"
        self.settle(job)
        registry.changed(job_id)

    def note_loaded(self, job_id: JobId, unit: UnitName) -> None:
        """The last page of a lazily restarted unit is there.  No await."""
        registry = self._parts.registry
        job = registry.jobs.get(job_id)
        if job is None or job_id not in registry.loading:
            return
        if job.units[unit].state == "loading":
            job.units[unit].state = "running"
        if all(status.state != "loading" for status in job.units.values()):
            version = registry.loading.pop(job_id)[1]
            job.events["loaded"] += 1
            registry.save_later_if_full(job)
            log.info("%s: all memory of version %d is loaded", job_id, version)
        registry.changed(job_id)

    def _loss(self, job: Job, exits: dict[UnitName, Exit | None]) -> str:
        """Return why supervisors killed units, "" when none did."""
        reasons = [f"{u}: {ended.reason}" for u, ended in exits.items() if ended and ended.reason]
        if not reasons:
            return ""
        source = self._parts.registry.loading.get(job.id)
        damage = self._parts.store.damage(*source) if source else ()
        return reasons[0] + (f" ({damage[0]})" if damage else "")

    def settle(self, job: Job) -> None:
        """End the job when all its units have, unless an operation will see to it.  No await."""
        registry = self._parts.registry
        incarnation = registry.incarnations.get(job.id)
        if incarnation is None or job.id in registry.operations:
            return
        if not incarnation.units or not incarnation.units <= incarnation.exits.keys():
            return
        lost = sorted(unit for unit, ended in incarnation.exits.items() if ended is None)
        job.exit = exit_of_job(incarnation.exits)
        job.reason = incarnation.over_limit
        if loss := self._loss(job, incarnation.exits):
            job.reason = loss
            registry.note_error(job, "restart", loss)
        if lost:
            job.events["units_lost"] += len(lost)
            job.reason = f"{lost[0]} was lost with its supervisor; restart the job from a version"
        job.state = JobState.FAILED if job.reason else JobState.DONE
        registry.save_later_if_full(job)  # before the node forgets how the unit ended
        registry.end_incarnation(job, self._parts.node)
        self._parts.count("jobs_ended")
        log.info("%s: %s, exit %s", job.id, job.state_text, job.exit)
        registry.changed(job.id)

    def watch_limit(self, job: Job) -> None:
        """Have the job killed when its wall time is over; counted per incarnation."""
        if job.spec.wall_time_s:
            incarnation = self._parts.registry.incarnations[job.id]
            self._parts.background.spawn(
                f"wall time of {job.id}", lambda: self._enforce_limit(job, incarnation)
            )

    async def kill_units(self, job: Job) -> None:
        """Kill every unit of the present incarnation and wait for the reports of it.

        Raises what `UnitPort.kill` raises, TimedOut.
        """
        ports = dict(self._parts.registry.incarnations[job.id].ports)
        deadline_s = self._parts.deadlines.kill_s

        async def kill(unit: UnitName) -> None:
            try:
                await ports[unit].kill()
            except NoSuchProcess:
                return

        await side_by_side(tuple(ports), kill, what="kill", deadline_s=deadline_s)
        for unit in ports:
            await self._parts.registry.wait_exit(job.id, unit, self._parts.deadlines.thaw_s)

    def kill_soon(self, job: Job) -> None:
        """Kill in the background; trouble goes to ``ctl/error``."""
        self._parts.background.spawn(f"kill {job.id}", lambda: self._kill(job))

    def end_suspended(self, job: Job) -> None:
        """A suspended job has nothing to kill: it ends as if killed.  No await."""
        job.state, job.reason, job.exit = JobState.DONE, "", KILLED
        self._parts.registry.save_later_if_full(job)
        self._parts.registry.changed(job.id)

    async def _kill(self, job: Job) -> None:
        try:
            await self.kill_units(job)
        except CkptfsError as error:
            self._parts.registry.note_error(job, "kill", str(error))
            self._parts.registry.changed(job.id)
            log.error("%s cannot be killed: %s", job.id, error)

    async def _enforce_limit(self, job: Job, incarnation: Incarnation) -> None:
        limit_s = job.spec.wall_time_s
        gone_s = (self._parts.clock_ns() - incarnation.started_ns) / 1e9
        await trio.sleep(max(0.0, limit_s - gone_s))
        if self._parts.registry.incarnations.get(job.id) is not incarnation:
            return  # ended, suspended or restarted meanwhile
        if incarnation.units <= incarnation.exits.keys():
            return
        incarnation.over_limit = f"it ran longer than its wall time of {limit_s} s"
        await self._kill(job)

    def _released(self, job_id: JobId, operation: Operation) -> None:
        """The lock was given back: do what had to wait for it."""
        job = self._parts.registry.jobs.get(job_id)
        if job is None:
            return
        self.settle(job)
        if not operation.kill_wanted:
            return
        if self._parts.registry.incarnations[job_id].ports:
            self.kill_soon(job)
        elif job.state is JobState.SUSPENDED:
            self.end_suspended(job)
