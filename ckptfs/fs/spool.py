"""``ctl/spool/``: small files in memory, by which documents reach ``ctl/submit``.  Pure.

Ordinary file semantics for cp, mv, rm and ls.  Everything is bounded: a user
cannot fill the daemon's memory, and what is left lying goes after an hour.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import Exists, InvalidInput, NotAuthorised, NotFound, QuotaExceeded, TooBig
from ..model import Caller

FILE_MAX_BYTES = 1 << 20
USER_MAX_BYTES = 8 << 20
USER_MAX_FILES = 128
TOTAL_MAX_BYTES = 64 << 20
KEEP_S = 3600
NAME_MAX = 255  # bytes
NS = 1_000_000_000


@dataclass(slots=True)
class SpoolFile:
    """One file.  *serial* is its identity; it survives a rename."""

    serial: int
    name: str
    uid: int
    gid: int
    mode: int
    changed_ns: int
    data: bytearray = field(default_factory=bytearray)
    linked: bool = True  # False once removed or replaced, while descriptors may be open


def check_name(name: str) -> None:
    """Raise InvalidInput unless *name* may name a spool file: printable, at most 255 bytes."""
    if (
        not name.isprintable()
        or "/" in name
        or len(name.encode()) > NAME_MAX
        or name in {"", ".", ".."}
    ):
        raise InvalidInput(f"a spool file cannot be called {name!r}")


class Spool:
    """The directory and its files.  Times are passed in, in nanoseconds since the epoch."""

    def __init__(self) -> None:
        self._by_name: dict[str, SpoolFile] = {}
        self._by_serial: dict[int, SpoolFile] = {}
        self._serials = itertools.count(1)
        self.changed_ns = 0

    def __iter__(self) -> Iterator[SpoolFile]:
        return iter(tuple(self._by_name.values()))

    def find(self, name: str) -> SpoolFile:
        """Return the file called *name*.  Raises NotFound."""
        try:
            return self._by_name[name]
        except KeyError:
            raise NotFound(f"no file {name!r} in spool/") from None

    def by_serial(self, serial: int) -> SpoolFile:
        """Return a file that the kernel still knows.  Raises NotFound."""
        try:
            return self._by_serial[serial]
        except KeyError:
            raise NotFound("the spool file is gone") from None

    def create(self, name: str, caller: Caller, mode: int, now_ns: int) -> SpoolFile:
        """Make an empty file owned by *caller*.  Raises Exists, InvalidInput, QuotaExceeded."""
        check_name(name)
        if name in self._by_name:
            raise Exists(f"spool/{name} is there already")
        if sum(file.uid == caller.uid for file in self._by_serial.values()) >= USER_MAX_FILES:
            raise QuotaExceeded(f"spool/ holds at most {USER_MAX_FILES} files of a user")
        file = SpoolFile(next(self._serials), name, caller.uid, caller.gid, mode & 0o777, now_ns)
        self._by_name[name] = self._by_serial[file.serial] = file
        self.changed_ns = now_ns
        return file

    def resize(self, file: SpoolFile, size: int, now_ns: int) -> None:
        """Cut or extend with zero bytes.  Raises TooBig (EFBIG), QuotaExceeded (EDQUOT)."""
        self._check_size(file, size)
        if size < len(file.data):
            del file.data[size:]
        else:
            file.data.extend(bytes(size - len(file.data)))
        file.changed_ns = now_ns

    def write(self, file: SpoolFile, offset: int, data: bytes, now_ns: int) -> int:
        """Put *data* at *offset* and return its length.  Raises as `resize`."""
        end = offset + len(data)
        if end > len(file.data):
            self.resize(file, end, now_ns)
        file.data[offset:end] = data
        file.changed_ns = now_ns
        return len(data)

    def unlink(self, name: str, now_ns: int) -> None:
        """Take the name away; open descriptors read on.  Raises NotFound."""
        file = self.find(name)
        del self._by_name[name]
        file.linked = False
        self.changed_ns = now_ns

    def rename(self, old: str, new: str, now_ns: int, *, replace: bool = True) -> None:
        """Give a file another name.  Raises NotFound, InvalidInput, Exists without *replace*."""
        check_name(new)
        file = self.find(old)
        if old == new:
            return
        if new in self._by_name:
            if not replace:
                raise Exists(f"spool/{new} is there already")
            self.unlink(new, now_ns)
        del self._by_name[old]
        file.name = new
        self._by_name[new] = file
        self.changed_ns = now_ns

    def drop(self, serial: int) -> None:
        """Free an unlinked file that the kernel has forgotten; harmless for others."""
        file = self._by_serial.get(serial)
        if file is not None and not file.linked:
            del self._by_serial[serial]

    def sweep(self, now_ns: int) -> list[SpoolFile]:
        """Unlink files not changed for an hour; return them."""
        old = [file for file in self if now_ns - file.changed_ns > KEEP_S * NS]
        for file in old:
            self.unlink(file.name, now_ns)
        return old

    def document(self, name: str, caller: Caller) -> bytes:
        """Return the bytes of the caller's own file.  Raises NotFound, NotAuthorised."""
        file = self.find(name)
        if file.uid != caller.uid:
            raise NotAuthorised(f"spool/{name} belongs to another user")
        return bytes(file.data)

    def _check_size(self, file: SpoolFile, size: int) -> None:
        if size > FILE_MAX_BYTES:
            raise TooBig(f"a spool file holds at most {FILE_MAX_BYTES} bytes")
        others = [other for other in self._by_serial.values() if other is not file]
        if (
            sum(len(other.data) for other in others if other.uid == file.uid) + size
            > USER_MAX_BYTES
        ):
            raise QuotaExceeded(f"spool/ holds at most {USER_MAX_BYTES} bytes of a user")
        if sum(len(other.data) for other in others) + size > TOTAL_MAX_BYTES:
            raise QuotaExceeded(f"spool/ is full: {TOTAL_MAX_BYTES} bytes")
