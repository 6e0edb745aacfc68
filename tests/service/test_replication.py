"""Levels and volumes as the service serves them; the store's part has its own tests."""

from __future__ import annotations

import pytest
import trio

from ckptfs.coordinator.api import CheckpointRequest
from ckptfs.errors import InvalidInput, NotAuthorised, NotFound, OutOfRange, Unsupported
from ckptfs.model import JobState
from ckptfs.store.copies_api import NoCopies, VolumeStatus
from tests.service.kit import OWNER, ROOT, STRANGER, BridgedNode, ScriptedStore, play, world
from tests.service.test_collecting import FakeSweeper


class FakeCopies(NoCopies):
    """Volumes in memory: a round copies everything."""

    def __init__(self):
        self.volumes, self.copies, self.heard = {}, {}, []
        self.stuck = False

    def rows(self):
        return list(self.volumes.values())

    def domains(self):
        return 1 + len(self.volumes)

    def count(self, job, version):
        return self.copies.get((job, version), 1)

    async def add(self, directory, domain="", seal="plain"):
        name = directory.rpartition("/")[2]
        self.volumes[name] = VolumeStatus(name, "up", domain or name, 0, 9, directory)
        return name

    async def round(self, levels, pace):
        await pace(0)
        self.heard.append(dict(levels))
        wanted = {
            (job, version): min(level, self.domains())
            for job, level in levels.items()
            for version in range(1, 9)
            if not self.stuck
        }
        changed, self.copies = wanted != self.copies, wanted
        return changed


@pytest.fixture
def copies(monkeypatch):
    made = FakeCopies()
    monkeypatch.setattr("ckptfs.coordinator.parts.NoCopies", lambda: made)
    return made


def test_a_level_is_reached_in_the_background(tmp_path, copies):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            with pytest.raises(Unsupported, match="there is 1"):
                w.service.set_replication(job.id, OWNER, 2)
            assert await w.service.request_volume(ROOT, "add", "/mnt/b", "rack") == "b"
            outcome = await w.checkpoint(job)
            version = outcome.version
            w.service.set_replication(job.id, OWNER, 2)
            assert w.service.version_state(job.id, version) == "replicating 1/2"
            await w.until(lambda: w.service.replicas(job.id, version) == 2)
            assert w.service.version_state(job.id, version) == "restartable"
            assert [row.name for row in w.service.volumes()] == ["b"]

    play(main)


def test_a_level_outlives_the_service(tmp_path, copies):
    async def main():
        node, store = BridgedNode(), ScriptedStore()
        async with world(tmp_path, node=node, store=store) as w:
            job = await w.start()
            await w.service.request_volume(ROOT, "add", "/mnt/b")
            w.service.set_replication(job.id, OWNER, 2)
        async with world(tmp_path, node=node, store=store) as w:
            assert w.service.job(job.id).replication == 2

    play(main)


def test_what_is_refused(tmp_path, copies):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            for level in (0, 17, -1):
                with pytest.raises(OutOfRange):
                    w.service.set_replication(job.id, OWNER, level)
            with pytest.raises(NotAuthorised):
                w.service.set_replication(job.id, STRANGER, 1)
            with pytest.raises(NotAuthorised):
                await w.service.request_volume(OWNER, "add", "/mnt/b")
            with pytest.raises(InvalidInput, match="the mount itself"):
                await w.service.request_volume(ROOT, "add", str(tmp_path / "mnt" / "x"))
            with pytest.raises(NotFound):
                await w.service.request_volume(ROOT, "drain", "nobody")
            assert job.replication == 1

    play(main)


def test_more_copies_than_there_can_be_are_said_in_health(tmp_path, copies):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.service.request_volume(ROOT, "add", "/mnt/b")
            w.service.set_replication(job.id, OWNER, 2)
            await w.checkpoint(job)
            assert not any("copies" in line for line in w.service.health())
            copies.volumes.clear()
            (line,) = (line for line in w.service.health() if "copies" in line)
            assert line.startswith(f"{job.id} wants 2 copies, and there is 1 failure domain")

    play(main)


def test_a_volume_in_trouble_is_said_in_health(tmp_path, copies):
    async def main():
        async with world(tmp_path) as w:
            copies.volumes["b"] = VolumeStatus(
                "b", "missing", "b", 0, 0, "/mnt/b", "no volume there"
            )
            assert "volume b (/mnt/b) is missing: no volume there" in w.service.health()

    play(main)


def test_an_older_version_goes_when_the_newer_one_has_its_copies(tmp_path, copies):
    async def main():
        async with world(tmp_path, sweeper=FakeSweeper()) as w:
            job = await w.start(keep_last=1)
            await w.service.request_volume(ROOT, "add", "/mnt/b")
            w.service.set_replication(job.id, OWNER, 2)
            copies.stuck = True
            await w.checkpoint(job)
            await w.checkpoint(job)
            await trio.sleep(120)
            assert job.versions == [1, 2]
            plan = await w.service.request_gc(ROOT, dry=True, empty_trash=False)
            assert f"{job.id}/1 stays: what replaces it has not all its copies yet" in plan
            copies.stuck = False
            await w.until(lambda: job.versions == [2])

    play(main)


def test_a_checkpoint_is_complete_when_there_are_copies_enough(tmp_path, copies):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.service.request_volume(ROOT, "add", "/mnt/b")
            copies.stuck = True
            w.service.set_replication(job.id, OWNER, 2, 2)
            await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())
            await w.until(lambda: str(job.checkpoint) == "1 copying (1/2)")
            assert job.state is JobState.RUNNING
            assert job.id not in w.parts.registry.operations  # copying goes on meanwhile
            assert job.events["complete"] == 0
            copies.stuck = False
            await w.until(lambda: str(job.checkpoint) == "1 complete")
            assert job.events["complete"] == 1

    play(main)


def test_after_the_deadline_it_has_failed_and_the_version_stays(tmp_path, copies):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.service.request_volume(ROOT, "add", "/mnt/b")
            w.service.set_replication(job.id, OWNER, 2, 2)
            copies.stuck = True
            copies.volumes["b"] = VolumeStatus("b", "missing", "b", 0, 0, "/mnt/b", "gone")
            await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())
            before_s = trio.current_time()
            await w.until(lambda: job.checkpoint.word == "failed")
            assert 300 <= trio.current_time() - before_s < 310
            assert job.checkpoint.reason == (
                "version 1 is kept and can be restarted, but after 300 s it is whole in 1 failure "
                "domain, not in the 2 of min_level: volume b is missing"
            )
            assert job.versions == [1]
            assert job.events["failed"] == 1
            w.service.set_replication(job.id, OWNER, 1)  # takes the rest along
            assert (job.replication, job.min_level) == (1, 1)
            assert (await w.checkpoint(job)).word == "complete"

    play(main)


def test_a_later_checkpoint_ends_the_waiting(tmp_path, copies):
    async def main():
        node, store = BridgedNode(), ScriptedStore()
        async with world(tmp_path, node=node, store=store) as w:
            job = await w.start()
            await w.service.request_volume(ROOT, "add", "/mnt/b")
            w.service.set_replication(job.id, OWNER, 2, 2)
            copies.stuck = True
            first = await w.checkpoint(job)
            second = await w.checkpoint(job)
            await trio.sleep(1000)
            assert (first.word, second.word) == ("copying", "failed")
            for level, least in ((2, 3), (2, 0)):
                with pytest.raises(OutOfRange):
                    w.service.set_replication(job.id, OWNER, level, least)
        async with world(tmp_path, node=node, store=store) as w:
            assert w.service.job(job.id).min_level == 2

    play(main)
