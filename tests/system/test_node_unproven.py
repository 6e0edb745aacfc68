"""Real units that are rebuilt while their image is still being proved."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
import trio.testing

from .nodes import COUNTER, assert_counts, bench, python_job, unit_cgroups, whole_lines

pytestmark = pytest.mark.criu

UNPROVED_S = 1.0  # a rebuild takes 0.2 s


def run(tmp_path, scenario):
    async def main():
        async with bench(tmp_path) as made:
            await scenario(made)

    trio.run(main)


async def saved_unit(b):
    """Return a job that was saved and killed, its log, and how long that was when it was saved."""
    spec = python_job(COUNTER)
    unit = await b.start(spec)
    await b.lines(unit, 5)
    saved = await b.save(unit)
    await unit.kill()
    await b.wait_end(unit.job)
    log = b.output(unit)
    (size,) = {item.size_bytes for item in saved.facts.files if item.path == str(log)}
    return unit.job, spec, saved, log, size


def test_a_unit_whose_files_are_as_they_were_is_rebuilt_meanwhile(tmp_path):
    async def scenario(b):
        job, spec, saved, log, size = await saved_unit(b)
        os.truncate(log, size)
        with trio.fail_after(20):
            unit = await b.rebuild(job, spec, saved, proved=trio.Event())
        assert log.stat().st_size == size
        await unit.resume_rst()
        assert_counts(await b.lines(unit, 10))

    run(tmp_path, scenario)


def test_no_file_is_changed_before_the_proof(tmp_path):
    async def scenario(b):
        job, spec, saved, log, _ = await saved_unit(b)
        before = log.read_text() + "a later line\n"
        log.write_text(before)
        with trio.move_on_after(UNPROVED_S) as scope:
            await b.rebuild(job, spec, saved, proved=trio.Event())
        assert scope.cancelled_caught
        assert log.read_text() == before
        assert tails(log) == []
        assert unit_cgroups(b.paths) == []
        assert list(b.paths.run.iterdir()) == []
        assert b.ends == []
        proved = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lines_come_late, log, before, proved)
            unit = await b.rebuild(job, spec, saved, proved=proved)
        (kept,) = tails(log)
        assert kept.read_text().endswith("a later line\nthe last line\n")
        await unit.resume_rst()
        assert_counts(await b.lines(unit, len(whole_lines(log)) + 5))

    run(tmp_path, scenario)


def tails(log: Path) -> list[Path]:
    return list(log.parent.glob(f"{log.name}.after-*"))


async def lines_come_late(log, before, proved):
    """Write to the file after the rebuild has looked at it, and only then have it go on."""
    await trio.testing.wait_all_tasks_blocked(UNPROVED_S)
    assert log.read_text() == before
    log.write_text(f"{before}the last line\n")
    proved.set()
