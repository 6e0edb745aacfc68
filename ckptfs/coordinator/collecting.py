"""When the collector runs, and what is told of it (``ctl/gc``, ``ctl/health``).

It runs a moment after versions went or a job was done, once an hour, and when
root asks.  First the jobs' versions are decided on, then the store is swept.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping

import trio

from ..errors import Busy, CkptfsError, NotAuthorised, Unsupported
from ..gc.api import Report, Sweeper
from ..ids import JobId, Version
from ..model import Caller
from ..security.access import ROOT_UID
from .lost_heads import strike_rows
from .pacing import Pacing
from .parts import Parts
from .planning import Planning
from .retention import apply_in_turns, is_through

log = logging.getLogger(__name__)
EVERY_S = 3600.0  # for what lies in the trash
SETTLE_S = 1.0  # several removals are one run
# Packs under half alive are written anew at this rate: each byte is read, written and read back,
# and each page that stays is proved by a block that holds it; a pack of 256 MiB takes some 3 s.
RATE = 256 << 20  # bytes per second
RATE_UNDER_LOAD = RATE // 8


class Collecting:
    """One run at a time; *then* is called after one that met no doubt.  Trio thread only."""

    def __init__(
        self, parts: Parts, sweeper: Sweeper | None, then: Callable[[], None] = lambda: None
    ) -> None:
        self._parts, self._sweeper, self._then = parts, sweeper, then
        self._report = Report()
        self._progress: tuple[int, int] | None = None  # of the run under way
        self._planning = Planning(parts)
        self._pacing = Pacing(parts.registry, RATE, RATE_UNDER_LOAD)
        self._done: set[JobId] = set()  # jobs whose end has been noticed
        self._settled: set[JobId] = set()  # and whose versions were decided on since
        parts.registry.subscribe(self._job_changed)
        parts.registry.on_release(lambda _job, _operation: self._go_on())

    def text(self) -> str:
        """Return ``running 3/12``, ``planning``, or ``idle`` and what was freed, or why nothing."""
        if self._progress:
            return f"running {self._progress[0]}/{self._progress[1]}"
        if self._planning.is_running:
            return "planning"
        report = self._report
        if report.doubt:
            return f"idle (nothing more was deleted: {report.doubt})"
        waiting = f", {report.waiting} objects wait for versions in work" if report.waiting else ""
        waiting += _thinned(report)
        doubts = "".join(f"; {sentence}" for sentence in _sentences(report))
        return f"idle (freed {report.freed_bytes} bytes{waiting}{doubts})"

    def levels(self) -> Mapping[str, int]:
        """Return figures that go up and down."""
        return {
            "collector_running": int(self._progress is not None),
            "collector_in_doubt": int(bool(self._report.doubt)),
            "collector_waiting_objects": self._report.waiting,
        }

    def alarm(self) -> str:
        """Return one sentence when the collector does not dare to delete, else nothing."""
        doubt, restored = self._report.doubt, self._report.restored
        if doubt:
            return f"the collector deletes nothing: {doubt}"
        if sentences := _sentences(self._report):
            return f"the collector: {'; '.join(sentences)}"
        return f"the collector had to put {restored} objects back; report it" if restored else ""

    async def request(self, caller: Caller, *, dry: bool, empty_trash: bool) -> str:
        """Begin a run and return at once; *dry*: return the plan, change nothing.

        Raises NotAuthorised (EPERM) for all but root, Busy while one runs, TryAgain in doubt,
        TimedOut when the plan takes longer than a write may.
        """
        if caller.uid != ROOT_UID:
            raise NotAuthorised("only root may collect the store's garbage")
        if self._sweeper is None:
            raise Unsupported("this store has no collector")
        if self._progress:
            raise Busy("the collector is running already")
        if dry:
            return await self._planning.ask(self._sweeper, empty_trash=empty_trash)
        self._tell(0, 0)
        self._parts.background.spawn(
            "collector, asked for", lambda: self._run(asked=True, empty_trash=empty_trash)
        )
        return "trash=empty" if empty_trash else "1"

    async def keep_going(self) -> None:
        """Run whenever there may be something to free; until cancelled."""
        self._parts.garbage.ring()  # what an earlier service has left
        while self._sweeper:
            with trio.move_on_after(EVERY_S):
                await self._parts.garbage.wait()
                await trio.sleep(SETTLE_S)
            if not self._progress:
                self._tell(0, 0)
                await self._run(asked=False, empty_trash=False)

    async def _run(self, *, asked: bool, empty_trash: bool) -> None:
        assert self._sweeper
        try:
            for job in list(self._parts.registry.jobs.values()):
                await trio.lowlevel.checkpoint()
                if job.removed or job.id in self._settled or self._parts.store.degraded():
                    continue
                await apply_in_turns(self._parts, job)
                if is_through(job):
                    self._settled.add(job.id)  # it gets no versions any more
            self._parts.garbage.hush()
            strike_rows(self._parts)  # before the last trace of a removed version goes
            self._report = await self._sweeper.run(
                asked=asked, empty_trash=empty_trash, tell=self._tell, pace=self._pacing.wait
            )
            if not self._report.doubt:
                self._then()
        except CkptfsError as error:
            log.error("the collection: %s", error)
        finally:
            self._progress = None
            if not self._parts.counts.get("collections"):
                gc.freeze()  # what is known of heads and manifests now stays; see service.py
            strike_rows(self._parts)
            self._parts.count("collections")
        if self._report.freed_bytes:
            self._parts.count("collected_bytes", self._report.freed_bytes)
        if self._report.packs:
            self._parts.count("packs_rewritten", self._report.packs)
        if self._report.unfinished:
            self._parts.garbage.ring()

    def _tell(self, done: int, total: int) -> None:
        self._progress = (done, total)
        self._parts.registry.changed(None)

    def _job_changed(self, job: JobId | None, version: Version | None) -> None:
        """A job that is done may have versions that were the system's."""
        if job is None:
            return
        record = self._parts.registry.jobs.get(job)
        if version is not None:
            self._settled.discard(job)  # verified, pinned, brought back: decided on again
        if record is None or not is_through(record):
            self._done.discard(job)
            self._settled.discard(job)
        elif job not in self._done:
            self._done.add(job)
            if record.versions:
                self._parts.garbage.ring()

    def _go_on(self) -> None:
        """A version is over: what waited for its end can be unlinked."""
        if self._report.waiting:
            self._parts.garbage.ring()


def _thinned(report: Report) -> str:
    """Return what to say of packs that were under half alive.  Pure."""
    text = ""
    if report.packs:
        packs = f"{report.packs} pack{'s' * (report.packs > 1)}"
        text += f", {report.packs_bytes} of them in {packs} that were half dead"
    if report.unfinished:
        text += ", more such packs to come"
    if report.left:
        name, why = min(report.left.items())
        others = f" (and {len(report.left) - 1} more)" if len(report.left) > 1 else ""
        text += f"; pack {name} keeps its dead pages{others}: {why}"
    return text


def _sentences(report: Report) -> list[str]:
    """Return what to say of volumes on which nothing was removed.  Pure."""
    return [f"nothing goes from volume {name}: {why}" for name, why in report.doubts.items()]
