"""A volume that takes copies, as it is known here, and calls into it that cannot hang."""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import trio

from ..errors import Busy, Corrupt, Degraded, NotFound, TimedOut
from .blocks import PackFiles
from .copies_plan import Holding, Piece
from .copies_record import VolumeRecord
from .copy_volume import CopyVolume, Listing
from .receiving import Step
from .syscalls import is_full

T = TypeVar("T")
Hold = Callable[[int], Awaitable[None]]  # bytes about to be moved; returns when they may be
FRESH_S = 600.0  # after which a listing is taken again
NOTHING = Listing(frozenset(), 0, 0)
ANSWERS = frozenset({"up", "full", "readonly"})  # states in which copies count
GONE = frozenset({"missing", "slow", "foreign", "unknown_format"})  # known nothing of any more


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
    wanted_bytes: int = 0  # what it was too full for
    bad: set[Piece] = field(default_factory=set[Piece])  # copies that failed their checksums
    progress: str = ""  # of draining, a sentence
    alarm: str = ""  # why it is trusted with nothing new until somebody says so
    turn: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))

    @property
    def answers(self) -> bool:
        """Whether what it holds counts."""
        return self.state in ANSWERS

    @property
    def readable(self) -> bool:
        """Whether it may be asked for bytes, which are proved in any case."""
        return self.answers or self.state == "failing"

    @property
    def held(self) -> frozenset[Piece]:
        """What it holds and is not known to be damaged."""
        return self.listing.held - self.bad

    @property
    def stays(self) -> bool:
        """Whether its copies are to last."""
        return not self.record.draining and not self.alarm

    @property
    def drains(self) -> bool:
        """Whether it is to be emptied; one that fails is left as it is."""
        return self.record.draining and not self.alarm

    @property
    def holding(self) -> Holding:
        """What the plan has to know."""
        held = self.held if self.answers else frozenset[Piece]()
        return Holding(self.record.domain, held, self.state == "up" and self.stays, self.stays)


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


def sentence_of(error: Exception) -> str:
    """Return what is wrong with a volume, for people.  Pure."""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return place + (error.strerror or str(error)).lower()
    return str(error)


def state_after_look(attached: Attached, *, readonly: bool, free_bytes: int, listed: bool) -> str:
    """Return the state of a volume that has answered: is its trouble over?  Pure."""
    if readonly:
        return "readonly"
    if attached.state == "full" and free_bytes < attached.wanted_bytes:
        return "full"
    return "failing" if attached.state == "failing" and not listed else "up"


async def within(seconds: float, turn: trio.CapacityLimiter, call: Callable[[], T], name: str) -> T:
    """Return what *call* does in a thread.  Raises TimedOut; the thread is left to itself then."""
    try:
        with trio.fail_after(seconds):
            return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=turn)
    except trio.TooSlowError:
        raise TimedOut(f"volume {name} did not answer within {seconds:g} s") from None


async def held_up(
    seconds: float,
    turn: trio.CapacityLimiter,
    call: Callable[[Step], T],
    name: str,
    hold: Hold,
) -> T:
    """`within` for bulk: *hold* is awaited before each MiB, and its time does not count.

    A thread that was given up ends at its next MiB.  Raises TimedOut.
    """
    given_up = False
    scope = trio.CancelScope(deadline=trio.current_time() + seconds)

    async def wait(size: int) -> None:
        left_s = scope.deadline - trio.current_time()
        scope.deadline = math.inf
        try:
            await hold(size)
        finally:
            scope.deadline = trio.current_time() + left_s

    def step(size: int) -> None:
        if given_up:
            raise TimedOut(f"volume {name} was given up")
        trio.from_thread.run(wait, size)

    try:
        with scope:
            return await trio.to_thread.run_sync(
                partial(call, step), abandon_on_cancel=True, limiter=turn
            )
    finally:
        given_up = True
    raise TimedOut(f"volume {name} did not do its work within {seconds:g} s")


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
