"""Which versions a job lets go, by the collector's rules, and letting them go."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import trio

from ..catalog import jobs as catalog_jobs
from ..errors import CkptfsError, Corrupt, NotFound
from ..gc.decide import Candidate, JobFacts, Retention, Verdict, charge_of, decide
from ..ids import Version
from ..model import Initiator, JobState, Purpose
from ..store.api import TRASH_S
from .api import Job
from .lost_heads import strike_later
from .parts import Parts

log = logging.getLogger(__name__)
BREATH = 200  # versions looked at before others get their turn: 3 ms
PAUSE_S = 0.002  # at least, after each version removed: a request takes several turns


def verdicts(parts: Parts, job: Job) -> list[Verdict]:
    """Return what the rules say of every version of *job*."""
    used = _version_in_work(parts, job)
    candidates = [candidate_of(parts, job, version, used) for version in job.versions]
    return decide(_facts(job), candidates, parts.clock_ns())


async def verdicts_in_turns(parts: Parts, job: Job) -> list[Verdict]:
    """Return `verdicts` to be told, not to be acted upon: others get their turn meanwhile."""
    candidates: list[Candidate] = []
    for at, version in enumerate(list(job.versions)):
        if at % BREATH == 0:
            await trio.lowlevel.checkpoint()
        with contextlib.suppress(NotFound):  # removed meanwhile
            candidates.append(candidate_of(parts, job, version, _version_in_work(parts, job)))
    return decide(_facts(job), candidates, parts.clock_ns())


def _version_in_work(parts: Parts, job: Job) -> Version | None:
    operation = parts.registry.operations.get(job.id)
    return operation.version if operation else None


def _facts(job: Job) -> JobFacts:
    retention = Retention(job.keep_last, job.keep_within_s, job.keep_every_s, job.keep_user_bytes)
    return JobFacts(job.id, is_through(job), retention)


def is_through(job: Job) -> bool:
    """Whether a job has ended as it should; one that was killed or failed may be restarted."""
    ended = job.exit
    return job.state is JobState.DONE and ended is not None and not (ended.code or ended.signal)


def candidate_of(parts: Parts, job: Job, version: Version, used: Version | None) -> Candidate:
    """Return what the rules want to know of a version; one that cannot be read is damaged.

    Of 10 000 versions no head is read here.  Should one have rotted since it was proved, the
    collector notices, which reads them all before anything goes for good.
    """
    store = parts.store
    is_loaded = (job.id, version) in parts.registry.loading.values()
    is_used = version == used or is_loaded or store.verify_progress(job.id, version) is not None
    pinned = store.pinned(job.id, version)
    try:
        account = store.account(job.id, version)
    except Corrupt:
        return Candidate(version, 0, False, pinned, is_used, Purpose.USER, Initiator.USER)
    restartable = not store.damage(job.id, version)
    return Candidate(
        version,
        account.committed_ns,
        restartable,
        pinned,
        is_used,
        account.purpose,
        account.initiator,
        copied=parts.copies.count(job.id, version) >= job.replication,
        charged_bytes=charge_of(
            account.purpose,
            account.initiator,
            logical_bytes=account.logical_bytes,
            copies_wanted=job.replication,
        ),
    )


def _is_limited(job: Job) -> bool:
    """Whether anything can go: else reading what is known of 10 000 versions is for nothing."""
    return bool(job.keep_last or job.keep_within_s or job.keep_every_s or is_through(job))


def apply_retention(parts: Parts, job: Job) -> None:
    """Remove what the rules let go; of a job with many versions in the background.

    Trouble is logged: a version too many harms nobody.
    """
    if not _is_limited(job):
        return
    if len(job.versions) > BREATH:
        name = f"retention of {job.id}"
        parts.background.spawn(name, lambda: apply_in_turns(parts, job))
        return
    for verdict in verdicts(parts, job):
        if not verdict.stays:
            _let_go(parts, job, verdict)


async def apply_in_turns(parts: Parts, job: Job) -> None:
    """`apply_retention`; others get their turn meanwhile, and what they change is heeded.

    One at a time for each job: who comes second leaves it to the first.
    """
    if not _is_limited(job) or job.id in parts.registry.letting_go:
        return
    parts.registry.letting_go.add(job.id)
    stuck: set[Version] = set()
    try:
        while not (job.removed or parts.store.degraded()):
            decision = await _decide_in_turns(parts, job)
            decision.going = [v for v in decision.going if v.version not in stuck]
            while decision.going and decision.holds(parts, job):
                began_s = trio.current_time()
                stuck |= _let_next_go(parts, job, decision)
                await trio.sleep(max(PAUSE_S, trio.current_time() - began_s))  # as long as it took
            if not decision.going:
                return
    finally:
        parts.registry.letting_go.discard(job.id)


@dataclass(slots=True)
class _Decision:
    """What goes, and what that rests on.  It holds until anything of that has changed."""

    facts: JobFacts
    moment: object
    versions: int  # there are, less by each that goes
    candidates: Mapping[Version, Candidate] = field(default_factory=dict[Version, Candidate])
    going: list[Verdict] = field(default_factory=list[Verdict])  # oldest last
    relied: Sequence[Version] = ()  # that stay, with all the copies their job wants

    def holds(self, parts: Parts, job: Job) -> bool:
        """Whether nothing has changed by which another version would be needed."""
        count, wanted = parts.copies.count, job.replication
        return (
            self.facts == _facts(job)
            and self.moment == parts.store.summaries.moment()
            and self.versions == len(job.versions)
            # of a single copy damage tells
            and (wanted < 2 or all(count(job.id, v) >= wanted for v in self.relied))
        )


async def _decide_in_turns(parts: Parts, job: Job) -> _Decision:
    """Return what the rules say now: between the last look and the return nothing happens.

    Where things change all the time, all is looked at in one go: 10 000 versions in 0.15 s.
    """
    decision = await _look(parts, job, BREATH)
    for step in (BREATH, len(job.versions) + 1):
        if decision.holds(parts, job):
            break
        decision = await _look(parts, job, step)
    return decision


async def _look(parts: Parts, job: Job, step: int) -> _Decision:
    """Return what the rules say; others get their turn after each *step* versions."""
    decision = _Decision(_facts(job), parts.store.summaries.moment(), len(job.versions))
    known: dict[Version, Candidate] = {}
    for at, version in enumerate(tuple(job.versions), start=1):
        known[version] = candidate_of(parts, job, version, _version_in_work(parts, job))
        if at % step == 0:
            await trio.lowlevel.checkpoint()
            if not decision.holds(parts, job):
                return decision
    found = decide(decision.facts, list(known.values()), parts.clock_ns())
    decision.candidates = known
    decision.relied = [v.version for v in found if v.stays and known[v.version].copied]
    decision.going = [v for v in reversed(found) if not v.stays]
    return decision


def _let_next_go(parts: Parts, job: Job, decision: _Decision) -> set[Version]:
    """Remove the oldest that goes; return it if it could not be."""
    verdict = decision.going.pop()
    now = candidate_of(parts, job, verdict.version, _version_in_work(parts, job))
    # one that was pinned or used since is for the next time
    if now == decision.candidates[verdict.version] and _let_go(parts, job, verdict):
        decision.versions -= 1
        return set()
    return {verdict.version}


def _let_go(parts: Parts, job: Job, verdict: Verdict) -> bool:
    """Remove one version; return whether it is gone."""
    try:
        remove_version(parts, job, verdict.version, trash_s=0)  # meant, so not for the trash
    except CkptfsError as error:
        log.info("%s: version %d stays: %s", job.id, verdict.version, error)
        return False
    log.info("%s: version %d goes: %s", job.id, verdict.version, verdict.reason)
    return True


def remove_version(parts: Parts, job: Job, version: Version, *, trash_s: int = TRASH_S) -> None:
    """Take one version out of store, catalog and view.  Raises Busy (pinned, open), Degraded."""
    parts.store.remove(job.id, version, trash_s=trash_s)
    job.versions.remove(version)
    parts.registry.changed(job.id, version)
    parts.garbage.ring()
    try:
        catalog_jobs.remove_version(parts.db, job.id, version)
    except CkptfsError as error:  # an index entry; the store is the truth
        log.error("%s %d stays in the catalog for now: %s", job.id, version, error)
        strike_later(parts, job.id, version)


def bring_back(parts: Parts, job: Job, version: Version) -> None:
    """Take a version out of the trash, and pin it: what let it go would let it go again.

    Raises NotFound, Corrupt, StoreFull, Degraded.
    """
    parts.store.undelete(job.id, version)
    job.versions = sorted({*job.versions, version})
    parts.registry.changed(job.id, version)
    parts.store.pin(job.id, version, True)
    parts.registry.changed(job.id)
    try:
        catalog_jobs.save_version(parts.db, parts.store.head(job.id, version))
    except CkptfsError as error:
        log.error("%s %d is missing in the catalog: %s", job.id, version, error)
