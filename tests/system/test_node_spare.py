"""The supervisor that was started beforehand."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from ckptfs.errors import NotFound
from ckptfs.model import JobSpec
from ckptfs.node.starting import Spare

from .nodes import COUNTER, OWNER, assert_counts, bench, python_job, supervisors

pytestmark = pytest.mark.criu


def run(tmp_path, scenario):
    async def main():
        async with bench(tmp_path) as made:
            made.agent.keep_spare(rest_s=1.0)
            with trio.fail_after(20):
                await made.agent._spare.is_there.wait()
            await scenario(made, made.agent._spare)

    trio.run(main)


def is_ours(parent: str, state: str) -> bool:
    """Whether a process is a child of ours that has not ended."""
    return int(parent) == os.getpid() and state not in "ZX"


def spares() -> set[int]:
    """Return our own children that wait for a unit."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            # a child counts as started a moment before its new command line can be read
            while not (words := (entry / "cmdline").read_bytes()) and is_ours(parent, state):
                state, parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        if is_ours(parent, state) and b"--spare" in words:
            found.add(int(entry.name))
    return found


def test_it_takes_a_start_and_a_restart_and_another_one_follows(tmp_path):
    async def scenario(b, spare):
        (first,) = spares()
        unit = await b.start(python_job(COUNTER))
        assert first not in spares()
        assert first not in supervisors(b.paths)  # it is the parent that ended
        assert supervisors(b.paths)  # found by its name, which is that of any other now
        await b.lines(unit, 3)
        saved = await b.save(unit)
        await unit.kill()
        with trio.fail_after(20):
            await spare.is_there.wait()
        (second,) = spares()
        unit = await b.rebuild(unit.job, python_job(COUNTER), saved)
        await unit.resume_rst()
        assert_counts(await b.lines(unit, 10))
        assert second not in spares()

    run(tmp_path, scenario)
    assert spares() == set()


def test_what_it_reports_is_what_any_supervisor_reports(tmp_path):
    async def scenario(b, _spare):
        (first,) = spares()
        with pytest.raises(NotFound, match="/no/such/program"):
            await b.start(JobSpec("test", ("/no/such/program",), "/", {}, OWNER))
        assert first not in spares()

    run(tmp_path, scenario)


def test_one_that_has_gone_is_not_missed(tmp_path):
    async def scenario(b, _spare):
        (first,) = spares()
        os.kill(first, signal.SIGKILL)
        unit = await b.start(python_job(COUNTER))
        assert_counts(await b.lines(unit, 3))

    run(tmp_path, scenario)


def test_one_that_cannot_be_started_is_tried_again_and_ends_nothing(monkeypatch):
    tries, real = [], trio.lowlevel.open_process

    async def refused_at_first(*words, **options):
        tries.append(words)
        if len(tries) < 3:
            raise BlockingIOError("no more processes")
        return await real(*words, **options)

    async def main():
        spare = Spare()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spare.keep, 0.01)
            with trio.fail_after(20):
                await spare.is_there.wait()
            assert len(tries) == 3
            nursery.cancel_scope.cancel()

    monkeypatch.setattr(trio.lowlevel, "open_process", refused_at_first)
    trio.run(main)
    assert spares() == set()
