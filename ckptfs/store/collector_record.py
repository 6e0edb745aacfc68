"""The collector's record: its epoch, and when it last ran.  Nothing is lost with it."""

from __future__ import annotations

from pathlib import Path

from .small_record import decode_small, encode_small
from .syscalls import Syscalls, is_full, write_durably

RECORD = "collector.json"
RECORD_MAX = 1 << 12


class CollectorRecord:
    """What is kept of earlier collections.  *last_s*: epoch seconds of the last one's end."""

    def __init__(self, directory: Path, calls: Syscalls) -> None:
        self._path, self._calls = directory / RECORD, calls
        self.last_s = 0

    def read(self) -> int:
        """Return the epoch that was kept, 0 when there is none that can be read."""
        try:
            record = decode_small(self._calls.read_file(self._path, RECORD_MAX))
            self.last_s = int(record["ended_s"])
            return int(record["epoch"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def keep(self, epoch: int, now_s: int) -> None:
        """Keep both, durably.  Raises OSError, but not on a full disk."""
        text = encode_small({"epoch": epoch, "ended_s": now_s})
        try:
            write_durably(self._calls, self._path, text)
        except OSError as error:
            if not is_full(error):  # then it stands in the name of the condemned, too
                raise
        self.last_s = now_s
