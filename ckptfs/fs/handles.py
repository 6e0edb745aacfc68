"""Open files.  One object per open(2), by handle number.

The write(2) of FUSE carries no credentials, so a handle keeps those of its
opener; the kernel's own rule for control files (kernfs).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import trio
from pyfuse3 import PollHandle

from ..errors import CkptfsError, Forbidden, Gone, NotAuthenticated, TimedOut
from ..model import Caller
from .control import ControlFile, parse_command
from .nodes import Node
from .spool import Spool, SpoolFile
from .staging import Staged

log = logging.getLogger(__name__)
STORE_DEADLINE_S = 10.0  # for one command; nobody can interrupt a caller inside write(2)
ANSWER_MAX = 1024  # characters of a refusal, which may quote a path of 4096
REFRESH_DEADLINE_S = 2.0  # for what a row asks at open
T = TypeVar("T")


def clip(sentence: str) -> str:
    """Return *sentence*, without its middle where it is longer than `ANSWER_MAX`.  Pure."""
    if len(sentence) <= ANSWER_MAX:
        return sentence
    half = ANSWER_MAX // 2 - 1
    return f"{sentence[:half]}…{sentence[-half:]}"


class Opened(Protocol):
    """One open file."""

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return up to *size* bytes."""
        ...

    async def write(self, offset: int, data: bytes) -> int:
        """Take *data* and return how much of it was taken."""
        ...

    def close(self) -> None:
        """The last descriptor was closed."""
        ...


class OpenControl:
    """A control file: the snapshot being read, the answer to the last write, what poll(2) has seen.

    After a write the next read on the same descriptor, at whatever offset
    (shells do not rewind), gives the answer and then end of file; a later
    read at offset 0 takes a fresh snapshot.
    """

    def __init__(
        self,
        node: Node,
        caller: Caller,
        *,
        content: Callable[[], str],
        store: Callable[[str, Caller], Awaitable[str]] | None,
        pollable: bool,
        on_failure: Callable[[Node, CkptfsError], None],
    ) -> None:
        self.node = node
        self.pollable = pollable
        self.content = content
        self._caller = caller
        self._store = store
        self._on_failure = on_failure
        self._text: bytes | None = None
        self._answer: bytes | None = None
        self._answer_start: int | None = None  # offset of the first read after the write
        self._answer_taken = False
        self._seen: str | None = None  # at the last read at offset 0
        self._changed = True  # as in kernfs: a descriptor that never read is behind
        self._poll_handle: PollHandle | None = None

    async def read(self, offset: int, size: int) -> bytes:
        """Return the answer of the last write, or part of a snapshot."""
        answer = self._rest_of_answer(offset, size)
        if answer is not None:
            return answer
        if offset == 0 or self._text is None:
            text = self.content()
            self._text, self._seen, self._changed = text.encode(), text, False
        return self._text[offset : offset + size]

    def _rest_of_answer(self, offset: int, size: int) -> bytes | None:
        if self._answer is None:
            return None
        if self._answer_start is None:
            self._answer_start = offset
        elif offset == 0 and (self._answer_start or self._answer_taken):
            self._answer = None
            return None
        start = max(0, offset - self._answer_start)
        piece = self._answer[start : start + size]
        self._answer_taken |= start + len(piece) >= len(self._answer)
        return piece

    async def write(self, offset: int, data: bytes) -> int:
        """Carry out one command; the offset means nothing."""
        try:
            answer = await self._command(data)
        except CkptfsError as error:
            sentence = " ".join(str(error).split())
            self._set_answer(f"error {clip(sentence)}")
            self._on_failure(self.node, error)
            raise
        except Exception:
            self._set_answer("error a bug in the service; its log has the details")
            raise
        self._set_answer(answer)
        return len(data)

    async def _command(self, data: bytes) -> str:
        if self._store is None:
            raise NotAuthenticated(f"{self.node.name} is read-only")
        text = parse_command(data)
        try:
            with trio.fail_after(STORE_DEADLINE_S):
                return await self._store(text, self._caller)
        except trio.TooSlowError:
            raise TimedOut(f"no answer within {STORE_DEADLINE_S:.0f} s; look at state") from None

    def _set_answer(self, text: str) -> None:
        self._answer, self._answer_start, self._answer_taken = f"{text}\n".encode(), None, False

    def poll(self, handle: PollHandle | None) -> bool:
        """Keep *handle* for the next change; return whether there is one not yet read."""
        if handle is not None:
            self._poll_handle = handle
        return self.pollable and self._changed

    def note_change(self, text: str | None) -> None:
        """Compare *text* (None: the object is gone) with what was read, and wake who waits."""
        self._changed |= text != self._seen
        if self._changed and self._poll_handle is not None:
            handle, self._poll_handle = self._poll_handle, None
            try:
                handle.notify()
            except OSError as error:  # the waiter has closed its descriptor meanwhile
                log.debug("poll notification for %s: %s", self.node, error)

    def close(self) -> None:
        """Drop the poll handle."""
        self._poll_handle = None


def open_control(
    row: ControlFile[T],
    view: T,
    node: Node,
    caller: Caller,
    on_failure: Callable[[Node, CkptfsError], None],
) -> OpenControl:
    """Return a handle for *row* of the object behind *view*."""
    store = row.store
    bound: Callable[[str, Caller], Awaitable[str]] | None = None
    if store is not None:
        bound = lambda text, who: store(view, text, who)  # noqa: E731 - closes over the row's T
    return OpenControl(
        node,
        caller,
        content=lambda: row.content(view),
        store=bound,
        pollable=row.pollable,
        on_failure=on_failure,
    )


async def refresh(row: ControlFile[T], view: T) -> None:
    """Await what the row wants at open.  Raises TimedOut (ETIMEDOUT)."""
    if row.refresh is None:
        return
    try:
        with trio.fail_after(REFRESH_DEADLINE_S):
            await row.refresh(view)
    except trio.TooSlowError:
        raise TimedOut(f"no node answered within {REFRESH_DEADLINE_S:.0f} s") from None


class OpenStaged:
    """An image file being written by a checkpointer: the hot path of a checkpoint."""

    def __init__(self, staged: Staged) -> None:
        self._staged = staged
        self._file = staged.file

    async def read(self, offset: int, size: int) -> bytes:
        """Read back what was written."""
        self._staged.check_live()
        return await self._file.read(offset, size)

    async def write(self, offset: int, data: bytes) -> int:
        """Pass *data* on as soon as the pipeline has room."""
        self._staged.check_live()
        await self._file.wait_writable()
        return self._file.write(offset, data)

    def close(self) -> None:
        """Nothing to do: a file is complete when its version commits."""


@dataclass(frozen=True, slots=True)
class OpenSpool:
    """A file in ``ctl/spool/``."""

    spool: Spool
    file: SpoolFile
    clock_ns: Callable[[], int]

    async def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the file as it is now."""
        return bytes(self.file.data[offset : offset + size])

    async def write(self, offset: int, data: bytes) -> int:
        """Take *data*.  Raises TooBig, QuotaExceeded."""
        return self.spool.write(self.file, offset, data, self.clock_ns())

    def close(self) -> None:
        """Nothing to do."""


@dataclass(frozen=True, slots=True)
class OpenBytes:
    """A small document that was complete at open."""

    data: bytes

    async def read(self, offset: int, size: int) -> bytes:
        """Return part of the document."""
        return self.data[offset : offset + size]

    async def write(self, offset: int, data: bytes) -> int:
        """Refuse: it is sealed."""
        raise Forbidden("a version cannot be changed")

    def close(self) -> None:
        """Nothing to do."""


Entries = list[tuple[bytes, Node]]


class Handles:
    """Open files and directory listings by handle number; numbers are not reused."""

    def __init__(self) -> None:
        self._files: dict[int, Opened] = {}
        self._listings: dict[int, Entries] = {}
        self._next = 1

    def add(self, opened: Opened) -> int:
        """Keep an open file and return its number."""
        number, self._next = self._next, self._next + 1
        self._files[number] = opened
        return number

    def file(self, number: int) -> Opened:
        """Return an open file.  Raises Gone."""
        try:
            return self._files[number]
        except KeyError:
            raise Gone("this file is not open") from None

    def remove(self, number: int) -> Opened | None:
        """Forget an open file and return it."""
        return self._files.pop(number, None)

    def add_listing(self, entries: Entries) -> int:
        """Keep a directory's entries: offsets of one listing stay valid while it is read."""
        number, self._next = self._next, self._next + 1
        self._listings[number] = entries
        return number

    def listing(self, number: int) -> Entries:
        """Return the entries of an open directory.  Raises Gone."""
        try:
            return self._listings[number]
        except KeyError:
            raise Gone("this directory is not open") from None

    def remove_listing(self, number: int) -> None:
        """Forget an open directory."""
        self._listings.pop(number, None)

    def __len__(self) -> int:
        return len(self._files) + len(self._listings)
