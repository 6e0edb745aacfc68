"""How the space is used: sums that are kept, and never wrong for it."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from ckptfs.errors import NotFound
from ckptfs.ids import JobId, Version
from ckptfs.model import Initiator, Purpose
from ckptfs.store import counting, layout
from ckptfs.store.counting import ObjectCount
from ckptfs.store.store import open_store
from ckptfs.store.syscalls import Syscalls
from ckptfs.store.volume import LocalVolume
from tests.store_kit import JOB, MIB, PAGE, dirtied, noise, save

LATER_NS = 10 * counting.UNSURE_NS
USERS = (Purpose.USER, Initiator.USER)
CLONE = JobId("solver.2")


class Listings(Syscalls):
    """Real calls that remember which directories were listed."""

    def __init__(self) -> None:
        self.listed: list[Path] = []

    def scan(self, path):
        self.listed.append(path)
        return super().scan(path)


def walked(directory: Path) -> tuple[int, int]:
    """What a walk over everything finds."""
    files = [path for kind in ("packs", "manifests") for path in directory.glob(f"{kind}/??/*")]
    files = [path for path in files if not path.name.startswith(".")]
    packs = sum(path.parent.parent.name == "packs" for path in files)
    return packs, sum(path.stat().st_size for path in files)


def age(directory: Path) -> None:
    """Have every directory of objects look as if it had changed long ago."""
    for place in ("packs", "manifests"):
        for fan in (directory / place).glob("??"):
            os.utime(fan, ns=(0, fan.stat().st_mtime_ns - LATER_NS))


def object_name(seed: int) -> str:
    return random.Random(seed).randbytes(20).hex()


def test_a_look_lists_only_what_has_changed(tmp_path):
    calls = Listings()
    volume = LocalVolume(tmp_path, calls)
    for place in ("packs", "manifests"):
        (tmp_path / place).mkdir()
    for n in range(60):
        volume.put("packs", object_name(n), bytes(n))
    age(tmp_path)
    counted = ObjectCount(tmp_path, calls)
    counted.look()
    assert counted.sums() == walked(tmp_path) == (60, sum(range(60)))
    calls.listed.clear()
    counted.look()
    assert calls.listed == [tmp_path / "packs", tmp_path / "manifests"]

    new, gone = object_name(100), object_name(7)
    volume.put("packs", new, b"12345")
    volume.delete("packs", gone)
    volume.put("tables", new, b"123")
    (tmp_path / "manifests" / new[:2] / f".{new}.tmp").write_bytes(b"torn, so it does not count")
    calls.listed.clear()
    counted.look()
    assert counted.sums() == walked(tmp_path) == (60, sum(range(60)) - 7 + 5 + 3)
    changed = {tmp_path / "packs" / new[:2], tmp_path / "packs" / gone[:2]}
    changed |= {tmp_path / "packs", tmp_path / "manifests", tmp_path / "manifests" / new[:2]}
    assert set(calls.listed) == changed


def test_a_change_within_one_step_of_the_clock_is_seen(tmp_path):
    """The kernel gave both changes one time stamp, and the listing fell between them."""
    volume = LocalVolume(tmp_path, Syscalls())
    (tmp_path / "packs").mkdir()
    fan = tmp_path / "packs/aa"
    volume.put("packs", "aa" * 20, b"1")
    stamp_ns = fan.stat().st_mtime_ns
    counted = ObjectCount(tmp_path, Syscalls(), clock_ns=lambda: stamp_ns + 1000)
    counted.look()
    volume.put("packs", "aa" * 19 + "bb", b"22")
    os.utime(fan, ns=(stamp_ns, stamp_ns))
    counted.look()
    assert counted.sums() == (2, 3)


def test_a_glance_lists_what_it_has_time_for_and_says_so(tmp_path):
    calls, now_s = Listings(), [0.0]
    volume = LocalVolume(tmp_path, calls)
    for place in counting.PLACES:
        (tmp_path / place).mkdir()
    for n in range(6):
        volume.put("packs", f"{n:02x}" * 20, b"12345")
    age(tmp_path)

    class Slow(Listings):
        def scan(self, path):
            now_s[0] += counting.GLANCE_S * 0.4 if len(path.name) == 2 else 0
            return super().scan(path)

    counted = ObjectCount(tmp_path, Slow(), monotonic_s=lambda: now_s[0])
    assert not counted.glance()
    assert counted.sums() == (3, 15)
    assert counted.glance()
    assert counted.sums() == walked(tmp_path) == (6, 30)


def test_a_glance_does_not_wait_for_a_look(tmp_path):
    begun, go_on = threading.Event(), threading.Event()

    class Held(Syscalls):
        def scan(self, path):
            begun.set()
            assert go_on.wait(10)
            return super().scan(path)

    for place in counting.PLACES:
        (tmp_path / place).mkdir()
    counted = ObjectCount(tmp_path, Held())
    looking = threading.Thread(target=counted.look)
    looking.start()
    assert begun.wait(10)
    assert not counted.glance()
    go_on.set()
    looking.join()
    assert counted.glance()


def test_directories_that_vanish_count_nothing(tmp_path):
    volume = LocalVolume(tmp_path, Syscalls())
    (tmp_path / "packs").mkdir()
    volume.put("packs", "aa" * 20, b"1")
    counted = ObjectCount(tmp_path, Syscalls())
    counted.look()
    (tmp_path / "packs/aa" / ("aa" * 20)).unlink()
    (tmp_path / "packs/aa").rmdir()
    counted.look()
    assert counted.sums() == (0, 0)


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "store", create=True)
    yield opened
    opened.close()


def test_usage_is_what_a_walk_finds_whatever_happens(store, tmp_path):
    async def main():
        await store.count()
        assert store.usage().versions == 0
        data = noise(2 * MIB)
        for version in range(1, 7):
            data = dirtied(data, 20, seed=version)
            await save(store, {"pages": data}, version=version)
            if version % 2:
                store.remove(JOB, Version(version))
            usage = store.usage()
            assert (usage.packs, usage.stored_bytes) == walked(tmp_path / "store")
            assert usage.versions == version // 2
            assert usage.logical_bytes == version // 2 * 2 * MIB
            kept = version // 2
            assert store.totals(JOB) == ({USERS: (kept, kept * 2 * MIB)} if kept else {})
        store.undelete(JOB, Version(5))
        assert store.usage().logical_bytes == 4 * 2 * MIB

    trio.run(main)


class Slow(Syscalls):
    """A disk that lists packs, and reads heads, when it may."""

    def __init__(self):
        self.may_list, self.may_read = threading.Event(), threading.Event()
        self.may_list.set()
        self.may_read.set()

    def read_file(self, path, limit):
        if path.parent.name == JOB:
            self.may_read.wait()
        return super().read_file(path, limit)

    def scan(self, path):
        if path.name == "packs":
            self.may_list.wait()
        return super().scan(path)


def test_nobody_waits_while_the_store_is_counted(store, tmp_path):
    """A second look sees what came and went while the first one was under way."""

    async def main():
        for version in (1, 2, 3):
            await save(store, {"pages": noise(MIB, seed=version)}, version=version)
        store.close()
        (tmp_path / "store" / layout.HEAD_INDEX).unlink()
        slow = Slow()
        again = open_store(tmp_path / "store", create=False, calls=slow)
        try:
            async with trio.open_nursery() as nursery:
                slow.may_list.clear()
                slow.may_read.clear()
                nursery.start_soon(again.count)
                await trio.testing.wait_all_tasks_blocked()
                assert again.usage().is_counting
                assert not again.is_counted()
                slow.may_read.set()
                await again.wait_counted()  # for the heads alone: charges need no more
                assert again.is_counted()
                assert again.usage().is_counting
                again.remove(JOB, Version(2))
                await save(again, {"pages": noise(MIB, seed=4)}, version=4)
                slow.may_list.set()
            usage = again.usage()
            assert again.totals(JOB) == {USERS: (3, 3 * MIB)}
            assert not usage.is_counting
            assert (usage.versions, usage.logical_bytes) == (3, 3 * MIB)
            assert (usage.packs, usage.stored_bytes) == walked(tmp_path / "store")
        finally:
            slow.may_list.set()
            slow.may_read.set()
            again.close()

    trio.run(main)


def test_what_each_version_adds(store):
    first = noise(4 * MIB)
    second = dirtied(first, 100, seed=1)
    third = dirtied(second, 50, seed=2)

    async def pages() -> dict[int, int]:
        return {v: size // PAGE for v, size in (await store.added_bytes(JOB)).items()}

    async def main():
        for version, data in enumerate((first, second, third), 1):
            await save(store, {"pages": data}, version=version)
        added = await pages()
        assert 1024 <= added[1] <= 1050
        assert 100 <= added[2] <= 125
        assert 50 <= added[3] <= 75
        store.remove(JOB, Version(2))
        added = await pages()
        assert 1024 <= added[1] <= 1050
        assert 145 <= added[3] <= 170  # 100 + 50, of which some pages are the same
        store.remove(JOB, Version(1))
        assert 1024 <= (await pages())[3] <= 1050  # it holds everything now
        await save(store, {"pages": third}, job=CLONE, family=(JOB,))
        assert (await store.added_bytes(CLONE))[Version(1)] < 20 * PAGE
        assert await store.added_bytes(JobId("nobody.9")) == {}
        with pytest.raises(NotFound):
            store.account(JOB, Version(1))
        assert store.account(JOB, Version(3)).logical_bytes == 4 * MIB

    trio.run(main)
