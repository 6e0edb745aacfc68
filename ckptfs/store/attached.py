"""A volume that takes copies, as it is known here, and calls into it that cannot hang."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from ..errors import Busy, Corrupt, Degraded, NotFound, TimedOut
from .blocks import PackFiles
from .copies_record import VolumeRecord
from .copy_volume import CopyVolume, Listing
from .syscalls import is_full

T = TypeVar("T")
FRESH_S = 600.0  # after which a listing is taken again
NOTHING = Listing(frozenset(), 0, 0)


@dataclass(slots=True)
class Attached:
    """A volume and what is known of it.  *state* "up" means: its listing is fresh."""

    record: VolumeRecord
    volume: CopyVolume
    packs: PackFiles
    state: str = "stale"
    reason: str = ""
    listing: Listing = NOTHING
    listed_s: float = -FRESH_S
    turn: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))

    @property
    def answers(self) -> bool:
        """Whether it can be read."""
        return self.state in {"up", "full", "readonly"}


def state_of(error: Exception) -> str:
    """Return the word for a volume that failed so.  Pure."""
    if isinstance(error, TimedOut):
        return "slow"
    if isinstance(error, NotFound | FileNotFoundError):
        return "missing"
    if isinstance(error, Busy):
        return "foreign"
    if isinstance(error, Corrupt):
        return "failing"
    if isinstance(error, OSError):
        if is_full(error):
            return "full"
        return "readonly" if error.errno == Degraded.errno else "failing"
    return "unknown_format"


async def within(seconds: float, turn: trio.CapacityLimiter, call: Callable[[], T], name: str) -> T:
    """Return what *call* does in a thread.  Raises TimedOut; the thread is left to itself then."""
    try:
        with trio.fail_after(seconds):
            return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=turn)
    except trio.TooSlowError:
        raise TimedOut(f"volume {name} did not answer within {seconds:g} s") from None


def hurry(seconds: float, call: Callable[[], T]) -> T:
    """Return what *call* does in a thread of its own: for code without trio.  Raises TimedOut."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="ckptfs-rescue", daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError:
        raise TimedOut(f"no answer within {seconds:g} s") from None
