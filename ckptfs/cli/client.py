"""Reading, writing and waiting on the control files of a mount.

This is all that the commands use of a service.  An answer is read from the
descriptor that carried the request, so two commands never see each other's;
waiting is poll(2), so a command never hangs inside a request and Ctrl-C always
works.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import CannotRun, CkptfsError, Corrupt, Gone, NotAuthenticated, NotAuthorised

READ_MAX = 1 << 20  # bytes of one read; most control files are far shorter


def _classes(root: type[CkptfsError]) -> Iterator[type[CkptfsError]]:
    """Yield the error classes below *root* in the order of errors.py."""
    for cls in root.__subclasses__():
        yield cls
        yield from _classes(cls)


# errno → class, the other way round than at the boundary.  Where two conditions
# share an errno the first one stands for both, but for these.
ERRORS: Mapping[int, type[CkptfsError]] = {
    cls.errno: cls for cls in (*reversed(list(_classes(CkptfsError))), NotAuthorised, Corrupt)
}


class Watch(Protocol):
    """One open control file whose changes can be waited for."""

    def read(self) -> str:
        """Return a fresh snapshot.  Raises Gone when the object has been removed."""
        ...

    def wait(self, timeout_s: float | None) -> None:
        """Return when the content may have changed since `read`, or after *timeout_s*."""
        ...


class Files(Protocol):
    """What is done to files below a mount; paths are absolute."""

    def read(self, path: Path) -> str:
        """Return the whole content."""
        ...

    def write(self, path: Path, text: str) -> str:
        """Write *text* in one write(2) and return the answer."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a directory that the service removes whole."""
        ...

    def watch(self, path: Path) -> Iterator[Watch]:
        """Open *path* for `Watch`; a generator for `contextmanager`."""
        ...


class KernelWatch:
    """`Watch` by poll(2)."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLPRI | select.POLLERR)

    def read(self) -> str:
        """Return a fresh snapshot."""
        with translated(self._path):
            return _text(os.pread(self._descriptor, READ_MAX, 0))

    def wait(self, timeout_s: float | None) -> None:
        """Sleep until the service says that the content changed."""
        self._poll.poll(None if timeout_s is None else max(1, round(timeout_s * 1000)))


class KernelFiles:
    """`Files` by system calls."""

    def read(self, path: Path) -> str:
        """Return the whole content."""
        with translated(path), _opened(path, os.O_RDONLY) as descriptor:
            return _text(_whole(descriptor))

    def write(self, path: Path, text: str) -> str:
        """Write and read the answer on one descriptor."""
        with translated(path), _opened(path, os.O_RDWR) as descriptor:
            try:
                os.write(descriptor, text.encode(errors="surrogateescape"))
            except OSError as error:
                raise _refusal(error, path, _answer(descriptor)) from error
            return _answer(descriptor)

    def remove(self, path: Path) -> None:
        """Remove by rmdir(2)."""
        with translated(path):
            path.rmdir()

    def watch(self, path: Path) -> Iterator[Watch]:
        """Yield the open file."""
        with translated(path), _opened(path, os.O_RDONLY) as descriptor:
            yield KernelWatch(descriptor, path)


@contextmanager
def _opened(path: Path, flags: int) -> Generator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _whole(descriptor: int) -> bytes:
    """Return all there is: short reads are legal, and some texts are longer than one."""
    pieces: list[bytes] = []
    while piece := os.pread(descriptor, READ_MAX, sum(map(len, pieces))):
        pieces.append(piece)
    return b"".join(pieces)


def _answer(descriptor: int) -> str:
    """Return what the service says to the request just written; "" when it says nothing."""
    try:
        return _text(_whole(descriptor)).rstrip("\n")
    except OSError:
        return ""  # the errno of the write is what counts


def _text(content: bytes) -> str:
    return content.decode(errors="surrogateescape")


@contextmanager
def translated(path: Path) -> Generator[None]:
    """Turn an OSError into the error class with its errno."""
    try:
        yield
    except OSError as error:
        raise _refusal(error, path, "") from error


def _refusal(error: OSError, path: Path, answer: str) -> CkptfsError:
    """Return the exception for *error*; the service's own sentence comes first."""
    cls = ERRORS.get(error.errno or 0)
    if answer.startswith("error "):
        return (cls or CkptfsError)(answer.removeprefix("error "))
    reason = (error.strerror or str(error)).lower()
    if cls is None:
        return CannotRun(
            f"{path}: {reason}; if the service has ended (the jobs go on), "
            "start it again with: ckptfs mount, and the --store it had"
        )
    if cls is Corrupt:  # EIO without a sentence is a bug of the service, not damage
        return CkptfsError(f"{path}: {reason}; the service's log says more")
    if cls is Gone:
        return Gone(f"{path} has been removed")
    return cls(f"{path}: {reason}")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted ckptfs: its control files by path relative to *root*."""

    root: Path
    files: Files

    def read(self, relative: str) -> str:
        """Return the content of a file without the last line end."""
        with self._asked_by_owner(relative):
            return self.files.read(self.root / relative).removesuffix("\n")

    def write(self, relative: str, text: str) -> str:
        """Write one command and return the answer, "" when there is none."""
        with self._asked_by_owner(relative):
            return self.files.write(self.root / relative, text)

    @contextmanager
    def watch(self, relative: str) -> Generator[Watch]:
        """Open a pollable file for reading and waiting."""
        with self._asked_by_owner(relative):
            yield from self.files.watch(self.root / relative)

    def keyed(self, relative: str) -> dict[str, str]:
        """Return a flat keyed file as a dictionary."""
        pairs = (line.partition(" ") for line in self.read(relative).splitlines())
        return {key: value for key, _, value in pairs if key}

    def remove(self, relative: str) -> None:
        """Remove a version or a job, whole, although its directory is not empty."""
        path = self.root / relative
        with self._asked_by_owner(relative):
            self.files.remove(path)

    def entries(self, relative: str = "") -> list[os.DirEntry[str]]:
        """Return the entries of a directory, as the kernel gives them."""
        path = self.root / relative
        with self._asked_by_owner(relative), translated(path), os.scandir(path) as entries:
            return list(entries)

    def status(self, relative: str) -> os.stat_result:
        """Return lstat(2) of an object."""
        path = self.root / relative
        with self._asked_by_owner(relative), translated(path):
            return path.lstat()

    @contextmanager
    def _asked_by_owner(self, relative: str) -> Generator[None]:
        """Say whose job it is when mode bits keep this user out of it."""
        try:
            yield
        except NotAuthenticated as error:
            job = relative.partition("/")[0]
            path = str(self.root / relative)
            if not str(error).startswith(path) or not job:
                raise  # the service's own sentence, which names what is in the way
            if job == "ctl":
                raise NotAuthenticated(f"only root may use {path}: use sudo") from error
            raise NotAuthenticated(
                f"{job} is not yours: only its owner and root may look into it or command it"
            ) from error


def open_mount(root: str) -> Mount:
    """Return the mount at *root*.  Raises CannotRun when there is no living service."""
    path = Path(os.path.abspath(root))
    try:
        is_served = stat.S_ISREG((path / "ctl" / "version").stat().st_mode)
    except FileNotFoundError:
        is_served = False
    except OSError as error:
        raise CannotRun(
            f"{path}: {(error.strerror or '').lower()}; the service there has ended (the jobs go "
            f"on): start it again with: ckptfs mount {path}, and the --store it had"
        ) from error
    if not is_served:
        raise CannotRun(f"{path} is not a ckptfs mount; mount one with: ckptfs mount {path}")
    return Mount(path, KernelFiles())
