"""A store that holds one of everything, and the list of the kinds of things it holds.

What is documented of damage to each kind stands in `KINDS`; `damage` tries it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ckptfs.errors import Corrupt
from ckptfs.ids import Version
from ckptfs.store import layout
from ckptfs.store.sessions import begin_session

from .calls import ProofCalls
from .scenario import flip, footer_of
from .scenarios import no_room_for_directories
from .world import A, B, World, key_of

COPIED = ("a1", "a2", "a3")  # whole on the volume, too
HURT = "b9"  # damaged, known to be, in quarantine; shares nothing with what is whole
THINNED = ("b10", "b11", "b12", "b13", "b14")  # whose first pack is a sparse one now
ASIDE = "b5"  # what of it was condemned
PLAIN_TRASH, FLAT_TRASH = "a4", "b2"
MISSED = "a5"  # removed for good while the volume was away, which still has it


async def build(world: World) -> None:
    """Fill the store."""
    calls = ProofCalls(world.top)
    world.calls = calls
    store = world.open()
    await world.save(HURT)
    flip(newest(world.directory, "packs/??/*"))
    store.close()
    world.open()
    assert await world.verify(HURT), "the damage was not found"
    await thin_out(world)
    for word in ("b1", "b2", ASIDE, *COPIED, PLAIN_TRASH, MISSED):
        await world.save(word)
    world.remove(PLAIN_TRASH)
    calls.plan = no_room_for_directories
    world.remove(FLAT_TRASH)
    calls.plan = lambda *_: None
    await leave_markers(world)
    await copy_job_a(world)
    await set_aside(world)
    begin_session(world.directory, calls, A, Version(7), expect_bytes=0, now_ns=0, epoch=0)
    (world.directory / "packs/open" / f"{'0' * 32}.0").write_bytes(b"x" * 5000)
    world.close()


async def thin_out(world: World) -> None:
    """Leave a sparse pack: the others that needed it were removed."""
    *before, _stays = THINNED
    for word in THINNED:
        await world.save(word)
    for word in before:
        world.remove(word, trash_s=0)
    world.now_s += 2
    report = await world.collect()
    assert report.packs, f"no pack was written anew: {report}"


def newest(directory: Path, pattern: str) -> Path:
    """Return the file that was written last."""
    return max(directory.glob(pattern), key=lambda path: path.stat().st_mtime_ns)


async def leave_markers(world: World) -> None:
    """Leave everything that lies beside heads."""
    world.store.pin(A, Version(1), True)
    await world.verify("a2")
    await world.store.sums(A, Version(2))
    world.store.keep_scrub_record(b'{"started_ns": 5, "damaged": []}')


async def copy_job_a(world: World) -> None:
    """Copy one job, not the other."""
    await world.add_volume("b")
    await world.store.copies.round({A: 2, B: 1}, pace)


async def pace(_bytes: int = 0) -> None:
    """Let the next object be copied at once."""


async def set_aside(world: World) -> None:
    """Leave condemned objects: a version begun before is still being written, then gives up."""
    job, _ = key_of(ASIDE)
    ingest = world.store.begin(A, Version(9), expect_bytes=0)
    world.remove(ASIDE, trash_s=0)
    world.remove(MISSED, trash_s=0)
    world.now_s += 1
    (world.top / "b").rename(world.top / "away")
    report = await world.collect()
    (world.top / "away").rename(world.top / "b")
    assert report.waiting, f"nothing of {job} is condemned: {report}"
    await ingest.abort()


@dataclass(frozen=True)
class Kind:
    """One kind of object.  *find*: the objects of this kind in a museum.

    *refused*: the store does not open, and says why.  *needed*: without a good copy, versions that
    need it cannot be read.  *shown*: `ckptfs check` finds any damage.  *copied*: there is a copy.
    *gone*: deleted or replaced, a version is no longer seen.
    """

    name: str
    find: Callable[[Path], Iterable[Path]]
    result: str
    refused: bool = False
    needed: bool = False
    shown: bool = False
    copied: bool = False
    gone: bool = False


def below(pattern: str) -> Callable[[Path], Iterable[Path]]:
    """Return what finds the files of a pattern below the top."""
    return lambda top: sorted(path for path in top.glob(pattern) if path.is_file())


def objects(place: str, suffix: str, *, copied: bool) -> Callable[[Path], Iterable[Path]]:
    """Return what finds objects of the store that have a copy, or have none and are alive."""

    def find(top: Path) -> Iterable[Path]:
        copies = {path.name for path in top.glob(f"b/{place}/??/*")}
        for path in sorted((top / "store").glob(f"{place}/??/*")):
            is_kind = layout.object_name("tables" if suffix else "packs", path.name)
            if is_kind and (path.name in copies) == copied:
                yield path

    return find


def sparse(top: Path) -> Iterable[Path]:
    """Return the sparse packs of the store."""
    for path in objects("packs", "", copied=False)(top):
        with contextlib.suppress(Corrupt):  # one that was damaged before
            if footer_of(path).present is not None:
                yield path


KINDS = (
    Kind("FORMAT", below("store/FORMAT"), "refused with a sentence", refused=True),
    Kind("key of the heads", below("store/keys/signing.key"), "refused", refused=True),
    Kind("key of the pages", below("store/keys/pages.key"), "refused", refused=True),
    Kind(
        "pack with a copy",
        objects("packs", "", copied=True),
        "EIO or bytes from the copy; mended from it",
        needed=True,
        copied=True,
    ),
    Kind(
        "pack without a copy",
        objects("packs", "", copied=False),
        "EIO for its blocks, shown by check; the next version is whole",
        needed=True,
        shown=True,
    ),
    Kind("sparse pack", sparse, "as any other without a copy", needed=True, shown=True),
    Kind(
        "manifest with a copy",
        objects("manifests", "", copied=True),
        "EIO or bytes from the copy; mended from it",
        needed=True,
        copied=True,
    ),
    Kind(
        "manifest without a copy",
        objects("manifests", "", copied=False),
        "EIO for its version, shown by check; the collector deletes nothing",
        needed=True,
        shown=True,
    ),
    Kind(
        "page table",
        objects("manifests", ".pages", copied=False),
        "reads do not need it; shown by check, made again by repair",
    ),
    Kind(
        "head with a copy",
        below("store/heads/a.1/[123]"),
        "EIO for its version, mended from the copy; deleted: not seen",
        needed=True,
        copied=True,
        gone=True,
    ),
    Kind(
        "head without a copy",
        below("store/heads/b.2/1"),
        "EIO for its version, shown by check; the collector deletes nothing",
        needed=True,
        shown=True,
        gone=True,
    ),
    Kind("pin", below("store/heads/*/*.pin"), "a pin has no content; deleted: not pinned"),
    Kind("SHA256SUMS", below("store/heads/*/*.sums"), "proved by its hash, else computed again"),
    Kind("time of verification", below("store/heads/*/*.verified"), "verified again"),
    Kind("damage marker", below("store/heads/*/*.damage"), "still damaged; deleted: found again"),
    Kind("quarantine marker", below("store/packs/quarantine/*"), "has no content; deleted: again"),
    Kind("session", below("store/sessions/*"), "ended: its writer is gone"),
    Kind("open pack", below("store/packs/open/*"), "removed: its writer is gone"),
    Kind("removed head", below("store/trash/[0-9]*/*"), "no undelete; the collector stops"),
    Kind("removed head on a full disk", below("store/trash/[0-9]*.*"), "the same"),
    Kind("condemned object", below("store/packs/condemned/*/*"), "unlinked in its time"),
    Kind("record of the scrub", below("store/scrub.json"), "the run begins anew"),
    Kind("record of the collector", below("store/collector.json"), "epochs from the condemned"),
    Kind("record of what went", below("store/gone.json"), "older copies stay on the volumes"),
    Kind("record of the volumes", below("store/volumes.json"), "no copies, said in ctl/health"),
    Kind("index of the heads", below("store/heads.index"), "the heads are read"),
    Kind("mark of a volume", below("b/VOLUME"), "failing or missing: not used"),
    Kind("pack on a volume", below("b/packs/??/*"), "not used; the store is whole"),
    Kind("manifest on a volume", below("b/manifests/??/*"), "the same"),
    Kind("head on a volume", below("b/heads/*/*"), "the same"),
)
