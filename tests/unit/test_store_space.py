"""Promises of room: what is promised, what a version larger than expected gets, and when not."""

from __future__ import annotations

import pytest

from ckptfs.errors import QuotaExceeded, StoreFull
from ckptfs.ids import Version
from ckptfs.store.space import FLOOR, FOR_METADATA, STEP, Space
from ckptfs.store.store import open_store
from tests.store_kit import JOB, MIB, UNIT, draft, noise, save


class Disk:
    """A disk of which only the free bytes are known."""

    def __init__(self, free_bytes: int) -> None:
        self.free_bytes = free_bytes

    def free_and_total(self) -> tuple[int, int]:
        return self.free_bytes, 2 * self.free_bytes


def space_of(spare_bytes: int) -> Space:
    return Space(Disk(FLOOR + spare_bytes))


def test_a_promise_holds_what_it_says_and_the_metadata():
    space = space_of(65 * MIB)
    promise = space.promise(64 * MIB, lambda: 0)
    assert promise.reserved_bytes == 64 * MIB + 64 * MIB // FOR_METADATA == 65 * MIB
    with pytest.raises(StoreFull):
        space.promise(1, lambda: 0)
    promise.release()
    assert space.spare_bytes == 65 * MIB


def test_a_larger_version_gets_a_whole_step_where_there_is_room():
    space = space_of(65 * MIB + STEP)
    promise = space.promise(64 * MIB, lambda: 0)
    promise.ensure(65 * MIB + 1)
    assert promise.reserved_bytes == 65 * MIB + STEP


def test_where_no_step_is_left_what_is_needed_still_fits():
    space = space_of(65 * MIB + 3)
    promise = space.promise(64 * MIB, lambda: 0)
    promise.ensure(65 * MIB + 3)
    assert space.spare_bytes == 0
    with pytest.raises(StoreFull, match="room for 0 bytes"):
        promise.ensure(65 * MIB + 4)


def test_what_is_on_the_disk_is_not_promised_twice():
    disk = Disk(FLOOR + 65 * MIB)
    space, written = Space(disk), 0
    promise = space.promise(64 * MIB, lambda: written)
    written, disk.free_bytes = 10 * MIB, disk.free_bytes - 10 * MIB
    assert promise.outstanding_bytes == 55 * MIB
    assert space.spare_bytes == 0


# -- a version that grows beyond what was admitted ------------------------------


async def test_growing_is_asked_for_as_it_happens_and_refused_for_good(tmp_path):
    store = open_store(tmp_path / "store", create=True)
    try:
        ingest = store.begin(JOB, Version(1), expect_bytes=MIB)
        asked: list[int] = []

        def may_take(size: int) -> int:
            asked.append(size)
            if size > 4 * MIB:
                raise QuotaExceeded("of 4 MiB nothing is left")
            return 4 * MIB

        ingest.limit(2 * MIB, may_take)
        file = ingest.create(UNIT, "pages-1.img")
        small = ingest.create(UNIT, "core-1.img")
        for _ in range(9):  # written over and over: it grows once
            small.write(0, bytes(MIB // 4))
        assert asked == []

        async def grow() -> None:
            for number in range(16):
                await file.wait_writable()
                file.write(number * MIB, noise(MIB, number))

        with pytest.raises(QuotaExceeded, match="nothing is left"):
            await grow()
        assert asked == [2 * MIB + MIB // 4, 4 * MIB + MIB // 4]
        assert isinstance(ingest.refused, QuotaExceeded)
        with pytest.raises(QuotaExceeded):
            small.write(0, b"x")
        with pytest.raises(QuotaExceeded):
            await ingest.commit(draft())
        await ingest.abort()
        assert list(store.versions(JOB)) == []
        await save(store, {"a": noise(MIB)}, version=2)
    finally:
        store.close()
