"""The sweep on real stores: what goes, what stays, every doubt, every crash, beside writers."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import trio
import trio.testing

from ckptfs.errors import Degraded, Exists, NotFound
from ckptfs.gc.sweep import Sweep
from ckptfs.ids import JobId, Version
from ckptfs.store.check import check
from ckptfs.store.store import LocalStore, open_store
from tests.store_kit import (
    JOB,
    MIB,
    UNIT,
    FaultyCalls,
    dirtied,
    draft,
    full,
    load,
    noise,
    save,
    write_file,
)

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part

FIRST = {"pages-1.img": noise(2 * MIB), "core": b"c" * 10}
OTHER = {"pages-1.img": noise(2 * MIB, seed=9)}
NOW = 2_000_000_000


class World:
    """A store, its collector, and a clock that tests set."""

    def __init__(self, directory: Path, calls: FaultyCalls | None = None) -> None:
        self.directory = directory
        self.now_s = float(NOW)
        self.uptime_s = 0.0
        self.scarce = False
        self.store: LocalStore = open_store(
            directory, create=True, clock=lambda: int(self.now_s * 1e9), calls=calls
        )
        self.sweep = Sweep(
            self.store.garbage,
            wall_s=lambda: self.now_s,
            uptime_s=lambda: self.uptime_s,
            is_scarce=lambda: self.scarce,
        )

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.uptime_s += seconds

    async def collect(self, *, empty_trash: bool = False, asked: bool = True):
        return await self.sweep.run(asked=asked, empty_trash=empty_trash, tell=lambda *_: None)

    def bytes_on_disk(self) -> int:
        places = ("packs", "manifests", "heads", "trash", "sessions")
        files = [p for place in places for p in (self.directory / place).rglob("*") if p.is_file()]
        return sum(path.stat().st_size for path in files)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.store.close()


async def test_nothing_is_collected_where_all_is_needed(world, autojump_clock):
    await save(world.store, FIRST)
    await save(world.store, OTHER, version=2)
    before = world.bytes_on_disk()
    report = await world.collect()
    assert (report.freed_bytes, report.objects, report.doubt) == (0, 0, "")
    assert world.bytes_on_disk() == before


async def test_a_removed_version_goes_when_its_time_is_over(world, autojump_clock):
    await save(world.store, FIRST)
    empty = world.bytes_on_disk()
    await save(world.store, OTHER, version=2)
    world.store.remove(JOB, Version(2))
    assert (await world.collect()).freed_bytes == 0  # it can be brought back
    world.store.undelete(JOB, Version(2))
    assert await load(world.store, "pages-1.img", version=2) == OTHER["pages-1.img"]
    world.store.remove(JOB, Version(2))
    world.pass_time(24 * 3600)
    used = world.store.usage().stored_bytes
    report = await world.collect()
    assert report.freed_bytes > 2 * MIB
    assert report.objects == 3  # pack, manifest, page table
    assert world.store.usage().stored_bytes < used - 2 * MIB
    assert world.bytes_on_disk() == empty
    with pytest.raises(NotFound):
        world.store.undelete(JOB, Version(2))
    assert await load(world.store, "pages-1.img") == FIRST["pages-1.img"]
    assert check(world.directory) == []


async def test_shared_pages_stay(world, autojump_clock):
    await save(world.store, FIRST)
    second = {"pages-1.img": dirtied(FIRST["pages-1.img"], 20, seed=3)}
    await save(world.store, second, version=2)
    world.store.remove(JOB, Version(1), trash_s=0)
    report = await world.collect()
    assert report.objects == 2  # manifest and page table; the pack holds most of version 2
    assert await load(world.store, "pages-1.img", version=2) == second["pages-1.img"]
    assert check(world.directory) == []


async def test_the_trash_goes_early_when_asked_or_when_the_disk_is_nearly_full(
    world, autojump_clock
):
    for number in (1, 2):
        await save(world.store, OTHER | {"n": noise(9000, seed=number)}, version=number)
    world.store.remove(JOB, Version(1))
    plan, _ = await world.sweep.plan(empty_trash=False)
    assert [reason for _, reason in plan] == [""]
    plan, free = await world.sweep.plan(empty_trash=True)
    assert [reason for _, reason in plan] == ["the trash is emptied"]
    assert free > 0
    assert world.store.trashed(JOB) == [(1, NOW + 24 * 3600)]
    assert (await world.collect(empty_trash=True)).freed_bytes > 0
    world.store.remove(JOB, Version(2))
    world.scarce = True
    assert (await world.collect()).freed_bytes > 2 * MIB
    assert not list((world.directory / "packs").glob("??/*"))


async def test_undelete_refuses(world):
    await save(world.store, FIRST)
    with pytest.raises(NotFound):
        world.store.undelete(JOB, Version(1))
    world.store.remove(JOB, Version(1))
    await save(world.store, FIRST)
    with pytest.raises(Exists):
        world.store.undelete(JOB, Version(1))


# -- doubt ---------------------------------------------------------------------


def spoil_head(world):
    path = world.directory / "heads" / JOB / "2"
    path.chmod(0o600)
    path.write_bytes(b"torn")


def spoil_manifest(world):
    head = world.store.head(JOB, Version(2))
    name = head.files[0].manifest.partition(":")[0]
    path = world.directory / "manifests" / name[:2] / name
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])


def add(place):
    def change(world):
        path = world.directory / place
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")

    return change


def lose_head(world):
    (world.directory / "heads" / JOB / "2").unlink()


def lose_heads(world):
    os.rename(world.directory / "heads", world.directory / "elsewhere")


def jump(world):
    world.now_s += 3600


def fall_back(world):
    world.store.garbage.record.last_s = NOW + 10**6


DOUBTS = {
    "unreadable head": (spoil_head, "torn"),
    "unreadable manifest": (spoil_manifest, "does not match its name"),
    "foreign head": (add(f"heads/{JOB}/9"), "version 9 .* appeared"),
    "foreign file among the heads": (add(f"heads/{JOB}/notes.txt"), "notes.txt does not belong"),
    "foreign directory": (add("heads/no job/1"), "heads/no job does not belong"),
    "foreign pack": (add("packs/ab/readme"), "packs/ab/readme does not belong"),
    "foreign thing beside packs": (add("packs/lost"), "packs/lost does not belong"),
    "foreign trash": (add("trash/1/x"), "does not belong there"),
    "lost head": (lose_head, "version 2 .* vanished"),
    "lost directory": (lose_heads, "heads/ is missing"),
    "clock ahead": (jump, "jumped by 3600 s"),
    "clock behind": (fall_back, "behind the last collection"),
    "read-only": (lambda world: world.store._writers.degrade("broken"), "read-only: broken"),
}


@pytest.mark.wrong_store("most doubts are damage")
@pytest.mark.parametrize("name", DOUBTS)
@pytest.mark.slow
async def test_in_doubt_nothing_is_deleted(world, autojump_clock, name):
    change, words = DOUBTS[name]
    for number in (1, 2, 3):
        await save(world.store, {"pages-1.img": noise(MIB, seed=number)}, version=number)
    world.store.remove(JOB, Version(3), trash_s=0)
    change(world)
    before = world.bytes_on_disk()
    report = await world.collect(asked=False)
    assert re.search(words, report.doubt), report.doubt
    assert (report.freed_bytes, report.objects) == (0, 0)
    assert world.bytes_on_disk() == before
    if name == "clock ahead":
        assert (await world.collect()).doubt  # still, until somebody has asked
        assert (await world.collect()).freed_bytes > MIB


class BlindCalls(FaultyCalls):
    """Listing one directory fails."""

    blind = ""

    def scan(self, path):
        if self.blind and path.name == self.blind:
            raise OSError(5, "Input/output error", str(path))
        return super().scan(path)


@pytest.mark.parametrize("place", ["packs", "manifests", "heads", JOB, "trash", "sessions"])
@pytest.mark.slow
async def test_a_listing_that_fails_is_a_doubt(tmp_path, autojump_clock, place):
    calls = BlindCalls()
    world = World(tmp_path, calls)
    await save(world.store, FIRST)
    await save(world.store, OTHER, version=2)
    world.store.remove(JOB, Version(1), trash_s=0)
    before = world.bytes_on_disk()
    calls.blind = place
    report = await world.collect()
    assert report.doubt.endswith(f"{place}: input/output error")
    assert world.bytes_on_disk() == before
    calls.blind = "trash"
    with pytest.raises(Degraded):
        world.store.trashed(JOB)
    with pytest.raises(Degraded):
        world.store.undelete(JOB, Version(1))
    world.store.close()


# -- beside writers ------------------------------------------------------------


async def test_what_a_version_in_work_refers_to_stays(world, autojump_clock):
    await save(world.store, FIRST)
    ingest = world.store.begin(JOB, Version(2), expect_bytes=2 * MIB)
    world.store.remove(JOB, Version(1), trash_s=0)  # its pages are being hit meanwhile
    report = await world.collect()
    assert (report.objects, report.doubt) == (0, "")
    await write_file(ingest, UNIT, "pages-1.img", FIRST["pages-1.img"])
    head = await ingest.commit(draft(version=2))
    assert head.stored_bytes < MIB
    assert (await world.collect()).objects == 2  # what was version 1's alone
    assert await load(world.store, "pages-1.img", version=2) == FIRST["pages-1.img"]
    assert check(world.directory) == []


async def test_unlinking_waits_for_versions_begun_before(world, autojump_clock):
    await save(world.store, FIRST)
    await save(world.store, OTHER, version=1, job=JobId("b.2"))
    ingest = world.store.begin(JobId("c.3"), Version(1), expect_bytes=0)
    world.store.remove(JobId("b.2"), Version(1), trash_s=0)
    report = await world.collect()
    assert (report.objects, report.waiting, report.freed_bytes) == (3, 3, 0)
    await ingest.abort()
    report = await world.collect()
    assert (report.objects, report.waiting) == (0, 0)
    assert report.freed_bytes > 2 * MIB
    assert not list((world.directory / "packs/condemned").iterdir())


@pytest.mark.slow
async def test_a_version_with_the_same_content_can_be_committed_meanwhile(world, autojump_clock):
    """Its manifest has the name of one that is being set aside."""
    await save(world.store, FIRST)
    await save(world.store, FIRST, version=2)  # the same manifest
    await save(world.store, FIRST, version=3)
    world.store.remove(JOB, Version(2), trash_s=0)

    async def writing():
        for number in range(4, 12):
            await save(world.store, FIRST, version=number)
            world.store.remove(JOB, Version(number - 1), trash_s=0)
            assert await load(world.store, "core", version=number) == FIRST["core"]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writing)
        for _ in range(8):
            await world.collect()
    world.store.remove(JOB, Version(1), trash_s=0)
    await world.collect()
    assert check(world.directory) == []
    assert await load(world.store, "pages-1.img", version=11) == FIRST["pages-1.img"]


@pytest.mark.slow
async def test_collecting_beside_many_writers(world, autojump_clock):
    """Jobs that write, remove and read while the collector goes round."""
    data = noise(MIB)

    async def job(number):
        name = JobId(f"j.{number}")
        for version in range(1, 7):
            now = {"pages-1.img": dirtied(data, 30, seed=version * number)}
            await save(world.store, now, version=version, job=name)
            if version > 2:
                world.store.remove(name, Version(version - 2), trash_s=0)
            assert (
                await load(world.store, "pages-1.img", version=version, job=name)
                == (now["pages-1.img"])
            )

    async with trio.open_nursery() as collecting:

        async def around():
            while True:
                assert (await world.collect()).doubt in (
                    "",
                    "versions come and go too fast to be marked; it is tried again later",
                )

        collecting.start_soon(around)
        async with trio.open_nursery() as writing:
            for number in (1, 2, 3):
                writing.start_soon(job, number)
        collecting.cancel_scope.cancel()
    await world.collect()
    assert check(world.directory) == []
    assert world.store.usage().versions == 6


# -- crashes and full disks ----------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A store with two versions that stay and two that go, to be copied."""
    directory = tmp_path_factory.mktemp("prepared")

    async def main():
        world = World(directory)
        for number in (1, 2, 3, 4):
            await save(world.store, {"pages-1.img": noise(70_000, seed=number)}, version=number)
        for number in (1, 3):
            world.store.remove(JOB, Version(number), trash_s=0)
        world.store.close()

    trio.run(main)
    return directory


async def sweep_once(world: World):
    return await world.collect()


def collect(directory: Path, calls: FaultyCalls | None = None):
    clock = trio.testing.MockClock(autojump_threshold=0)
    world = World(directory, calls)
    try:
        return trio.run(sweep_once, world, clock=clock)
    finally:
        world.store.close()


def whole(directory: Path) -> None:
    """Both versions that stay are there, and the next sweep finishes the work."""
    report = collect(directory)
    assert report.doubt == ""
    assert check(directory) == []
    assert len([p for p in directory.glob("packs/??/*") if p.is_file()]) == 2
    assert not list((directory / "packs/condemned").iterdir())
    assert not list((directory / "trash").iterdir())

    async def main():
        store = open_store(directory, create=False)
        for number in (2, 4):
            data = await load(store, "pages-1.img", version=number)
            assert data == noise(70_000, seed=number)
        assert store.usage().packs == 2
        store.close()

    trio.run(main)


def test_a_full_disk_is_freed(tmp_path, prepared):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    calls = FaultyCalls()
    calls.fail_when = lambda name, what: full() if name in {"create", "mkdir", "pwrite"} else None
    report = collect(tmp_path, calls)
    assert (report.doubt, report.objects) == ("", 6)
    assert report.freed_bytes > 140_000
    whole(tmp_path)
