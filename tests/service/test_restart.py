"""Restarts through the whole service: in place, as a clone, refused, undone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from ckptfs.coordinator.api import CheckpointRequest, RestartRequest
from ckptfs.coordinator.rebuilding import PROVED_FIRST_BYTES
from ckptfs.coordinator.retention import verdicts
from ckptfs.errors import (
    Busy,
    CannotRun,
    CheckpointerFailed,
    Corrupt,
    NotAuthorised,
    NotFound,
    Unsupported,
)
from ckptfs.ids import JobId, UnitName
from ckptfs.model import JobState, OpenFile, Owner
from ckptfs.node.api import Exit
from ckptfs.store.api import Damage
from ckptfs.translib.api import Capability
from ckptfs.translib.order import Primitive
from tests.service.kit import (
    OWNER,
    STRANGER,
    UNIT,
    BridgedNode,
    ScriptedStore,
    play,
    world,
)

LOG = OpenFile("/logs/out", 1, 2, 10, 10, 0o2001, 0o600, 65534, 65534, 1000, 1)


def fill(path: str) -> Path:
    """Make a file as a node would; return its directory."""
    directory = Path(path).parent
    directory.mkdir(parents=True)
    Path(path).write_text("secret")
    return directory


def test_in_place_goes_on_from_the_version(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await trio.sleep(5)
            await w.checkpoint(job)
            await trio.sleep(50)
            await w.kill(job)
            assert str(job.exit) == "signal 9"
            assert str(await w.restart(job, 1)) == "1 running"
            assert (job.state, job.exit) == (JobState.RUNNING, None)
            assert w.unit(job).process.progress == pytest.approx(5, abs=0.1)
            assert w.node.rebuilds == [(job.id, UNIT, "after-1", None)]
            assert str(await w.checkpoint(job)) == "2 complete"
            await w.kill(job)
            assert str(await w.restart(job, 1)) == "1 running"
            assert str(await w.checkpoint(job)) == "3 complete"
            w.check_nothing_left(job)

    play(main)


def test_refusals_start_nothing(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            latest = RestartRequest(None)
            with pytest.raises(NotAuthorised):
                await w.service.request_restart(job.id, STRANGER, latest)
            with pytest.raises(Busy, match="kill it first"):
                await w.service.request_restart(job.id, OWNER, latest)
            await w.kill(job)
            with pytest.raises(NotFound, match="no version 9"):
                await w.service.request_restart(job.id, OWNER, RestartRequest(9))
            with pytest.raises(NotFound, match="no node"):
                await w.service.request_restart(
                    job.id, OWNER, RestartRequest(1, placement={UNIT: "n7"})
                )
            with pytest.raises(NotFound, match="no unit"):
                await w.service.request_restart(
                    job.id, OWNER, RestartRequest(1, placement={UnitName("JobUnit_2"): "n1"})
                )
            w.node.restart_refusal = "the image was made under Linux 7"
            with pytest.raises(Unsupported, match="Linux 7"):
                await w.service.request_restart(job.id, OWNER, latest)
            assert w.node.running() == []
            w.check_nothing_left(job)

    play(main)


def test_ownership_of_head_and_image_is_checked(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.kill(job)
            sealed = w.store.sealed[job.id, 1]
            other = Owner(65533, 65533, (), "mallory")
            sealed.head = replace(sealed.head, owner=other)
            with pytest.raises(NotAuthorised):
                await w.service.request_restart(job.id, OWNER, RestartRequest(1))
            sealed.head = replace(sealed.head, owner=job.spec.owner)
            key = (UNIT, "unit.cpx")
            forged = sealed.contents[key].replace(b'<user uid="65534"/>', b'<user uid="0"/>')
            sealed.contents = {**sealed.contents, key: forged}
            with pytest.raises(NotAuthorised, match="process of uid 0"):
                await w.service.request_restart(job.id, OWNER, RestartRequest(1))
            assert w.node.running() == []

    play(main)


def test_damage_is_refused_naming_the_place(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.checkpoint(job)
            await w.kill(job)
            damage = Damage(job.id, 2, UNIT, "pages-1.img", 17, "hash")
            w.store.sealed[job.id, 2].damage.append(damage)
            w.service.note_damage(damage)
            assert w.service.version_state(job.id, 2) == "damaged (JobUnit_1/pages-1.img, block 17)"
            assert w.service.latest(job.id) == 1
            with pytest.raises(Corrupt, match=r"JobUnit_1/pages-1\.img, block 17"):
                await w.service.request_restart(job.id, OWNER, RestartRequest(2))
            assert str(await w.restart(job, None)) == "1 running"

    play(main)


def test_damage_found_while_verifying_starts_nothing(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.kill(job)

            async def prove(_job, _version, **_which):
                await trio.sleep(1)
                return [Damage(job.id, 1, UNIT, "pages-1.img", 17, "hash")]

            w.store.prove = prove
            outcome = await w.restart(job, 1)
            assert str(outcome) == "1 failed (JobUnit_1/pages-1.img, block 17)"
            assert (job.state, str(job.exit)) == (JobState.DONE, "signal 9")
            assert w.node.running() == []
            w.check_nothing_left(job)

    play(main)


def test_units_are_made_ready_while_the_version_is_proved(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.kill(job)
            seen = []

            async def prove(_job, _version, **_which):
                await trio.testing.wait_all_tasks_blocked()
                seen.extend(w.node.ready)
                return []

            w.store.prove = prove
            assert str(await w.restart(job, 1)) == "1 running"
            assert seen == [(job.id, UNIT)]
            w.check_nothing_left(job)

    play(main)


def test_a_unit_that_cannot_be_made_ready_fails_the_restart(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.kill(job)
            w.node.ready_failure = CannotRun("namespaces need root")
            assert str(await w.restart(job, 1)) == "1 failed (namespaces need root)"
            w.check_nothing_left(job)
            assert str(await w.restart(job, 1)) == "1 running"

    play(main)


def test_a_daemon_that_ends_while_it_proves_drops_what_it_made_ready(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.kill(job)

            async def prove(_job, _version, **_which):
                await trio.sleep_forever()

            w.store.prove = prove
            await w.service.request_restart(job.id, OWNER, RestartRequest(1))
            await trio.testing.wait_all_tasks_blocked()
            assert w.node.ready
        assert (job.state, job.restart.word) == (JobState.DONE, "failed")
        assert not w.node.ready

    play(main)


@pytest.mark.parametrize("primitive", [Primitive.REBUILD, Primitive.RESUME_RST])
def test_a_failed_restart_leaves_nothing_and_can_be_tried_again(tmp_path, primitive):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.kill(job)
            w.node.script.failures[primitive] = CheckpointerFailed("a file is gone: /x")
            outcome = await w.restart(job, 1)
            assert str(outcome) == "1 failed (JobUnit_1: a file is gone: /x)"
            assert (job.state, str(job.exit)) == (JobState.DONE, "signal 9")
            assert w.node.running() == []
            w.check_nothing_left(job)
            assert str(await w.restart(job, 1)) == "1 running"

    play(main)


@pytest.mark.parametrize("cancel_after_s", [0.5, 1.5])
def test_a_daemon_that_ends_undoes_a_restart_or_finishes_it(tmp_path, cancel_after_s):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.kill(job)
            w.node.script.delays_s = {Primitive.REBUILD: 1.0, Primitive.RESUME_RST: 1.0}
            await w.service.request_restart(job.id, OWNER, RestartRequest(1))
            await trio.sleep(cancel_after_s)
        assert (job.state, job.restart.word) == (JobState.DONE, "failed")
        assert w.node.running() == []

    play(main)


def test_killing_a_job_that_is_being_restarted_ends_the_restart(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.kill(job)
            w.node.script.delays_s[Primitive.REBUILD] = 60.0
            await w.service.request_restart(job.id, OWNER, RestartRequest(1))
            await trio.sleep(1)
            await w.service.request_kill(job.id, OWNER)
            assert str(await w.restarted(job)) == "1 failed (it was killed meanwhile)"
            assert job.state is JobState.DONE
            w.check_nothing_left(job)

    play(main)


def test_a_clone_is_a_job_of_its_own(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await trio.sleep(3)
            await w.checkpoint(job)
            name = await w.service.request_restart(job.id, OWNER, RestartRequest(1, as_clone=True))
            assert name == "heat.2"
            clone = w.service.job(JobId(name))
            await w.restarted(clone)
            assert (clone.state_text, clone.clone_of) == ("running", job.id)
            assert w.node.rebuilds == [(clone.id, UNIT, "after-1", job.id)]
            assert job.state is JobState.RUNNING
            assert str(await w.checkpoint(clone)) == "1 complete"
            await w.kill(clone)
            assert str(await w.restart(clone, 1)) == "1 running"
            w.check_nothing_left(clone)

    play(main)


def test_a_clone_never_writes_a_file_beside_its_original(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            w.unit(job).files = (LOG,)
            await w.checkpoint(job)
            clone = RestartRequest(1, as_clone=True)
            with pytest.raises(Busy, match="writes /logs/out"):
                await w.service.request_restart(job.id, OWNER, clone)
            await w.kill(job)
            name = JobId(await w.service.request_restart(job.id, OWNER, clone))
            await w.restarted(w.service.job(name))
            assert w.node.rebuilds[-1] == (name, UNIT, "after-1", job.id)
            with pytest.raises(Busy, match=f"{name} runs"):
                await w.service.request_restart(job.id, OWNER, RestartRequest(1))

    play(main)


def test_default_logs_are_no_obstacle_to_clones(tmp_path):
    """A family of three runs side by side; each restarts beside the others, also tomorrow."""

    async def main():
        node, store = BridgedNode(), ScriptedStore()
        async with world(tmp_path, node=node, store=store) as w:
            job = await w.start()
            w.unit(job).files = (replace(LOG, path=job.stdout), replace(LOG, path=job.stderr))
            await w.checkpoint(job)
            request = RestartRequest(1, as_clone=True)
            clone = w.service.job(JobId(await w.service.request_restart(job.id, OWNER, request)))
            await w.restarted(clone)
            # The image names the logs as the first job does; outside they are the clone's own.
            assert clone.stdout == job.stdout.replace("heat.1", "heat.2")
            w.unit(clone).files = w.unit(job).files
            await w.checkpoint(clone)
            name = JobId(await w.service.request_restart(clone.id, OWNER, request))
            await w.restarted(w.service.job(name))
            assert w.node.rebuilds[-1] == (name, UNIT, "after-1", clone.id)
            await w.kill(job)
            assert str(await w.restart(job, 1)) == "1 running"
            assert w.node.rebuilds[-1] == (job.id, UNIT, "after-1", None)
        async with world(tmp_path, node=node, store=store) as w:
            clone = w.service.job(clone.id)
            assert clone.logs_shown_as == w.service.job(name).logs_shown_as == job.id
            await w.kill(clone)
            assert str(await w.restart(clone, 1)) == "1 running"
            w.check_nothing_left(clone)

    play(main)


def test_the_place_of_the_first_logs_stays_until_the_last_clone_has_gone(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            request = RestartRequest(1, as_clone=True)
            name = JobId(await w.service.request_restart(job.id, OWNER, request))
            await w.restarted(w.service.job(name))
            place = fill(job.stdout)
            await w.kill(job)
            w.service.remove_version(job.id, 1, OWNER)
            w.store.trash.clear()  # else the logs could be brought back with it
            w.service.remove_job(job.id, OWNER)
            assert list(place.iterdir()) == []
            await w.kill(w.service.job(name))
            w.service.remove_job(name, OWNER)
            assert not place.exists()

    play(main)


def test_a_clone_that_cannot_be_rebuilt_says_why(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            w.node.rebuild_failure = CheckpointerFailed("pid 1000 is taken")
            name = await w.service.request_restart(job.id, OWNER, RestartRequest(1, as_clone=True))
            clone = w.service.job(JobId(name))
            await w.restarted(clone)
            assert clone.state_text.startswith(
                "failed (the clone could not be rebuilt: JobUnit_1: pid"
            )
            w.service.remove_job(clone.id, OWNER)
            assert w.service.jobs() == (job.id,)
            w.check_nothing_left(job)

    play(main)


def test_stopped_for_a_debugger(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.kill(job)
            await w.restart(job, 1, stopped=True)
            assert w.unit(job).signals == [19]

    play(main)


def test_a_version_in_use_is_not_removed(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.kill(job)
            w.node.script.delays_s[Primitive.REBUILD] = 5.0
            await w.service.request_restart(job.id, OWNER, RestartRequest(1))
            with pytest.raises(Busy, match="in use"):
                w.service.remove_version(job.id, 1, OWNER)
            with pytest.raises(Busy):
                await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())
            await w.restarted(job)
            w.service.remove_version(job.id, 1, OWNER)
            assert job.versions == []

    play(main)


async def lazily_restarted(w, *, load_s=60.0):
    """A job that runs while its memory is still being read from version 1."""
    job = await w.start()
    await w.checkpoint(job)
    await w.kill(job)
    w.node.script.load_s = load_s
    assert str(await w.restart(job, 1, lazy=True)) == "1 running"
    return job


def test_a_lazy_restart_runs_before_its_memory_is_there(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            asked, prove = [], w.store.prove

            async def noted(*which, **how):
                asked.append(how)
                return await prove(*which, **how)

            w.store.prove = noted
            job = await lazily_restarted(w)
            assert asked == [{"up_to_bytes": PROVED_FIRST_BYTES}]
            assert (job.state, job.units[UNIT].state) == (JobState.RUNNING, "loading")
            assert w.unit(job).process.is_running
            with pytest.raises(Busy, match="still being loaded"):
                await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())
            with pytest.raises(Busy, match="still being loaded"):
                await w.service.request_suspend(job.id, OWNER)
            with pytest.raises(Busy, match="in use"):
                w.service.remove_version(job.id, 1, OWNER)
            assert [v.reason for v in verdicts(w.parts, job)] == ["in use"]
            w.node.loaded(job.id, UNIT)
            assert (job.units[UNIT].state, job.events["loaded"]) == ("running", 1)
            assert str(await w.checkpoint(job)) == "2 complete"
            w.service.remove_version(job.id, 1, OWNER)
            w.check_nothing_left(job)

    play(main)


def test_memory_that_cannot_be_read_fails_the_job_with_the_reason_and_it_can_be_restarted(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await lazily_restarted(w)
            w.service.note_damage(Damage(job.id, 1, UNIT, "pages-1.img", 3, "hash"))
            w.store.sealed[job.id, 1].damage.append(
                Damage(job.id, 1, UNIT, "pages-1.img", 3, "hash")
            )
            w.node.end(job.id, UNIT, Exit(-1, 9, "pages could not be loaded"))
            reason = "JobUnit_1: pages could not be loaded (JobUnit_1/pages-1.img, block 3)"
            assert job.state_text == f"failed ({reason})"
            assert job.error.endswith(f"restart: {reason}")
            assert str(job.exit) == "signal 9"
            assert not w.parts.registry.loading
            w.store.sealed[job.id, 1].damage.clear()
            assert str(await w.restart(job, 1)) == "1 running"
            w.check_nothing_left(job)

    play(main)


def test_a_job_that_ends_or_is_killed_while_it_is_loaded_lets_its_version_go(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await lazily_restarted(w)
            await w.kill(job)
            assert (job.state, job.events["loaded"]) == (JobState.DONE, 0)
            assert str(await w.restart(job, 1, lazy=True)) == "1 running"
            w.node.end(job.id, UNIT, Exit(0))
            assert job.state is JobState.DONE
            w.service.remove_version(job.id, 1, OWNER)

    play(main)


def test_a_daemon_that_comes_back_hears_why_a_unit_was_killed(tmp_path):
    async def main():
        node, store = BridgedNode(), ScriptedStore()
        async with world(tmp_path, node=node, store=store) as w:
            job = await lazily_restarted(w)
        node.end(job.id, UNIT, Exit(-1, 9, "pages could not be loaded"))
        async with world(tmp_path, node=node, store=store) as w:
            again = w.service.job(job.id)
            assert again.state_text == "failed (JobUnit_1: pages could not be loaded)"
            assert str(await w.restart(again, 1)) == "1 running"

    play(main)


def test_lazy_is_refused_where_the_checkpointer_cannot(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.kill(job)
            found = w.parts.availability["sim"]
            able = found.capabilities - {Capability.LAZY_RESTART}
            w.parts.availability["sim"] = replace(found, capabilities=able)
            with pytest.raises(Unsupported, match="userfaultfd"):
                await w.service.request_restart(job.id, OWNER, RestartRequest(1, lazy=True))
            w.check_nothing_left(job)
            assert str(await w.restart(job, 1)) == "1 running"

    play(main)
