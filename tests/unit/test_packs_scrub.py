"""The scrub reads every byte of the packs, also those behind the end of a file."""

from __future__ import annotations

import errno

import pytest
import trio

from ckptfs.coordinator.scrub_record import (
    BAD_PACKS_MAX,
    NOTHING,
    decode_record,
    encode_record,
)
from ckptfs.errors import Degraded
from ckptfs.ids import JobId, Version
from tests.copies_kit import World, no_pace
from tests.store_kit import JOB, PAGE, load, noise, save

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part
TAIL = 5000  # bytes of a file: its second page is padded


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.store.close()


def packs(world):
    return sorted((world.directory / "store" / "packs").glob("[0-9a-f][0-9a-f]/*"))


def spoil_padding(path):
    """Change the last byte of the last page."""
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    pages = 1 + -(-TAIL // PAGE)  # the header page, and those of the file
    data[pages * PAGE - 1] ^= 1
    path.write_bytes(data)
    path.chmod(0o400)


async def read(world, cursor="", stop_at=""):
    told: list[tuple[str, bool]] = []

    def note(name: str, is_good: bool) -> bool:
        told.append((name, is_good))
        return name != stop_at

    await world.copies.scrub_packs(no_pace, cursor, note)
    return told


async def fill(world, versions=3):
    for number in range(1, versions + 1):
        await save(world.store, {"a": noise(TAIL, number)}, version=number)


@pytest.mark.wrong_store("the padding of a page without a copy is damaged")
async def test_padding_that_no_block_covers_is_read_and_its_pack_relied_on_no_more(world):
    await fill(world)
    bad = packs(world)[1]
    spoil_padding(bad)
    for number in (1, 2, 3):
        assert await world.store.verify(JOB, Version(number)) == []  # no block covers it
    assert await read(world) == [(path.name, path != bad) for path in packs(world)]
    assert world.store.quarantined() == 1
    assert await read(world) == [(path.name, True) for path in packs(world) if path != bad]
    before = len(packs(world))
    for number in (4, 5):
        await save(world.store, {"a": noise(TAIL, number - 3)}, version=number)
    assert len(packs(world)) > before
    for number in (1, 2, 3, 4, 5):
        assert await load(world.store, "a", version=number) == noise(TAIL, (number - 1) % 3 + 1)


async def test_it_is_fetched_back_from_a_volume(world):
    await fill(world)
    (world.directory / "b").mkdir()
    await world.copies.add(str(world.directory / "b"))
    await world.round(2)
    bad = packs(world)[0]
    good = bad.read_bytes()
    spoil_padding(bad)
    assert (bad.name, False) in await read(world)
    await world.round(2)
    assert bad.read_bytes() == good
    assert world.store.quarantined() == 0
    assert all(is_good for _, is_good in await read(world))


async def test_it_goes_on_behind_the_cursor_and_ends_when_it_is_told(world):
    await fill(world)
    names = [path.name for path in packs(world)]
    assert [name for name, _ in await read(world, cursor=names[0])] == names[1:]
    assert [name for name, _ in await read(world, stop_at=names[1])] == names[:2]
    assert await read(world, cursor=names[-1]) == []


async def test_a_pack_that_was_collected_meanwhile_is_no_damage(world):
    await fill(world)
    gone = packs(world)[-1]
    kept = gone.read_bytes()
    told: list[bool] = []

    def note(name: str, is_good: bool) -> bool:
        gone.unlink(missing_ok=True)
        told.append(is_good)
        return True

    await world.copies.scrub_packs(no_pace, "", note)
    assert told == [True] * 3
    assert world.store.quarantined() == 0
    gone.write_bytes(kept)
    gone.chmod(0o400)


async def test_it_stands_still_when_the_pace_says_so(world):
    await save(world.store, {"a": noise(3 << 20)})
    sizes: list[int] = []

    async def pace(size: int) -> None:
        sizes.append(size)
        await trio.lowlevel.checkpoint()

    await world.copies.scrub_packs(pace, "", lambda _name, _good: True)
    assert sum(sizes) >= 3 << 20


def test_the_record_keeps_the_cursor_and_stops_after_too_many():
    record = NOTHING.begun(5).read_pack("aa", is_good=True)
    assert (record.pack, record.errors) == ("aa", 0)
    assert decode_record(encode_record(record)) == record
    assert record.stopped_by_hand().begun(6).pack == "aa"
    for number in range(BAD_PACKS_MAX):
        assert not record.stopped
        record = record.read_pack(f"b{number}", is_good=False)
    assert record.stopped == f"{BAD_PACKS_MAX} damaged packs in one run: the disk may be failing"
    assert record.errors == BAD_PACKS_MAX
    assert record.begun(7).pack == ""
    assert record.found(JobId("heat.1"), Version(1), 0, 0).stopped == record.stopped
    old = b'{"started_ns": 5, "errors": 0, "bad_packs": 0, "damaged": [], "stopped": "",'
    assert decode_record(old + b' "last_ended_ns": 0, "last_errors": 0}').pack == ""


async def test_packs_that_cannot_be_listed(world, monkeypatch):
    await fill(world)

    def refused(path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(world.store._volume._calls, "scan", refused)
    with pytest.raises(Degraded):
        await read(world)
