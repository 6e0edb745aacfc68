"""The images of one unit out of pipes, as the trio thread sees it: see `api.Receiving`."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ..errors import CheckpointerFailed, InvalidInput
from ..ids import UnitName
from . import layout
from .pipeline import Step, WorkThread
from .pipes import Answered, Pipes, Receiver, stop_listening
from .staged_file import BUFFERED_MAX, FILES_MAX, SIZE_MAX, SMALL_MAX
from .stream import FileStream

if TYPE_CHECKING:
    from .ingest import VersionIngest


class Receiving:
    """See api.Receiving.  It is the `pipes.Host` as well, in the hashing thread."""

    def __init__(
        self,
        version: VersionIngest,
        thread: WorkThread,
        pipes: Pipes,
        unit: UnitName,
        directory: Path,
        listener: socket.socket,
    ) -> None:
        self.unit = unit
        self._version, self._thread, self._pipes = version, thread, pipes
        self._directory = directory
        self._ended = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._receiver = Receiver(thread, self, listener, self._tell)

    @property
    def taken_bytes(self) -> int:
        """Bytes read so far."""
        return self._receiver.taken_bytes

    async def __aenter__(self) -> None:
        """Wait for the checkpointer, in the hashing thread."""
        self._thread.submit(self._receiver.begin)  # no await: whoever listens also closes

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Wait for the last byte, or wait for nothing.  Raises what the version failed with."""
        stop_listening(self._directory)
        try:
            if error is None:
                self._thread.submit(self._receiver.finish)
                await self._ended.wait()
            if error is None or isinstance(error, CheckpointerFailed):
                self._version.check_writable()  # its failure comes first: it ended the checkpointer
            if error is None:
                self._adopt()
        except BaseException:
            self.close()
            raise
        if error is not None:
            self.close()

    def _adopt(self) -> None:
        if self._receiver.cut is not None:
            raise self._receiver.cut
        self._pipes.is_refused |= self._receiver.is_refused
        self._version.adopt(self, self._receiver.files)

    def close(self) -> None:
        """Give the version up and have every end closed.  Waits for nothing."""
        self._version.give_up(self)
        self._thread.submit(self._receiver.close)

    # -- the hashing thread ---------------------------------------------------

    def _tell(self) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._ended.set)

    def guard(self, step: Step) -> None:
        """See Host."""
        self._version.guard(step)

    def has_failed(self) -> bool:
        """See Host."""
        return self._version.has_failed

    def make_stream(self, name: str) -> FileStream:
        """See Host."""
        return self._version.make_stream(self.unit, name)

    def check_file(self, name: str, files: int) -> None:
        """See Host."""
        layout.check_place(self.unit, name)
        if "/" in name:
            raise InvalidInput(f"an image cannot be called {name!r}")
        if self._version.names + files >= FILES_MAX:
            raise InvalidInput(f"a version holds at most {FILES_MAX} files")

    def may_gather(self, size_bytes: int, gathered_bytes: int) -> bool:
        """See Host."""
        return size_bytes <= SMALL_MAX and (
            self._version.buffered_bytes + gathered_bytes <= BUFFERED_MAX
        )

    def check_room(self, size_bytes: int, gathered_bytes: int, answered: Answered) -> bool:
        """See Host.  A promise grows by 64 MiB, on the trio thread.

        It is asked and not waited for: who closes the store joins this thread, and does that there.
        """
        if size_bytes > SIZE_MAX:
            raise InvalidInput(f"an image of {self.unit} is larger than a file may be")
        needed = self._version.needed_bytes + gathered_bytes
        if self._version.has_room(needed):
            return True
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._make_room, needed, answered)
        return False

    def _make_room(self, needed_bytes: int, answered: Answered) -> None:
        """Trio thread, and nobody's task: what goes wrong is the version's, also a bug."""
        refused: Exception | None = None
        try:
            self._version.make_room(needed_bytes)
        except Exception as error:
            refused = error
        self._thread.submit(lambda: answered(refused))
