"""Copies on disks that are full, read-only, slow to answer, or lie; and who waits for them."""

from __future__ import annotations

import os
import subprocess
import threading

import pytest
import trio

from ckptfs.errors import Corrupt
from ckptfs.ids import Version
from ckptfs.store.store import open_store
from tests.copies_kit import DATA, NOW, World, flip
from tests.store_kit import JOB, MIB, UNIT, FaultyCalls, load, noise, save


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.store.close()


# -- disks that take no changes ------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A file system of 3 MiB, to be made read-only or filled."""
    place = tmp_path / "b"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", place], check=True)
    place.chmod(0o700)
    yield place
    subprocess.run(["umount", place], check=True)


def remount(place, how):
    subprocess.run(["mount", "-o", f"remount,{how}", place], check=True)


async def test_a_full_disk_is_full_until_there_is_room(disk, tmp_path):
    world = World(tmp_path)
    await save(world.store, {"a": noise(2 * MIB)})
    await world.copies.add(str(disk))
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(2 * MIB))
    await world.round(2)
    assert world.state("b") == "full"
    assert not list(disk.rglob("*.tmp"))
    await world.round(2)
    assert world.state("b") == "full"
    ballast.unlink()
    await world.round(2)
    assert (world.state("b"), world.counts()) == ("up", [2])
    world.store.close()


async def test_a_read_only_disk_still_counts_and_is_known_at_once(disk, tmp_path):
    world = World(tmp_path)
    await save(world.store, {"a": DATA[1]})
    await world.copies.add(str(disk))
    await world.round(2)
    remount(disk, "ro")
    await save(world.store, {"a": DATA[2]}, version=2)
    await world.round(2)
    assert (world.state("b"), world.counts()) == ("readonly", [2, 1])
    assert "mounted read-only" in world.copies.rows()[0].reason
    flip(min((tmp_path / "store").glob("packs/??/*"), key=lambda path: path.stat().st_mtime_ns))
    world.store._packs.clear()
    assert await load(world.store, "a") == DATA[1]  # read repair needs no writing there
    remount(disk, "rw")
    await world.round(2)
    assert (world.state("b"), world.counts()) == ("up", [2, 2])
    world.store.close()


# -- who waits for a volume ----------------------------------------------------


@pytest.mark.wrong_store("a manifest is gone; the next round brings it")
async def test_a_damaged_manifest_is_asked_for_in_a_thread_and_nobody_else_waits(world):
    await world.fill("b")
    manifest = min((world.directory / "store").glob("manifests/??/*[0-9a-f]"))
    manifest.unlink()
    asked, answer = trio.Event(), threading.Event()
    volume = world.copies._fleet.volumes["b"].volume
    fetch = volume.fetch

    def slowly(piece):
        trio_token.run_sync_soon(asked.set)
        assert answer.wait(30)
        return fetch(piece)

    trio_token = trio.lowlevel.current_trio_token()
    volume.fetch = slowly
    lost = next(v for v in (1, 2) if manifest.name in world.store.head(JOB, v).files[0].manifest)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.store.ready, JOB, Version(lost))
        await asked.wait()  # the trio thread is free while the volume does not answer
        assert world.counts() != []
        with pytest.raises(Corrupt):
            world.store.open(JOB, Version(lost), UNIT, "a")
        answer.set()
    assert await load(world.store, "a", version=lost) == DATA[lost]


# -- disks that lie --------------------------------------------------------------


class LyingCalls(FaultyCalls):
    """Once, what was synced on volume b is not there; or every read from there is wrong."""

    def __init__(self, place):
        super().__init__()
        self.place, self.lies, self.is_wrong = str(place), 0, False
        self._read = {}

    def fsync(self, fd):
        super().fsync(fd)
        path = self._paths.get(fd)
        if self.lies and path and str(path).startswith(self.place) and "packs" in path.parts:
            self.lies -= 1
            os.ftruncate(fd, 0)

    def open_read(self, path):
        fd = super().open_read(path)
        self._read[fd] = path
        return fd

    def pread_into(self, fd, buffer, offset):
        got = super().pread_into(fd, buffer, offset)
        if got and self.is_wrong and str(self._read.get(fd, "")).startswith(self.place):
            buffer[0] ^= 1
        return got


@pytest.fixture
async def lying(tmp_path):
    made = World(tmp_path)
    made.store.close()
    made.calls = LyingCalls(tmp_path / "b")
    made.store = open_store(tmp_path / "store", create=False, calls=made.calls)
    yield made
    made.store.close()


async def test_a_disk_that_lies_about_a_sync_once_gets_no_credit_for_it(lying, mock_clock):
    lying.calls.lies = 1
    await lying.fill("b")
    assert lying.state("b") == "failing"
    assert lying.counts() == [1, 1]
    await lying.round(2)
    assert lying.state("b") == "failing"  # not tried again at once
    mock_clock.jump(700)
    await lying.round(2)
    assert (lying.state("b"), lying.counts()) == ("up", [2, 2])
    assert await lying.scrub() == (8, 0)


async def test_what_a_lying_disk_has_lost_with_the_power_is_found_and_made_again(lying):
    await lying.fill("b")
    pack = min((lying.directory / "b").glob("packs/??/*"))
    table = min((lying.directory / "b").glob("manifests/??/*.pages"))
    for path, size in ((pack, 5000), (table, 0)):
        path.chmod(0o600)
        os.truncate(path, size)
    lying.reopen()
    await lying.round(0)
    assert sum(lying.counts()) <= 3  # the empty one counts for nothing at once
    assert (await lying.scrub())[1] == 1
    await lying.round(2)
    assert lying.counts() == [2, 2]
    assert await lying.scrub(since_ns=NOW + 1) == (8, 0)


async def test_wrong_bytes_of_a_volume_reach_no_reader_and_no_store(lying):
    await lying.fill("b")
    good = max((lying.directory / "store").glob("packs/??/*"))
    bytes_before = good.read_bytes()
    flip(good)
    lying.store._packs.clear()
    lying.calls.is_wrong = True
    hurt = 0
    for version, data in DATA.items():
        try:
            assert await load(lying.store, "a", version=version) == data
        except Corrupt:
            hurt += 1
    assert hurt == 1
    await lying.round(2)
    assert good.read_bytes() != bytes_before  # nothing that does not prove itself comes back
    lying.calls.is_wrong = False
    await lying.round(2)
    assert good.read_bytes() == bytes_before
    for version, data in DATA.items():
        assert await load(lying.store, "a", version=version) == data
