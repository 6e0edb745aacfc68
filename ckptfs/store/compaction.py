"""Packs of which little is alive, and how one is written anew without its dead pages.

The live pages stay where they lie and the pack keeps its name, so no manifest and no head changes:
it becomes a sparse file.  What is written goes to a temporary file, is synced, read back past the
page cache, held against its checksums, and every live page against a block that a manifest names;
only then it is renamed over the old file, which is there until that moment.  Whoever has the old
one open reads on in it.

Nothing here decides; everything blocks.  In doubt the pack stays as it is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import Busy, Corrupt, NotFound
from .blocks import BlockLoader, PackFile, PackFiles
from .counting import taken_bytes
from .damage import DamageBook
from .index import PACK_PAGES
from .liveness import Holders, live_pages
from .manifest import Manifest, ManifestFile
from .mending import Patchwork
from .object_names import Names, among, each_once, joined, names_of, without
from .pack_format import FOOTER_MAX, REGION, Footer, read_tail, sparse_tail
from .pages import BLOCK, BLOCK_PAGES, PAGE, block_count, region_checksum
from .receiving import SYNC_EVERY, Step, prove_pack, read_part, write_filled
from .space import Promise
from .sparse_format import RECORD_MAX, Pages
from .superblock import SPARSE, Superblock, demand
from .syscalls import Syscalls
from .volume import LocalVolume

# What one collection looks at, the rest is the next one's: pages of manifests gone through (32 Mi
# are 128 GiB of versions), packs opened, and packs found, whose flags take 64 KiB each.
LOOK_PAGES = 32 << 20
LOOK_PACKS = 1 << 14
FOUND_MAX = 256
REGION_PAGES = REGION // PAGE
TAIL_MAX = FOOTER_MAX + RECORD_MAX + PAGE  # bytes behind the pages


@dataclass(frozen=True, slots=True)
class HalfDead:
    """A pack that holds pages which nothing needs."""

    name: str
    pages: Pages  # one flag per page of the pack: alive
    held: int  # pages that are in the file, alive or not; the header counts

    @property
    def alive(self) -> int:
        """How many pages are alive."""
        return int(np.count_nonzero(self.pages))

    @property
    def held_bytes(self) -> int:
        """Bytes of the pages in the file."""
        return self.held * PAGE

    @property
    def live_bytes(self) -> int:
        """Bytes that a rewritten pack takes, without what goes behind the pages."""
        return self.alive * PAGE

    @property
    def dead_bytes(self) -> int:
        """Bytes that rewriting the pack frees."""
        return self.held_bytes - self.live_bytes


@dataclass(slots=True)
class Rewritten:
    """A sparse pack that has not its name yet."""

    half: HalfDead
    path: Path  # of the temporary file
    inode: int  # of the file it was made of
    before_bytes: int  # that file's, on the disk


class Compaction:
    """See the top of this file.  The collector's threads, one at a time."""

    def __init__(
        self,
        block: Superblock,
        calls: Syscalls,
        *,
        volume: LocalVolume,
        packs: PackFiles,
        damage: DamageBook,
        read: Callable[[str], Manifest],
        promise: Callable[[int, Callable[[], int]], Promise],
    ) -> None:
        self._block, self._calls, self._volume = block, calls, volume
        self._packs, self._damage = packs, damage
        self._read, self._promise = read, promise
        # packs that may have lost pages since they were last looked at, sorted; None: every one
        self._thinned: Names | None = None
        self._lately: list[Names] = []  # more of them

    # -- which packs ------------------------------------------------------------------------

    def thin(self, packs: Names | None) -> None:
        """Have these packs looked at, None: every one; a manifest that named them is gone."""
        if packs is None:
            self._thinned = None
        elif self._thinned is not None:
            self._lately.append(packs)

    def find(
        self,
        holders: Holders,
        writing: Collection[str],
        is_worth: Callable[[int, int], bool],
        going: Names | None = None,
    ) -> list[HalfDead]:
        """Return packs that are worth it, as far as one collection looks.

        *holders*: manifests that roots name; *writing*: sessions of versions in work, whose packs
        stay.  *is_worth*: bytes in the file, bytes alive.
        *going*: only say what would be found if the manifests went that name these packs.
        Raises Corrupt: nothing is known.
        """
        wanted = self._wanted(holders.packs, going)
        found: list[HalfDead] = []
        pages = packs = 0
        for batch in holders.batches(wanted):
            flags, seen = live_pages(batch, holders, self._read)
            pages, packs = pages + seen, packs + len(batch)
            done: list[str] = []
            for name, alive in zip(batch, flags, strict=True):
                half = self._half(name, alive, writing)
                if half and is_worth(half.held_bytes, half.live_bytes):
                    found.append(half)
                else:
                    done.append(name)
            if going is None:
                self.settle(*done)
            if pages > LOOK_PAGES or packs > LOOK_PACKS or len(found) > FOUND_MAX:
                break
        return found

    def _wanted(self, live: Names, going: Names | None) -> Names:
        """Return those *live* packs that are to be looked at."""
        thinned = self._thinned
        if thinned is None:
            wanted = live
        else:
            thinned = each_once(joined([thinned, *self._lately]))
            wanted = thinned[among(thinned, live)]
        if going is None:
            self._thinned, self._lately = wanted, []
            return wanted
        return each_once(joined([wanted, going[among(going, live)]]))

    def again(self, halves: Collection[HalfDead], holders: Holders) -> list[HalfDead]:
        """Return the same packs with what is alive by *holders* alive too.  Raises Corrupt."""
        names = [half.name for half in halves]
        flags, _ = live_pages(names, holders, self._read)
        return [
            HalfDead(half.name, half.pages | now[: len(half.pages)], half.held)
            for half, now in zip(halves, flags, strict=True)
        ]

    def _half(self, name: str, alive: Pages, writing: Collection[str]) -> HalfDead | None:
        """Return what is known of a pack, None for one that is to be left alone."""
        if not self._damage.is_sound(name):
            return None
        try:
            fd, footer = self._volume.open_pack(name)
        except (Corrupt, NotFound):
            return None  # scrub and repair find it
        self._calls.close(fd)
        if footer.session.hex() in writing or alive[footer.page_end :].any():
            return None
        held = footer.page_end if footer.present is None else np.count_nonzero(footer.present)
        return HalfDead(name, alive[: footer.page_end].copy(), int(held))

    # -- writing one anew -------------------------------------------------------------------

    def reserve(self, half: HalfDead) -> Promise:
        """Promise the room that the new file takes beside the old one.  Trio thread.

        Raises StoreFull, Degraded.  Release it.
        """
        return self._promise(half.live_bytes + TAIL_MAX, lambda: 0)

    def write(self, half: HalfDead, step: Step) -> Rewritten:
        """Write the sparse pack beside the whole one, durably, and prove it by its checksums.

        *step* is told each MiB before it is moved.  Raises Corrupt (then the pack is in
        quarantine: it does not prove itself), OSError, and what *step* raises; nothing is left.
        """
        temporary = self._temporary(half.name)
        self._calls.unlink(temporary)
        try:
            source, footer = self._volume.open_pack(half.name)
            try:
                made = self._write(half, source, footer, temporary, step)
            finally:
                self._calls.close(source)
            # holes are not read from the disk
            charged = partial(_charge, step, half.alive / len(half.pages))
            proved = prove_pack(self._calls, temporary, half.name, charged)
            if proved.present is None or not np.array_equal(proved.present, half.pages):
                raise Busy(f"pack {half.name} was not written as it was meant to be")
            return made
        except BaseException:
            self.discard(half.name)
            raise

    def _write(
        self, half: HalfDead, source: int, footer: Footer, temporary: Path, step: Step
    ) -> Rewritten:
        status = os.fstat(source)
        body, _ = read_tail(partial(read_part, self._calls, source), status.st_size, half.name)
        regions: list[bytes] = []
        fd = self._calls.create(temporary, mode=0o400)
        try:
            for number in range(len(footer.regions)):
                if half.pages[number * REGION_PAGES : (number + 1) * REGION_PAGES].any():
                    step(REGION)
                    regions.append(self._region(half, source, footer, fd, number))
                else:  # of no concern whether what goes is whole
                    nothing = bytes(min(REGION, footer.data_end - number * REGION))
                    regions.append(region_checksum(nothing))
            tail = sparse_tail(body, footer, half.pages, tuple(regions))
            self._calls.pwrite(fd, tail, footer.data_end)
            self._calls.fsync(fd)
        finally:
            self._calls.close(fd)
        return Rewritten(half, temporary, status.st_ino, taken_bytes(status))

    def _region(
        self, half: HalfDead, source: int, footer: Footer, target: int, number: int
    ) -> bytes:
        """Copy the live pages of a region; return its checksum from now on."""
        start = number * REGION
        buffer = memoryview(bytearray(min(REGION, footer.data_end - start)))
        self._calls.forget_cache(source, start, len(buffer))
        whole = self._calls.pread_into(source, buffer, start) == len(buffer)
        if not whole or region_checksum(buffer) != footer.regions[number]:
            self._damage.quarantine(half.name)
            raise Corrupt(f"region {number} of pack {half.name} does not match its checksum")
        rows = np.frombuffer(buffer, dtype=np.uint8).reshape(-1, PAGE)
        first = start // PAGE
        rows[~half.pages[first : first + len(rows)]] = 0
        write_filled(self._calls, target, buffer, start)
        if (start + REGION) % SYNC_EVERY == 0:
            self._calls.fdatasync(target)  # so that little is left for one long sync
        return region_checksum(buffer)

    def prove(self, made: Rewritten, manifests: Iterable[str], step: Step) -> None:
        """Hold every live page of the new file against a block that holds it.

        *manifests*: those that name the pack.
        Raises Corrupt: a block does not prove itself, with this pack or for another reason;
        Busy: a page counts as alive that no block holds.
        """
        half = made.half
        missing = half.pages.copy()
        missing[0] = False
        fd = self._calls.open_read(made.path)
        try:
            read = partial(read_part, self._calls, fd)
            _, footer = read_tail(read, os.fstat(fd).st_size, half.name)
        except BaseException:
            self._calls.close(fd)
            raise
        pack = PackFile(self._calls, fd, footer)  # closes it
        loader = BlockLoader(Patchwork(self._packs, {half.name: OnePack(pack)}))
        for manifest_id in manifests:
            if missing.any():
                manifest = self._read(manifest_id)
                number = manifest.packs.index(half.name)
                for file in manifest.files:
                    self._prove_file(loader, manifest, file, number, missing, step)
        if missing.any():
            raise Busy(f"no block holds page {int(missing.argmax())} of pack {half.name} any more")

    def _prove_file(
        self,
        loader: BlockLoader,
        manifest: Manifest,
        file: ManifestFile,
        number: int,
        missing: Pages,
        step: Step,
    ) -> None:
        """Load the blocks that hold pages nobody has proved yet; take these out of *missing*."""
        first = number * PACK_PAGES
        for block in range(block_count(file.size_bytes)):
            places = file.places[block * BLOCK_PAGES : (block + 1) * BLOCK_PAGES]
            here = (places >= max(first, 1)) & (places < first + len(missing))
            pages = places[here] - np.uint32(first)
            if missing[pages].any():
                step(BLOCK)
                loader.load(manifest, file, block, fresh=True)
                missing[pages] = False

    def replace(self, made: Rewritten) -> int:
        """Put the sparse pack in the place of the other; return the bytes freed.

        Raises Busy (the pack was changed meanwhile, or hardly anything would be freed), OSError;
        then either file is in its place, and both are whole.
        """
        name, path = made.half.name, self._volume.path("packs", made.half.name)
        freed = made.before_bytes - taken_bytes(os.stat(made.path))
        if os.stat(path).st_ino != made.inode or not self._damage.is_sound(name):
            raise Busy(f"pack {name} was changed while it was written anew")
        if 2 * freed < made.half.dead_bytes:
            self.settle(name)
            raise Busy(f"this file system keeps the dead pages of pack {name} all the same")
        demand(self._block, self._calls, SPARSE)
        self._calls.rename(made.path, path)
        self._packs.drop(name)
        self.settle(name)
        self._calls.fsync_directory(path.parent)
        return freed

    def settle(self, *names: str) -> None:
        """Look no more at packs until something that they hold may have died."""
        if self._thinned is not None:
            self._thinned = without(self._thinned, names_of(names))

    def discard(self, name: str) -> None:
        """Remove what was not finished, if the disk lets us; else the collector does later."""
        with contextlib.suppress(OSError):
            self._calls.unlink(self._temporary(name))

    def _temporary(self, name: str) -> Path:
        path = self._volume.path("packs", name)
        return path.with_name(f".{name}.sparse.tmp")  # not the one of a pack being fetched back


def _charge(step: Step, share: float, size: int) -> None:
    """Tell *step* of a share of the bytes."""
    step(int(size * share))


class OnePack:
    """A source of one open pack; see PackSource."""

    def __init__(self, pack: PackFile) -> None:
        self._pack = pack

    def get(self, pack_id: str) -> PackFile:
        """Return it."""
        return self._pack

    def drop(self, pack_id: str) -> None:
        """Do nothing: there is no other file to open."""
