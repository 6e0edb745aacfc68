"""Submit, kill, signal, limits, retention, removal: what they do and what they refuse."""

from __future__ import annotations

import pytest
import trio

from ckptfs.coordinator.api import CheckpointRequest, SignalRequest
from ckptfs.errors import (
    Busy,
    InvalidInput,
    NoSuchProcess,
    NotAuthorised,
    NotEmpty,
    NotFound,
    OutOfRange,
    StoreFull,
    Unsupported,
)
from ckptfs.ids import JobId
from ckptfs.jobs.jsdl_render import JobDescription, render_jsdl
from ckptfs.model import Caller, JobState, Protocol
from ckptfs.node.api import Exit
from ckptfs.store.api import Damage
from ckptfs.translib.order import Primitive
from tests.service.kit import OWNER, ROOT, STRANGER, UNIT, play, world


def test_numbers_are_never_given_twice(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            first = await w.start()
            await w.kill(first)
            w.service.remove_job(first.id, OWNER)
            assert w.service.jobs() == ()
            assert first.removed
            assert (await w.start()).id == "heat.2"
        (tmp_path / "jobs" / "counter").unlink()
        async with world(tmp_path, node=w.node, store=w.store) as w:
            assert (await w.start()).id == "heat.3"

    play(main)


def test_a_program_that_does_not_start_leaves_no_job(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            w.node.start_failure = NotFound("no program is called /bin/heat")
            with pytest.raises(NotFound, match="/bin/heat"):
                await w.start()
            assert w.service.jobs() == ()
            assert not w.parts.registry.operations
            assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["counter"]
            assert w.parts.db.number("SELECT count(*) FROM jobs") == 0

    play(main)


def test_a_job_that_cannot_be_indexed_leaves_no_record(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise StoreFull("no space is left for the catalog")

    async def main():
        async with world(tmp_path) as w:
            with monkeypatch.context() as patched:
                patched.setattr("ckptfs.catalog.jobs.save_job", full)
                with pytest.raises(StoreFull):
                    await w.start()
            assert w.service.jobs() == ()
            assert not w.parts.registry.operations
            assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["counter"]
            assert (await w.start()).id == "heat.2"

    play(main)


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (b"", InvalidInput),
        (b"<a/>", InvalidInput),
        (b"\xff\xfe\x00", InvalidInput),
        (b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>', InvalidInput),
    ],
)
def test_documents_that_are_none(tmp_path, document, error):
    async def main():
        async with world(tmp_path) as w:
            with pytest.raises(error):
                await w.service.submit(OWNER, document)
            assert w.service.jobs() == ()

    play(main)


def test_only_root_submits_for_others(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            document = render_jsdl(JobDescription("x", ("/bin/x",), cwd="/", user="0")).encode()
            with pytest.raises(NotAuthorised):
                await w.service.submit(OWNER, document)
            document = document.replace(b">0<", b">65534<")
            job = w.service.job(await w.service.submit(ROOT, document))
            assert job.spec.owner.uid == 65534

    play(main)


def test_the_exit_status_is_kept(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            told = []
            w.service.subscribe(lambda job, version: told.append((job, version)))
            w.node.end(job.id, UNIT, Exit(3))
            assert (job.state_text, str(job.exit)) == ("done", "3")
            assert told
            assert (job.id, UNIT) in w.node.forgotten

    play(main)


def test_a_lost_supervisor_fails_the_job(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            w.node.end(job.id, UNIT, None)
            assert job.state_text.startswith("failed (JobUnit_1 was lost")
            assert job.events["units_lost"] == 1
            assert str(await w.restart(job, None)) == "1 running"

    play(main)


def test_wall_time_counts_anew_after_a_restart(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start(wall_time_s=60)
            await trio.sleep(30)
            await w.checkpoint(job)
            await trio.sleep(40)
            assert job.state_text == "failed (it ran longer than its wall time of 60 s)"
            assert str(job.exit) == "signal 9"
            await w.restart(job, 1)
            await trio.sleep(50)
            assert job.state is JobState.RUNNING
            await trio.sleep(20)
            assert job.state is JobState.FAILED

    play(main)


def test_signals_reach_only_the_jobs_processes(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            unit = w.unit(job)
            await w.service.request_signal(job.id, OWNER, SignalRequest(15))
            await w.service.request_signal(job.id, OWNER, SignalRequest(10, only=(unit.pid,)))
            await w.service.request_signal(job.id, OWNER, SignalRequest(12, others=(unit.pid,)))
            assert unit.signals == [15, 10]
            for number in (0, 65, 4711):
                with pytest.raises(OutOfRange):
                    await w.service.request_signal(job.id, OWNER, SignalRequest(number))
            with pytest.raises(NoSuchProcess):
                await w.service.request_signal(job.id, OWNER, SignalRequest(9, only=(1,)))
            with pytest.raises(NotAuthorised):
                await w.service.request_signal(job.id, STRANGER, SignalRequest(9))
            assert unit.signals == [15, 10]

    play(main)


def test_a_stranger_can_do_nothing(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            calls = list(w.node.translib.calls)
            for attempt in (
                lambda: w.service.request_suspend(job.id, STRANGER),
                lambda: w.service.request_resume(job.id, STRANGER),
                lambda: w.service.request_kill(job.id, STRANGER),
            ):
                with pytest.raises(NotAuthorised):
                    await attempt()
            for attempt in (
                lambda: w.service.set_protocol(job.id, STRANGER, Protocol.COORDINATED),
                lambda: w.service.set_retention(job.id, STRANGER, "keep_last", 1),
                lambda: w.service.pin(job.id, 1, STRANGER, True),
                lambda: w.service.request_verify(job.id, 1, STRANGER),
                lambda: w.service.remove_version(job.id, 1, STRANGER),
                lambda: w.service.remove_job(job.id, STRANGER),
            ):
                with pytest.raises(NotAuthorised):
                    attempt()
            assert (w.node.translib.calls, job.state) == (calls, JobState.RUNNING)
            assert job.versions == [1]

    play(main)


def test_killing_while_saving_ends_the_job(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            w.node.script.delays_s[Primitive.CHECKPOINT] = 60.0
            await w.service.request_checkpoint(job.id, OWNER, CheckpointRequest())
            await trio.sleep(1)
            await w.service.request_kill(job.id, OWNER)
            await w.saved(job)
            assert (job.state, str(job.exit)) == (JobState.DONE, "signal 9")
            w.check_nothing_left(job)
            with pytest.raises(Unsupported):
                await w.service.request_kill(job.id, OWNER)

    play(main)


def test_what_is_so_already_is_no_error(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            assert await w.service.request_resume(job.id, OWNER) == 0
            await w.service.request_suspend(job.id, OWNER)
            with pytest.raises(Busy):  # it is not suspended yet
                await w.service.request_suspend(job.id, OWNER)
            await w.saved(job)
            assert await w.service.request_suspend(job.id, OWNER) == 1
            assert (job.versions, job.state) == ([1], JobState.SUSPENDED)
            with pytest.raises(NotAuthorised):
                await w.service.request_suspend(job.id, STRANGER)
            assert await w.service.request_resume(job.id, OWNER) == 1
            await w.restarted(job)
            assert await w.service.request_resume(job.id, OWNER) == 1
            assert job.events["restarted"] == 1
            assert job.error == ""
            with pytest.raises(NotAuthorised):
                await w.service.request_resume(job.id, STRANGER)

    play(main)


def test_a_suspended_job_can_be_ended(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.service.request_suspend(job.id, OWNER)
            await w.saved(job)
            with pytest.raises(Busy):
                w.service.remove_job(job.id, OWNER)
            await w.service.request_kill(job.id, OWNER)
            assert (job.state, str(job.exit)) == (JobState.DONE, "signal 9")

    play(main)


def test_removal_keeps_what_is_needed(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            with pytest.raises(Busy):
                w.service.remove_job(job.id, OWNER)
            await w.kill(job)
            with pytest.raises(NotEmpty):
                w.service.remove_job(job.id, OWNER)
            w.service.pin(job.id, 1, OWNER, True)
            with pytest.raises(Busy, match="pinned"):
                w.service.remove_version(job.id, 1, OWNER)
            w.service.pin(job.id, 1, OWNER, False)
            w.service.remove_version(job.id, 1, OWNER)
            with pytest.raises(NotFound):
                w.service.remove_version(job.id, 1, OWNER)
            w.service.remove_job(job.id, OWNER)
            with pytest.raises(NotFound):
                w.service.job(JobId("heat.1"))

    play(main)


def test_settings(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            w.service.set_protocol(job.id, OWNER, Protocol.COORDINATED)
            with pytest.raises(Unsupported):
                w.service.set_protocol(job.id, OWNER, Protocol.INDEPENDENT)
            w.service.set_retention(job.id, OWNER, "keep_last", 5)
            with pytest.raises(OutOfRange):
                w.service.set_retention(job.id, OWNER, "keep_last", -1)
            assert job.keep_last == 5

    play(main)


def test_verify_tells_what_it_found(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            assert w.service.verify_text(job.id, 1) == "never"
            told = []
            w.service.subscribe(lambda job, version: told.append((job, version)))
            w.service.request_verify(job.id, 1, OWNER)
            await trio.sleep(1)
            assert (job.id, 1) in told
            w.store.sealed[job.id, 1].verified_ns = 1_790_000_000_000_000_000
            assert w.service.verify_text(job.id, 1) == "ok 2026-09-21T14:13:20Z"
            w.store.sealed[job.id, 1].progress = 0.4
            assert w.service.verify_text(job.id, 1) == "running 40%"
            with pytest.raises(Busy):
                w.service.request_verify(job.id, 1, OWNER)
            w.store.sealed[job.id, 1].progress = None
            w.store.sealed[job.id, 1].damage.append(Damage(job.id, 1, UNIT, "a", 3, "x"))
            assert w.service.verify_text(job.id, 1) == "damaged (JobUnit_1/a, block 3)"

    play(main)


def test_health_and_counters(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start(caller=Caller(0, 0))
            assert w.service.health() == []
            w.store.degraded_reason = "pack 9f2c is corrupt"
            assert w.service.health() == ["the store is read-only: pack 9f2c is corrupt"]
            counters = w.service.counters()
            assert (counters["jobs"], counters["jobs_running"]) == (1, 1)
            assert [process.command for process in await w.service.processes(job.id)] == ["sim"]

    play(main)


def test_versions_are_kept_by_age_and_by_period(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            for _ in range(4):
                await w.checkpoint(job)
                await trio.sleep(1000)
            w.service.set_retention(job.id, OWNER, "keep_within_s", 2500)
            assert job.versions == [3, 4]
            w.service.set_retention(job.id, OWNER, "keep_every_s", 10**9)
            w.service.set_retention(job.id, OWNER, "keep_within_s", 0)
            assert job.versions == [4]
            with pytest.raises(OutOfRange):
                w.service.set_retention(job.id, OWNER, "keep_every_s", 10**9 + 1)
            (entry,) = w.parts.directory.load()[0]
            assert (entry.keep_last, entry.keep_within_s, entry.keep_every_s) == (0, 0, 10**9)

    play(main)
