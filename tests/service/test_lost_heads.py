"""A head that vanished while no service looked: missed, said, shown again when it is back."""

from __future__ import annotations

import pytest
import trio

from ckptfs.catalog import jobs as catalog_jobs
from ckptfs.coordinator import lost_heads
from ckptfs.coordinator.lost_heads import lost_sentence
from ckptfs.errors import Corrupt, StoreFull
from ckptfs.ids import JobId, Version
from ckptfs.store.copies_api import NoCopies
from tests.service.kit import OWNER, ScriptedStore, play, world
from tests.service.test_collecting import FakeSweeper


class Volumes(NoCopies):
    """Volumes that give lost heads back when they are told to."""

    def __init__(self):
        self.store, self.away = None, {}
        self._mended = 0

    def mended(self):
        return self._mended

    async def round(self, levels, pace):
        await pace(0)
        found = [key for key in self.lost() if key in self.away]
        for key in found:
            self.store.sealed[key] = self.away.pop(key)
        self._lost = [key for key in self.lost() if key not in found]
        self._mended += len(found)
        return bool(found)


@pytest.fixture
def volumes(monkeypatch):
    made = Volumes()
    monkeypatch.setattr("ckptfs.coordinator.parts.NoCopies", lambda: made)
    return made


async def three_versions(tmp_path):
    async with world(tmp_path) as w:
        job = await w.start()
        for _ in range(3):
            await w.checkpoint(job)
    return w, job.id


def rows(w):
    return catalog_jobs.versions(w.parts.db)


def test_it_is_missed_named_and_shown_again_when_it_is_back(tmp_path, volumes):
    async def main():
        w, job_id = await three_versions(tmp_path)
        volumes.store = w.store
        kept = w.store.sealed.pop((job_id, Version(2)))
        async with world(tmp_path, node=w.node, store=w.store) as w:
            job = w.service.job(job_id)
            assert job.versions == [1, 3]
            (sentence,) = w.service.health()
            assert f"version 2 of {job_id} is missing, and nobody removed it" in sentence
            assert "ckptfs repair --discard" in sentence
            assert "version 2 cannot be seen" in job.error
            assert str(await w.checkpoint(job)) == "4 complete"
            assert (job_id, 2) in rows(w)
            volumes.away[job_id, Version(2)] = kept
            await w.until(lambda: job.versions == [1, 2, 3, 4])
            assert w.service.health() == []
            assert job.error.endswith("version 2 was lost, and is back")
            await w.until(lambda: w.store.verified_ns(job_id, Version(2)) > 0)
        async with world(tmp_path, node=w.node, store=w.store) as w:
            assert w.service.health() == []

    play(main)


def test_it_is_missed_by_every_service_until_it_is_back(tmp_path, volumes):
    async def main():
        w, job_id = await three_versions(tmp_path)
        del w.store.sealed[job_id, Version(3)]
        for _ in range(3):
            volumes._lost = ()
            async with world(tmp_path, node=w.node, store=w.store) as w:
                assert volumes.lost() == [(job_id, 3)]
                assert w.service.job(job_id).highest_version == 3
        for path in tmp_path.glob("catalog.db*"):
            path.unlink()
        volumes._lost = ()
        async with world(tmp_path, node=w.node, store=w.store) as w:
            assert volumes.lost() == []  # the catalog alone knew

    play(main)


@pytest.mark.parametrize("cut_off", [False, True])
def test_what_was_removed_is_not_missed(tmp_path, cut_off):
    async def main():
        w, job_id = await three_versions(tmp_path)
        if cut_off:  # the service ended between the trash and the row
            w.store.remove(job_id, Version(2))
        else:
            async with world(tmp_path, node=w.node, store=w.store) as w:
                w.service.remove_version(job_id, Version(2), OWNER)
        for _ in range(2):
            async with world(tmp_path, node=w.node, store=w.store) as w:
                assert w.service.health() == []
                assert rows(w) == {(job_id, 1), (job_id, 3)}
            w.store.trash.clear()  # collected

    play(main)


def test_a_row_that_could_not_be_struck_is_struck_before_the_trash_is_emptied(
    tmp_path, monkeypatch
):
    async def main():
        sweeper = FakeSweeper()
        w, job_id = await three_versions(tmp_path)
        async with world(tmp_path, node=w.node, store=w.store, sweeper=sweeper) as w:
            strike = catalog_jobs.remove_version

            def full(*_args):
                raise StoreFull("no space is left for the catalog")

            monkeypatch.setattr(catalog_jobs, "remove_version", full)
            w.service.remove_version(job_id, Version(1), OWNER)
            monkeypatch.setattr(catalog_jobs, "remove_version", strike)
            assert (job_id, 1) in rows(w)
            await w.until(lambda: (job_id, 1) not in rows(w))
            assert not w.parts.registry.stale_rows

    play(main)


def test_a_version_without_a_row_gets_one_and_an_unreadable_one_harms_nobody(tmp_path, monkeypatch):
    async def main():
        w, job_id = await three_versions(tmp_path)
        async with world(tmp_path, node=w.node, store=w.store) as w:
            catalog_jobs.remove_versions(w.parts.db, [(job_id, Version(1)), (job_id, Version(2))])
        head = w.store.head

        def unreadable(job, version):
            if version == 2:
                raise Corrupt("its head cannot be read")
            return head(job, version)

        monkeypatch.setattr(w.store, "head", unreadable)
        async with world(tmp_path, node=w.node, store=w.store) as w:
            assert w.service.health() == []
            assert rows(w) == {(job_id, 1), (job_id, 3)}

    play(main)


def test_a_trash_that_cannot_be_listed_tells_nothing_lost_and_is_said(tmp_path, monkeypatch):
    async def main():
        w, job_id = await three_versions(tmp_path)
        del w.store.sealed[job_id, Version(2)]

        def unreadable(_job):
            raise Corrupt("trash/ is missing")

        monkeypatch.setattr(w.store, "trashed", unreadable)
        async with world(tmp_path, node=w.node, store=w.store) as w:
            assert w.service.health() == [
                "the catalog cannot be held against the heads: trash/ is missing"
            ]
            assert (job_id, 2) in rows(w)  # so it is missed by the next service

    play(main)


def test_the_sentence_names_up_to_twenty():
    lost = [(JobId("heat.1"), Version(number)) for number in range(1, 31)]
    sentence = lost_sentence(lost)
    assert sentence.startswith("30 heads are missing, and nobody removed them: heat.1/1 heat.1/2 ")
    assert "heat.1/20 and 10 more; " in sentence
    assert "heat.1/21" not in sentence
    assert lost_sentence([]) == ""


class SlowStore(ScriptedStore):
    """Reads its heads when it is told to, and notes who reads one before."""

    def __init__(self):
        super().__init__()
        self.go_on, self.read = trio.Event(), []

    async def count(self):
        await self.go_on.wait()

    def head(self, job, version):
        self.read.append(version)
        return super().head(job, version)


def test_a_lost_catalog_of_many_versions_is_filled_behind_and_survives_a_crash(
    tmp_path, monkeypatch
):
    async def main():
        monkeypatch.setattr(lost_heads, "AT_ONCE", 2)
        store = SlowStore()
        async with world(tmp_path, store=store) as w:
            job = await w.start()
            for _ in range(7):
                await w.checkpoint(job)
        for path in tmp_path.glob("catalog.db*"):
            path.unlink()
        job_id = job.id
        store.read.clear()
        async with world(tmp_path, node=w.node, store=store) as w:  # ends before they are read
            assert w.service.job(job_id).versions == [*range(1, 8)]
            assert rows(w) == {(job_id, 1), (job_id, 2)}
            assert set(store.read) <= {1, 2, 7}
        async with world(tmp_path, node=w.node, store=store) as w:
            assert w.parts.db.was_rebuilt
            assert rows(w) == {(job_id, version) for version in (1, 2, 3, 4)}
            w.service.remove_version(job_id, Version(6), OWNER)
            store.go_on.set()
            await w.until(lambda: not w.parts.registry.missing_rows)
            assert rows(w) == {(job_id, version) for version in (1, 2, 3, 4, 5, 7)}
            assert str(await w.checkpoint(w.service.job(job_id))) == "8 complete"
        async with world(tmp_path, node=w.node, store=store) as w:
            assert not w.parts.db.was_rebuilt
            assert w.service.health() == []
            assert (job_id, 8) in rows(w)

    play(main)
