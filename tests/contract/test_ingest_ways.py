"""What is written through the mount and what comes out of pipes: the same versions, the same
failures.
"""

from __future__ import annotations

import os
import signal

import pytest
import trio

from ckptfs.errors import (
    CkptfsError,
    Forbidden,
    Gone,
    InvalidInput,
    NotFound,
    QuotaExceeded,
    StoreFull,
)
from ckptfs.ids import Version
from ckptfs.store.check import check
from ckptfs.store.ingest import SMALL_MAX
from ckptfs.store.store import open_store
from tests.ingest_kit import Streams, Writes
from tests.store_kit import JOB, MIB, PAGE, UNIT, FaultyCalls, dirtied, draft, full, load, noise

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part

SIZES = (0, 1, PAGE, PAGE + 1, MIB - 1, MIB, SMALL_MAX, SMALL_MAX + 1, 6 * MIB + 77, 9 * MIB)
FILES = {f"f{size}": noise(size, size) for size in SIZES}
LARGE = 7 * MIB


@pytest.fixture(params=[Writes, Streams], ids=["writes", "pipes"])
def way(request):
    return request.param()


@pytest.fixture(params=[False, True], ids=["here", "worker"])
def kit(request, tmp_path):
    made = Kit(tmp_path, hash_worker=request.param)
    yield made
    made.store.close()
    assert check(tmp_path / "store") == []


class Kit:
    """A store, and a directory for the socket."""

    def __init__(self, top, *, hash_worker):
        self.calls = FaultyCalls()
        self.store = open_store(
            top / "store", create=True, calls=self.calls, hash_worker=hash_worker
        )
        self.directory = top / "work"
        self.directory.mkdir(mode=0o700)

    def begin(self, version=1, size=64 * MIB):
        return self.store.begin(JOB, Version(version), expect_bytes=size)

    async def save(self, way, files, version=1, size=64 * MIB):
        ingest = self.begin(version, size)
        try:
            await way.fill(ingest, files, self.directory)
            return await ingest.commit(draft(version=version))
        finally:
            await ingest.abort()


def test_every_size_comes_back_and_is_listed_with_its_digest(kit, way):
    async def main():
        head = await kit.save(way, FILES)
        for name, data in FILES.items():
            assert await load(kit.store, name) == data
        return head

    head = trio.run(main)
    assert {file.name: file.size_bytes for file in head.files} == {
        name: len(data) for name, data in FILES.items()
    }


def test_both_ways_say_the_same_of_the_same_bytes(kit):
    async def main():
        written = await kit.save(Writes(), FILES)
        streamed = await kit.save(Streams(), FILES, version=2)
        digests = [
            [(file.name, file.blake3) for file in head.files] for head in (written, streamed)
        ]
        assert digests[0] == digests[1]
        assert streamed.stored_bytes < MIB  # every page of it was there already

    trio.run(main)


def test_only_what_has_changed_is_stored(kit, way):
    before = noise(LARGE, 1)
    after = dirtied(before, 40, 2)

    async def main():
        await kit.save(way, {"pages-1.img": before})
        head = await kit.save(way, {"pages-1.img": after}, version=2)
        assert 40 * PAGE <= head.stored_bytes < 60 * PAGE + MIB
        assert await load(kit.store, "pages-1.img", version=2) == after

    trio.run(main)


def test_progress_and_the_list_of_files(kit, way):
    async def main():
        ingest = kit.begin()
        try:
            await way.fill(ingest, FILES, kit.directory)
            assert ingest.progress_bytes() == sum(SIZES)
            assert {name: file.size_bytes for name, file in ingest.files(UNIT).items()} == {
                name: len(data) for name, data in FILES.items()
            }
        finally:
            await ingest.abort()

    trio.run(main)


def test_a_file_beside_what_came_and_one_put_in_its_place(kit, way):
    async def main():
        ingest = kit.begin()
        try:
            await way.fill(ingest, {"a.img": noise(5 * MIB), "b.img": b"1"}, kit.directory)
            ingest.create(UNIT, "files/1").write(0, b"saved")
            ingest.create(UNIT, "a.img").write(0, b"anew")
            ingest.unlink(UNIT, "b.img")
            await ingest.commit(draft())
        finally:
            await ingest.abort()
        assert await load(kit.store, "files/1") == b"saved"
        assert await load(kit.store, "a.img") == b"anew"
        with pytest.raises(NotFound):
            await load(kit.store, "b.img")

    trio.run(main)


@pytest.mark.parametrize("name", ["..", "x\ny", "x" * 120 + "/y", ".hidden/../../x"])
def test_names_that_are_refused(kit, way, name):
    async def main():
        with pytest.raises(InvalidInput):
            await kit.save(way, {"fine.img": b"1", name: noise(LARGE)})
        assert not kit.store.versions(JOB)

    trio.run(main)


def test_a_disk_that_runs_full_is_said_and_nothing_is_visible(kit, way):
    async def main():
        kit.calls.fail_when = lambda name, what: full() if name == "pwrite" else None
        with pytest.raises(StoreFull, match="disk is full"):
            await kit.save(way, {"pages-1.img": noise(40 * MIB)}, size=80 * MIB)
        kit.calls.fail_when = lambda name, what: None
        assert not kit.store.versions(JOB)
        await kit.save(way, {"pages-1.img": noise(LARGE)}, version=2)
        assert await load(kit.store, "pages-1.img", version=2) == noise(LARGE)

    trio.run(main)


def test_a_promise_grows_with_what_comes(kit, way):
    async def main():
        ingest = kit.begin(size=MIB)
        try:
            await way.fill(ingest, {"pages-1.img": noise(LARGE)}, kit.directory)
            await ingest.commit(draft())
        finally:
            await ingest.abort()

    trio.run(main)


def test_no_room_for_the_promise_to_grow_is_said(kit, way, monkeypatch):
    async def main():
        ingest = kit.begin(size=MIB)
        monkeypatch.setattr(type(kit.store._volume), "free_and_total", lambda _: (0, 1 << 40))
        try:
            with pytest.raises(StoreFull, match="room for 0 bytes"):
                await way.fill(ingest, {"pages-1.img": noise(LARGE)}, kit.directory)
        finally:
            await ingest.abort()

    trio.run(main)


def test_a_limit_is_asked_about_and_its_refusal_is_said(kit, way):
    asked = []

    def may_take(size):
        asked.append(size)
        if size > 3 * MIB:
            raise QuotaExceeded("no more than 3 MiB")
        return 3 * MIB

    async def main():
        ingest = kit.begin()
        ingest.limit(MIB, may_take)
        await way.fill(ingest, {"a.img": noise(2 * MIB)}, kit.directory)
        with pytest.raises(QuotaExceeded, match="3 MiB"):
            await way.fill(ingest, {"pages-1.img": noise(LARGE)}, kit.directory)
        assert isinstance(ingest.refused, QuotaExceeded)
        await ingest.abort()
        assert MIB < asked[0] <= 2 * MIB < asked[-1]

    trio.run(main)


def test_a_version_that_is_over_takes_nothing(kit, way):
    async def main():
        ingest = kit.begin()
        await ingest.abort()
        with pytest.raises(Gone):
            await way.fill(ingest, FILES, kit.directory)
        ingest = kit.begin(2)
        await ingest.commit(draft(version=2))
        with pytest.raises(Forbidden):
            await way.fill(ingest, FILES, kit.directory)

    trio.run(main)


def test_a_killed_worker_is_said_and_the_next_version_has_another(tmp_path, way):
    kit = Kit(tmp_path, hash_worker=True)

    async def main():
        os.kill(kit.store._writers._hash_worker.ring().pid, signal.SIGKILL)
        with pytest.raises(CkptfsError, match="hashes has ended"):
            await kit.save(way, {"pages-1.img": noise(30 * MIB)})
        await kit.save(way, {"pages-1.img": noise(LARGE)}, version=2)
        assert await load(kit.store, "pages-1.img", version=2) == noise(LARGE)

    trio.run(main)
    kit.store.close()
