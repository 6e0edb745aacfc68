"""A restart whose units are rebuilt while the version is still being proved."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing

from ckptfs.coordinator import restarting
from ckptfs.coordinator.api import RestartRequest
from ckptfs.coordinator.cpx import parse_unit
from ckptfs.coordinator.rebuilding import PROVED_FIRST_BYTES
from ckptfs.errors import CheckpointerFailed, Corrupt
from ckptfs.model import JobState
from ckptfs.store.api import Damage

from .kit import OWNER, UNIT, play, world


class HeldProof:
    """`Store.prove`: what is small is whole, and all of it when, and as, the test says."""

    def __init__(self, store):
        self.asked, self.go = [], trio.Event()
        self.answer = []
        store.prove = self

    async def __call__(self, _job, _version, *, up_to_bytes=0):
        self.asked.append(up_to_bytes)
        if up_to_bytes:
            return []
        await self.go.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def begin(w):
    """Have a killed job with a version restarted, as far as that goes without a proof."""
    job = await w.start()
    await w.checkpoint(job)
    await w.kill(job)
    proof = HeldProof(w.store)
    await w.service.request_restart(job.id, OWNER, RestartRequest(1))
    await trio.testing.wait_all_tasks_blocked()
    return job, proof


def test_no_unit_runs_before_everything_is_proved(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job, proof = await begin(w)
            assert proof.asked == [PROVED_FIRST_BYTES, 0]
            (unit,) = w.node.running()
            assert not unit.process.is_running
            assert (job.state, job.units[UNIT].state) == (JobState.RESTARTING, "frozen")
            proof.go.set()
            assert str(await w.restarted(job)) == "1 running"
            assert unit.process.is_running
            w.check_nothing_left(job)

    play(main)


def test_files_of_the_job_wait_for_the_proof(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job, proof = await begin(w)
            (proved,) = w.node.proofs
            assert not proved.is_set()
            proof.go.set()
            await w.restarted(job)
            assert proved.is_set()

    play(main)


@pytest.mark.parametrize("way", ["damage", "error"])
def test_damage_found_after_the_rebuild_kills_what_was_rebuilt(tmp_path, way):
    async def main():
        async with world(tmp_path) as w:
            job, proof = await begin(w)
            damage = Damage(job.id, 1, UNIT, "pages-1.img", 17, "hash")
            proof.answer = [damage] if way == "damage" else Corrupt(str(damage))
            (unit,) = w.node.running()
            proof.go.set()
            outcome = await w.restarted(job)
            assert str(outcome) == "1 failed (JobUnit_1/pages-1.img, block 17)"
            assert not unit.process.is_running
            assert w.node.running() == []
            assert not w.node.proofs[0].is_set()
            assert (job.state, str(job.exit)) == (JobState.DONE, "signal 9")
            w.check_nothing_left(job)

    play(main)


@pytest.mark.parametrize(("lazy", "pids", "expected"), [(0, 1, 1), (0, 2, 0), (1, 1, 0)])
def test_an_image_is_read_through_while_one_process_is_rebuilt_from_it(
    tmp_path, monkeypatch, lazy, pids, expected
):
    def facts(*document):
        return replace(parse_unit(*document), pids=tuple(range(1000, 1000 + pids)))

    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.kill(job)
            w.node.rebuild_held = trio.Event()
            monkeypatch.setattr(restarting, "parse_unit", facts)
            await w.service.request_restart(job.id, OWNER, RestartRequest(1, lazy=bool(lazy)))
            await trio.testing.wait_all_tasks_blocked()
            assert job.read_through == ({(1, UNIT)} if expected else set())
            w.node.rebuild_held.set()
            assert str(await w.restarted(job)) == "1 running"
            assert job.read_through == set()

    play(main)


def test_damage_found_meanwhile_ends_a_rebuild_under_way(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            w.node.rebuild_held = trio.Event()
            job, proof = await begin(w)
            assert w.node.running() == []
            proof.answer = [Damage(job.id, 1, UNIT, "pages-1.img", 17, "hash")]
            proof.go.set()
            outcome = await w.restarted(job)
            assert str(outcome) == "1 failed (JobUnit_1/pages-1.img, block 17)"
            assert w.node.running() == []
            w.check_nothing_left(job)

    play(main)


@pytest.mark.parametrize("damaged", [True, False])
def test_a_rebuild_that_fails_says_what_is_wrong_with_the_version_if_anything_is(tmp_path, damaged):
    async def main():
        async with world(tmp_path) as w:
            w.node.rebuild_failure = CheckpointerFailed("criu restore: Input/output error")
            job, proof = await begin(w)
            if damaged:
                proof.answer = [Damage(job.id, 1, UNIT, "pages-1.img", 17, "hash")]
            proof.go.set()
            reason = str(await w.restarted(job)).partition("(")[2].rstrip(")")
            assert reason == (
                "JobUnit_1/pages-1.img, block 17"
                if damaged
                else "JobUnit_1: criu restore: Input/output error"
            )
            w.check_nothing_left(job)

    play(main)


def test_a_job_killed_while_it_is_proved_leaves_nothing(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job, _ = await begin(w)
            await w.service.request_kill(job.id, OWNER)
            assert str(await w.restarted(job)) == "1 failed (it was killed meanwhile)"
            assert w.node.running() == []
            w.check_nothing_left(job)

    play(main)


def test_a_lazy_restart_changes_files_at_once(tmp_path):
    async def main():
        async with world(tmp_path) as w:
            job = await w.start()
            await w.checkpoint(job)
            await w.kill(job)
            proof = HeldProof(w.store)
            assert str(await w.restart(job, 1, lazy=True)) == "1 running"
            assert proof.asked == [PROVED_FIRST_BYTES]
            assert w.node.proofs[0].is_set()

    play(main)
