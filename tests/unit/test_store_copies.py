"""Copies of versions: where they go, when they count, what they mend."""

from __future__ import annotations

import shutil
import threading

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptfs.errors import Busy, Corrupt, Exists, InvalidInput, NotFound
from ckptfs.ids import JobId, Version
from ckptfs.store import copies as copies_module
from ckptfs.store import copying as copying_module
from ckptfs.store import fleet as fleet_module
from ckptfs.store.attached import held_up
from ckptfs.store.copies_plan import Holding, Piece, count_copies, plan_moves
from ckptfs.store.store import open_store
from tests.copies_kit import some_holdings, some_needs
from tests.store_kit import JOB, MIB, FaultyCalls, dirtied, full, load, noise, save

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part

DATA = noise(2 * MIB)


async def no_pace(_size: int) -> None:
    await trio.lowlevel.checkpoint()


@pytest.fixture
def places(tmp_path):
    for name in ("b", "c"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def store(places):
    opened = open_store(places / "store", create=True)
    yield opened
    opened.close()


def flip(path, at=5000):
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def packs_of(directory):
    return sorted(directory.glob("packs/[0-9a-f][0-9a-f]/*"))


def words(store):
    return {row.name: row.state for row in store.copies.rows()}


async def test_a_copy_counts_when_it_is_whole(store, places):
    await save(store, {"a": DATA})
    await store.copies.add(str(places / "b"))
    assert store.copies.count(JOB, Version(1)) == 1
    assert await store.copies.round({JOB: 2}, no_pace)
    assert store.copies.count(JOB, Version(1)) == 2
    assert not await store.copies.round({JOB: 2}, no_pace)
    await save(store, {"a": dirtied(DATA, 5, 1)}, version=2)
    await store.copies.round({JOB: 2}, no_pace)
    assert store.copies.count(JOB, Version(2)) == 2
    kept = {path.name for path in packs_of(places / "b")}
    assert kept == {path.name for path in packs_of(places / "store")}


async def test_nothing_is_copied_that_nobody_asked_for(store, places):
    await save(store, {"a": DATA})
    await store.copies.add(str(places / "b"))
    await store.copies.round({}, no_pace)
    assert packs_of(places / "b") == []


async def test_one_domain_holds_one_copy(store, places):
    await save(store, {"a": DATA})
    await store.copies.add(str(places / "b"), "rack")
    await store.copies.add(str(places / "c"), "rack")
    assert store.copies.domains() == 2
    await store.copies.round({JOB: 3}, no_pace)
    assert store.copies.count(JOB, Version(1)) == 2
    assert not (packs_of(places / "b") and packs_of(places / "c"))


async def test_volumes_are_known_after_a_restart(store, places):
    await save(store, {"a": DATA})
    await store.copies.add(str(places / "b"))
    await store.copies.round({JOB: 2}, no_pace)
    store.close()
    again = open_store(places / "store", create=False)
    try:
        assert words(again) == {"b": "stale"}
        await again.copies.round({JOB: 2}, no_pace)
        assert again.copies.count(JOB, Version(1)) == 2
        assert words(again) == {"b": "up"}
    finally:
        again.close()


@pytest.mark.parametrize("how", ["flipped", "missing"])
async def test_a_reader_gets_good_bytes_and_the_store_is_mended(store, places, how):
    await save(store, {"a": DATA})
    await store.copies.add(str(places / "b"))
    await store.copies.round({JOB: 2}, no_pace)
    (pack,) = packs_of(places / "store")
    good = pack.read_bytes()
    flip(pack) if how == "flipped" else pack.unlink()
    store._packs.clear()
    assert await load(store, "a") == DATA
    assert not store.damage(JOB, Version(1))
    await store.copies.round({JOB: 2}, no_pace)
    assert pack.read_bytes() == good
    assert store.copies.mended() == 1
    assert store.copies.count(JOB, Version(1)) == 2
    assert store.quarantined() == 0


async def test_a_lost_manifest_and_head_come_back(store, places):
    await save(store, {"a": DATA})
    await store.copies.add(str(places / "b"))
    await store.copies.round({JOB: 2}, no_pace)
    store.close()
    (manifest,) = (places / "store").glob("manifests/*/*[0-9a-f]")
    head = places / "store" / "heads" / JOB / "1"
    manifest.unlink()
    flip(head, 200)
    again = open_store(places / "store", create=False)
    try:
        await again.copies.round({JOB: 2}, no_pace)
        await again.copies.round({JOB: 2}, no_pace)
        assert manifest.is_file()
        assert await load(again, "a") == DATA
    finally:
        again.close()


@pytest.mark.wrong_store("damaged, and so is the copy")
async def test_without_a_good_copy_it_stays_an_error(store, places):
    await save(store, {"a": DATA})
    await store.copies.add(str(places / "b"))
    await store.copies.round({JOB: 2}, no_pace)
    for place in ("store", "b"):
        flip(packs_of(places / place)[0])
    store._packs.clear()
    with pytest.raises(Corrupt):
        await load(store, "a")


@pytest.mark.wrong_store("damaged before it was copied")
async def test_a_damaged_original_is_never_copied(store, places):
    await save(store, {"a": DATA})
    flip(packs_of(places / "store")[0])
    await store.copies.add(str(places / "b"))
    await store.copies.round({JOB: 2}, no_pace)
    assert packs_of(places / "b") == []
    assert words(store) == {"b": "up"}
    assert store.copies.count(JOB, Version(1)) == 0
    assert store.quarantined() == 1


async def test_drain_moves_everything_before_it_lets_go(store, places):
    await save(store, {"a": DATA})
    await store.copies.add(str(places / "b"))
    await store.copies.round({JOB: 2}, no_pace)
    with pytest.raises(Busy, match="drain b first"):
        await store.copies.remove("b", {JOB: 2})
    store.copies.set_draining("b", True)
    assert words(store) == {"b": "draining"}
    with pytest.raises(Busy, match="needed by 1 version, first"):
        await store.copies.remove("b", {JOB: 2})
    await store.copies.add(str(places / "c"))
    await store.copies.round({JOB: 2}, no_pace)
    assert store.copies.count(JOB, Version(1)) == 2
    assert packs_of(places / "b") == []  # those on c were read first
    assert packs_of(places / "c") != []
    await store.copies.remove("b", {JOB: 2})
    assert words(store) == {"c": "up"}


async def test_one_that_vanishes_counts_nothing_until_it_is_back(store, places):
    await save(store, {"a": DATA})
    await store.copies.add(str(places / "b"))
    await store.copies.round({JOB: 2}, no_pace)
    (places / "b").rename(places / "away")
    await store.copies.round({JOB: 2}, no_pace)
    assert words(store) == {"b": "missing"}
    assert store.copies.count(JOB, Version(1)) == 1
    packs_of(places / "away")[0].unlink()  # it comes back older than it was
    (places / "away").rename(places / "b")
    await store.copies.round({}, no_pace)
    assert words(store) == {"b": "up"}
    assert store.copies.count(JOB, Version(1)) == 1
    await store.copies.round({JOB: 2}, no_pace)
    assert store.copies.count(JOB, Version(1)) == 2


async def test_another_volume_in_its_place_is_not_used(store, places):
    await save(store, {"a": DATA})
    await store.copies.add(str(places / "b"))
    (places / "b").rename(places / "away")
    other = open_store(places / "other", create=True)
    try:
        (places / "b").mkdir()
        await other.copies.add(str(places / "b"))
    finally:
        other.close()
    await store.copies.round({JOB: 2}, no_pace)
    assert words(store) == {"b": "foreign"}
    assert packs_of(places / "b") == []


async def test_bad_places_are_refused(store, places):
    await store.copies.add(str(places / "b"))
    for path, error in (
        (places / "b", Exists),
        ("b", InvalidInput),
        (places / "c/../c", InvalidInput),
        (places / "store/packs", InvalidInput),
        (places, InvalidInput),
        (places / "b c", InvalidInput),
    ):
        with pytest.raises(error):
            await store.copies.add(str(path))
    with pytest.raises(NotFound):
        store.copies.set_draining("nobody", True)


async def test_a_full_volume_is_said_to_be_full(places):
    calls = FaultyCalls()
    store = open_store(places / "store", create=True, calls=calls)
    try:
        await save(store, {"a": DATA})
        await store.copies.add(str(places / "b"))
        calls.fail_when = lambda name, what: full() if name == "pwrite" else None
        await store.copies.round({JOB: 2}, no_pace)
        assert words(store) == {"b": "full"}
        assert not list((places / "b").rglob("*.tmp"))
        calls.fail_when = lambda name, what: None
    finally:
        store.close()


async def test_one_that_hangs_holds_up_nobody(store, places, monkeypatch):
    await save(store, {"a": DATA})
    await store.copies.add(str(places / "b"))
    release = threading.Event()
    monkeypatch.setattr(fleet_module, "LOOK_S", 0.05)
    monkeypatch.setattr(
        store.copies._volumes["b"].volume, "check", lambda _store_id: release.wait(30)
    )
    try:
        await store.copies.round({JOB: 2}, no_pace)
        assert words(store) == {"b": "slow"}
        assert store.copies.count(JOB, Version(1)) == 1
        assert await load(store, "a") == DATA
    finally:
        release.set()


async def test_a_crash_while_copying_leaves_nothing_that_counts(store, places):
    await save(store, {"a": DATA})
    await store.copies.add(str(places / "b"))
    await store.copies.round({JOB: 2}, no_pace)
    pack = packs_of(places / "b")[0]
    shutil.copy(pack, pack.with_name(f".{pack.name}.tmp"))
    pack.unlink()
    store.close()
    again = open_store(places / "store", create=False)
    try:
        await again.copies.round({}, no_pace)
        assert again.copies.count(JOB, Version(1)) == 1
        await again.copies.round({JOB: 2}, no_pace)
        assert again.copies.count(JOB, Version(1)) == 2
        assert not list((places / "b").rglob("*.tmp"))
    finally:
        again.close()


@pytest.mark.wrong_store("served from two volumes, mended by a later round")
async def test_bad_pages_of_one_block_come_from_different_volumes(store, places):
    await save(store, {"a": DATA})
    changed = dirtied(DATA, 60, 3)
    await save(store, {"a": changed}, version=2)
    for name in ("b", "c"):
        await store.copies.add(str(places / name))
    await store.copies.round({JOB: 3}, no_pace)
    for pack in packs_of(places / "store"):
        flip(pack)
    first, second = (pack.name for pack in packs_of(places / "store"))
    flip(places / "b/packs" / first[:2] / first)
    flip(places / "c/packs" / second[:2] / second)
    store._packs.clear()
    assert await load(store, "a", version=2) == changed
    await store.copies.round({JOB: 3}, no_pace)
    assert store.copies.mended() == 2
    store._packs.clear()
    assert await load(store, "a") == DATA


async def test_copying_stands_still_within_an_object(store, places):
    await save(store, {"a": DATA})
    await store.copies.add(str(places / "b"))
    seen, frozen, go_on = [], trio.Event(), trio.Event()

    async def pace(size):
        seen.append(size)
        if len([each for each in seen if each]) == 2:  # the second MiB of the pack
            frozen.set()
            await go_on.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.copies.round, {JOB: 2}, pace)
        await frozen.wait()
        assert store.copies.count(JOB, Version(1)) == 1
        (torn,) = (places / "b").rglob("packs/*/.*.tmp")
        size = torn.stat().st_size
        await trio.testing.wait_all_tasks_blocked()
        assert torn.stat().st_size == size == MIB
        go_on.set()
    assert store.copies.count(JOB, Version(1)) == 2


async def test_a_copy_that_was_given_up_ends_at_its_next_mib(store, places, monkeypatch):
    await save(store, {"a": DATA})
    await store.copies.add(str(places / "b"))
    monkeypatch.setattr(copying_module, "COPY_S", 0.0)
    monkeypatch.setattr(copying_module, "COPY_BYTES_PER_S", 1 << 40)
    await store.copies.round({JOB: 2}, no_pace)
    assert words(store) == {"b": "slow"}
    monkeypatch.undo()
    await store.copies.round({JOB: 2}, no_pace)  # waits for the thread that was given up
    assert store.copies.count(JOB, Version(1)) == 2
    assert not list((places / "b").rglob("*.tmp"))


async def test_the_time_it_stands_still_is_not_held_against_a_volume(mock_clock):
    async def hold(_size):
        mock_clock.jump(3600)
        await trio.lowlevel.checkpoint()

    def work(step):
        for _ in range(5):
            step(MIB)
        return "done"

    turn = trio.CapacityLimiter(1)
    assert await held_up(1.0, turn, work, "b", hold) == "done"


async def test_a_round_ends_so_that_what_is_urgent_by_then_comes_first(store, places, monkeypatch):
    await save(store, {"a": DATA})
    await store.copies.add(str(places / "b"))
    monkeypatch.setattr(copies_module, "SLICE_S", -1.0)
    await store.copies.round({JOB: 2}, no_pace)
    assert store.copies.unfinished
    monkeypatch.undo()
    await store.copies.round({JOB: 2}, no_pace)
    assert not store.copies.unfinished


def test_the_fewest_copies_come_first_then_what_most_need_then_the_newest():
    shared, head = Piece("packs", "s"), [Piece("heads", f"j.1@{n}") for n in range(5)]
    job = JobId("j.1")
    needs = {
        (job, Version(1)): frozenset({shared, head[1]}),
        (job, Version(2)): frozenset({shared, head[2]}),
        (job, Version(3)): frozenset({head[3]}),
        (job, Version(4)): frozenset({head[4]}),
    }
    holdings = {
        "b": Holding("b", frozenset({head[4]}), True, True),
        "c": Holding("c", frozenset(), True, True),
    }
    moves = plan_moves(needs, {job: 3}, holdings, "here")
    order = [move.piece.name for move in moves if move.piece.kind == "heads"]
    assert order == ["j.1@2", "j.1@2", "j.1@1", "j.1@1", "j.1@3", "j.1@3", "j.1@4"]


@settings(max_examples=300, deadline=None)
@given(
    needs=some_needs,
    holdings=some_holdings,
    level=st.integers(1, 5),
)
@pytest.mark.slow
def test_a_plan_carried_out_reaches_the_level_or_all_domains(needs, holdings, level):
    holdings = {
        name: Holding(h.domain, h.held, h.takes and h.stays, h.stays)
        for name, h in holdings.items()
    }
    takers = {h.domain for h in holdings.values() if h.takes}
    after = dict(holdings)
    for move in plan_moves(needs, {JobId("j.1"): level}, holdings, "d1"):
        h = after[move.volume]
        assert h.takes
        assert h.domain != "d1"
        assert move.piece not in h.held
        after[move.volume] = Holding(h.domain, h.held | {move.piece}, h.takes, h.stays)
    for pieces in needs.values():
        copies = count_copies(pieces, after, "d1", is_sound=True)
        assert copies >= min(level, len(takers | {"d1"}))
    assert plan_moves(needs, {JobId("j.1"): level}, after, "d1") == [] or level > len(
        takers | {"d1"}
    )
