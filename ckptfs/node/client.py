"""The agent's end of a supervisor's socket, on trio."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from ..errors import Corrupt, NoSuchProcess, TimedOut, TryAgain
from .api import Exit
from .isolation import error_named
from .records import Json, decode_line, encode_line, exit_from


@dataclass(slots=True)
class _Pending:
    """A request without its answer yet."""

    answered: trio.Event = field(default_factory=trio.Event)
    answer: dict[str, Json] | None = None


class SupervisorClient:
    """One connection to one supervisor.  Closing it makes a stopped unit go on."""

    def __init__(
        self,
        stream: trio.SocketStream,
        on_exit: Callable[[Exit | None], None],
        on_loaded: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._on_exit, self._on_loaded = on_exit, on_loaded
        self._pending: dict[int, _Pending] = {}
        self._last = 0
        self._send_lock = trio.Lock()
        self.is_closed = False

    async def run(self) -> None:
        """Read until the supervisor closes; then tell who listens how the unit ended.

        None: not known.  After `aclose` nobody is told: the unit may well go on.
        """
        ended: Exit | None = None
        pending = b""
        try:
            while data := await self._receive():
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    message = decode_line(line)
                    if message.get("event") == "exit":
                        ended = exit_from(message)
                    elif message.get("event") == "loaded":
                        self._on_loaded()
                    elif (waiting := self._pending.get(message.get("id", 0))) is not None:
                        waiting.answer = message
                        waiting.answered.set()
        except Corrupt:
            ended = None
        finally:
            was_closed_here = self.is_closed
            await self.aclose()
        if not was_closed_here:
            self._on_exit(ended)

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(65536))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def aclose(self) -> None:
        """Close; requests under way raise NoSuchProcess.  Repeating is harmless."""
        self.is_closed = True
        for waiting in self._pending.values():
            waiting.answered.set()
        await trio.aclose_forcefully(self._stream)

    async def request(self, do: str, *, timeout_s: float | None = None, **arguments: Json) -> Json:
        """Send a request and return its answer.

        Raises the error that the supervisor names, NoSuchProcess when it has
        gone, TimedOut after *timeout_s*.  A cancelled request is cancelled
        over there, too.
        """
        self._last += 1
        number = self._last
        waiting = self._pending[number] = _Pending()
        try:
            await self._send({"id": number, "do": do, **arguments})
            with trio.move_on_after(math.inf if timeout_s is None else timeout_s):
                await waiting.answered.wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self._cancel(number, waiting)
            raise
        finally:
            del self._pending[number]
        if waiting.answer is None:
            if waiting.answered.is_set():
                raise NoSuchProcess("the unit has ended")
            raise TimedOut(f"the unit's supervisor did not answer to {do} within {timeout_s:g} s")
        if "error" in waiting.answer:
            raise error_named(waiting.answer["error"], waiting.answer["text"])
        return waiting.answer["ok"]

    async def kill(self, *, timeout_s: float) -> None:
        """Have the unit killed; a supervisor that has gone or goes meanwhile is what was wanted."""
        try:
            await self.request("kill", timeout_s=timeout_s)
        except NoSuchProcess:
            return

    async def _send(self, message: dict[str, Json]) -> None:
        if self.is_closed:
            raise NoSuchProcess("the unit has ended")
        async with self._send_lock:
            try:
                await self._stream.send_all(encode_line(message))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise NoSuchProcess("the unit has ended") from None

    async def _cancel(self, number: int, waiting: _Pending) -> None:
        """Cancel over there and wait: the next request must find nothing under way."""
        with trio.move_on_after(5):
            try:
                await self._send({"cancel": number})
            except NoSuchProcess:
                return
            await waiting.answered.wait()


async def connect(
    path: Path,
    on_exit: Callable[[Exit | None], None],
    on_loaded: Callable[[], None] = lambda: None,
) -> SupervisorClient | None:
    """Connect to the supervisor listening at *path*; None when there is none.

    Raises TryAgain when that cannot be told (no descriptor free, say): a unit whose supervisor
    is believed to be gone is swept away.
    """
    try:
        stream = await trio.open_unix_socket(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as error:
        why = error.strerror or error
        raise TryAgain(f"the unit's supervisor cannot be reached: {why}") from error
    return SupervisorClient(stream, on_exit, on_loaded)
