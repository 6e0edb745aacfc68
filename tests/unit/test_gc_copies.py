"""Copies that no version needs any more: what goes from volumes, and every doubt that stops it."""

from __future__ import annotations

import contextlib
import json
import shutil

import pytest
import trio

from ckptfs.gc.sweep import Sweep
from ckptfs.ids import Version
from ckptfs.store.check import check
from ckptfs.store.gone import FILE, decode_gone, encode_gone
from ckptfs.store.store import open_store
from tests.store_kit import JOB, MIB, Cut, FaultyCalls, broken, full, load, noise, save

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part

FIRST, SECOND = noise(MIB), noise(MIB, 7)
NOW = 2_000_000_000


async def no_pace(_size: int) -> None:
    await trio.lowlevel.checkpoint()


class World:
    """A store with volumes b and c, two versions of different content on both."""

    def __init__(self, directory, calls=None):
        self.directory, self.now_s = directory, float(NOW)
        self.open(calls)

    def open(self, calls=None):
        self.store = open_store(
            self.directory / "store",
            create=True,
            clock=lambda: int(self.now_s * 1e9),
            calls=calls,
        )
        self.copies = self.store.copies
        self.sweep = Sweep(
            self.store.garbage,
            wall_s=lambda: self.now_s,
            uptime_s=lambda: self.now_s,
            is_scarce=lambda: False,
            copies=self.copies,
            grace_s=0.0,
        )

    async def fill(self):
        await save(self.store, {"a": FIRST})
        await save(self.store, {"a": SECOND}, version=2)
        for name in ("b", "c"):
            (self.directory / name).mkdir()
            await self.copies.add(str(self.directory / name))
        await self.round()

    async def round(self):
        await self.copies.round({JOB: 3}, no_pace)

    async def collect(self):
        return await self.sweep.run(asked=True, empty_trash=False, tell=lambda *_: None)

    def remove(self, version=1):
        self.store.remove(JOB, Version(version), trash_s=0)

    def held(self, name):
        places = ("packs", "manifests", "heads")
        paths = (p for place in places for p in (self.directory / name / place).rglob("*"))
        return sorted(path.name for path in paths if path.is_file())

    def counts(self):
        versions = self.store.versions(JOB)
        return {int(version): self.copies.count(JOB, version) for version in versions}


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    await world.fill()
    yield world
    world.store.close()


async def test_the_copies_of_a_removed_version_go_with_it(world):
    before = world.held("b")
    world.remove()
    report = await world.collect()
    assert (report.doubt, report.doubts, report.copies) == ("", {}, 8)
    assert report.freed_bytes > 3 * MIB  # here and on two volumes
    assert len(before) == 8
    assert len(world.held("b")) == len(world.held("c")) == 4
    await world.round()
    assert world.counts() == {2: 3}
    assert world.copies.gone.versions == frozenset()
    assert (await world.collect()).copies == 0


async def test_nothing_goes_where_all_is_needed(world):
    before = world.held("b")
    assert (await world.collect()).copies == 0
    assert world.held("b") == before
    assert not (world.directory / "store" / FILE).exists()


async def test_what_lies_in_the_trash_keeps_its_copies(world):
    world.store.remove(JOB, Version(1))
    assert (await world.collect()).copies == 0
    world.store.undelete(JOB, Version(1))
    await world.round()
    assert world.counts() == {1: 3, 2: 3}


async def test_a_plan_says_what_would_go_and_changes_nothing(world):
    world.remove()
    await world.sweep.plan(empty_trash=False)
    before = world.held("b")
    assert await world.sweep.plan_volumes() == [
        "volume b: 0 copies are needed by no version",  # its head is in the trash yet
        "volume c: 0 copies are needed by no version",
    ]
    (world.directory / "c" / "heads" / "notes").touch()
    lines = await world.sweep.plan_volumes()
    assert lines[1] == "volume c: nothing goes: heads/notes does not belong there"
    assert world.held("b") == before


async def test_one_that_comes_back_stale_loses_what_was_removed_meanwhile(world):
    (world.directory / "b").rename(world.directory / "away")
    await world.round()
    world.remove()
    report = await world.collect()
    assert (report.copies, report.doubts) == (4, {})
    assert world.copies.gone.versions == {(JOB, Version(1))}
    world.store.close()
    world.open()
    (world.directory / "away").rename(world.directory / "b")
    await world.round()
    assert (await world.collect()).copies == 4
    assert len(world.held("b")) == 4
    assert world.copies.gone.versions == frozenset()


async def test_a_version_that_the_store_has_lost_is_kept_elsewhere(world):
    before = world.held("b")
    world.store.close()
    (world.directory / "store" / "heads" / JOB / "1").unlink()
    world.open()
    await world.round()
    report = await world.collect()
    assert (report.copies, report.doubts) == (0, {})
    assert world.held("b") == before
    (line,) = (line for line in await world.sweep.plan_volumes() if "volume b: stays" in line)
    assert f"{JOB}/1: not known to this store" in line


@pytest.mark.wrong_store("a copied head is damaged")
async def test_one_that_cannot_even_be_read_keeps_everything(world):
    world.store.close()
    (world.directory / "store" / "heads" / JOB / "1").unlink()
    head = world.directory / "b" / "heads" / JOB / "1"
    head.chmod(0o600)
    head.write_bytes(head.read_bytes()[:-9])
    world.open()
    await world.round()
    world.remove(2)
    report = await world.collect()
    assert "which this store does not know and cannot read" in report.doubts["b"]
    assert len(world.held("b")) == 8
    assert len(world.held("c")) == 4  # there it can be read; only the removed one went


def stranger(world):
    (world.directory / "b" / "packs" / "holiday.jpg").touch()


def other_store(world):
    marker = world.directory / "b" / "VOLUME"
    row = json.loads(marker.read_text())
    marker.chmod(0o600)
    marker.write_text(json.dumps(row | {"store": "0" * 32}))


def newer_format(world):
    marker = world.directory / "b" / "VOLUME"
    row = json.loads(marker.read_text())
    marker.chmod(0o600)
    marker.write_text(json.dumps(row | {"format": 99}))


def other_volume(world):
    shutil.copy(world.directory / "c" / "VOLUME", world.directory / "b" / "VOLUME")


def gone_away(world):
    (world.directory / "b").rename(world.directory / "away")


def listing_fails(world):
    def fail():
        raise broken()

    world.copies._volumes["b"].volume.listing = fail


@pytest.mark.parametrize(
    ("doubt", "words", "state"),
    [
        (stranger, "packs/holiday.jpg does not belong there", "up"),
        (other_store, "belongs to another store", "foreign"),
        (newer_format, "has format 99", "unknown_format"),
        (other_volume, "another volume of this store is in its place", "foreign"),
        (gone_away, "holds no volume", "missing"),
        (listing_fails, "input/output error", "failing"),
    ],
)
async def test_in_doubt_nothing_is_removed_and_the_other_volumes_go_on(world, doubt, words, state):
    doubt(world)
    before = world.held("b")
    world.remove()
    report = await world.collect()
    assert words in report.doubts["b"]
    assert world.held("b") == before
    assert len(world.held("c")) == 4
    assert next(row.state for row in world.copies.rows() if row.name == "b") == state
    assert world.copies.gone.versions == {(JOB, Version(1))}


async def test_a_volume_not_looked_at_yet_is_left_alone(world):
    world.store.close()
    world.open()
    world.remove()
    assert (await world.collect()).copies == 0
    assert len(world.held("b")) == 8
    await world.round()
    assert (await world.collect()).copies == 8


async def test_doubt_about_the_store_itself_keeps_all_copies(world):
    world.remove()
    manifest = next((world.directory / "store").glob("manifests/*/*[0-9a-f]"))
    manifest.rename(manifest.with_name("away"))
    world.store.close()
    world.open()
    await world.round()
    assert (await world.collect()).doubt
    assert len(world.held("b")) == 8


async def test_without_room_for_the_record_copies_stay(tmp_path):
    calls = FaultyCalls()
    world = World(tmp_path, calls)
    await world.fill()
    world.remove()
    calls.fail_when = lambda name, what: full() if name == "create" and FILE in what else None
    assert (await world.collect()).copies == 0
    assert len(world.held("b")) == 8
    world.store.close()


async def test_what_was_torn_or_replaced_goes_too(world):
    pack = next((world.directory / "b").glob("packs/*/*"))
    pack.with_name(f".{pack.name}.tmp").touch()
    aside = world.directory / "b" / "quarantine"
    aside.mkdir()
    (aside / f"packs.{pack.name}").write_bytes(b"bad")
    (aside / f"packs.{'0' * 40}").write_bytes(b"no other is known")
    await world.collect()
    assert not pack.with_name(f".{pack.name}.tmp").exists()
    assert [path.name for path in aside.iterdir()] == [f"packs.{'0' * 40}"]


@pytest.mark.slow
async def test_it_may_be_cut_off_anywhere(tmp_path):
    for at in range(400):
        place = tmp_path / str(at)
        place.mkdir()
        calls = FaultyCalls()
        world = World(place, calls)
        await world.fill()
        world.remove()
        calls.cut_at = len(calls.log) + at
        try:
            await world.collect()
        except (Cut, BaseExceptionGroup):
            assert calls.was_cut
        with contextlib.suppress(Cut):
            world.store.close()
        world.open()
        await world.round()
        assert world.counts() == {2: 3}, at
        report = await world.collect()
        assert (report.doubt, report.doubts) == ("", {})
        assert len(world.held("b")) == len(world.held("c")) == 4, at
        assert await load(world.store, "a", version=2) == SECOND
        world.store.close()
        assert check(place / "store") == []
        shutil.rmtree(place)
        if not calls.was_cut:
            print(f"{at} places to cut a collection")
            assert at > 20
            return
    pytest.fail("it never came to its end")


def test_the_record_comes_back_and_a_torn_one_protects(tmp_path):
    versions = frozenset({(JOB, Version(3)), (JOB, Version(12))})
    assert decode_gone(encode_gone(versions)) == versions
    for torn in (b"", b"{", b'{"format": 2, "versions": []}', b'{"format": 1}'):
        with pytest.raises((ValueError, KeyError)):
            decode_gone(torn)
