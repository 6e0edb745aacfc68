"""Levels and volumes as the service serves them; the store's part has its own tests."""

from __future__ import annotations

import pytest
import trio

from ckptfs.errors import InvalidInput, NotAuthorised, NotFound, OutOfRange, Unsupported
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
    monkeypatch.setattr("ckptfs.coordinator.service.NoCopies", lambda: made)
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
