"""A daemon that comes back: what it finds, finishes, undoes, and never does twice."""

from __future__ import annotations

import shutil

import pytest
import trio

from ckptfs.catalog import operations
from ckptfs.coordinator.api import CheckpointRequest, RestartRequest
from ckptfs.coordinator.cpx import JOB_DOCUMENT
from ckptfs.ids import JobId, UnitName, Version
from ckptfs.model import JobState
from ckptfs.node.api import Exit
from ckptfs.store.api import Damage
from ckptfs.translib.order import Primitive
from tests.service.kit import OWNER, UNIT, BridgedNode, ScriptedStore, play, world


def test_running_jobs_are_found_again(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start(wall_time_s=1000)
            await w.checkpoint(job)
            pid = w.unit(job).pid
        async with world(tmp_path, node=w.node, store=w.store) as w:
            job = w.service.job(job.id)
            assert (job.state, job.versions, job.highest_version) == (JobState.RUNNING, [1], 1)
            assert job.units[UNIT].pid == pid
            assert str(await w.checkpoint(job)) == "2 complete"
            await trio.sleep(1001)
            assert job.state is JobState.FAILED  # its wall time went on

    play(main)


@pytest.mark.parametrize(
    ("ended", "state"),
    [(Exit(3), "done"), (None, "failed (JobUnit_1 was lost with its supervisor")],
)
def test_what_ended_meanwhile_is_told(tmp_path, ended, state):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
        w.node._callbacks.clear()
        w.node.end(job.id, UNIT, ended)
        async with world(tmp_path, node=w.node, store=w.store) as w:
            job = w.service.job(job.id)
            assert job.state_text.startswith(state)
            assert job.exit == ended
            assert str(await w.restart(job, 1)) == "1 running"

    play(main)


def test_the_catalog_can_be_deleted(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start(keep_last=3)
            await w.checkpoint(job)
            await w.checkpoint(job)
            other = await w.start()
            await w.kill(other)
        for path in tmp_path.glob("catalog.db*"):
            path.unlink()
        async with world(tmp_path, node=w.node, store=w.store) as w:
            job = w.service.job(job.id)
            assert (job.state, job.versions, job.keep_last) == (JobState.RUNNING, [1, 2], 3)
            assert w.service.job(other.id).state is JobState.DONE
            assert w.parts.db.number("SELECT count(*) FROM versions") == 2
            assert w.parts.db.number("SELECT count(*) FROM jobs") == 2
            assert (await w.start()).id == "heat.3"

    play(main)


def test_counters_survive(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.checkpoint(job)
            await w.kill(job)
            await w.restart(job, 1)
            events, stat = dict(job.events), dict(job.stat)
            assert (events["complete"], events["killed"], events["restarted"]) == (2, 1, 1)
            assert (stat["checkpoints"], stat["restarts"]) == (2, 1)
            assert stat["last_saved_bytes"] > 0
        async with world(tmp_path, node=w.node, store=w.store) as w:
            job = w.service.job(job.id)
            assert (job.events, job.stat) == (events, stat)

    play(main)


def test_a_damaged_catalog_is_put_aside(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
        (tmp_path / "catalog.db").write_bytes(b"not a database at all" * 500)
        async with world(tmp_path, node=w.node, store=w.store) as w:
            assert w.service.job(job.id).state is JobState.RUNNING
            assert (tmp_path / "catalog.db.damaged").exists()

    play(main)


def test_a_lost_record_keeps_its_versions(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.kill(job)
        (tmp_path / "jobs" / job.id / "job.json").write_bytes(b"{")
        async with world(tmp_path, node=w.node, store=w.store) as w:
            job = w.service.job(job.id)
            assert (job.versions, job.spec.owner.uid) == ([1], 65534)
            assert len(w.service.health()) == 2
            assert str(await w.restart(job, 1)) == "1 running"
            assert (await w.start()).id == "heat.2"

    play(main)


def test_a_job_whose_record_is_gone_is_what_its_newest_version_says(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            gone = await w.start(keep_last=3, rollback="copy")
            await w.checkpoint(gone)
            await w.checkpoint(gone)
            await w.kill(gone)
            runs = await w.start()
            await w.checkpoint(runs)
        shutil.rmtree(tmp_path / "jobs")
        for path in tmp_path.glob("catalog.db*"):
            path.unlink()
        for _ in range(2):
            async with world(tmp_path, node=w.node, store=w.store) as w:
                job = w.service.job(gone.id)
                assert job.state_text.startswith("failed (JobUnit_1 was lost")
                assert (job.spec, job.versions, job.keep_last) == (gone.spec, [1, 2], 3)
                assert w.service.job(runs.id).state is JobState.RUNNING
        async with world(tmp_path, node=w.node, store=w.store) as w:
            assert w.service.health() == []
            assert str(await w.restart(w.service.job(gone.id), 1)) == "1 running"
            assert (await w.start()).id == "heat.3"

    play(main)


def test_a_damaged_document_hides_no_version(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.checkpoint(job)
            await w.kill(job)
        shutil.rmtree(tmp_path / "jobs")
        damage = Damage(job.id, Version(2), UnitName(""), JOB_DOCUMENT, 0, "x")
        w.store.sealed[job.id, 2].hidden_damage.append(damage)
        async with world(tmp_path, node=w.node, store=w.store) as w:
            job = w.service.job(job.id)
            assert job.versions == [1, 2]
            assert any(JOB_DOCUMENT in line for line in w.service.health())
            assert str(await w.restart(job, 1)) == "1 running"

    play(main)


async def cut_off(path, node, store, kind, phase, *, version=1, former=JobState.RUNNING):
    """Write what a daemon killed in *phase* of an operation leaves in the journal."""
    async with world(path, node=node, store=store) as w:
        job = next(iter(w.service.jobs()))
        found = operations.begin(w.parts.db, job, kind, Version(version), former, 0)
        operations.enter(w.parts.db, found, phase, "", 0)


@pytest.mark.parametrize("phase", ["stopping", "saving", "committing", "aborting"])
def test_a_checkpoint_cut_off_is_failed_and_the_job_runs(tmp_path, phase):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
        await cut_off(tmp_path, w.node, w.store, "checkpoint", phase)
        async with world(tmp_path, node=w.node, store=w.store) as w:
            job = w.service.job(job.id)
            assert job.state is JobState.RUNNING
            assert str(job.checkpoint) == (
                "1 failed (the service ended while it was being saved; take it again)"
            )
            assert operations.load_open(w.parts.db) == []

    play(main)


def test_a_number_is_burnt_before_anything_else_happens(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            w.node.script.delays_s[Primitive.STOP] = 60.0
            version = await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())
            record = (tmp_path / "jobs" / job.id / "job.json").read_text()
            assert '"highest_version": 1' in record
            assert version == 1
        async with world(tmp_path, node=w.node, store=w.store) as w:
            w.node.script.delays_s.clear()
            assert str(await w.checkpoint(w.service.job(job.id))) == "2 complete"

    play(main)


def test_a_version_committed_just_before_the_end_is_complete(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
        await cut_off(tmp_path, w.node, w.store, "checkpoint", "committing")
        async with world(tmp_path, node=w.node, store=w.store) as w:
            assert str(w.service.job(job.id).checkpoint) == "1 complete"

    play(main)


def test_a_suspension_that_had_killed_its_units_is_one(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
        await cut_off(tmp_path, w.node, w.store, "suspend", "ending")
        w.node._callbacks.clear()
        w.node.end(job.id, UNIT, Exit(-1, 9))
        async with world(tmp_path, node=w.node, store=w.store) as w:
            job = w.service.job(job.id)
            assert job.state is JobState.SUSPENDED
            await w.service.request_resume(job.id, OWNER)
            assert str(await w.restarted(job)) == "1 running"

    play(main)


@pytest.mark.parametrize("phase", ["verifying", "rebuilding", "proving", "undoing"])
def test_a_half_built_unit_is_killed_and_the_version_restartable(tmp_path, phase):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.kill(job)
        await cut_off(tmp_path, w.node, w.store, "restart", phase, former=JobState.DONE)
        await half_build(w, job.id)
        async with world(tmp_path, node=w.node, store=w.store) as w:
            job = w.service.job(job.id)
            assert (job.state, w.node.running()) == (JobState.DONE, [])
            assert job.restart.word == "failed"
            assert str(await w.restart(job, 1)) == "1 running"

    play(main)


def test_a_restart_beyond_its_barrier_is_carried_on(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.kill(job)
        await cut_off(tmp_path, w.node, w.store, "restart", "resuming", former=JobState.DONE)
        await half_build(w, job.id)
        async with world(tmp_path, node=w.node, store=w.store) as w:
            job = w.service.job(job.id)
            assert (job.state, str(job.restart)) == (JobState.RUNNING, "1 running")
            assert w.unit(job).process.is_running
            assert str(await w.checkpoint(job)) == "2 complete"

    play(main)


def test_without_the_journal_a_half_built_unit_of_an_ended_job_is_killed(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.kill(job)
        await half_build(w, job.id)
        for path in tmp_path.glob("catalog.db*"):
            path.unlink()
        async with world(tmp_path, node=w.node, store=w.store) as w:
            assert (w.service.job(job.id).state, w.node.running()) == (JobState.DONE, [])

    play(main)


async def half_build(w, job: JobId) -> None:
    spec = w.service.job(job).spec
    facts = type("Facts", (), {"unit": UNIT})()
    directory = w.parts.image_directory(job, Version(1), UNIT)
    await w.node.rebuild(job, UNIT, spec, facts, directory, suffix="after-1")


def test_a_job_cut_off_while_starting(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            w.parts.registry.acquire(job.id, "start")
            job.state = JobState.PENDING
            w.parts.registry.operations[job.id].former = JobState.PENDING
            w.parts.registry.save(job)
        running = w.node
        async with world(tmp_path, node=running, store=w.store) as w:
            assert w.service.job(job.id).state is JobState.RUNNING
            job = w.service.job(job.id)
            w.parts.registry.acquire(job.id, "start")
            job.state = JobState.PENDING
            w.parts.registry.operations[job.id].former = JobState.PENDING
            w.parts.registry.save(job)
        async with world(tmp_path, node=BridgedNode(), store=ScriptedStore()) as w:
            assert w.service.job(job.id).state_text.startswith("failed (the service ended while it")

    play(main)


def test_a_request_answered_is_a_request_journalled(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.kill(job)
            w.node.script.delays_s[Primitive.REBUILD] = 60.0
            await w.service.request_restart(job.id, OWNER, RestartRequest(1))
            (found,) = operations.load_open(w.parts.db)
            assert (found.job, found.kind, found.former_state) == (job.id, "restart", JobState.DONE)

    play(main)
