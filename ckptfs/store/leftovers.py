"""Small files that a writer which was cut off has left under a temporary name.

They mean nothing and are never read; but one that is being written looks the same.  So a file goes
only when it was seen, unchanged, twice, `OLD_S` of uptime apart: writing one takes milliseconds, an
object fetched back from a volume a minute and a half at most.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import layout
from .syscalls import Syscalls

OLD_S = 600.0  # seconds of uptime
SMALL_PLACES = ("", layout.SESSIONS, layout.KEYS, layout.QUARANTINE)  # beside heads and objects


def is_temporary(name: str) -> bool:
    """Whether *name* is that of a small file being written, or of one cut off.  Pure."""
    return name.startswith(".") and name.endswith(".tmp")


@dataclass(frozen=True, slots=True)
class _Seen:
    inode: int
    changed_ns: int
    since_s: float  # uptime


class Leftovers:
    """Remembers what was seen.  The collector's threads, one at a time."""

    def __init__(self, directory: Path, calls: Syscalls) -> None:
        self._directory, self._calls = directory, calls
        self._noted: set[Path] = set()  # since the last `collect`
        self._seen: dict[Path, _Seen] = {}

    def note(self, path: Path) -> None:
        """Take note of a temporary name that a listing has come upon."""
        self._noted.add(path)

    def collect(self, uptime_s: float) -> tuple[int, int]:
        """Unlink what is left over; return (files, bytes).  Blocking.  Raises OSError."""
        files = size = 0
        before, self._seen = self._seen, {}
        for path in {*self._noted, *self._in_small_places()}:
            try:
                found = path.lstat()
            except FileNotFoundError:
                continue
            if not stat.S_ISREG(found.st_mode):
                continue
            seen = _Seen(found.st_ino, found.st_ctime_ns, uptime_s)
            known = before.get(path, seen)
            if (known.inode, known.changed_ns) != (seen.inode, seen.changed_ns):
                known = seen
            if uptime_s - known.since_s >= OLD_S:
                self._calls.unlink(path)
                files, size = files + 1, size + found.st_blocks * 512
            else:
                self._seen[path] = known
        self._noted.clear()
        return files, size

    def _in_small_places(self) -> Iterator[Path]:
        for place in SMALL_PLACES:
            for entry in self._calls.scan(self._directory / place):
                if is_temporary(entry.name):
                    yield Path(entry.path)
