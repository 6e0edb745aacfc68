"""One file of a version being written; in memory while it is small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidInput, Unsupported
from ..ids import UnitName
from .stream import FileStream

if TYPE_CHECKING:
    from .ingest import VersionIngest

SMALL_MAX = 4 << 20  # bytes of a file that is kept in memory until the commit
BUFFERED_MAX = 64 << 20  # bytes of all such files of a version; beyond, they stream at once
FILES_MAX = 100_000  # of one version: a tree of 10 000 processes has about 100 000 images
SIZE_MAX = 1 << 46  # bytes of one file


class StagedFile:
    """A file of a version being written; see IngestFile."""

    def __init__(self, ingest: VersionIngest, unit: UnitName, name: str) -> None:
        self.unit = unit
        self.name = name
        self.size_bytes = 0
        self.buffer: bytearray | None = bytearray()
        self.stream: FileStream | None = None  # the hashing thread's
        self._ingest = ingest

    def write(self, offset: int, data: bytes) -> int:
        """See IngestFile."""
        self._ingest.check_writable()
        end = offset + len(data)
        if offset < 0 or end > SIZE_MAX:
            raise InvalidInput(f"{self.name} cannot be written at {offset}")
        if not data:
            return 0  # as write(2): does not reach out to *offset*
        if self.buffer is not None and self._ingest.may_buffer(self, end):
            if offset > len(self.buffer):
                self.buffer.extend(bytes(offset - len(self.buffer)))
            self.buffer[offset:end] = data
            self._ingest.buffered_bytes += len(self.buffer) - self.size_bytes
            self.size_bytes = len(self.buffer)
        elif offset == self.size_bytes:
            self._append(data)
        else:
            raise Unsupported(
                f"{self.name} is larger than {SMALL_MAX >> 20} MiB:"
                " it can only be written from start to end"
            )
        self._ingest.count(len(data))
        return len(data)

    async def wait_writable(self) -> None:
        """See IngestFile."""
        await self._ingest.flow.wait_room()

    async def read(self, offset: int, size: int) -> bytes:
        """See IngestFile.  Raises Unsupported for a large file."""
        if self.buffer is None:
            raise Unsupported(
                f"{self.name} is being stored; it can be read once the version is complete"
            )
        return bytes(self.buffer[offset : offset + size])

    def truncate(self, size: int) -> None:
        """See IngestFile."""
        self._ingest.check_writable()
        if size == self.size_bytes:
            return
        if size == 0:
            self._ingest.unbuffer(self)
            self._ingest.restart(self)
            self.buffer, self.size_bytes = bytearray(), 0
        elif self.buffer is not None and self._ingest.may_buffer(self, size):
            self._ingest.buffered_bytes += size - len(self.buffer)
            self.buffer[size:] = bytes(max(0, size - len(self.buffer)))
            self.size_bytes = size
        else:
            raise Unsupported(f"{self.name} is too large to change its size")

    def _append(self, data: bytes) -> None:
        if self.buffer is not None:
            start = self._ingest.unbuffer(self)
            self.buffer = None
            if start:
                self._ingest.feed(self, start)
        self._ingest.feed(self, data)
        self.size_bytes += len(data)
