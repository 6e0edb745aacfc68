"""Which versions go, which stay, and why.  Pure: facts in, one verdict per version out.

The rules in their order (the first that applies decides):

1. pinned, in use, or damaged versions stay;
2. the system's own versions go when their job is done; a checkpoint taken for a migration goes
   when the migration has succeeded;
3. the newest restartable version stays, and so does the newest one that has all the copies its
   job wants, with everything newer: nothing goes before what replaces it is as safe;
4. what the job's retention keeps stays, the rest goes; no retention keeps all.  The user's own
   versions within the space that the user provided are kept by it whatever its other rules say.

A pack that is under half alive is written anew without its dead pages (`pack_verdict`).

Only restartable versions are counted, and only those that have all their copies count against
an older one.  A damaged version is evidence, and its owner's to remove.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..ids import JobId, Version
from ..model import Initiator, Purpose, SpaceClass

S = 1_000_000_000  # nanoseconds
CLOCK_SLACK_S = 120  # clocks are stepped by less than that in normal service
SYSTEM_PURPOSES = frozenset({Purpose.FAULT_TOLERANCE, Purpose.MIGRATION})
AWAITS_COPIES = "what replaces it has not all its copies yet"
SCARCE = 20  # low mark: the trash goes early when less than one part in so many of the disk is free
PACK_GAIN_MIN = 16 << 10  # bytes: less does not pay for the syncs and the record of a sparse pack
AMPLE = 10  # high mark: and no more of it when one part in so many is free again


@dataclass(frozen=True, slots=True)
class Retention:
    """What a job keeps; a version stays when any rule wants it, the first three 0 keep all."""

    last: int = 0  # newest restartable versions
    within_s: int = 0  # seconds: all that are younger
    every_s: int = 0  # seconds: the newest of each such period
    user_bytes: int = 0  # charged bytes: the newest of the user's own that fit into it


@dataclass(frozen=True, slots=True)
class Candidate:
    """What has to be known of a version."""

    version: Version
    committed_ns: int
    restartable: bool
    pinned: bool
    used: bool
    purpose: Purpose
    initiator: Initiator
    copied: bool = True  # has as many copies as its job wants
    charged_bytes: int = 0  # to its owner


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What has to be known of a job.  *migrated*: versions whose migration has succeeded."""

    job: JobId
    done: bool  # ended with success; a failed job may want its newest version yet
    retention: Retention
    migrated: frozenset[Version] = frozenset()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to a version."""

    version: Version
    stays: bool
    reason: str


def class_of(purpose: Purpose, initiator: Initiator) -> SpaceClass:
    """Return who pays for a version: the system for what it took itself, or for its own ends."""
    is_systems = initiator is Initiator.SYSTEM or purpose in SYSTEM_PURPOSES
    return SpaceClass.SYSTEM if is_systems else SpaceClass.USER


def charge_of(
    purpose: Purpose, initiator: Initiator, *, logical_bytes: int, copies_wanted: int
) -> int:
    """Return how many bytes a version is charged to its owner: nothing for the system's."""
    is_users = class_of(purpose, initiator) is SpaceClass.USER
    return logical_bytes * copies_wanted if is_users else 0


def decide(facts: JobFacts, candidates: Sequence[Candidate], now_ns: int) -> list[Verdict]:
    """Return one verdict per candidate, by version."""
    ordered = sorted(candidates, key=lambda candidate: candidate.version)
    kept = kept_by_retention(facts.retention, ordered, now_ns)
    restartable = [candidate.version for candidate in ordered if candidate.restartable]
    newest = max(restartable, default=None)
    copied = [c.version for c in ordered if c.restartable and c.copied]
    safe = max(copied, default=Version(0))
    verdicts: list[Verdict] = []
    for candidate in ordered:
        reason = _protection(candidate)
        if reason:
            verdicts.append(Verdict(candidate.version, True, reason))
        elif reason := _purpose_over(facts, candidate, {newest, safe}):
            verdicts.append(Verdict(candidate.version, False, reason))
        elif candidate.version == newest:
            verdicts.append(Verdict(candidate.version, True, "newest restartable version"))
        elif candidate.version >= safe:
            verdicts.append(Verdict(candidate.version, True, AWAITS_COPIES))
        else:
            reason = kept.get(candidate.version, "")
            verdicts.append(Verdict(candidate.version, bool(reason), reason or "superseded"))
    return verdicts


def _protection(candidate: Candidate) -> str:
    if candidate.pinned:
        return "pinned"
    if candidate.used:
        return "in use"
    return "" if candidate.restartable else "damaged: only its owner removes it"


def _purpose_over(facts: JobFacts, candidate: Candidate, needed: Collection[Version | None]) -> str:
    is_systems = class_of(candidate.purpose, candidate.initiator) is SpaceClass.SYSTEM
    if facts.done and is_systems:
        return "taken by the system, and the job is done"
    is_over = candidate.purpose is Purpose.MIGRATION and candidate.version in facts.migrated
    return "its migration has succeeded" if is_over and candidate.version not in needed else ""


def kept_by_retention(
    retention: Retention, candidates: Sequence[Candidate], now_ns: int
) -> dict[Version, str]:
    """Return why each version that the retention keeps is kept; restartable ones alone."""
    good = sorted((c for c in candidates if c.restartable), key=lambda c: c.version)
    if not (retention.last or retention.within_s or retention.every_s):
        return {candidate.version: "nothing limits how many are kept" for candidate in good}
    kept: dict[Version, str] = {}
    if retention.every_s:
        periods: dict[int, list[Candidate]] = {}
        for candidate in good:
            periods.setdefault(candidate.committed_ns // (retention.every_s * S), []).append(
                candidate
            )
        for period in periods.values():
            kept |= _newest(period, 1, f"keep_every {retention.every_s}")
    if retention.within_s:
        young = (c.version for c in good if c.committed_ns + retention.within_s * S > now_ns)
        kept |= dict.fromkeys(young, f"keep_within {retention.within_s}")
    if retention.last:
        kept |= _newest(good, retention.last, f"keep_last {retention.last}")
    return kept | _within_space(retention.user_bytes, good)


def _within_space(user_bytes: int, good: Sequence[Candidate]) -> dict[Version, str]:
    """Return the user's own versions that fit into the space provided, newest first."""
    left, kept = user_bytes, dict[Version, str]()
    own = (c for c in reversed(good) if class_of(c.purpose, c.initiator) is SpaceClass.USER)
    for candidate in own if user_bytes else ():
        left -= candidate.charged_bytes
        if left < 0:
            break
        kept[candidate.version] = f"keep_user_bytes {user_bytes}"
    return kept


def _newest(good: Sequence[Candidate], count: int, rule: str) -> dict[Version, str]:
    """Return the newest *count*, and those that stay until these have all their copies."""
    copied = [candidate.version for candidate in good if candidate.copied][-count:]
    first = copied[0] if len(copied) == count else Version(0)
    kept = {c.version: AWAITS_COPIES for c in good if c.version >= first}
    return kept | dict.fromkeys((c.version for c in good[-count:]), rule)


def pack_verdict(held_bytes: int, live_bytes: int) -> str:
    """Return why a pack is written anew without its dead pages, or "".

    *held_bytes*: of all pages in the file; *live_bytes*: of those that some version needs.
    """
    if 2 * live_bytes >= held_bytes or held_bytes - live_bytes < PACK_GAIN_MIN:
        return ""
    return (
        f"{100 * live_bytes // held_bytes} % of its {held_bytes} bytes are needed:"
        f" written anew it takes {held_bytes - live_bytes} less"
    )


NEARLY_FULL = "the disk is nearly full"


def trash_verdict(expires_s: int, now_s: int, *, scarce: bool, emptied: bool) -> str:
    """Return why a removed version goes for good now, or "" while it can still be brought back."""
    if now_s >= expires_s:
        return "its time in the trash is over"
    if emptied:
        return "the trash is emptied"
    return NEARLY_FULL if scarce else ""


def is_scarce(free_bytes: int, total_bytes: int) -> bool:
    """Whether the disk is so full that removed versions go early: below the low mark."""
    return free_bytes * SCARCE < total_bytes


def is_ample(free_bytes: int, total_bytes: int) -> bool:
    """Whether enough is free again: at the high mark."""
    return free_bytes * AMPLE >= total_bytes


def clock_doubt(wall_s: float, uptime_s: float, before: tuple[float, float], last_s: int) -> str:
    """Return why the clock cannot be trusted to say what has expired, or "".

    *before*: wall clock and uptime when they were last believed; *last_s*: wall clock of the last
    collection, which may have been one of an earlier service.
    """
    jumped_s = (wall_s - before[0]) - (uptime_s - before[1])
    if abs(jumped_s) > CLOCK_SLACK_S:
        return f"the clock jumped by {round(jumped_s)} s"
    if wall_s + CLOCK_SLACK_S < last_s:
        return f"the clock is {round(last_s - wall_s)} s behind the last collection"
    return ""
