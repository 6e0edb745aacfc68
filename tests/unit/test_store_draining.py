"""Draining a volume: what lies there moves elsewhere and goes once that is proved."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptfs.errors import Busy, Exists
from ckptfs.ids import JobId, Version
from ckptfs.store.copies_extra import drain_text, plan_extra
from ckptfs.store.copies_plan import Holding, Piece, count_copies, plan_moves
from tests.copies_kit import DATA, World, flip, no_pace
from tests.store_kit import JOB, load

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.store.close()


async def add(world, name, *how):
    (world.directory / name).mkdir(exist_ok=True)
    await world.copies.add(str(world.directory / name), *how)


def progress(world, name="b"):
    return next(row.reason for row in world.copies.rows() if row.name == name)


async def remove(world, level=2, name="b"):
    await world.copies.remove(name, {JOB: level})


async def test_everything_moves_is_removed_and_the_volume_let_go(world):
    await world.fill("b")
    world.copies.set_draining("b", True)
    await world.round(2)
    assert progress(world) == "2 of 2 versions there are to be copied elsewhere first"
    assert len(world.files("b")) == 8
    with pytest.raises(Busy, match="needed by 2 versions, first version 1"):
        await remove(world)
    await add(world, "c")
    await world.round(2)
    assert (world.files("b"), len(world.files("c"))) == ([], 8)
    assert world.counts() == [2, 2]
    assert progress(world) == "empty: ckptfs volume rm b lets it go"
    await remove(world)
    assert [row.name for row in world.copies.rows()] == ["c"]
    for version, data in DATA.items():
        assert await load(world.store, "a", version=version) == data


async def test_a_survivor_that_is_damaged_keeps_the_copy_until_it_is_mended(world):
    await world.fill("b", "c")
    flip(max((world.directory / "c").glob("packs/??/*")))
    world.copies.set_draining("b", True)
    await world.round(2)
    assert len(world.files("b")) in {4, 8}
    with pytest.raises(Busy, match=r"needed by 1 version|is being emptied"):
        await remove(world)
    for _ in range(2):  # the bad copy is made anew, then it is read
        await world.round(2)
    assert (world.files("b"), len(world.files("c"))) == ([], 8)
    assert world.counts() == [2, 2]


async def test_a_damaged_original_is_mended_before_its_last_copy_goes(world):
    await world.fill("b")
    flip(max((world.directory / "store").glob("packs/??/*")))
    world.copies.set_draining("b", True)
    for _ in range(3):
        await world.round(1)
    assert world.copies.mended() == 1
    assert world.files("b") == []
    for version, data in DATA.items():
        assert await load(world.store, "a", version=version) == data


async def test_it_goes_on_after_the_service_was_gone(world, monkeypatch):
    await world.fill("b", "c")
    world.copies.set_draining("b", True)
    gone = []

    def cut_off(self, piece):
        if len(gone) == 3:
            raise OSError(5, "the disk is gone")
        gone.append(piece)
        discard(self, piece)

    volume = type(world.copies._fleet.volumes["b"].volume)
    discard = volume.discard
    monkeypatch.setattr(volume, "discard", cut_off)
    await world.round(2)
    assert len(world.files("b")) == 5
    monkeypatch.undo()
    world.reopen()
    await world.round(2)
    assert world.files("b") == []
    assert world.state("b") == "draining"
    assert world.counts() == [2, 2]


async def test_it_can_be_taken_back_half_way(world):
    await world.fill("b", "c")
    world.copies.set_draining("b", True)
    await world.round(2)
    assert world.files("b") == []
    world.copies.set_draining("b", False)
    await world.round(3)
    assert progress(world) == ""
    assert (len(world.files("b")), world.counts()) == (8, [3, 3])


async def test_versions_in_the_trash_or_unknown_hold_their_copies(world):
    await world.fill("b", "c")
    world.store.remove(JOB, Version(1))
    world.copies.set_draining("b", True)
    await world.round(2)
    assert len(world.files("b")) == 8
    assert progress(world).startswith("1 version is there in the trash: nothing is removed before")
    [(_, until_s)] = world.store.trashed(JOB)
    until = datetime.fromtimestamp(until_s, UTC)
    assert f"{until:%Y-%m-%dT%H:%M:%SZ} at the latest, or at once with" in progress(world)
    await remove(world)  # nothing that is committed needs it
    assert len(world.files("b")) == 8


async def test_a_failing_volume_is_not_emptied(world):
    await world.fill("b", "c")
    world.copies._fleet.volumes["b"].alarm = "5 damaged copies in one scrub"
    world.copies.set_draining("b", True)
    world.copies._fleet.volumes["b"].alarm = "5 damaged copies in one scrub"
    await world.round(2)
    assert len(world.files("b")) == 8


async def test_the_seal_of_a_volume_changes_by_draining_letting_go_and_adding_again(world):
    await world.fill("b")
    place = str(world.directory / "b")
    with pytest.raises(Exists, match="keeps its copies plain, which cannot be changed in place"):
        await world.copies.add(place, "", "compress")
    with pytest.raises(Exists, match="called b already"):
        await world.copies.add(place)
    (world.directory / "else").symlink_to(place)
    with pytest.raises(Busy, match="are kept plain, not compress; to change that, drain it"):
        await world.copies.add(str(world.directory / "else"), "", "compress")
    world.copies.set_draining("b", True)
    await add(world, "c")
    await world.round(2)
    with pytest.raises(Busy, match="are kept plain, not compress"):  # empty, and not let go
        await world.copies.add(str(world.directory / "else"), "", "compress")
    await remove(world)
    before = json.loads((world.directory / "b" / "VOLUME").read_text())
    assert await world.copies.add(place, "", "compress") == "b"
    after = json.loads((world.directory / "b" / "VOLUME").read_text())
    assert after["seal"] == "compress"
    assert after["volume"] != before["volume"]
    await world.round(3)
    assert (len(world.files("b")), world.counts()) == (8, [3, 3])
    await world.copies.scrub("b", no_pace, since_ns=1, clock_ns=lambda: 2)
    assert world.state("b") == "up"


async def test_a_volume_let_go_with_copies_keeps_its_seal(world):
    await world.fill("b", "c")
    (world.directory / "b").rename(world.directory / "away")
    await world.round(2)
    await remove(world)
    (world.directory / "away").rename(world.directory / "b")
    with pytest.raises(Busy, match="are kept plain, not encrypt"):
        await world.copies.add(str(world.directory / "b"), "", "encrypt")
    assert len(world.files("b")) == 8


# -- the plan ------------------------------------------------------------------

PIECES = [Piece("packs", name) for name in "pqr"] + [Piece("heads", f"j.1@{n}") for n in "12"]
JOB_1 = JobId("j.1")
KEYS = [(JOB_1, Version(1)), (JOB_1, Version(2))]
some = st.frozensets(st.sampled_from(PIECES), min_size=1)


@settings(max_examples=300, deadline=None)
@given(
    needs=st.fixed_dictionaries(dict.fromkeys(KEYS, some)),
    holdings=st.dictionaries(
        st.sampled_from("bcd"),
        st.builds(Holding, st.sampled_from(["d1", "d2", "d3"]), some, st.just(True), st.just(True)),
    ),
    held=some,
    level=st.integers(1, 4),
)
def test_emptying_never_goes_below_the_level_and_comes_to_an_end(needs, holdings, held, level):
    levels = {JOB_1: level}
    holdings = holdings | {"a": Holding("da", held, takes=False, stays=False)}
    if plan_moves(needs, levels, holdings, "d1"):
        return
    after = dict(holdings)
    for extra in plan_extra(needs, levels, holdings, "d1", list(holdings), ["a"]):
        old = after[extra.volume]
        assert set(extra.pieces) <= old.held
        assert all("a" not in places for places in extra.survivors.values())
        after[extra.volume] = Holding(
            old.domain, old.held - set(extra.pieces), old.takes, old.stays
        )
    for pieces in needs.values():
        before = count_copies(pieces, holdings, "d1", is_sound=True)
        assert count_copies(pieces, after, "d1", is_sound=True) >= min(level, before)
    assert plan_moves(needs, levels, after, "d1") == []
    assert plan_extra(needs, levels, after, "d1", list(after), ["a"]) == []
    text = drain_text("a", needs, levels, after, "d1", {})
    assert ("empty" in text) == (not after["a"].held)


def test_the_sentence_says_what_it_waits_for():
    pack, head = Piece("packs", "p"), Piece("heads", "j.1@1")
    needs = {KEYS[0]: frozenset({pack, head})}

    def text(held, elsewhere=frozenset(), level=2, trashed=()):
        holdings = {
            "a": Holding("da", frozenset(held), takes=False, stays=False),
            "b": Holding("db", frozenset(elsewhere), takes=True, stays=True),
        }
        return drain_text("a", needs, {JOB_1: level}, holdings, "d1", dict(trashed))

    assert text({pack, head}) == "1 of 1 versions there are to be copied elsewhere first"
    assert text({pack, head}, {pack, head}).startswith("1 versions are kept elsewhere, and")
    others = {pack, head, Piece("heads", "j.1@2"), Piece("heads", "j.1@3")}
    assert text(others, {pack, head}).startswith(
        "2 versions are there not known to this store, first version 2 of j.1: nothing is"
    )
    in_trash = {(JOB_1, Version(2)): 1_800_000_000, (JOB_1, Version(3)): 1_700_000_000}
    assert text(others, {pack, head}, trashed=in_trash) == (
        "2 versions are there in the trash: nothing is removed before that is over, "
        "2027-01-15T08:00:00Z at the latest, or at once with ckptfs gc --empty-trash"
    )
    del in_trash[JOB_1, Version(3)]
    assert text(others, {pack, head}, trashed=in_trash).startswith("1 version is there not known")
    assert text({Piece("packs", "x")}).startswith("1 objects there are of no version")
    assert text({}) == "empty: ckptfs volume rm a lets it go"
