"""How far the scrub is, as it is kept in the store, and what ``ctl/scrub`` says of it.  Pure.

The cursor is the time at which each version was last verified, kept beside its
head; this record adds when the run began and which versions of it are damaged
(they get no such time).  So a run goes on where it was after a restart.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import Corrupt
from ..ids import JobId, Version
from ..store.small_record import decode_small, encode_small

BAD_PACKS_MAX = 5  # in one run; then the disk is failing, and reading on does more harm than good


@dataclass(frozen=True, slots=True)
class ScrubRecord:
    """One run, and how the last whole one ended.  Times are nanoseconds since the epoch."""

    started_ns: int = 0  # of the run under way, or stopped; 0: there is none
    errors: int = 0  # damaged places and copies found in it
    bad_packs: int = 0
    damaged: tuple[tuple[JobId, Version], ...] = ()  # versions of this run
    stopped: str = ""  # why it does not go on: "by hand", or what was found
    last_ended_ns: int = 0
    last_errors: int = 0
    pack: str = ""  # the last one that was read, behind the versions

    def begun(self, now_ns: int) -> ScrubRecord:
        """Return the record of a run that goes on, or else of a new one."""
        if self.started_ns and self.stopped == BY_HAND:
            return dataclasses.replace(self, stopped="")
        return ScrubRecord(
            started_ns=now_ns, last_ended_ns=self.last_ended_ns, last_errors=self.last_errors
        )

    def found(self, job: JobId, version: Version, errors: int, bad_packs: int) -> ScrubRecord:
        """Return the record after bad packs or damage; too many bad packs stop the run.

        *errors* is 0 where good copies of the bad packs were found, and the version is whole.
        """
        return dataclasses.replace(
            self._with_bad(bad_packs),
            errors=self.errors + errors,
            damaged=(*self.damaged, (job, version)) if errors else self.damaged,
        )

    def read_pack(self, name: str, *, is_good: bool) -> ScrubRecord:
        """Return the record after a pack was read; too many bad ones stop the run."""
        if is_good:
            return dataclasses.replace(self, pack=name)
        return dataclasses.replace(self._with_bad(1), errors=self.errors + 1, pack=name)

    def _with_bad(self, bad_packs: int) -> ScrubRecord:
        bad = self.bad_packs + bad_packs
        reason = f"{bad} damaged packs in one run: the disk may be failing"
        return dataclasses.replace(
            self, bad_packs=bad, stopped=reason if bad >= BAD_PACKS_MAX else self.stopped
        )

    def found_copies(self, damaged: int) -> ScrubRecord:
        """Return the record after damaged copies; a volume with too many stops for itself."""
        return dataclasses.replace(self, errors=self.errors + damaged)

    def stopped_by_hand(self) -> ScrubRecord:
        """Return the record of a run that somebody stopped."""
        return dataclasses.replace(self, stopped=BY_HAND)

    def ended(self, now_ns: int) -> ScrubRecord:
        """Return the record of a run that has read everything."""
        return ScrubRecord(last_ended_ns=now_ns, last_errors=self.errors)


BY_HAND = "by hand"
NOTHING = ScrubRecord()


def oldest_first(
    record: ScrubRecord, verified: Iterable[tuple[int, JobId, Version]]
) -> list[tuple[JobId, Version]]:
    """Return what the run has to read, those verified longest ago first.

    *verified*: (nanoseconds since the epoch or 0, job, version) of every version there is.
    """
    due = sorted(row for row in verified if row[0] < record.started_ns)
    return [(job, version) for _, job, version in due if (job, version) not in record.damaged]


def idle_text(record: ScrubRecord) -> str:
    """Return what ``ctl/scrub`` says while nothing runs."""
    if record.stopped:
        return f"idle (stopped {record.stopped})"
    if not record.last_ended_ns:
        return "idle (never)"
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.last_ended_ns / 1e9))
    return f"idle (last {at}, {record.last_errors} errors)"


def encode_record(record: ScrubRecord) -> bytes:
    """Return the document that the store keeps."""
    return encode_small(dataclasses.asdict(record))


def decode_record(document: bytes) -> ScrubRecord:
    """Return the record in *document*, the empty one for nothing.  Raises Corrupt."""
    if not document:
        return NOTHING
    try:
        row = decode_small(document)
        damaged = tuple((JobId(str(job)), Version(int(v))) for job, v in row.pop("damaged"))
        return ScrubRecord(**row, damaged=damaged)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Corrupt("the record of the scrub does not parse") from error
