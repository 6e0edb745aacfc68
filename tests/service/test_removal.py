"""A job that was removed comes back with what lies in the trash, or is gone with it."""

from __future__ import annotations

import pytest
import trio

from ckptfs.coordinator.api import RestartRequest
from ckptfs.errors import Busy, Corrupt, NotAuthorised, NotFound, QuotaExceeded
from ckptfs.gc.api import Report
from ckptfs.ids import Version
from ckptfs.model import JobState
from ckptfs.node.api import Exit
from tests.service.kit import OWNER, ROOT, STRANGER, UNIT, World, play, world
from tests.service.test_collecting import FakeSweeper


async def ended_with_versions(w: World, count: int = 2):
    job = await w.start()
    for _ in range(count):
        await w.checkpoint(job)
    w.node.end(job.id, UNIT, Exit(3))
    await trio.sleep(5)
    return job


def remove_all(w: World, job) -> None:
    """What rm -r does."""
    for version in list(job.versions):
        w.service.remove_version(job.id, version, OWNER)
    w.service.remove_job(job.id, OWNER)


def test_a_job_comes_back_with_its_versions(tmp_path):
    async def main():
        async with world(tmp_path, sweeper=FakeSweeper()) as w:
            job = await ended_with_versions(w)
            log = tmp_path / "logs" / job.id
            log.mkdir(exist_ok=True)
            (log / "JobUnit_1.out").write_text("step 1\n")
            remove_all(w, job)
            assert job.id not in w.service.jobs()
            (row,) = w.service.removed_jobs()
            assert (row.job, row.uid, row.versions) == (job.id, 65534, (1, 2))
            with pytest.raises(NotAuthorised):
                w.service.undelete_job(job.id, STRANGER)
            with pytest.raises(NotFound):
                w.service.undelete_job("heat.77", ROOT)
            w.service.undelete_job(job.id, OWNER)
            again = w.service.job(job.id)
            assert (again.versions, str(again.state_text)) == ([1, 2], job.state_text)
            assert all(w.store.pinned(job.id, version) for version in again.versions)
            assert w.service.removed_jobs() == []
            assert (log / "JobUnit_1.out").read_text() == "step 1\n"
            assert (await w.restart(again, 2)).word == "running"
            assert w.parts.db.number("SELECT count(*) FROM versions") == 2
            w.check_nothing_left(again)

    play(main)


def test_it_can_be_brought_back_by_the_next_service_too(tmp_path):
    async def main():
        async with world(tmp_path, sweeper=FakeSweeper()) as w:
            job = await ended_with_versions(w)
            remove_all(w, job)
        async with world(tmp_path, node=w.node, store=w.store, sweeper=FakeSweeper()) as again:
            assert job.id not in again.service.jobs()
            assert again.service.health() == []
            other = await again.start()
            assert other.id != job.id  # its number is not given again
            again.service.undelete_job(job.id, OWNER)
            assert again.service.job(job.id).versions == [1, 2]
        async with world(tmp_path, node=w.node, store=w.store, sweeper=FakeSweeper()) as last:
            assert last.service.job(job.id).versions == [1, 2]

    play(main)


def test_what_left_the_trash_takes_the_job_along(tmp_path):
    async def main():
        sweeper = FakeSweeper()
        async with world(tmp_path, sweeper=sweeper) as w:
            job = await ended_with_versions(w)
            record = tmp_path / "jobs" / job.id
            remove_all(w, job)
            await trio.sleep(5)
            assert record.exists()
            del w.store.trash[job.id, Version(1)]
            await w.service.request_gc(ROOT, dry=False, empty_trash=False)
            await trio.sleep(5)
            assert record.exists()
            w.store.trash.clear()
            sweeper.report = Report(doubt="a stranger")
            await w.service.request_gc(ROOT, dry=False, empty_trash=False)
            await trio.sleep(5)
            assert record.exists()  # in doubt nothing is deleted
            sweeper.report = Report()
            await w.service.request_gc(ROOT, dry=False, empty_trash=False)
            await trio.sleep(5)
            assert not record.exists()
            assert not (tmp_path / "logs" / job.id).exists()
            with pytest.raises(NotFound):
                w.service.undelete_job(job.id, OWNER)

    play(main)


def test_a_trash_that_cannot_be_listed_keeps_the_job(tmp_path):
    async def main():
        async with world(tmp_path, sweeper=FakeSweeper()) as w:
            job = await ended_with_versions(w)

            def fail(_):
                raise Corrupt("trash/x does not belong there")

            listed, w.store.trashed = w.store.trashed, fail
            remove_all(w, job)
            await trio.sleep(5)
            assert (tmp_path / "jobs" / job.id).exists()
            w.store.trashed = listed
            w.service.undelete_job(job.id, OWNER)
            assert w.service.job(job.id).versions == [1, 2]

    play(main)


def test_a_job_without_anything_in_the_trash_is_gone_at_once(tmp_path):
    async def main():
        async with world(tmp_path, sweeper=FakeSweeper()) as w:
            job = await ended_with_versions(w, count=0)
            w.service.remove_job(job.id, OWNER)
            assert not (tmp_path / "jobs" / job.id).exists()
            assert w.service.removed_jobs() == []
            running = await w.start()
            with pytest.raises(Busy):
                w.service.remove_job(running.id, OWNER)

    play(main)


def test_a_quota_holds_for_what_comes_back(tmp_path):
    async def main():
        async with world(tmp_path, sweeper=FakeSweeper()) as w:
            job = await ended_with_versions(w)
            size = w.service.charges.of_job(job.id)
            remove_all(w, job)
            w.service.charges.set_limit(ROOT, "65534", size - 1)
            with pytest.raises(QuotaExceeded):
                w.service.undelete_job(job.id, OWNER)
            assert len(w.service.removed_jobs()) == 1
            w.service.charges.set_limit(ROOT, "65534", size)
            w.service.undelete_job(job.id, OWNER)
            assert w.service.charges.of_job(job.id) == size

    play(main)


def test_logs_that_a_removed_clone_shows_stay_with_it(tmp_path):
    async def main():
        async with world(tmp_path, sweeper=FakeSweeper()) as w:
            job = await ended_with_versions(w)
            logs = tmp_path / "logs" / job.id
            logs.mkdir(exist_ok=True)
            request = RestartRequest(Version(2), as_clone=True)
            clone = w.service.job(await w.service.request_restart(job.id, OWNER, request))
            await w.until(
                lambda: clone.state is JobState.RUNNING and not w.parts.registry.operations
            )
            assert clone.logs_shown_as == job.id
            await w.checkpoint(clone)
            w.node.end(clone.id, UNIT, Exit(3))
            await trio.sleep(5)
            remove_all(w, clone)
            remove_all(w, job)
            for version in (1, 2):
                del w.store.trash[job.id, Version(version)]
            await w.service.request_gc(ROOT, dry=False, empty_trash=False)
            await trio.sleep(5)
            assert not (tmp_path / "jobs" / job.id).exists()
            assert logs.exists()  # the clone, which can be brought back, names them
            w.store.trash.clear()
            await w.service.request_gc(ROOT, dry=False, empty_trash=False)
            await trio.sleep(5)
            assert not (tmp_path / "jobs" / clone.id).exists()
            assert not logs.exists()

    play(main)
