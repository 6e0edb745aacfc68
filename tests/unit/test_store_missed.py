"""What is damaged or gone here and lies on a volume is asked for when it is missed, not later."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from ckptfs.errors import Corrupt, NotFound, TryAgain
from ckptfs.fs.images import have_head
from ckptfs.fs.nodes import Kind, Node
from ckptfs.fs.verbs import undelete
from ckptfs.ids import Version
from ckptfs.model import Caller
from ckptfs.store import layout
from ckptfs.store.manifest import manifest_packs
from ckptfs.store.versions import manifest_of
from tests.copies_kit import DATA, World, flip
from tests.store_kit import JOB, load
from tests.unit.test_store_lost_heads import collect

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part
ONE = Version(1)


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.store.close()


def heard(world) -> list[int]:
    """Begin to note how often a round was asked for."""
    calls: list[int] = []
    world.copies.wanted = lambda: calls.append(1)
    return calls


def head_of(world, place="store"):
    return world.directory / place / "heads" / JOB / "1"


def manifest_path(world):
    """Where the manifest of version 1 lies, which is in the trash."""
    name = manifest_of(world.store.trashed_head(JOB, ONE))
    return world.directory / "store" / layout.object_path("manifests", name)


async def reopened(world):
    world.reopen()
    await world.round(0)


@pytest.mark.parametrize("spoil", [flip, lambda path: path.unlink()])
async def test_a_head_that_cannot_be_read_is_fetched_back_at_once(world, spoil):
    await world.fill("b")
    await reopened(world)
    spoil(head_of(world))
    calls = heard(world)
    for _ in range(3):
        with pytest.raises(Corrupt):
            world.store.head(JOB, ONE)
    assert calls == [1]  # asked for once
    await world.round(0)
    assert world.store.head(JOB, ONE).version == 1
    assert await load(world.store, "a") == DATA[1]


@pytest.mark.parametrize("spoil", [flip, lambda path: path.unlink()])
async def test_who_waits_for_a_damaged_head_gets_it_from_a_volume(world, spoil):
    """As with a manifest: at once, not with the round that mends the store."""
    await world.fill("b", "c")
    await reopened(world)
    spoil(head_of(world))
    flip(head_of(world, "b"))  # and not the first copy that there is
    assert await load(world.store, "a") == DATA[1]
    assert world.store.head(JOB, ONE).version == 1
    await world.round(0)
    await reopened(world)
    assert world.store.head(JOB, ONE).version == 1
    await world.scrub()  # which sets the other bad one aside
    await world.round(3)


async def test_who_looks_into_a_version_waits_for_its_head_and_who_lists_the_job_does_not(world):
    await world.fill("b")
    await reopened(world)
    flip(head_of(world))
    service = SimpleNamespace(head=world.store.head, store=world.store)
    for kind in (Kind.JOB, Kind.VERSION_CTL):
        await have_head(service, Node(kind, JOB, ONE))
        with pytest.raises(Corrupt):
            world.store.head(JOB, ONE)
    await have_head(service, Node(Kind.VERSION, JOB, ONE))
    assert world.store.head(JOB, ONE).version == 1
    await have_head(service, Node(Kind.VERSION, JOB, Version(9)))  # nobody's; said by the lookup
    await world.round(0)


async def test_just_after_a_start_it_waits_for_the_first_look_at_the_volumes(world):
    await world.fill("b")
    world.reopen()
    flip(head_of(world))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.store.ready, JOB, ONE)
        await trio.testing.wait_all_tasks_blocked()
        await world.round(0)
    assert await load(world.store, "a") == DATA[1]


async def test_a_version_that_is_removed_while_its_head_is_fetched_does_not_come_back(world):
    await world.fill("b")
    await reopened(world)
    flip(head_of(world))
    fetch = world.store._versions.rescue_head

    def removed_meanwhile(job, version):
        trio.from_thread.run_sync(partial(world.store.remove, job, version))
        return fetch(job, version)

    world.store._versions.rescue_head = removed_meanwhile
    with pytest.raises(NotFound):
        await world.store.ready(JOB, ONE)
    assert list(world.store.versions(JOB)) == [2]


@pytest.mark.wrong_store("a head without a copy is damaged")
async def test_without_a_copy_nobody_is_asked(world):
    await world.fill()
    (world.directory / "b").mkdir()
    await world.copies.add(str(world.directory / "b"))
    await reopened(world)
    flip(head_of(world))
    calls = heard(world)
    with pytest.raises(Corrupt):
        world.store.head(JOB, ONE)
    assert calls == []


async def test_a_head_that_vanishes_beside_the_service_comes_back_when_it_is_noticed(world):
    await world.fill("b")
    world.store.head(JOB, ONE)  # at hand: readers notice nothing
    head_of(world).unlink()
    calls = heard(world)
    assert (await collect(world.store)).doubt == f"the head of version 1 of {JOB} vanished"
    assert calls == [1]
    await world.round(0)
    assert head_of(world).read_bytes() == head_of(world, "b").read_bytes()
    assert not (await collect(world.store)).doubt


@pytest.mark.parametrize("spoil", [flip, lambda path: path.unlink()])
async def test_undelete_takes_a_bad_manifest_from_a_volume(world, spoil):
    await world.fill("b")
    await reopened(world)
    world.store.remove(JOB, ONE)
    spoil(manifest_path(world))
    calls = heard(world)
    with pytest.raises(TryAgain, match="is being fetched back from a volume: ask again"):
        world.store.undelete(JOB, ONE)
    assert calls == [1]
    assert list(world.store.versions(JOB)) == [2]
    await world.round(0)
    world.store.undelete(JOB, ONE)
    assert await load(world.store, "a") == DATA[1]


async def test_undelete_takes_a_missing_pack_from_a_volume(world):
    await world.fill("b")
    world.store.remove(JOB, ONE)
    path = manifest_path(world)
    for pack in manifest_packs(path.name, path.read_bytes()):
        (world.directory / "store" / layout.object_path("packs", pack)).unlink()
    with pytest.raises(TryAgain, match="pack"):
        world.store.undelete(JOB, ONE)
    await world.round(0)
    world.store.undelete(JOB, ONE)
    assert await load(world.store, "a") == DATA[1]


async def test_undelete_without_a_copy_stays_refused(world):
    await world.fill()
    world.reopen()
    world.store.remove(JOB, ONE)
    flip(manifest_path(world))
    with pytest.raises(Corrupt):
        world.store.undelete(JOB, ONE)


# -- the control file ----------------------------------------------------------


class Asked:
    """A service whose undelete has to be asked *times* before the volume has answered."""

    def __init__(self, times: int) -> None:
        self.times, self.asked = times, 0

    def undelete(self, job, version, caller):
        self.asked += 1
        if self.asked < self.times:
            raise TryAgain("manifest 12 is being fetched back from a volume: ask again")


@pytest.mark.parametrize(("times", "comes_back"), [(1, True), (4, True), (1000, False)])
async def test_an_undelete_waits_a_moment_for_what_is_fetched(times, comes_back, autojump_clock):
    service = Asked(times)
    around = SimpleNamespace(pause=trio.sleep)
    view = SimpleNamespace(service=service, job=SimpleNamespace(id=JOB), around=around)
    if comes_back:
        assert await undelete(view, "1", Caller(0, 0)) == "1"
        assert service.asked == times
    else:
        with pytest.raises(TryAgain):
            await undelete(view, "1", Caller(0, 0))
    assert trio.current_time() < 8  # the mount gives a write 10 s
