"""Blocks that a process of its own gathers and hashes, and what happens when it cannot."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trio

from ckptfs.errors import Corrupt
from ckptfs.store.blocks import BlockLoader, PackFiles
from ckptfs.store.index import PACK_PAGES
from ckptfs.store.manifest import decode_manifest
from ckptfs.store.pages import block_digest
from ckptfs.store.read_ring import QUEUE, SLOTS, ReadRing
from ckptfs.store.read_worker import split_runs
from ckptfs.store.reader import BlockCache, FileReader
from ckptfs.store.store import open_store
from ckptfs.store.syscalls import Syscalls
from ckptfs.store.volume import LocalVolume
from tests.store_kit import MIB, PAGE, dirtied, load, noise, save

pytestmark = pytest.mark.slow  # starts processes: left out of the fast part

BIG = noise(12 * MIB + 5000)
BIG = BIG[: 3 * MIB] + bytes(40 * PAGE) + BIG[: 2 * MIB] + BIG[3 * MIB + 40 * PAGE + 2 * MIB :]


class Kit:
    """The parts of a store that read, without the rest of it."""

    def __init__(self, directory, manifest, data):
        calls = Syscalls()
        self.manifest, self.data = manifest, data
        self.file = manifest.files[0]
        self.packs = PackFiles(LocalVolume(directory, calls), calls)
        self.loader = BlockLoader(self.packs)
        self.ring = ReadRing(self.packs)
        self.cache = BlockCache(self.loader, self.ring)
        self.instead = []

    def open_packs(self):
        for pack in self.manifest.packs:
            self.packs.get(pack)

    def ask(self, block):
        return self.ring.load(self.manifest, self.file, block, self.instead.append)

    def reader(self):
        return FileReader(
            self.cache, self.manifest, 0, damaged=lambda *said: f"{said}", closed=lambda: None
        )

    def block(self, number):
        return self.data[number * MIB : (number + 1) * MIB]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A third version with pages in the packs of all three, pages that repeat, and zeros."""
    directory = tmp_path_factory.mktemp("read") / "store"
    store = open_store(directory, create=True)
    data = BIG

    async def write():
        nonlocal data
        for version in (1, 2, 3):
            head = await save(store, {"pages-1.img": data}, version=version)
            if version < 3:
                data = dirtied(data, 500, version)
        return head.files[0].manifest.partition(":")[0]

    name = trio.run(write)
    store.close()
    path = directory / "manifests" / name[:2] / name
    return directory, decode_manifest(name, path.read_bytes()), data


@pytest.fixture
def kit(written):
    kit = Kit(*written)
    kit.open_packs()
    yield kit
    kit.cache.close()


def children():
    return {
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    }


async def result(future):
    done = trio.Event()
    future.add_done_callback(lambda _: done.set())
    await done.wait()
    return future.result()


@pytest.mark.parametrize(
    ("places", "runs"),
    [
        ([7], [(7, 0, 1)]),
        ([0], [(0, 0, 1)]),
        ([7, 8, 9], [(7, 0, 3)]),
        ([9, 8, 7], [(7, 2, 1), (8, 1, 1), (9, 0, 1)]),
        ([0, 1, 2], [(0, 0, 1), (1, 1, 2)]),  # place 1 is no zero page's neighbour
        ([0, 0, 5], [(0, 0, 1), (0, 1, 1), (5, 2, 1)]),
        ([5, 5, 6], [(5, 0, 1), (5, 1, 2)]),
        ([3, 4, 90, 5, 6], [(3, 0, 2), (5, 3, 2), (90, 2, 1)]),
    ],
)
def test_pages_side_by_side_are_one_run(places, runs):
    assert split_runs(places) == runs


def test_every_block_is_what_was_written(kit):
    async def main():
        assert await kit.ring.ready()
        for number in range(13):
            assert bytes(await result(kit.ask(number))) == kit.block(number)
        assert kit.instead == []

    assert len(kit.manifest.packs) == 3
    assert (kit.file.places == 0).sum() > 10
    trio.run(main)


def test_pages_in_any_order_from_any_pack(kit):
    """Places that no writer would choose: backwards, repeated, zeros between, all packs."""
    rng = np.random.default_rng(5)
    stored = kit.file.places[kit.file.places != 0]
    packs = [kit.packs.get(pack) for pack in kit.manifest.packs]

    def page(place):
        at = place % PACK_PAGES * PAGE
        return os.pread(packs[place // PACK_PAGES].fd, PAGE, at) if place else bytes(PAGE)

    async def main():
        assert await kit.ring.ready()
        for _ in range(20):
            places = rng.choice(stored, 256).astype(np.uint32)
            places[rng.random(256) < 0.2] = 0
            expected = b"".join(map(page, places.tolist()))
            kit.file = replace(kit.file, places=places, digests=block_digest(expected))
            assert bytes(await result(kit.ask(0))) == expected

    trio.run(main)


def test_nobody_waits_for_a_pack_to_be_opened_or_for_a_queue(written):
    kit = Kit(*written)

    async def main():
        assert kit.ask(0) is None  # it is only being started
        assert await kit.ring.ready()
        assert kit.ask(0) is None  # no pack is open
        kit.open_packs()
        asked = [kit.ask(number) for number in range(QUEUE + 1)]
        assert asked[-1] is None
        for number, block in enumerate(asked[:-1]):
            assert bytes(await result(block)) == kit.block(number)

    trio.run(main)
    kit.cache.close()


def test_bytes_that_somebody_holds_are_not_written_over(kit):
    async def main():
        assert await kit.ring.ready()
        held = {}
        for number in range(SLOTS):
            held[number] = await result(kit.ask(number % 13))
        assert kit.ask(0) is None  # every slot is held
        for number, data in held.items():
            assert bytes(data) == kit.block(number % 13)
        piece = held[5][100:200]
        held.clear()
        del data
        gc.collect()
        for number in range(2 * SLOTS):
            await result(kit.ask(number % 13))
            assert bytes(piece) == kit.block(5)[100:200]

    trio.run(main)


def test_a_reader_gets_the_same_bytes_whoever_loads_them(kit):
    async def main():
        assert await kit.ring.ready()
        reader = kit.reader()
        got = b""
        while piece := await reader.read(len(got), 300_000):  # across blocks
            got += bytes(piece)
        assert got == kit.data
        reader.close()

    trio.run(main)


@pytest.mark.parametrize("when", ["asked", "idle"])
def test_a_killed_worker_costs_nothing_and_the_next_one_works(kit, when):
    async def main():
        assert await kit.ring.ready()
        first = kit.ring.pid
        block = kit.cache.request(kit.manifest, 0, 3) if when == "asked" else None
        os.kill(first, signal.SIGKILL)
        if block is not None:
            assert bytes(await kit.reader().read(3 * MIB, MIB)) == kit.block(3)
        reader = kit.reader()
        for number in range(13):
            assert bytes(await reader.read(number * MIB, MIB)) == kit.block(number)
        assert await kit.ring.ready()
        assert kit.ring.pid not in {None, first}
        assert bytes(await result(kit.ask(1))) == kit.block(1)

    trio.run(main)


def test_a_worker_that_always_dies_is_left_alone(kit):
    async def main():
        while await kit.ring.ready():
            os.kill(kit.ring.pid, signal.SIGKILL)
            while kit.ring.pid is not None:
                await trio.lowlevel.checkpoint()
        assert bytes(await kit.reader().read(0, MIB)) == kit.block(0)
        assert kit.ring.pid is None

    trio.run(main)


@pytest.mark.wrong_store("damaged")
def test_a_damaged_block_is_never_given_out(written, tmp_path):
    """The worker's digest is not the manifest's: a thread tries again, and says what is wrong."""
    directory, manifest, data = written
    kit = Kit(shutil.copytree(directory, tmp_path / "store"), manifest, data)
    place = int(kit.file.places[2 * 256 + 7])
    name = manifest.packs[place // PACK_PAGES]
    pack = tmp_path / "store" / "packs" / name[:2] / name
    pack.chmod(0o600)
    with pack.open("r+b") as file:
        file.seek(place % PACK_PAGES * PAGE)
        file.write(b"\xff" * 8)
    kit.open_packs()

    async def main():
        assert await kit.ring.ready()
        block = kit.ask(2)
        while not kit.instead:
            await trio.lowlevel.checkpoint()
        assert kit.instead == [block]
        reader = kit.reader()
        with pytest.raises(Corrupt, match="block 2 does not match its hash"):
            await reader.read(2 * MIB, MIB)
        assert bytes(await reader.read(MIB, MIB)) == kit.block(1)

    trio.run(main)
    kit.cache.close()
    shutil.rmtree(tmp_path / "store")


def test_the_service_reads_with_a_worker_that_ends_with_it(tmp_path):
    store = open_store(tmp_path / "store", create=True, hash_worker=True)
    before = children()

    async def main():
        await save(store, {"pages-1.img": BIG, "core-1.img": b"x"})
        assert await load(store, "core-1.img") == b"x"
        assert children() == before  # not for small files
        for _ in range(3):
            assert await load(store, "pages-1.img") == BIG

    trio.run(main)
    (worker,) = children() - before
    store.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_a_worker_is_started_for_readers_to_come(kit):
    async def main():
        kit.cache.expect()
        first = kit.ring.pid
        assert first is not None
        kit.cache.expect()
        assert kit.ring.pid == first

    trio.run(main)


def test_what_readers_had_loaded_is_noted_from_then_on(kit):
    async def main():
        reader = kit.reader()
        await reader.read(9 * MIB, 10)
        noting = kit.cache.noting
        with noting(kit.manifest.manifest_id) as noted, noting("another") as others:
            await reader.read(9 * MIB, 10)  # lies there since before
            assert (0, 9) not in noted
            await reader.read(2 * MIB, 10)
            assert (0, 2) in noted
            assert (0, 2) not in others
        await reader.read(5 * MIB, 10)
        assert (0, 5) not in noted

    trio.run(main)


class Wanting(Syscalls):
    """What the kernel is asked to read beforehand; whether it has it is said here."""

    def __init__(self):
        self.cached, self.wanted = False, []

    def is_cached(self, fd, offset):
        return self.cached

    def want_cached(self, fd, offset, size):
        self.wanted += range(offset // PAGE, (offset + size) // PAGE)


def test_a_block_is_asked_for_beforehand_unless_it_is_in_the_page_cache(written):
    directory, manifest, _ = written
    calls = Wanting()
    loader = BlockLoader(PackFiles(LocalVolume(directory, calls), calls))
    for block in range(13):
        calls.wanted.clear()
        loader.prime(manifest, manifest.files[0], block)
        places = manifest.files[0].places[block * 256 : (block + 1) * 256]
        assert set(places[places != 0] % PACK_PAGES) <= set(calls.wanted)
    calls.wanted.clear()
    calls.cached = True
    loader.prime(manifest, manifest.files[0], 0)
    assert calls.wanted == []
