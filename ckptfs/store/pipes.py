"""Images out of the pipes of a checkpointer, instead of out of writes through the mount.

The mount costs a request of the kernel and two copies per MiB; a pipe costs a read.  All of
`Receiver` runs in the hashing thread, which looks after socket and pipes between its other
steps (`WorkThread.watch`), so versions of several jobs take turns.  A small file is gathered, one
that grows past what may be kept in memory is fed to the hashing in whole blocks, out of one buffer.

End-of-file says nothing: a killed checkpointer gives it as well.  And the pages in a pipe are the
job's own until they are read, so it may not go on before `Receiver` has ended.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ..errors import CheckpointerFailed, InvalidInput
from .pages import BLOCK
from .pipeline import Step, WorkThread
from .stream import FileStream
from .stream_requests import Requests

SOCKET = "streamer-capture.sock"  # what criu looks for in its image directory
PIPE_BYTES = 1 << 20  # of a pipe that carries a large file: with 64 KiB it takes twice as long
GROW_AT = 64 << 10  # bytes after which a file's pipe is enlarged: few images get there
PIPES_MAX = 1024  # open at once; criu opens them one after the other
_PIPE_MAX_SIZE = Path("/proc/sys/fs/pipe-max-size")
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
Answered = Callable[[Exception | None], None]  # there is room, or why there is none


class Host(Protocol):
    """The version that the files belong to, as the hashing thread may see it."""

    def guard(self, step: Step) -> None:
        """Do a step; what it raises is the version's failure.  Nothing after a failure."""
        ...

    def has_failed(self) -> bool:
        """Whether there was a failure, here or in another thread."""
        ...

    def make_stream(self, name: str) -> FileStream:
        """Begin a large file."""
        ...

    def check_file(self, name: str, files: int) -> None:
        """Raise InvalidInput unless a file may have that name, and be one more than *files*."""
        ...

    def may_gather(self, size_bytes: int, gathered_bytes: int) -> bool:
        """Whether a file of this size may stay in memory beside *gathered_bytes* of all such."""
        ...

    def check_room(self, size_bytes: int, gathered_bytes: int, answered: Answered) -> bool:
        """See that a file may be so large, and tell whether there is room for it.

        Waits for nothing: where that has to be asked it is False, and *answered* is a later step.
        Raises InvalidInput.
        """
        ...


class Arrived:
    """One file out of a pipe: *gathered*, or fed to *stream*."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.size_bytes = 0
        self.gathered: bytearray | None = bytearray()
        self.stream: FileStream | None = None
        self.is_enlarged = False
        self._block = memoryview(b"")
        self._have = 0  # bytes in the block

    def room(self) -> memoryview:
        """Return where the next bytes go, of a large file."""
        return self._block[self._have :]

    def begin_feeding(self, stream: FileStream) -> None:
        """Hand on what was gathered; blocks from here on."""
        data, self.gathered, self.stream = memoryview(self.gathered or b""), None, stream
        whole = len(data) // BLOCK * BLOCK
        if whole:
            stream.feed(data[:whole])
        self._block, self._have = memoryview(bytearray(BLOCK)), len(data) - whole
        self._block[: self._have] = data[whole:]

    def filled(self, size: int) -> None:
        """Take *size* bytes that were read into `room`; 0: the end."""
        self._have += size
        if self.stream is not None and (self._have == BLOCK or (not size and self._have)):
            self.stream.feed(self._block[: self._have])
            self._have = 0
        if not size:
            self._block = memoryview(b"")  # 1 MiB; the file itself stays until the version's end


class Receiver:
    """The files of one unit, from one checkpointer that connects once.  Hashing thread."""

    def __init__(
        self, thread: WorkThread, host: Host, listener: socket.socket, ended: Callable[[], None]
    ) -> None:
        self.files: dict[str, Arrived] = {}
        self.taken_bytes = 0
        self.gathered_bytes = 0
        self.is_refused = False  # a pipe could not be enlarged
        self.cut: InvalidInput | None = None  # the connection ended too early
        self._thread, self._host, self._ended = thread, host, ended
        self._listener: socket.socket | None = listener
        self._connection: socket.socket | None = None
        self._requests = Requests()
        self._open: dict[int, Arrived] = {}
        self._is_asking = False  # for room; nothing is read meanwhile
        self._waiting: set[int] = set()  # pipes that could have been read meanwhile
        self._refused: list[int] = []  # closed once the failure is known: who writes sees it then
        self._scratch = memoryview(bytearray(BLOCK))
        self._is_over = False

    def begin(self) -> None:
        """Wait for the checkpointer.  A step of the hashing thread, like the next two."""
        self._step(self._watch_listener)

    def finish(self) -> None:
        """The checkpointer has ended: if it never connected, nothing is waited for."""
        self._step(self._accept)
        if self._listener is not None:
            self._close_listener()
            self._step(lambda: None)

    def close(self) -> None:
        """Close every end, so that a checkpointer that still writes fails.  Repeatable."""
        for descriptor in tuple(self._open):
            self._close_pipe(descriptor)
        while self._refused:
            os.close(self._refused.pop())
        self._close_listener()
        self._close_connection()
        if not self._is_over:
            self._is_over = True
            self._scratch = memoryview(b"")  # 1 MiB, which a cycle would keep
            self._ended()

    def _step(self, step: Step) -> None:
        self._host.guard(step)
        is_done = not (self._open or self._listener or self._connection)
        if self._host.has_failed() or is_done:
            self.close()

    def _watch_listener(self) -> None:
        if self._listener is not None:
            self._thread.watch(self._listener.fileno(), lambda: self._step(self._accept))

    # -- the socket ---------------------------------------------------------------------------

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        self._close_listener()
        self._connection = connection
        connection.setblocking(False)
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        if _CREDENTIALS.unpack(peer)[1] != os.geteuid():
            raise CheckpointerFailed("somebody else than the checkpointer sends images")
        self._thread.watch(connection.fileno(), lambda: self._step(self._request))

    def _request(self) -> None:
        if self._connection is None:
            return
        space = socket.CMSG_SPACE(array.array("i").itemsize)
        try:
            data, control, flags, _ = self._connection.recvmsg(
                self._requests.wants, space, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except ConnectionResetError:  # it has been killed; its status tells
            data, control, flags = b"", [], 0
        pipes = _descriptors(control)
        try:
            if flags & socket.MSG_CTRUNC:
                raise InvalidInput("the checkpointer sent several descriptors at once")
            if not data:
                self._close_connection()
                self.cut = self._requests.end()
                return
            name = self._requests.take(data, len(pipes))
            if name:
                self._take_pipe(name, pipes[0])
                pipes.clear()
        finally:
            self._refused += pipes

    def _take_pipe(self, name: str, descriptor: int) -> None:
        """Begin a file; one that is there already begins anew.  Owns the descriptor at the end."""
        self._host.check_file(name, len(self.files))
        if len(self._open) >= PIPES_MAX:
            raise InvalidInput(f"the checkpointer has more than {PIPES_MAX} images open")
        if any(file.name == name for file in self._open.values()):
            raise InvalidInput(f"the checkpointer writes {name} twice at once")
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            raise InvalidInput(f"the checkpointer sent something else than a pipe for {name}")
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            raise InvalidInput(f"the checkpointer sent the wrong end of the pipe for {name}")
        os.set_blocking(descriptor, False)
        before = self.files.get(name)
        if before is not None and before.gathered is not None:
            self.gathered_bytes -= len(before.gathered)
        self.files[name] = self._open[descriptor] = Arrived(name)
        self._watch_pipe(descriptor)

    def _watch_pipe(self, descriptor: int) -> None:
        self._thread.watch(descriptor, lambda: self._step(lambda: self._read(descriptor)))

    # -- the pipes ----------------------------------------------------------------------------

    def _read(self, descriptor: int) -> None:
        file = self._open.get(descriptor)
        if file is None:
            return
        if self._is_asking:
            self._thread.unwatch(descriptor)
            self._waiting.add(descriptor)
            return
        room = file.room() if file.gathered is None else self._scratch
        try:
            size = os.readv(descriptor, [room])
        except BlockingIOError:
            return
        except OSError as error:
            raise CheckpointerFailed(f"{file.name} cannot be read: {error.strerror}") from error
        self.taken_bytes += size
        file.size_bytes += size
        if file.gathered is None:
            file.filled(size)
        else:
            self._gather(file, size)
        if not size:
            self._close_pipe(descriptor)
            return
        gathered = self.gathered_bytes
        self._is_asking = not self._host.check_room(file.size_bytes, gathered, self._answered)
        if not file.is_enlarged and file.size_bytes > GROW_AT:
            self._enlarge(file, descriptor)

    def _answered(self, refused: Exception | None) -> None:
        """A step: read on, or fail."""
        self._step(lambda: self._read_on(refused))

    def _read_on(self, refused: Exception | None) -> None:
        if refused is not None:
            raise refused
        self._is_asking = False
        while self._waiting:
            self._watch_pipe(self._waiting.pop())

    def _gather(self, file: Arrived, size: int) -> None:
        assert file.gathered is not None
        file.gathered += self._scratch[:size]
        self.gathered_bytes += size
        if size and not self._host.may_gather(file.size_bytes, self.gathered_bytes):
            self.gathered_bytes -= len(file.gathered)
            file.begin_feeding(self._host.make_stream(file.name))

    def _enlarge(self, file: Arrived, descriptor: int) -> None:
        """Once per file; a small pipe is only slower."""
        file.is_enlarged = True
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            self.is_refused = True

    # -- the ends -----------------------------------------------------------------------------

    def _close_pipe(self, descriptor: int) -> None:
        self._thread.unwatch(descriptor)
        self._waiting.discard(descriptor)
        del self._open[descriptor]
        os.close(descriptor)

    def _close_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._thread.unwatch(listener.fileno())
            listener.close()

    def _close_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._thread.unwatch(connection.fileno())
            connection.close()


class Pipes:
    """Whether images can come out of pipes here; the store's.  Trio thread."""

    def __init__(self) -> None:
        self.is_refused = False  # a pipe stayed small: the mount is faster, until the next start

    def listen(self, directory: Path) -> socket.socket | str:
        """Listen in *directory*, which is root's alone; else why the mount has to do."""
        if self.is_refused:
            return f"a pipe could not be enlarged to {PIPE_BYTES} bytes"
        try:
            if (most := int(_PIPE_MAX_SIZE.read_text())) < PIPE_BYTES:
                return f"{_PIPE_MAX_SIZE} is {most}, below {PIPE_BYTES}"
            return _listen(directory)
        except (OSError, ValueError) as error:
            return f"no socket in {directory}: {error}"


def _listen(directory: Path) -> socket.socket:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{directory} is not ours alone")
        with contextlib.suppress(FileNotFoundError):  # of a service that was killed
            os.unlink(SOCKET, dir_fd=fd)
        place = f"/proc/self/fd/{fd}/{SOCKET}"  # the path itself may be too long
        listener.bind(place)
        os.chmod(place, 0o600)
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(fd)
    return listener


def stop_listening(directory: Path) -> None:
    """Take the socket's name away."""
    with contextlib.suppress(OSError):
        (directory / SOCKET).unlink()


def _descriptors(control: list[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with a message."""
    found = array.array("i")
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) // found.itemsize * found.itemsize])
    return list(found)
