"""The collector within packs: those under half alive are written anew without their dead pages.

Marked, the epoch raised, marked again, as whole objects are; what is alive by either mark stays.
Just before a pack is replaced it is marked a third time.  A version that is being written can hit
pages of one manifest alone, a root from its begin on, and a sealed pack of its own stays as long as
it lives: so what is dead now cannot come to be needed.  In doubt a pack stays as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import trio

from ..errors import Busy, CkptfsError, StoreFull, TryAgain
from ..store.compaction import HalfDead
from ..store.garbage import Garbage
from ..store.object_names import joined, names_of
from ..store.receiving import Step
from ..store.roots import Item, Live, Roots
from .api import Pace
from .decide import pack_verdict

log = logging.getLogger(__name__)
TURN_S = 60.0  # then others get their turn: a collection goes on with the rest
NAMED_MAX = 20  # lines of a dry run

T = TypeVar("T")
Mark = Callable[[], Awaitable[tuple[Roots, Live]]]


@dataclass(slots=True)
class PacksReport:
    """What came of it.  *left*: pack to why it stays as it is; *more*: another run goes on;
    *waits*: for versions begun before.
    """

    freed_bytes: int = 0
    packs: int = 0
    more: bool = False
    waits: bool = False
    left: dict[str, str] = field(default_factory=dict[str, str])


class PackSweep:
    """The collector of one store's dead pages.  *mark*: what must stay as of now."""

    def __init__(
        self,
        garbage: Garbage,
        mark: Mark,
        wall_s: Callable[[], float],
        sentence: Callable[[CkptfsError | OSError], str],
    ) -> None:
        self._garbage, self._compaction = garbage, garbage.compaction
        self._mark, self._wall_s, self._sentence = mark, wall_s, sentence

    async def plan(self, roots: Roots, live: Live, now: Live) -> list[str]:
        """Return a line per pack that would be written anew if *live* were all that is needed.

        *now*: what is needed today.  Changes nothing.  Raises CkptfsError, OSError in doubt.
        """
        halves = await self._find(roots, live, now)
        halves.sort(key=lambda half: (-half.dead_bytes, half.name))
        lines = [f"pack {half.name}: {_verdict(half)}" for half in halves[:NAMED_MAX]]
        if len(halves) > NAMED_MAX:
            freed = sum(half.dead_bytes for half in halves[NAMED_MAX:])
            lines.append(f"{len(halves) - NAMED_MAX} more such packs: {freed} bytes less")
        return lines

    async def run(self, pace: Pace) -> PacksReport:
        """Write packs anew for at most TURN_S.  Raises CkptfsError, OSError in doubt."""
        report = PacksReport()
        roots, first = await self._mark()
        halves = await self._find(roots, first)
        if not halves:
            return report
        await pace(0)  # so that no version is in work that was begun before
        now_s = int(self._wall_s())
        epoch = await trio.to_thread.run_sync(self._garbage.raise_epoch, now_s)
        _, second = await self._mark()
        again = await trio.to_thread.run_sync(self._compaction.again, halves, second.holders)
        going = sorted(filter(_verdict, again), key=lambda half: -half.dead_bytes)
        end_s = trio.current_time() + TURN_S
        for half in going:
            report.more = trio.current_time() > end_s
            await pace(0)
            report.waits = self._garbage.older_than(epoch)
            if report.more or report.waits:
                break
            await self._one(half, (first, second), report, pace)
        return report

    async def _find(self, roots: Roots, live: Live, now: Live | None = None) -> list[HalfDead]:
        """Return what is worth it; *now*: only say so, *live* is what would be needed then."""

        def is_worth(held_bytes: int, live_bytes: int) -> bool:
            return bool(pack_verdict(held_bytes, live_bytes))

        def find() -> list[HalfDead]:
            going = None
            if now:
                manifests = set(now.holders.manifests) - set(live.holders.manifests)
                going = joined(map(self._garbage.packs_in, manifests))
            return self._compaction.find(live.holders, roots.sessions, is_worth, going)

        return await trio.to_thread.run_sync(find)

    async def _one(
        self, half: HalfDead, marks: Sequence[Live], report: PacksReport, pace: Pace
    ) -> None:
        """Write one pack anew; why not goes into the report."""
        try:
            freed = await self._rewrite(half, marks, pace)
        except StoreFull:
            report.left[half.name] = f"there is no room for the {half.live_bytes} bytes it keeps"
        except (CkptfsError, OSError) as error:
            report.left[half.name] = self._sentence(error)
        else:
            report.freed_bytes += freed
            report.packs += 1
            log.info("pack %s takes %d bytes less: %s", half.name, freed, _verdict(half))
            return
        log.warning("pack %s stays as it is: %s", half.name, report.left[half.name])

    async def _rewrite(self, half: HalfDead, marks: Sequence[Live], pace: Pace) -> int:
        """Return the bytes freed.  Raises CkptfsError, OSError: the pack is as it was."""
        compaction, pack = self._compaction, names_of([half.name])
        await pace(0)
        promise = compaction.reserve(half)
        try:
            made = await _paced(partial(compaction.write, half), pace)
            try:
                named = {name for live in marks for name in live.holders.of(pack)}
                await _paced(partial(compaction.prove, made, named), pace)
                await pace(0)
                await self._still_dead(half)
                return await trio.to_thread.run_sync(compaction.replace, made)
            except BaseException:
                compaction.discard(half.name)
                raise
        finally:
            promise.release()

    async def _still_dead(self, half: HalfDead) -> None:
        """Raise unless nothing but the live pages of a pack is needed."""
        _, live = await self._mark()
        (now,) = await trio.to_thread.run_sync(self._compaction.again, [half], live.holders)
        if now.alive != half.alive:
            raise Busy(f"a page of pack {half.name} is needed that was not; report it")
        if not live.needs(Item("packs", half.name)):
            raise TryAgain(f"pack {half.name} is needed no more")


def _verdict(half: HalfDead) -> str:
    return pack_verdict(half.held_bytes, half.live_bytes)


async def _paced(call: Callable[[Step], T], pace: Pace) -> T:
    """Return what *call* does in a thread; *pace* is awaited before each MiB it moves."""

    def step(size: int) -> None:
        trio.from_thread.run(pace, size)

    return await trio.to_thread.run_sync(call, step)
