"""Copies that are there: too many of them, rotten ones, and disks that fail."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptfs.ids import JobId, Version
from ckptfs.store.copies_extra import plan_extra
from ckptfs.store.copies_plan import Holding, Piece, count_copies, plan_moves
from ckptfs.store.copies_scrub import (
    FILE,
    FOUND_MAX,
    VolumeScrub,
    decode_scrubs,
    encode_scrubs,
    mark_of,
    piece_of,
)
from ckptfs.store.store import open_store
from tests.copies_kit import DATA, NOW, World, flip, some_holdings, some_needs
from tests.store_kit import JOB, FaultyCalls, load

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.store.close()


# -- too many ------------------------------------------------------------------


async def test_a_lower_level_takes_copies_away_once_the_others_were_read(world):
    await world.fill("b", "c")
    assert world.counts() == [3, 3]
    await world.round(2)
    assert world.counts() == [2, 2]
    assert (len(world.files("b")), len(world.files("c"))) == (8, 0)
    await world.round(1)
    assert world.counts() == [1, 1]
    assert world.files("b") == []


@pytest.mark.parametrize(("place", "left"), [("store", (8, 0)), ("b", (4, 4))])
async def test_nothing_is_taken_away_while_one_that_stays_is_damaged(world, place, left):
    await world.fill("b", "c")
    flip(max((world.directory / place).glob("packs/??/*")))
    await world.round(2)
    assert len(world.files("c")) >= 4
    for _ in range(3):  # the store is mended; for a bad copy on b the good one on c stays
        await world.round(2)
    assert world.counts() == [2, 2]
    assert (len(world.files("b")), len(world.files("c"))) == left
    for version, data in DATA.items():
        assert await load(world.store, "a", version=version) == data


async def test_a_volume_with_unknown_versions_keeps_its_copies(world):
    await world.fill("b", "c")
    world.store.remove(JOB, Version(1))  # in the trash: the collector's
    await world.round(1)
    assert (len(world.files("b")), len(world.files("c"))) == (8, 8)


async def test_the_second_copy_in_one_domain_is_one_too_many(world):
    for name in ("b", "c"):
        (world.directory / name).mkdir()
    await world.copies.add(str(world.directory / "b"), "rack")
    await world.fill()
    await world.round(2)
    await world.copies.add(str(world.directory / "c"), "other")
    await world.round(3)
    assert world.counts() == [3, 3]
    volumes = world.copies._fleet.volumes
    volumes["c"].record = volumes["c"].record.__class__(
        "c", str(world.directory / "c"), "rack", volumes["c"].record.volume_id
    )
    await world.round(2)
    assert sorted((len(world.files("b")), len(world.files("c")))) == [0, 8]


@settings(max_examples=300, deadline=None)
@given(
    needs=some_needs,
    holdings=some_holdings,
    level=st.integers(1, 4),
)
@pytest.mark.slow
def test_taking_away_never_goes_below_the_level_and_never_starts_copying(needs, holdings, level):
    levels = {JobId("j.1"): level}
    if plan_moves(needs, levels, holdings, "d1"):
        return
    after = dict(holdings)
    for extra in plan_extra(needs, levels, holdings, "d1", list(holdings)):
        old = after[extra.volume]
        assert old.stays
        assert set(extra.pieces) <= old.held
        after[extra.volume] = Holding(
            old.domain, old.held - set(extra.pieces), old.takes, old.stays
        )
    for pieces in needs.values():
        before = count_copies(pieces, holdings, "d1", is_sound=True)
        assert count_copies(pieces, after, "d1", is_sound=True) >= min(level, before)
    assert plan_moves(needs, levels, after, "d1") == []
    assert plan_extra(needs, levels, after, "d1", list(after)) == []


# -- rotten --------------------------------------------------------------------


async def test_a_scrub_finds_a_rotten_copy_of_every_kind_and_it_is_made_again(world):
    await world.fill("b")
    good = [path.read_bytes() for path in world.files("b")]
    assert await world.scrub() == (8, 0)
    kinds = {"packs": 0, "tables": 0, "heads": 0}
    for path in world.files("b"):
        kind = "tables" if path.suffix else path.relative_to(world.directory / "b").parts[0]
        if kinds.get(kind) == 0:
            flip(path)
            kinds[kind] = 1
    assert await world.scrub(since_ns=NOW + 1) == (8, 3)
    await world.round(0)
    assert min(world.counts()) == 1  # the three may be of one version
    await world.round(2)
    assert world.counts() == [2, 2]
    assert [path.read_bytes() for path in world.files("b")] == good
    assert await world.scrub(since_ns=NOW + 2) == (8, 0)
    assert len(list((world.directory / "b" / "quarantine").iterdir())) == 3


async def test_a_scrub_that_was_cut_off_goes_on_where_it_was(world, monkeypatch):
    monkeypatch.setattr("ckptfs.store.copies_scrub.KEEP_EVERY", 1)
    await world.fill("b")
    seen = []

    async def stop(size):
        seen.append(size)
        if seen.count(0) == 6:
            raise KeyboardInterrupt

    with pytest.raises(BaseExceptionGroup):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: world.scrub(pace=stop))
    world.reopen()
    await world.round(2)
    assert await world.scrub() == (3, 0)
    assert await world.scrub() == (0, 0)  # this run is over
    assert await world.scrub(since_ns=NOW + 1) == (8, 0)


async def test_five_rotten_copies_ring_and_nothing_new_is_trusted_to_that_disk(world):
    await world.fill("b", "c")
    packs = sorted((world.directory / "b").glob("packs/??/*"))
    manifests = sorted((world.directory / "b").glob("manifests/??/*"), key=lambda p: p.suffix)
    for path in (packs + manifests)[:FOUND_MAX]:
        flip(path)
    read, damaged = await world.scrub()
    assert (damaged, world.state("b")) == (FOUND_MAX, "failing")
    assert read < 8
    assert "5 damaged copies in one scrub" in world.copies.rows()[0].reason
    assert await world.scrub(since_ns=NOW + 1) == (0, 0)  # not read on by itself
    await world.round(3)
    assert world.counts() == [2, 2]
    world.reopen()
    await world.round(3)
    assert world.state("b") == "failing"
    world.copies.set_draining("b", False)  # echo b up > ctl/volumes
    await world.round(3)
    assert world.state("b") == "up"
    assert world.counts() == [3, 3]


async def test_a_copy_that_cannot_be_set_aside_counts_no_more_all_the_same(tmp_path):
    calls = FaultyCalls()
    world = World(tmp_path)
    world.store.close()
    world.store = open_store(tmp_path / "store", create=False, calls=calls)
    await world.fill("b")
    flip(max((tmp_path / "b").glob("packs/??/*")))
    calls.fail_when = lambda name, what: OSError(30, "read-only") if name == "mkdir" else None
    assert await world.scrub() == (8, 1)
    calls.fail_when = lambda name, what: None
    world.reopen()
    await world.round(0)
    assert sorted(world.counts()) == [1, 2]
    await world.round(2)
    assert world.counts() == [2, 2]
    assert decode_scrubs((tmp_path / "store" / FILE).read_bytes()).popitem()[1].bad == ()
    world.store.close()


async def test_a_volume_that_goes_while_it_is_scrubbed_is_missing_not_rotten(world):
    await world.fill("b")
    seen = []

    async def take_away(size):
        seen.append(size)
        if len(seen) == 3:
            (world.directory / "b").rename(world.directory / "away")

    assert (await world.scrub(pace=take_away))[1] == 0
    assert world.state("b") == "missing"
    (world.directory / "away").rename(world.directory / "b")
    await world.round(2)
    assert (await world.scrub())[1] == 0
    assert world.counts() == [2, 2]


def test_the_record_comes_back():
    piece = Piece("heads", "heat.42@7")
    record = VolumeScrub(1, mark_of(piece), 2, 3, (mark_of(piece),), "bad")
    assert piece_of(mark_of(piece)) == piece
    assert decode_scrubs(encode_scrubs({"v": record})) == {"v": record}
    with pytest.raises(ValueError, match="no kind"):
        piece_of("0.shoes.x")
