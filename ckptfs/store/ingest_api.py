"""What the rest of ckptfs sees of a version in work.  Its class is in `store.ingest`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from ..errors import CkptfsError
from ..ids import JobId, UnitName, Version
from ..model import Head


class IngestFile(Protocol):
    """A file being written into the staging area.  Sequential writes stream; others are bounded.

    Small files (up to a few MiB) may be written in any order, truncated and
    read back; a large one only appended to: anything else raises Unsupported.
    """

    name: str
    size_bytes: int

    def write(self, offset: int, data: bytes) -> int:
        """Take *data*; no await, no copy kept by the caller.  Raises StoreFull, Degraded."""
        ...

    async def wait_writable(self) -> None:
        """Return when the pipeline has room (back-pressure); call before `write`."""
        ...

    async def read(self, offset: int, size: int) -> bytes:
        """Return bytes of a small file.  Raises Unsupported for a large one."""
        ...

    def truncate(self, size: int) -> None:
        """Set the size of a small file, or empty any.  Raises Unsupported for a large one."""
        ...


class Receiving(Protocol):
    """A context: the checkpointer runs inside, `Ingest.files` has its images after it.

    The block's end waits until every pipe is empty, and before it the job must not go on: the
    pages in a pipe are its own.  It raises why the version cannot be written, such as StoreFull,
    also in place of the CheckpointerFailed that came of it.  A block that raises, or is
    cancelled, gives the version up and waits for nothing.
    """

    async def __aenter__(self) -> None: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None: ...


class Ingest(Protocol):
    """One version being written.  Not visible to anyone until `commit` returned."""

    job: JobId
    version: Version
    refused: CkptfsError | None  # why the version may not grow any more

    def create(self, unit: UnitName, name: str) -> IngestFile:
        """Create or truncate a file.  *name* may be ``files/<n>``.

        Raises Exists never, InvalidInput on a bad name.
        """
        ...

    def files(self, unit: UnitName) -> Mapping[str, IngestFile]:
        """Return the files of a unit by name."""
        ...

    def unlink(self, unit: UnitName, name: str) -> None:
        """Forget a file.  Raises NotFound."""
        ...

    def rename(self, unit: UnitName, old: str, new: str) -> None:
        """Rename a file, replacing *new*.  Raises NotFound, InvalidInput."""
        ...

    def receive(self, unit: UnitName, directory: Path) -> Receiving | str:
        """Be ready for the images of a unit out of a checkpointer's pipes.

        *directory*: root's alone; the checkpointer finds a socket there.  A sentence: why pipes
        are not to be had, and the images are to be written.  Raises what a write raises.
        """
        ...

    def progress_bytes(self) -> int:
        """Logical bytes taken so far."""
        ...

    def limit(self, admitted_bytes: int, may_take: Callable[[int], int]) -> None:
        """Have *may_take* asked as soon as the files are larger than *admitted_bytes* in sum.

        It is told the sum, returns what is admitted from now on, or raises: then that write and
        all that follow raise the same, and it is kept as *refused*.
        """
        ...

    async def commit(self, head: Head) -> Head:
        """Make the version durable and return its head, signed and filled in.

        *head* comes with files=() and sizes 0; the store fills these, epoch and parent.
        Raises StoreFull, Degraded; the version is then as if it had never been.
        """
        ...

    async def abort(self) -> None:
        """Forget everything; harmless after commit and when repeated."""
        ...
