"""Packs under half alive are written anew: what goes, what stays, every doubt, beside everybody."""

from __future__ import annotations

import functools
import json
import os
import struct
from pathlib import Path

import pytest
import trio
import trio.testing

from ckptfs.errors import Busy
from ckptfs.gc.decide import PACK_GAIN_MIN, pack_verdict
from ckptfs.ids import JobId, Version
from ckptfs.store.check import check
from ckptfs.store.counting import taken_bytes
from ckptfs.store.store import open_store
from ckptfs.store.superblock import SPARSE
from tests.store_kit import (
    JOB,
    MIB,
    PAGE,
    UNIT,
    draft,
    load,
    noise,
    save,
    write_file,
)
from tests.unit.test_gc_sweep import World

pytestmark = pytest.mark.slow
SIZE = 2 * MIB
STAY = 64  # pages
NAME = "pages-1.img"


@functools.cache
def image(version: int) -> bytes:
    """Each version writes every fourth page but the first ones, which stay for ever."""
    if version == 1:
        return noise(SIZE)
    data = bytearray(image(version - 1))
    for page in range(STAY + version % 4, SIZE // PAGE, 4):
        data[page * PAGE : page * PAGE + 8] = struct.pack("<II", version, page)
    return bytes(data)


async def history(world: World, *, keep: int = 1, versions: int = 4, job=JOB) -> None:
    """Write versions and remove all but the last *keep*, for good."""
    for number in range(1, versions + 1):
        await save(world.store, {NAME: image(number)}, version=number, job=job)
    for number in range(1, versions + 1 - keep):
        world.store.remove(job, Version(number), trash_s=0)


def packs(directory: Path) -> dict[str, int]:
    """Return what each pack takes of the disk."""
    found = [path for path in directory.glob("packs/??/*") if len(path.name) == 40]
    return {path.name: taken_bytes(path.stat()) for path in found}


def temporaries(directory: Path) -> list[str]:
    return [path.name for path in directory.glob("packs/??/.*")]


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.store.close()


def test_what_is_worth_it():
    assert pack_verdict(100 * MIB, 50 * MIB) == ""
    assert pack_verdict(2 * PACK_GAIN_MIN - 2, PACK_GAIN_MIN - 1) == ""
    assert pack_verdict(100 * MIB, 49 * MIB) == (
        "49 % of its 104857600 bytes are needed: written anew it takes 53477376 less"
    )


async def test_dead_pages_go_and_every_byte_stays(world, autojump_clock):
    await history(world)
    before, used = packs(world.directory), world.store.usage().stored_bytes
    report = await world.collect()
    assert (report.packs, report.left, report.doubt) == (1, {}, "")
    after = packs(world.directory)
    first = max(before, key=lambda name: before[name])  # the first version's: all of the image
    assert after[first] < before[first] * 0.4
    assert report.packs_bytes == before[first] - after[first]
    assert report.freed_bytes > report.packs_bytes
    assert world.store.usage().stored_bytes <= used - report.packs_bytes
    assert world.store.usage().hollow_bytes == report.packs_bytes
    assert await load(world.store, NAME, version=4) == image(4)
    assert await world.store.verify(JOB, Version(4)) == []
    assert check(world.directory) == []
    assert (await world.collect()).packs == 0
    assert temporaries(world.directory) == []
    world.store.close()
    again = World(world.directory)
    assert (await again.collect()).packs == 0
    assert await load(again.store, NAME, version=4) == image(4)
    again.store.close()


async def test_a_dry_run_says_which_and_how_much_and_changes_nothing(world, autojump_clock):
    await history(world)
    for empty_trash in (False, True):
        lines = await world.sweep.plan_packs(empty_trash=empty_trash)
        assert len(lines) == 1
        assert " % of its" in lines[0]
    before = packs(world.directory)
    assert (await world.collect()).packs == 1
    freed = int(lines[0].split("takes ")[1].split()[0])
    name = lines[0].split()[1].rstrip(":")
    assert before[name] - packs(world.directory)[name] <= freed
    assert before[name] - packs(world.directory)[name] > freed - 8 * PAGE
    assert await world.sweep.plan_packs(empty_trash=True) == []


async def test_what_is_in_the_trash_keeps_its_pages(world, autojump_clock):
    await history(world, keep=4)
    for number in (1, 2, 3):
        world.store.remove(JOB, Version(number), trash_s=1000)
    assert (await world.collect()).packs == 0
    assert await world.sweep.plan_packs(empty_trash=False) == []
    assert len(await world.sweep.plan_packs(empty_trash=True)) == 1
    for number in (1, 2, 3):
        world.store.undelete(JOB, Version(number))
        assert await load(world.store, NAME, version=number) == image(number)


async def test_a_pack_is_written_anew_more_than_once(world, autojump_clock):
    await history(world, keep=3, versions=6)
    sizes = []
    for number in (4, 5, 6):
        report = await world.collect()
        sizes.append(sum(packs(world.directory).values()))
        assert report.left == {}
        for left in range(number, 7):
            assert await load(world.store, NAME, version=left) == image(left)
        if number < 6:
            world.store.remove(JOB, Version(number), trash_s=0)
    assert sizes == sorted(sizes, reverse=True)
    assert check(world.directory) == []


async def test_the_next_version_does_not_hit_what_became_a_hole(world, autojump_clock):
    """Version 5 brings back pages of version 1 that are dead, and keeps those that are not."""
    await history(world)
    await world.collect()
    await save(world.store, {NAME: image(1)}, version=5)
    assert await load(world.store, NAME, version=5) == image(1)
    head = world.store.head(JOB, Version(5))
    assert SIZE // 2 < head.stored_bytes < SIZE
    assert check(world.directory) == []


@pytest.mark.wrong_store("a page that is needed was made a hole")
async def test_a_hole_that_a_manifest_names_is_never_a_hit(world, autojump_clock):
    """What cannot be: but a page that is not there must not be relied on once more."""
    await history(world, keep=1, versions=2)
    pack = max(packs(world.directory), key=lambda name: packs(world.directory)[name])
    compaction = world.store.garbage.compaction
    holders = world.store.garbage.mark(world.store.garbage.roots()).holders
    halves = compaction.find(holders, (), lambda _held, _alive: True)
    (half,) = (half for half in halves if half.name == pack)
    half.pages[20:40] = False  # a mistake
    made = await trio.to_thread.run_sync(compaction.write, half, lambda _size: None)
    compaction.replace(made)
    await save(world.store, {NAME: image(2)}, version=3)
    assert await load(world.store, NAME, version=3) == image(2)
    assert world.store.head(JOB, Version(3)).stored_bytes > 10 * PAGE


async def test_a_mistake_in_what_is_alive_is_found_before_anything_is_lost(world, autojump_clock):
    await history(world)
    compaction, right = world.store.garbage.compaction, world.store.garbage.compaction.again
    before = packs(world.directory)

    def wrong(halves, manifests):
        found = right(halves, manifests)
        for half in found:
            half.pages[50:60] = False
        return found

    compaction.again = wrong
    report = await world.collect()
    assert report.packs == 0
    assert "does not match its hash" in "".join(report.left.values())
    assert packs(world.directory)[next(iter(report.left))] == before[next(iter(report.left))]
    assert temporaries(world.directory) == []
    assert await load(world.store, NAME, version=4) == image(4)


async def test_whoever_has_the_old_file_open_reads_on_in_it(world, autojump_clock):
    await history(world)
    reader = world.store.open(JOB, Version(4), UNIT, NAME)
    assert await reader.read(0, 100) == image(4)[:100]
    assert (await world.collect()).packs == 1
    parts = []
    while part := await reader.read(sum(map(len, parts)), MIB):
        parts.append(bytes(part))
    reader.close()
    assert b"".join(parts) == image(4)


async def test_versions_written_and_read_meanwhile(world, autojump_clock):
    """A job goes on while its old packs are written anew, and another one reads."""
    await history(world)

    async def writing():
        for number in range(5, 12):
            await save(world.store, {NAME: image(number)}, version=number)
            assert await load(world.store, NAME, version=number) == image(number)
            world.store.remove(JOB, Version(number - 1), trash_s=0)

    rewritten = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writing)
        for _ in range(8):
            report = await world.collect()
            rewritten += report.packs
            assert report.restored == 0
    rewritten += (await world.collect()).packs
    assert rewritten
    assert await load(world.store, NAME, version=11) == image(11)
    assert check(world.directory) == []


async def test_it_waits_for_versions_begun_before_the_fence(world, autojump_clock):
    await history(world)
    ingest = world.store.begin(JobId("b.2"), Version(1), expect_bytes=MIB)
    report = await world.collect()
    assert report.packs == 0
    assert report.waiting > 0
    await write_file(ingest, UNIT, NAME, noise(MIB, seed=5))
    await ingest.commit(draft(JobId("b.2"), 1))
    assert (await world.collect()).packs == 1


async def test_it_gives_way_before_each_mebibyte(world, autojump_clock):
    await history(world)
    sizes = []
    arrived, free = trio.Event(), trio.Event()

    async def pace(size):
        sizes.append(size)
        if size:
            arrived.set()
            await free.wait()

    async with trio.open_nursery() as nursery:

        async def collect():
            report = await world.sweep.run(
                asked=True, empty_trash=False, tell=lambda *_: None, pace=pace
            )
            assert report.packs == 1

        nursery.start_soon(collect)
        await arrived.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert sizes[-1] == sum(sizes) == MIB
        free.set()
    assert max(sizes) <= MIB
    assert sum(sizes) > 2 * SIZE


async def test_a_collection_that_is_cancelled_leaves_the_pack_whole(world, autojump_clock):
    await history(world)
    count = 0

    async def pace(_size):
        nonlocal count
        count += 1
        if count == 6:
            scope.cancel()
        await trio.lowlevel.checkpoint()

    with trio.CancelScope() as scope:
        await world.sweep.run(asked=True, empty_trash=False, tell=lambda *_: None, pace=pace)
    assert scope.cancelled_caught
    assert temporaries(world.directory) == []
    assert await load(world.store, NAME, version=4) == image(4)
    assert (await world.collect()).packs == 1
    assert check(world.directory) == []


# -- doubt ----------------------------------------------------------------------


def some_pack(world: World) -> Path:
    """Return the pack that is half dead."""
    found = packs(world.directory)
    name = max(found, key=lambda key: found[key])
    return world.directory / "packs" / name[:2] / name


@pytest.mark.wrong_store("a pack is damaged and has no copy")
async def test_a_damaged_pack_stays_and_goes_to_quarantine(world, autojump_clock):
    await history(world)
    path = some_pack(world)
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(MIB + 5 * PAGE)
        file.write(b"x" * 10)
    path.chmod(0o400)
    size = taken_bytes(path.stat())
    report = await world.collect()
    assert report.packs == 0
    assert "does not match its checksum" in report.left[path.name]
    assert report.doubt == ""
    assert taken_bytes(path.stat()) == size
    assert world.store.quarantined() == 1
    assert (await world.collect()).left == {}  # left to scrub and repair


async def test_without_room_it_says_so_and_leaves_it(world, autojump_clock):
    await history(world)
    world.store._volume.free_and_total = lambda: (17 << 20, 1 << 40)
    report = await world.collect()
    assert report.packs == 0
    assert "there is no room for the" in report.left[some_pack(world).name]
    assert world.store.usage().reserved_bytes == 0


async def test_a_lost_head_is_a_doubt(world, autojump_clock):
    await history(world, keep=4)
    for number in (1, 2):
        world.store.remove(JOB, Version(number), trash_s=0)
    (world.directory / "heads" / JOB / "3").unlink()
    before = packs(world.directory)
    report = await world.collect()
    assert "version 3" in report.doubt
    assert report.packs == 0
    assert packs(world.directory) == before


async def test_a_pack_that_was_replaced_meanwhile_stays(world, autojump_clock):
    await history(world)
    path = some_pack(world)
    compaction, replace = world.store.garbage.compaction, world.store.garbage.compaction.replace

    def mended(made):
        fresh = path.with_name("fresh")
        fresh.write_bytes(path.read_bytes())
        fresh.chmod(0o400)
        os.rename(fresh, path)
        return replace(made)

    compaction.replace = mended
    report = await world.collect()
    assert "was changed while" in report.left[path.name]
    assert temporaries(world.directory) == []


async def test_old_stores_learn_the_flag_and_stay_locked(world, autojump_clock):
    path = world.directory / "FORMAT"
    document = json.loads(path.read_text())
    document["mandatory"].remove(SPARSE)
    world.store.close()
    path.chmod(0o600)
    path.write_text(json.dumps(document))
    old = World(world.directory)
    await history(old, versions=2, keep=2)
    assert SPARSE not in path.read_text()
    await save(old.store, {NAME: noise(SIZE, seed=77)}, version=3)
    old.store.remove(JOB, Version(1), trash_s=0)
    old.store.remove(JOB, Version(2), trash_s=0)
    await old.collect()
    await history(old, versions=4, keep=1, job=JobId("b.2"))
    assert (await old.collect()).packs == 1
    assert SPARSE in json.loads(path.read_text())["mandatory"]
    with pytest.raises(Busy):
        open_store(world.directory, create=False)
    old.store.close()
    open_store(world.directory, create=False).close()


async def test_copies_of_a_sparse_pack_are_sparse_and_mend_it(world, tmp_path_factory):
    await history(world)
    world.sweep._grace_s = 0  # volumes want a clock that goes
    assert (await world.collect()).packs == 1
    path = some_pack(world)
    copies = tmp_path_factory.mktemp("copies")
    copies.chmod(0o755)
    await world.store.copies.add(str(copies))

    async def pace(_size=0):
        await trio.lowlevel.checkpoint()

    await world.store.copies.round({JOB: 2}, pace)
    copy = copies / "packs" / path.name[:2] / path.name
    assert copy.read_bytes() == path.read_bytes()
    assert taken_bytes(copy.stat()) <= taken_bytes(path.stat()) + PAGE
    path.chmod(0o600)
    path.write_bytes(bytes(os.stat(path).st_size))
    world.store._packs.clear()
    assert await load(world.store, NAME, version=4) == image(4)  # from the copy
    await world.store.copies.round({JOB: 2}, pace)
    assert path.read_bytes() == copy.read_bytes()
    assert world.store.copies.mended() == 1
