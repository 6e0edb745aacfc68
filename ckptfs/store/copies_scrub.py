"""Reading the copies on a volume from end to end, again and again: what rots is found in time.

Objects are read in the order of their names, and the last one read is the cursor, so each is read
once in a run and the longest unread comes next; a run that was cut off goes on there.  No key is
needed.  A damaged copy is set aside and counts no more, so the next round of copying makes it
again.  Five of them in one run mean a failing disk: the run ends, and the volume gets nothing new,
and its copies are made elsewhere as well, until somebody says otherwise.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from ..errors import CkptfsError
from .attached import Attached, Hold
from .copies_plan import RANK, Piece, PieceKind
from .copies_proof import CopyProver
from .syscalls import Syscalls, write_durably

log = logging.getLogger(__name__)
FILE = "copies.json"
FILE_MAX = 16 << 20
FOUND_MAX = 5  # damaged copies in one run of one volume
KEEP_EVERY = 64  # objects between two notes of the cursor: so many are read again after a crash


@dataclass(frozen=True, slots=True)
class VolumeScrub:
    """How far the scrub of one volume is.  Times are nanoseconds since the epoch."""

    begun_ns: int = 0
    cursor: str = ""  # the last object that was read
    found: int = 0  # damaged copies in this run
    ended_ns: int = 0  # of the last whole run
    bad: tuple[str, ...] = ()  # damaged copies that were not replaced yet
    alarm: str = ""

    def at_work(self, since_ns: int, now_ns: int) -> VolumeScrub | None:
        """Return the run to go on with or to begin, None when one since *since_ns* is over."""
        if self.ended_ns >= since_ns or self.alarm:
            return None
        if self.begun_ns >= since_ns:
            return self
        return replace(self, begun_ns=now_ns, cursor="", found=0)

    def with_found(self) -> VolumeScrub:
        """Return the record after one more damaged copy."""
        found = self.found + 1
        alarm = f"{found} damaged copies in one scrub: the disk may be failing"
        return replace(self, found=found, alarm=alarm if found >= FOUND_MAX else "")


def mark_of(piece: Piece) -> str:
    """Return the text that stands for a piece; sorts as the scrub reads."""
    return f"{RANK[piece.kind]}.{piece.kind}.{piece.name}"


def piece_of(mark: str) -> Piece:
    """Return the piece.  Raises ValueError."""
    _, kind, name = mark.split(".", 2)
    if kind not in RANK:
        raise ValueError(f"{kind!r} is no kind of object")
    return Piece(cast("PieceKind", kind), name)


def encode_scrubs(records: Mapping[str, VolumeScrub]) -> bytes:
    """Return the document; the keys are ids of volumes."""
    rows = {volume: asdict(record) for volume, record in records.items()}
    return json.dumps({"format": 1, "volumes": rows}).encode()


def decode_scrubs(document: bytes) -> dict[str, VolumeScrub]:
    """Return the records.  Raises ValueError, KeyError, TypeError."""
    read = cast("dict[str, Any]", json.loads(document))
    if read["format"] != 1:
        raise ValueError(f"{FILE} has format {read['format']}")
    found: dict[str, VolumeScrub] = {}
    for volume, row in read["volumes"].items():
        bad = tuple(mark_of(piece_of(str(mark))) for mark in row.pop("bad"))
        found[str(volume)] = VolumeScrub(**row, bad=bad)
    return found


class CopiesScrub:
    """The scrub of the volumes of one store.  Trio thread only."""

    def __init__(
        self,
        directory: Path,
        calls: Syscalls,
        *,
        prover: CopyProver,
        volumes: Callable[[], Mapping[str, Attached]],
    ) -> None:
        self._path, self._calls = directory / FILE, calls
        self._prover, self._volumes = prover, volumes
        self._records = self._read()

    def _read(self) -> dict[str, VolumeScrub]:
        try:
            return decode_scrubs(self._calls.read_file(self._path, FILE_MAX))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read, the scrub of copies begins anew: %s", FILE, error)
            return {}

    def restore(self, attached: Attached) -> None:
        """Tell a volume what an earlier service has found out about it."""
        record = self._record(attached)
        attached.bad |= {piece_of(mark) for mark in record.bad}
        attached.alarm = record.alarm

    def trust(self, attached: Attached) -> None:
        """Take the alarm back: somebody has looked at the disk.  Raises OSError."""
        attached.alarm = ""
        self._keep(attached, replace(self._record(attached), alarm="", found=0))

    def note_bad(self, attached: Attached) -> None:
        """Keep which copies are damaged, when that has changed.  A full disk does not matter."""
        marks = tuple(sorted(mark_of(piece) for piece in attached.bad))
        record = self._record(attached)
        if marks != record.bad:
            self._keep_if_possible(attached, record)

    async def run(
        self, name: str, hold: Hold, *, since_ns: int, clock_ns: Callable[[], int]
    ) -> tuple[int, int]:
        """Read what of a volume was not read since *since_ns*; return (objects, damaged).

        Ends early when the volume fails or has too many damaged copies.
        """
        attached = self._volumes().get(name)
        if attached is None or not attached.answers:
            return 0, 0
        record = self._record(attached).at_work(since_ns, clock_ns())
        if record is None:
            return 0, 0
        count, damaged = 0, 0
        for piece in sorted(attached.held, key=mark_of):
            if mark_of(piece) <= record.cursor:
                continue
            if self._volumes().get(name) is not attached or not attached.answers:
                return count, damaged
            try:
                is_good = await self._prover.prove_copy(name, piece, hold)
            except (CkptfsError, OSError) as error:
                log.warning("the scrub of volume %s goes on later: %s", name, error)
                return count, damaged
            count += 1
            record = replace(record, cursor=mark_of(piece))
            if not is_good:
                damaged += 1
                record = record.with_found()
                attached.alarm = record.alarm
            if not is_good or count % KEEP_EVERY == 0:
                self._keep_if_possible(attached, record)
            if record.alarm:
                log.error("volume %s: %s", name, record.alarm)
                return count, damaged
        self._keep_if_possible(attached, replace(record, cursor="", ended_ns=clock_ns()))
        return count, damaged

    def _record(self, attached: Attached) -> VolumeScrub:
        return self._records.get(attached.record.volume_id, VolumeScrub())

    def _keep_if_possible(self, attached: Attached, record: VolumeScrub) -> None:
        try:
            self._keep(attached, record)
        except OSError as error:
            log.warning("%s cannot be written: %s", FILE, error)

    def _keep(self, attached: Attached, record: VolumeScrub) -> None:
        bad = tuple(sorted(mark_of(piece) for piece in attached.bad))
        self._records[attached.record.volume_id] = replace(record, bad=bad)
        known = {each.record.volume_id for each in self._volumes().values()}
        self._records = {key: row for key, row in self._records.items() if key in known}
        write_durably(self._calls, self._path, encode_scrubs(self._records), mode=0o600)
