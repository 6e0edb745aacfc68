"""Checkpoints through the whole service: every outcome, and no unit left standing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from ckptfs.catalog import operations
from ckptfs.coordinator.api import CheckpointRequest
from ckptfs.coordinator.cpx import JOB_DOCUMENT, UNIT_DOCUMENT, parse_unit
from ckptfs.coordinator.parts import Deadlines
from ckptfs.errors import (
    Busy,
    CheckpointerFailed,
    NotAuthorised,
    StoreFull,
    TimedOut,
    Unsupported,
)
from ckptfs.ids import UnitName
from ckptfs.model import JobState, Policy, Purpose
from ckptfs.node.api import Exit
from ckptfs.translib.order import Primitive
from tests.service.kit import OWNER, STRANGER, UNIT, BridgedNode, play, world

SHORT = Deadlines(stop_s=10, save_s=20, commit_s=30, resume_s=5)
PHASES = {
    Primitive.STOP: "stopping",
    Primitive.CHECKPOINT: "saving",
}


def test_the_job_goes_on_before_the_checkpoint_is_committed(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            w.node.script.delays_s[Primitive.CHECKPOINT] = 2.0
            w.store.commit_s = 1.0
            version = await w.service.request_checkpoint(
                job.id, OWNER, CheckpointRequest(note="before", keep=True)
            )
            assert (version, str(job.checkpoint), job.state_text) == (
                1,
                "1 saving",
                "checkpointing",
            )
            assert w.service.staging.keys() == {f"{job.id}.1"}
            assert str(await w.saved(job)) == "1 complete"
            assert job.versions == [1]
            assert job.stat["last_frozen_usec"] == pytest.approx(2_000_000)
            head = w.service.head(job.id, version)
            assert (head.note, head.owner.uid, head.purpose) == ("before", 65534, Purpose.USER)
            assert w.store.pinned(job.id, version)
            assert w.service.latest(job.id) == 1
            w.check_nothing_left(job)

    play(main)


def test_the_documents_say_what_was_saved(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            contents = w.store.sealed[job.id, 1].contents
            facts = parse_unit(contents[UNIT, UNIT_DOCUMENT], job.id, 1)
            assert (facts.unit, facts.uids, facts.translib) == (UNIT, (65534,), "sim")
            document = contents[UnitName(""), JOB_DOCUMENT]
            assert b"sim.img" in document
            assert UNIT_DOCUMENT.encode() in document

    play(main)


def test_each_phase_is_journalled_in_order(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            rows = w.parts.db.rows("SELECT phase FROM phases WHERE operation = 1 ORDER BY sequence")
            assert [phase for (phase,) in rows] == [
                "stopping",
                "saving",
                "resuming",
                "committing",
                "complete",
            ]
            assert operations.load_open(w.parts.db) == []

    play(main)


@pytest.mark.parametrize("primitive", PHASES)
@pytest.mark.parametrize("hangs", [False, True])
def test_trouble_of_a_unit_fails_the_version_and_the_job_goes_on(tmp_path, primitive, hangs):
    async def main():
        async with world(tmp_path, deadlines=SHORT) as w:
            job = await w.start()
            if hangs:
                w.node.script.hangs.add(primitive)
            else:
                w.node.script.failures[primitive] = CheckpointerFailed("fd 7 is odd")
            outcome = await w.checkpoint(job)
            reason = "no answer" if hangs else "JobUnit_1: fd 7 is odd"
            assert (outcome.word, reason in outcome.reason) == ("failed", True)
            assert (job.versions, job.highest_version) == ([], 1)
            assert w.store.aborted == [(job.id, 1)]
            assert job.events["failed"] == 1
            assert job.error.endswith(outcome.reason)
            w.check_nothing_left(job)
            w.node.script.hangs.clear()
            assert str(await w.checkpoint(job)) == "2 complete"

    play(main)


@pytest.mark.parametrize("failure", [StoreFull("no space is left"), None])
def test_a_commit_that_fails_or_hangs_leaves_nothing(tmp_path, failure):
    async def main():
        async with world(tmp_path, deadlines=SHORT) as w:
            job = await w.start()
            w.store.commit_failure = failure
            w.store.commit_s = 0.0 if failure else 10_000.0
            outcome = await w.checkpoint(job)
            assert outcome.word == "failed"
            assert job.versions == []
            w.check_nothing_left(job)

    play(main)


@pytest.mark.parametrize("cancel_after_s", [0.5, 1.5, 2.5, 3.5])
def test_a_daemon_that_ends_resumes_every_unit(tmp_path, cancel_after_s):
    """Stop 1 s, save 1 s, commit 1 s, resume 1 s: cancelled in each of them."""
    node = BridgedNode()

    async def main():
        async with world(tmp_path, node=node) as w:
            job = await w.start()
            for primitive in (Primitive.STOP, Primitive.CHECKPOINT, Primitive.RESUME_CP):
                w.node.script.delays_s[primitive] = 1.0
            w.store.commit_s = 1.0
            await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())
            await trio.sleep(cancel_after_s)
        committed = cancel_after_s > 2
        assert job.checkpoint.word == ("complete" if committed else "failed")
        assert w.store.versions(job.id) == ([1] if committed else [])
        w.check_nothing_left(job)

    play(main)


def test_refusals_touch_nothing(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            calls = list(w.node.translib.calls)
            with pytest.raises(NotAuthorised):
                await w.service.request_checkpoint(job.id, STRANGER, CheckpointRequest())
            assert w.node.translib.calls == calls
            w.node.script.blockers = ("python3 (1000) has a terminal open", "another")
            with pytest.raises(Unsupported, match=r"a terminal open \(and 1 more"):
                await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())
            assert len(job.blockers) == 2
            w.node.script.blockers = ()
            w.store.begin_failure = StoreFull("4096 bytes cannot be promised")
            with pytest.raises(StoreFull):
                await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())
            w.store.begin_failure = None
            w.node.script.hangs.add(Primitive.PREPARE)
            with pytest.raises(TimedOut):
                await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())
            w.node.script.hangs.clear()
            assert (job.highest_version, job.checkpoint) == (0, None)
            w.check_nothing_left(job)
            assert str(await w.checkpoint(job)) == "1 complete"

    play(main)


def test_one_operation_at_a_time(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            w.node.script.delays_s[Primitive.CHECKPOINT] = 5.0
            await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())
            with pytest.raises(Busy, match="under way"):
                await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())
            assert str(await w.saved(job)) == "1 complete"

    play(main)


def test_a_missing_capability_is_refused_by_name(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            w.parts.availability.clear()
            job.spec = replace(job.spec, policy=Policy(requires=("sockets",)))
            with pytest.raises(Unsupported, match="sockets"):
                await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())

    play(main)


def test_looking_at_blockers_does_not_get_in_the_way(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            w.node.script.delays_s[Primitive.PREPARE] = 0.5
            async with trio.open_nursery() as nursery:
                nursery.start_soon(w.service.refresh_blockers, job.id)
                await trio.sleep(0.1)
                assert str(await w.checkpoint(job)) == "1 complete"

    play(main)


def test_a_job_that_ends_while_being_saved_aborts_that_version(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            w.node.script.delays_s[Primitive.STOP] = 1.0
            await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())
            await trio.sleep(0.5)
            w.node.end(job.id, UNIT, Exit(3))
            assert (await w.saved(job)).word == "failed"
            assert (job.state, str(job.exit)) == (JobState.DONE, "3")
            with pytest.raises(Unsupported, match="has ended"):
                await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())

    play(main)


def test_a_job_that_ends_during_the_commit_keeps_that_version(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            w.store.commit_s = 2.0
            await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())
            await trio.sleep(1.0)
            assert (job.units[UNIT].state, job.versions) == ("running", [])
            w.node.end(job.id, UNIT, Exit(0))
            assert str(await w.saved(job)) == "1 complete"
            assert (job.state, str(job.exit), job.versions) == (JobState.DONE, "0", [1])

    play(main)


def test_keep_last_lets_old_versions_go_but_not_pinned_ones(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start(keep_last=2)
            for _ in range(2):
                await w.checkpoint(job)
            w.service.pin(job.id, 1, OWNER, True)
            for _ in range(3):
                await w.checkpoint(job)
            assert job.versions == [1, 4, 5]
            w.service.set_retention(job.id, OWNER, "keep_last", 1)
            assert job.versions == [1, 5]

    play(main)


def test_a_suspended_job_never_runs_beyond_its_checkpoint(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await trio.sleep(7)
            assert await w.service.request_suspend(job.id, OWNER) == 1
            await w.saved(job)
            assert (job.state, job.exit, w.node.running()) == (JobState.SUSPENDED, None, [])
            assert w.service.head(job.id, 1).purpose is Purpose.SUSPEND
            await trio.sleep(100)
            with pytest.raises(Busy, match="resume"):
                await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())
            assert await w.service.request_resume(job.id, OWNER) == 1
            await w.restarted(job)
            assert w.unit(job).process.progress == pytest.approx(7, abs=0.1)
            w.check_nothing_left(job)

    play(main)


def test_killing_a_job_that_is_being_saved_says_so(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            w.node.script.delays_s[Primitive.CHECKPOINT] = 60.0
            await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())
            await trio.sleep(1)
            await w.service.request_kill(job.id, OWNER)
            assert str(await w.saved(job)) == "1 failed (it was killed meanwhile)"
            assert job.state is JobState.DONE
            w.check_nothing_left(job)

    play(main)
