"""What waits for `min_level`: the latest version, and the end of a suspended job's units."""

from __future__ import annotations

import pytest
import trio

from ckptfs.ids import Version
from ckptfs.model import JobState
from ckptfs.store.copies_api import VolumeStatus
from tests.service.kit import OWNER, ROOT, UNIT, play, world
from tests.service.test_replication import FakeCopies


class Copies(FakeCopies):
    """Volumes on which *whole* versions have as many copies as there are domains."""

    def __init__(self):
        super().__init__()
        self.whole = set()

    def count(self, job, version):
        return self.domains() if version in self.whole else 1

    async def round(self, levels, pace):
        await pace(0)
        self.heard.append(dict(levels))
        wanted = set(range(1, 99)) if not self.stuck else self.whole
        changed, self.whole = wanted != self.whole, wanted
        return changed


@pytest.fixture
def copies(monkeypatch):
    made = Copies()
    made.stuck = True
    monkeypatch.setattr("ckptfs.coordinator.parts.NoCopies", lambda: made)
    return made


async def levelled(w, **fields):
    job = await w.start(**fields)
    await w.service.request_volume(ROOT, "add", "/mnt/b")
    w.service.set_replication(job.id, OWNER, 2, 2)
    return job


def test_latest_moves_when_the_level_is_reached_and_never_back(tmp_path, copies):
    async def main():
        async with world(tmp_path) as w:
            job = await levelled(w)
            await w.checkpoint(job)
            assert w.service.latest(job.id) == 1  # the only one: better than none
            copies.stuck = False
            await w.until(lambda: job.reached == 1)
            copies.stuck = True
            copies.whole = {1}
            await w.checkpoint(job)
            assert w.service.latest(job.id) == 1
            copies.whole = {1, 2}
            assert w.service.latest(job.id) == 2
            copies.stuck = False
            await w.until(lambda: job.reached == 2)
            copies.stuck, copies.whole = True, set()  # the volume is away
            await w.checkpoint(job)
            assert w.service.latest(job.id) == 2
            await w.kill(job)
            assert str(await w.restart(job, None)) == "2 running"
        async with world(tmp_path, node=w.node, store=w.store) as w:
            assert w.service.latest(job.id) == 2  # before anything has been looked at
            job = w.service.job(job.id)
            w.service.set_replication(job.id, OWNER, 1)
            assert w.service.latest(job.id) == 3
            assert job.reached == 2
            w.service.set_replication(job.id, OWNER, 2, 2)
            assert (job.reached, w.service.latest(job.id)) == (0, 3)

    play(main)


def test_latest_passes_over_what_is_damaged_or_removed(tmp_path, copies):
    async def main():
        async with world(tmp_path) as w:
            job = await levelled(w)
            for _ in range(3):
                await w.checkpoint(job)
            copies.whole, job.reached = {2, 1}, 2
            assert w.service.latest(job.id) == 2
            w.service.remove_version(job.id, Version(2), OWNER)
            assert w.service.latest(job.id) == 1
            w.service.remove_version(job.id, Version(1), OWNER)
            assert w.service.latest(job.id) == 3

    play(main)


def test_a_suspension_ends_its_units_when_there_are_copies_enough(tmp_path, copies):
    async def main():
        async with world(tmp_path) as w:
            job = await levelled(w)
            assert await w.service.request_suspend(job.id, OWNER) == 1
            await w.until(lambda: str(job.checkpoint) == "1 copying (1/2)")
            assert job.versions == [1]
            assert job.units[UNIT].state == "frozen"
            await trio.sleep(50)
            (unit,) = w.node.running()
            before = unit.process.progress
            copies.stuck = False
            await w.until(lambda: job.state is JobState.SUSPENDED)
            assert w.node.running() == []
            assert str(job.checkpoint) == "1 complete"
            assert copies.heard  # copying went on although an operation was under way
            copies.whole, job.reached, copies.stuck = set(), 0, True
            assert await w.service.request_resume(job.id, OWNER) == 1  # whatever copies it has
            await w.restarted(job)
            assert w.unit(job).process.progress == pytest.approx(before, abs=0.1)
            w.check_nothing_left(job)

    play(main)


def test_without_copies_in_time_the_job_goes_on_and_the_version_stays(tmp_path, copies):
    async def main():
        async with world(tmp_path) as w:
            job = await levelled(w)
            copies.volumes["b"] = VolumeStatus("b", "missing", "b", 0, 0, "/mnt/b", "gone")
            begun_s = trio.current_time()
            await w.service.request_suspend(job.id, OWNER)
            outcome = await w.saved(job)
            assert 300 <= trio.current_time() - begun_s < 320
            assert outcome.word == "failed"
            assert outcome.reason.startswith("it was not suspended: version 1 is kept and can be ")
            assert outcome.reason.endswith("volume b is missing; the job goes on")
            assert (job.state, job.versions) == (JobState.RUNNING, [1])
            assert (job.events["failed"], job.events["suspended"]) == (1, 0)
            w.check_nothing_left(job)

    play(main)


def test_killing_a_job_whose_suspension_waits_for_copies_ends_both(tmp_path, copies):
    async def main():
        async with world(tmp_path) as w:
            job = await levelled(w)
            await w.service.request_suspend(job.id, OWNER)
            await w.until(lambda: str(job.checkpoint) == "1 copying (1/2)")
            begun_s = trio.current_time()
            await w.service.request_kill(job.id, OWNER)
            await w.until(lambda: job.state is JobState.DONE)
            assert trio.current_time() - begun_s < 20
            assert (job.versions, w.node.running()) == ([1], [])
            w.check_nothing_left(job)

    play(main)


def test_a_service_that_ends_while_a_suspension_waits_lets_the_job_go_on(tmp_path, copies):
    async def main():
        async with world(tmp_path) as w:
            job = await levelled(w)
            await w.service.request_suspend(job.id, OWNER)
            await w.until(lambda: str(job.checkpoint) == "1 copying (1/2)")
        (unit,) = w.node.running()
        assert unit.process.is_running
        async with world(tmp_path, node=w.node, store=w.store) as w:
            job = w.service.job(job.id)
            assert (job.state, job.versions) == (JobState.RUNNING, [1])
            assert str(await w.checkpoint(job)).startswith("2 ")

    play(main)


def test_a_level_of_one_waits_for_nothing(tmp_path, copies):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.service.request_suspend(job.id, OWNER)
            await w.saved(job)
            assert job.state is JobState.SUSPENDED
            assert w.service.latest(job.id) == 1

    play(main)
