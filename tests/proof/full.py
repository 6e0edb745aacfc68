"""A small ext4 of its own, filled to the last block in every phase, then freed again.

Removing works on a disk without a free byte, nothing half-made stays, and once there is room the
store goes on.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ckptfs.errors import CkptfsError, StoreFull
from ckptfs.ids import Version
from ckptfs.store.check import check
from tests.store_kit import UNIT, draft, write_file
from tests.system.small_disk import fill, remove

from .places import workplace
from .world import LIVE, TRASH, A, Shape, World, content

DISK_MIB = 256
SCALE = 150  # 8.6 MiB per version
Phase = Callable[[World, Path], Awaitable[None]]


@contextmanager
def small_disk() -> Iterator[Path]:
    """Mount an ext4 of `DISK_MIB` and return where.  Root only."""
    place = workplace()
    image, disk = place / "image", place / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_MIB << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
        shutil.rmtree(place)


async def refused(world: World, word: str) -> None:
    """Write a version for which there is no room."""
    try:
        await world.save(word)
    except StoreFull:
        world.note()
    else:
        raise AssertionError(f"{word} was taken by a disk without a free byte")


async def before_it_begins(world: World, disk: Path) -> None:
    """Fill it first: refused before the first byte."""
    fill(disk)
    await refused(world, "a4")


async def while_it_is_written(world: World, disk: Path) -> None:
    """Fill it when the version is half written."""
    files = content((A, 4), SCALE)
    ingest = world.store.begin(A, Version(4), expect_bytes=sum(map(len, files.values())))
    try:
        data = files["pages-1.img"]
        await write_file(ingest, UNIT, "pages-1.img", data[: len(data) // 2])
        fill(disk)
        await write_file(ingest, UNIT, "pages-2.img", data[len(data) // 2 :])
        await ingest.commit(draft(A, 4))
    except StoreFull:
        pass
    else:
        raise AssertionError("a version was committed on a disk without a free byte")
    finally:
        await ingest.abort()


async def before_the_commit(world: World, disk: Path) -> None:
    """Fill it when everything is written but the end."""
    ingest = world.store.begin(A, Version(4), expect_bytes=1 << 20)
    try:
        await write_file(ingest, UNIT, "core-1.img", b"4")
        fill(disk)
        await ingest.commit(draft(A, 4))
    except StoreFull:
        pass
    else:
        raise AssertionError("a version was committed on a disk without a free byte")
    finally:
        await ingest.abort()


async def while_marks_are_made(world: World, disk: Path) -> None:
    """Fill it, then do everything that leaves a mark: it says so, or does without."""
    fill(disk)
    assert await world.verify("a2") == []
    assert await world.store.sums(A, Version(2))
    for call in (
        lambda: world.store.pin(A, Version(1), True),
        lambda: world.store.keep_scrub_record(b"{}"),
        lambda: world.store.pin(A, Version(1), False),
    ):
        try:
            call()
        except StoreFull:
            continue


async def while_copies_are_made(world: World, disk: Path) -> None:
    """Fill it under a volume that lies on the same disk."""
    await world.add_volume("b")
    fill(disk)
    await world.replicate()
    rows = {row.name: row.state for row in world.store.copies.rows()}
    assert rows["b"] in {"full", "up"}, rows


async def while_it_is_brought_back(world: World, disk: Path) -> None:
    """Remove one, fill it, bring the version back or be told."""
    world.remove("a2")
    fill(disk)
    try:
        world.undelete("a2")
    except StoreFull:
        assert world.spec.of(TRASH)


PHASES: dict[str, Phase] = {
    "before it begins": before_it_begins,
    "while it is written": while_it_is_written,
    "before the commit": before_the_commit,
    "while marks are made": while_marks_are_made,
    "while copies are made": while_copies_are_made,
    "while it is brought back": while_it_is_brought_back,
}


async def fill_up(*, seed: int = 0) -> int:
    """Fill a disk in every phase; return how often."""
    with small_disk() as disk:
        for number, (name, phase) in enumerate(PHASES.items()):
            world = World(disk / f"{seed}-{number}", shape=Shape(scale=SCALE))
            try:
                await one_phase(world, phase, disk)
            except (AssertionError, CkptfsError, OSError) as error:
                raise AssertionError(f"full disk {name}: {error!r}") from error
            finally:
                world.close()
            shutil.rmtree(world.top)
    return len(PHASES)


async def one_phase(world: World, phase: Phase, disk: Path) -> None:
    """Fill the disk in one phase; delete at 100 %; free it; go on."""
    world.top.mkdir()
    world.open()
    for word in ("a1", "a2", "a3"):
        await world.save(word)
    await phase(world, disk)
    filler = disk / "somebody-elses-file"
    await world.read_all()
    assert not world.store.degraded()
    world.remove("a1", trash_s=0)
    world.now_s += 1
    report = await world.collect()
    assert report.doubt == "", report.doubt
    assert report.freed_bytes > 0, "nothing was freed on a full disk"
    await world.read_all()
    remove(filler)
    await world.save("a5")
    await world.read_all()
    world.close()
    left = [
        path for place in ("packs/open", "sessions") for path in (world.directory / place).iterdir()
    ]
    assert left == [], f"half-made: {left}"
    assert check(world.directory) == []
    world.open()
    seen = {(A, int(version)) for version in world.store.versions(A)}
    assert seen == set(world.spec.of(LIVE)), f"{seen}"
    await world.read_all()
