"""Heads that vanished: nothing is collected, copies are fetched back, repair says what is lost."""

from __future__ import annotations

import dataclasses
import shutil
import time

import pytest
import trio

from ckptfs.catalog import jobs as catalog_jobs
from ckptfs.catalog.connection import Connection
from ckptfs.errors import Busy
from ckptfs.gc.sweep import Sweep
from ckptfs.ids import Version
from ckptfs.jobs.directory import JobsDirectory
from ckptfs.store.store import open_store
from ckptfs.upkeep.check import check_all
from ckptfs.upkeep.repair import repair
from tests.copies_kit import DATA, World
from tests.store_kit import JOB, FaultyCalls, full, load
from tests.unit.test_catalog_records import RECORD

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part

LOST = (JOB, Version(2))


def no_progress(_: float) -> None:
    pass


def mend(store, **options):
    chosen = {"rebuild_catalog": False, "discard": False} | options
    return repair(store, progress=no_progress, **chosen)


def made(directory, *volumes) -> World:
    """A store with two versions, a job's record and a catalog, as a service leaves it."""
    world = World(directory)
    trio.run(world.fill, *volumes)
    store = directory / "store"
    record = dataclasses.replace(RECORD, id=JOB, highest_version=2)
    JobsDirectory(store / "jobs", store / "logs").create(record)
    mend_catalog(world)
    return world


def mend_catalog(world):
    world.store.close()
    assert mend(world.directory / "store", rebuild_catalog=True).lost == []


def lose_head(world):
    (world.directory / "store" / "heads" / JOB / "2").unlink()


def reopened(world):
    world.store = open_store(world.directory / "store", create=False)
    return world.store


def sweep_of(store):
    clock = time.time
    return Sweep(
        store.garbage,
        wall_s=clock,
        uptime_s=clock,
        is_scarce=lambda: False,
        copies=store.copies,
        grace_s=0.0,
    )


async def collect(store):
    return await sweep_of(store).run(asked=True, empty_trash=True, tell=lambda *_: None)


def rows(world):
    db = Connection(world.directory / "store" / "catalog.db")
    try:
        return catalog_jobs.versions(db)
    finally:
        db.close()


def objects(world):
    return sorted(p.name for p in (world.directory / "store" / "packs").glob("??/*"))


def test_nothing_is_collected_until_it_is_back_and_a_volume_gives_it_back(tmp_path):
    world = made(tmp_path, "b")
    packs = objects(world)
    lose_head(world)
    (tmp_path / "b").rename(tmp_path / "away")

    async def main():
        store = reopened(world)
        store.copies.expect([LOST])
        await world.round(2)
        assert store.copies.lost() == [LOST]
        assert list(store.versions(JOB)) == [1]
        report = await collect(store)
        assert report.doubt == f"the head of version 2 of {JOB} is missing"
        assert objects(world) == packs
        (tmp_path / "away").rename(tmp_path / "b")
        await world.round(2)
        with pytest.raises(Busy, match="drain"):
            await store.copies.remove("b", {JOB: 2})
        assert (store.copies.lost(), store.copies.mended()) == ([], 1)
        assert list(store.versions(JOB)) == [1, 2]
        assert await load(store, "a", version=2) == DATA[2]
        assert not (await collect(store)).doubt
        assert objects(world) == packs
        store.close()

    trio.run(main)
    assert check_all(tmp_path / "store", no_progress)[0] == []


def test_all_heads_of_a_job_and_their_directory_come_back(tmp_path):
    world = made(tmp_path, "b")
    shutil.rmtree(tmp_path / "store" / "heads" / JOB)

    async def main():
        store = reopened(world)
        assert list(store.jobs()) == []
        store.copies.expect((JOB, Version(number)) for number in (1, 2))
        await world.round(2)
        assert [await load(store, "a", version=number) for number in (1, 2)] == [*DATA.values()]
        store.close()

    trio.run(main)


@pytest.mark.wrong_store("a copied head is forged")
def test_a_volume_stays_while_a_head_is_lost_and_a_forged_head_does_not_count(tmp_path):
    world = made(tmp_path, "b")
    lose_head(world)
    copy = tmp_path / "b" / "heads" / JOB / "2"
    copy.chmod(0o600)
    copy.write_bytes(copy.read_bytes().replace(b'"uid":1000', b'"uid":1001'))

    async def main():
        store = reopened(world)
        store.copies.expect([LOST])
        await world.round(1)
        assert store.copies.lost() == [LOST]
        store.copies.set_draining("b", True)
        with pytest.raises(Busy, match="damage that b may mend"):
            await store.copies.remove("b", {JOB: 1})
        store.close()

    trio.run(main)


def test_one_that_was_there_all_along_is_not_lost(tmp_path):
    world = made(tmp_path)
    store = reopened(world)
    store.copies.expect([LOST])
    assert store.copies.lost() == []
    store.close()


def test_check_names_it_and_repair_fetches_it_back(tmp_path):
    world = made(tmp_path, "b")
    lose_head(world)
    store = tmp_path / "store"
    sentence = f"the head of version 2 of {JOB} is missing, and nobody removed it"
    assert check_all(store, no_progress)[0] == [sentence]
    outcome = mend(store)
    assert outcome.lost == []
    assert outcome.fixed[0] == f"head {JOB}@2 was missing, and was fetched back from volume b"
    assert check_all(store, no_progress)[0] == []
    assert trio.run(loaded, world) == DATA[2]


async def loaded(world):
    store = reopened(world)
    data = await load(store, "a", version=2)
    store.close()
    return data


@pytest.mark.parametrize("rebuild_catalog", [False, True])
def test_repair_says_what_is_lost_and_remembers_it_until_it_is_given_up(tmp_path, rebuild_catalog):
    world = made(tmp_path)
    lose_head(world)
    store = tmp_path / "store"
    packs = objects(world)
    for _ in range(2):
        (sentence,) = mend(store, rebuild_catalog=rebuild_catalog).lost
        assert sentence.startswith(f"the head of version 2 of {JOB} is missing")
        assert "--discard gives it up" in sentence
        assert rows(world) == {(JOB, 1), LOST}
    (sentence,) = mend(store, discard=True).lost
    assert sentence.endswith("nobody removed it; given up")
    assert rows(world) == {(JOB, 1)}
    assert mend(store).lost == []
    assert objects(world) == packs  # the collector's


def test_a_trash_that_cannot_be_listed_means_that_nothing_is_forgotten(tmp_path):
    world = made(tmp_path)
    store = reopened(world)
    store.remove(*LOST)
    store.close()
    strange = tmp_path / "store" / "trash" / "strange"
    strange.touch()
    wrong = check_all(tmp_path / "store", no_progress)[0]
    assert any("the trash cannot be listed" in sentence for sentence in wrong)
    mend(tmp_path / "store", rebuild_catalog=True)
    assert LOST in rows(world)
    strange.unlink()
    assert mend(tmp_path / "store").fixed[-1] == "made the catalog again: 1 jobs"
    assert rows(world) == {(JOB, 1)}


# -- removed for good, and not everybody could be told ---------------------------


def names_kept(world):
    return [path.name for path in (world.directory / "store" / "trash").glob("gone.*")]


def test_a_version_that_went_on_a_full_disk_before_a_kill_is_not_missed(tmp_path):
    """Its row could not be struck, the collector dropped its head, and that service is no more."""
    world = made(tmp_path)
    db = Connection(tmp_path / "store" / "catalog.db")

    def opened():
        store = reopened(world)
        store.trash.is_named = lambda job, version: catalog_jobs.is_named(db, job, version)
        return store

    store = opened()
    store.remove(*LOST)
    assert trio.run(collect, store).objects > 0
    assert not list(store.trashed(JOB))
    store.close()
    assert rows(world) == {(JOB, 1), LOST}
    wrong, _ = check_all(tmp_path / "store", no_progress)
    assert wrong == [f"the catalog names version 2 of {JOB}, which is gone"]
    store = opened()
    store.copies.expect([LOST])
    assert store.copies.lost() == []
    assert trio.run(collect, store).doubt == ""
    assert names_kept(world) == [f"gone.{JOB}@2"]  # until the catalog has forgotten it
    catalog_jobs.remove_versions(db, [LOST])
    trio.run(collect, store)
    assert names_kept(world) == []
    store.close()
    db.close()


def test_copies_of_a_version_that_went_on_a_full_disk_go_once_that_can_be_noted(tmp_path):
    world = made(tmp_path, "b")
    calls = FaultyCalls()
    calls.fail_when = lambda name, what: (
        full() if name == "create" and "gone.json" in what else None
    )
    held = tmp_path / "b" / "heads" / JOB / "2"
    db = Connection(tmp_path / "store" / "catalog.db")
    catalog_jobs.remove_versions(db, [LOST])
    db.close()

    async def main():
        world.store = open_store(tmp_path / "store", create=False, calls=calls)
        await world.round(2)
        world.store.remove(*LOST)
        await collect(world.store)
        assert not list(world.store.trashed(JOB))
        assert held.exists()
        assert names_kept(world) == [f"gone.{JOB}@2"]
        world.store.close()  # and another service goes on with it, when there is room
        reopened(world)
        await world.round(2)
        await collect(world.store)
        assert not held.exists()
        assert names_kept(world) == []

    trio.run(main)
    world.store.close()
