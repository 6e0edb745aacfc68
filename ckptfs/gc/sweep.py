"""Carrying out: what nothing refers to is set aside, and unlinked once that is certain.

    trash that is over → list, mark → epoch fence → list, mark again → set aside
    → grace → versions begun before the fence have ended → mark once more → unlink
    → the volumes, each for itself (`sweep_copies`)

Idempotent and resumable: after a crash at any point the next sweep finds the
condemned, or finds the garbage again.  Any doubt ends it with a reason, and
nothing more is deleted.  Bulk runs in a worker thread; the trio thread, and so
every writer, waits for the listing of the heads at most (10 000 versions: 33 ms).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import trio

from ..errors import CkptfsError, TryAgain
from ..store.copies import Copies
from ..store.copies_plan import Key
from ..store.garbage import Garbage
from ..store.roots import Condemned, Item, Live, Roots
from ..store.trash import Trashed
from .api import Pace, Report, at_once
from .decide import NEARLY_FULL, clock_doubt, is_ample, trash_verdict
from .sweep_copies import CopySweep
from .sweep_packs import PackSweep

log = logging.getLogger(__name__)
GRACE_S = 5.0  # between setting aside and unlinking
STAYS = "stays, as there is no room to note that it went"
BATCH = 64  # objects set aside at once: 64 renames and some fsyncs
EARLY_ROUNDS = 4  # in which the trash of a disk that is nearly full goes
TRIES = 3  # a version that is removed while it is marked makes the mark start over


@dataclass(slots=True)
class _Found:
    dead: set[Item]
    live: Live
    roots: Roots


class Sweep:
    """One store's collector.  See `gc.api.Sweeper`.

    *wall_s*, *uptime_s*: seconds since the epoch, and on a clock that nobody sets.  *room*: bytes
    free and in all; with it the trash of a disk that is nearly full goes oldest first, and only
    until enough is free.
    """

    def __init__(
        self,
        garbage: Garbage,
        *,
        wall_s: Callable[[], float],
        uptime_s: Callable[[], float],
        is_scarce: Callable[[], bool],
        room: Callable[[], tuple[int, int]] | None = None,
        copies: Copies | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        self._garbage, self._room = garbage, room
        self._wall_s, self._uptime_s, self._is_scarce = wall_s, uptime_s, is_scarce
        self._grace_s = grace_s
        self._copies = CopySweep(garbage, copies, sentence_of) if copies else None
        self._packs = PackSweep(garbage, self._mark, wall_s, sentence_of)
        self._believed = (wall_s(), uptime_s())
        self._turn = trio.Lock()

    async def plan(self, *, empty_trash: bool) -> tuple[list[tuple[Trashed, str]], int]:
        """Return (the trash with why each goes, "" for what stays; bytes that nobody needs now).

        Changes nothing.  Raises CkptfsError, OSError when in doubt.
        """
        async with self._turn:
            self._check_clock()
            entries = list(self._trash(empty_trash))
            found = await self._find({entry.path for entry, reason in entries if reason})
            free = await trio.to_thread.run_sync(
                lambda: sum(self._garbage.size_of(item) for item in found.dead)
            )
            return entries, free

    async def plan_volumes(self) -> list[str]:
        """Return what would happen on each volume.  Changes nothing."""
        return await self._copies.plan() if self._copies else []

    async def plan_packs(self, *, empty_trash: bool) -> list[str]:
        """See Sweeper."""
        async with self._turn:
            self._check_clock()
            going = {entry.path for entry, reason in self._trash(empty_trash) if reason}
            _, now = await self._mark()
            roots, live = await self._mark(going)
            return await self._packs.plan(roots, live, now)

    async def run(
        self,
        *,
        asked: bool,
        empty_trash: bool,
        tell: Callable[[int, int], None],
        pace: Pace = at_once,
    ) -> Report:
        """See Sweeper."""
        report = Report()
        async with self._turn:
            try:
                await self._run(report, empty_trash, tell)
                await self._thin_out(report, pace)
            except (CkptfsError, OSError) as error:
                report.doubt = sentence_of(error)
                log.warning("nothing more is collected: %s", error)
            if asked or not report.doubt:
                self._believed = (self._wall_s(), self._uptime_s())
                self._garbage.record.last_s = min(self._garbage.record.last_s, int(self._wall_s()))
        return report

    async def _run(
        self, report: Report, empty_trash: bool, tell: Callable[[int, int], None]
    ) -> None:
        self._check_clock()
        self._garbage.tidy()
        if self._told(self._garbage.trash.dropped()):
            self._garbage.trash.forget_names()
        going = [(entry, reason) for entry, reason in self._trash(empty_trash) if reason]
        early = [entry for entry, reason in going if reason == NEARLY_FULL] if self._room else []
        free_bytes = self._room()[0] if self._room else 0
        kept = {entry.path for entry in early}
        await self._round([row for row in going if row[0].path not in kept], report, tell)
        early.sort(key=lambda entry: entry.expires_s)
        step = -(-len(early) // EARLY_ROUNDS) or 1
        for at in range(0, len(early), step):
            if report.waiting or self._is_ample(free_bytes + report.freed_bytes):
                break
            batch = [(entry, NEARLY_FULL) for entry in early[at : at + step]]
            await self._round(batch, report, tell)
        report.freed_bytes += await trio.to_thread.run_sync(
            self._garbage.collect_leftovers, self._uptime_s()
        )
        await trio.to_thread.run_sync(self._garbage.note_end, int(self._wall_s()))
        if self._copies:
            found_there = await self._copies.run()
            report.freed_bytes += found_there.freed_bytes
            report.copies, report.doubts = found_there.objects, found_there.doubts

    async def _thin_out(self, report: Report, pace: Pace) -> None:
        """Write packs anew that are under half alive by now."""
        found = await self._packs.run(pace)
        report.freed_bytes += found.freed_bytes
        report.packs, report.packs_bytes = found.packs, found.freed_bytes
        report.left, report.unfinished = found.left, found.more
        report.waiting += found.waits
        if found.packs:
            await trio.to_thread.run_sync(self._garbage.recount)

    async def _round(
        self,
        going: Sequence[tuple[Trashed, str]],
        report: Report,
        tell: Callable[[int, int], None],
    ) -> None:
        """Drop heads of the trash, then take away what nobody needs."""
        # every doubt comes up before the first head goes
        await self._find(without={entry.path for entry, _ in going})
        told = self._told([(entry.job, entry.version) for entry, _ in going])
        trash = self._garbage.trash
        for entry, reason in going:
            keep_name = not told or trash.is_named(entry.job, entry.version)
            drop = partial(trash.drop, entry, keep_name=keep_name)
            gone = await trio.to_thread.run_sync(drop)  # two syncs each
            log.info("%s %d %s: %s", entry.job, entry.version, "goes" if gone else STAYS, reason)
        if going:
            self._garbage.trash.tidy()
        found = await self._find()
        if found.dead:
            await self._set_aside(found, report, tell)
        await self._unlink(report)

    def _told(self, going: Collection[Key]) -> bool:
        """Whether it is on record for the volumes that these versions go for good."""
        return not (going and self._copies) or self._copies.remember(going)

    def _is_ample(self, free_bytes: int) -> bool:
        """Whether enough is free; *free_bytes* by our own count, for a disk may be slow to tell."""
        if self._room is None:
            return False
        told_bytes, total_bytes = self._room()
        return is_ample(max(free_bytes, told_bytes), total_bytes)

    def _check_clock(self) -> None:
        doubt = clock_doubt(
            self._wall_s(), self._uptime_s(), self._believed, self._garbage.record.last_s
        )
        if doubt:
            raise TryAgain(f"{doubt}; when it is right, ask for a collection twice")

    def _trash(self, empty_trash: bool) -> Sequence[tuple[Trashed, str]]:
        now_s, scarce = int(self._wall_s()), self._is_scarce()
        return [
            (entry, trash_verdict(entry.expires_s, now_s, scarce=scarce, emptied=empty_trash))
            for entry in self._garbage.trash.entries()
        ]

    async def _find(self, without: Collection[Path] = ()) -> _Found:
        """List, then mark: what is listed and not marked is dead.  *without*: trash to ignore."""
        listed = await trio.to_thread.run_sync(self._garbage.listed)
        roots, live = await self._mark(without)
        dead = await trio.to_thread.run_sync(self._garbage.dead, listed, live, roots)
        return _Found(dead, live, roots)

    async def _mark(self, without: Collection[Path] = ()) -> tuple[Roots, Live]:
        """Return what must stay, as of now, and all that it refers to.  *without*: trash to ignore.

        Raises CkptfsError, OSError when in doubt.
        """
        for _ in range(TRIES):
            roots = await self._roots()
            kept = tuple(entry for entry in roots.trash if entry.path not in without)
            roots = replace(roots, trash=kept)
            try:
                return roots, await trio.to_thread.run_sync(self._garbage.mark, roots)
            except TryAgain:
                continue
        raise TryAgain("versions come and go too fast to be marked; it is tried again later")

    async def _roots(self) -> Roots:
        """Return what must stay from now on.

        The directories are listed in a worker thread; when a version came or went meanwhile that
        is done again, the last time where nothing can.
        """
        for _ in range(TRIES):
            moment = self._garbage.moment()
            named = await trio.to_thread.run_sync(self._garbage.named)
            if self._garbage.moment() == moment:
                return self._garbage.roots(named)
        return self._garbage.roots()

    async def _set_aside(
        self, first: _Found, report: Report, tell: Callable[[int, int], None]
    ) -> None:
        now_s = int(self._wall_s())
        epoch = await trio.to_thread.run_sync(self._garbage.raise_epoch, now_s)
        again = await self._find()
        going = sorted(first.dead & again.dead)
        for at in range(0, len(going), BATCH):
            tell(at, len(going))
            batch = going[at : at + BATCH]
            await trio.to_thread.run_sync(self._garbage.condemn, batch, epoch)
        report.objects += len(going)
        await trio.sleep(self._grace_s)
        await trio.to_thread.run_sync(self._garbage.recount)  # not by who asks next

    async def _unlink(self, report: Report) -> None:
        for condemned in await trio.to_thread.run_sync(self._garbage.condemned):
            if self._garbage.older_than(condemned.epoch):
                report.waiting += len(condemned.items)
                continue
            found = await self._find()
            freed, restored = await self._destroy(condemned, found.live)
            report.freed_bytes += freed
            report.restored += restored

    async def _destroy(self, condemned: Condemned, live: Live) -> tuple[int, int]:
        freed, restored = await trio.to_thread.run_sync(self._garbage.destroy, condemned, live)
        if restored:
            log.error("%d objects of epoch %d were needed after all", restored, condemned.epoch)
        return freed, restored


def sentence_of(error: CkptfsError | OSError) -> str:
    """Return what stands in the way, for people.  Pure."""
    if isinstance(error, OSError):
        return f"{error.filename or 'the store'}: {(error.strerror or str(error)).lower()}"
    return str(error)
