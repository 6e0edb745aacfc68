"""Real clones beside their running original: each has its own logs, each line exactly once."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import pytest
import trio

from ckptfs.errors import CkptfsError, Forbidden
from ckptfs.node.mounts import find_ckptfs_mounts

from .nodes import (
    COUNTER,
    UNIT,
    assert_counts,
    bench,
    python_job,
    supervisors,
    whole_lines,
    with_rollback,
)

pytestmark = pytest.mark.criu


def run(tmp_path, scenario):
    async def main():
        async with bench(tmp_path) as made:
            await scenario(made)

    trio.run(main)


async def clone_of(b, spec, saved, source, *, shown=None):
    """Make a clone of job *source* go; *shown*: the first job of the family."""
    clone = await b.rebuild(
        b.job(), spec, saved, logs_shown_as=shown or source, logs_copied_from=source
    )
    begins = b.output(clone).read_bytes()
    await clone.resume_rst()
    return clone, begins


@pytest.mark.parametrize("rollback", ["truncate", "copy"])
def test_clones_and_clones_of_clones_write_their_own_logs(tmp_path, rollback):
    async def scenario(b):
        spec = python_job(COUNTER)
        spec = with_rollback(spec) if rollback == "copy" else spec
        unit = await b.start(spec)
        await b.lines(unit, 10)
        saved = await b.save(unit)
        size = next(f.size_bytes for f in saved.facts.files if f.path == str(b.output(unit)))
        await b.lines(unit, len(whole_lines(b.output(unit))) + 5)

        clone, begins = await clone_of(b, spec, saved, unit.job)
        assert begins == b.output(unit).read_bytes()[:size]
        (mine,), (theirs,) = await unit.processes(), await clone.processes()
        assert mine.inner_pid == theirs.inner_pid == 1000
        await b.lines(clone, len(begins.splitlines()) + 5)

        of_clone = await b.save(clone)
        assert {f.path for f in of_clone.facts.files} == {f.path for f in saved.facts.files}
        grandchild, _ = await clone_of(b, spec, of_clone, clone.job, shown=unit.job)
        await b.lines(grandchild, len(whole_lines(b.output(grandchild))) + 5)

        await clone.kill()
        again = await b.rebuild(clone.job, spec, of_clone, logs_shown_as=unit.job)
        await again.resume_rst()
        await b.lines(again, len(whole_lines(b.output(again))) + 5)

        await unit.kill()
        back = await b.rebuild(unit.job, spec, saved)
        assert b.output(back).read_bytes() == begins
        await back.resume_rst()
        await b.lines(back, len(begins.splitlines()) + 5)
        for one in (back, again, grandchild):
            await one.kill()
            assert_counts(whole_lines(b.output(one)))
        inodes = {b.output(one).stat().st_ino for one in (back, again, grandchild)}
        assert len(inodes) == 3

    run(tmp_path, scenario)


def test_a_clone_begins_with_the_logs_of_its_version_not_of_the_present(tmp_path):
    """The original has been put back since, and tells another story from there on."""

    async def scenario(b):
        spec = python_job(
            "import os, time\nr = open('/dev/urandom', 'rb', 0)\n"
            "while True: print(r.read(8).hex(), flush=True); time.sleep(0.005)"
        )
        unit = await b.start(spec)
        await b.lines(unit, 5)
        first = await b.save(unit)
        await b.lines(unit, 20)
        second = await b.save(unit)
        await unit.kill()
        lines = whole_lines(b.output(unit))
        unit = await b.rebuild(unit.job, spec, first)
        await unit.resume_rst()
        await b.lines(unit, 50)
        _, begins = await clone_of(b, spec, second, unit.job)
        held = begins.decode().split("\n")[:-1]
        assert len(held) >= 20
        assert held == lines[: len(held)]

    run(tmp_path, scenario)


def test_logs_that_are_not_the_same_are_refused_by_name(tmp_path):
    async def scenario(b):
        spec = python_job(COUNTER)
        unit = await b.start(spec)
        await b.lines(unit, 5)
        saved = await b.save(unit)
        output = b.output(unit)
        output.rename(output.with_name("rotated"))
        output.write_text("0\n1\n2\n3\n4\n5\n6\n" * 9)
        with pytest.raises(Forbidden, match="replaced") as caught:
            await clone_of(b, spec, saved, unit.job)
        assert str(output) in str(caught.value)

    run(tmp_path, scenario)


def test_an_older_and_then_a_newer_version_again(tmp_path):
    async def scenario(b):
        spec = python_job(COUNTER)
        unit = await b.start(spec)
        saved = []
        for _ in range(3):
            await b.lines(unit, len(whole_lines(b.output(unit))) + 5)
            saved.append(await b.save(unit))
        for version in (0, 2, 1, 2):
            await unit.kill()
            suffix = f"after-{version}"
            unit = await b.rebuild(unit.job, spec, saved[version], suffix=suffix)
            count = len(whole_lines(b.output(unit)))
            await unit.resume_rst()
            assert_counts(await b.lines(unit, count + 5))
        kept = {path.name for path in b.output(unit).parent.iterdir()}
        assert {"JobUnit_1.out.after-0", "JobUnit_1.out.after-2.2"} <= kept

    run(tmp_path, scenario)


def test_a_supervisor_killed_while_it_rebuilds_can_be_repeated(tmp_path):
    """Killed at several moments of a restart: the next one finds the same bytes."""

    async def scenario(b):
        spec = python_job(COUNTER)
        unit = await b.start(spec)
        await b.lines(unit, 5)
        saved = await b.save(unit)
        await b.lines(unit, len(whole_lines(b.output(unit))) + 5)
        begun = 0
        for wait_s in (0.1, 0.15, 0.2, 0.25, 0.3, 0.35):
            await unit.kill()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(try_rebuild, b, unit.job, spec, saved)
                await trio.sleep(wait_s)
                begun += len(supervisors(b.paths)) > 0
                for pid in supervisors(b.paths):
                    os.kill(pid, signal.SIGKILL)
            b.agent.forget(unit.job, UNIT)
            unit = await b.rebuild(unit.job, spec, saved)
            count = len(whole_lines(b.output(unit)))
            await unit.resume_rst()
            assert_counts(await b.lines(unit, count + 5))
        assert begun

    run(tmp_path, scenario)


async def try_rebuild(b, job, spec, saved):
    with suppress(CkptfsError):
        await b.rebuild(job, spec, saved)


def test_ckptfs_mounts_are_found_deepest_first():
    text = (
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 22 0:40 / /a rw shared:1 - fuse.ckptfs ckptfs rw\n"
        "31 30 0:41 / /a/b\\040c/d rw - fuse.ckptfs ckptfs rw\n"
        "32 22 0:42 / /x rw - fuse.other other rw\n"
        "33 22 0:43 / /z/y rw - fuse.ckptfs ckptfs rw\n"
    )
    assert find_ckptfs_mounts(text) == ["/a/b c/d", "/z/y", "/a"]
