# ruff: noqa: ASYNC110 - what is waited for happens in other processes and raises no trio.Event
"""Lazy restarts of real units: they run before their memory is there, and never on other memory."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest
import trio

from ckptfs.errors import Busy, CheckpointerFailed
from ckptfs.node.api import Exit
from ckptfs.translib.api import Capability

from .nodes import UNIT, assert_counts, bench, python_job, supervisors, whole_lines

pytestmark = pytest.mark.criu

# Every page of MIB MiB knows its number.  Each step looks at some pages and forks a child that
# looks at others; whoever finds another page than the one that was written says so.
PAGES = """
import mmap, os, random, time
count = MIB << 8
memory = mmap.mmap(-1, count << 12, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(count):
    memory[page << 12 : (page << 12) + 8] = (page + 1).to_bytes(8, "little")
def look(many):
    for page in random.sample(range(count), many):
        if int.from_bytes(memory[page << 12 : (page << 12) + 8], "little") != page + 1:
            os.write(1, b"wrong page\\n")
step = 0
while True:
    print(step, flush=True)
    step += 1
    look(20)
    child = os.fork()
    if child == 0:
        look(20)
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(0.002)
"""
PROGRAM = PAGES.replace("MIB", "128")


def run(tmp_path, scenario):
    async def main():
        async with bench(tmp_path) as made:
            found = (await made.agent.probe())["criu"]
            assert Capability.LAZY_RESTART in found.capabilities, "no userfaultfd in this kernel"
            spec = python_job(PROGRAM)
            unit = await made.start(spec)
            await made.lines(unit, 3)
            saved = await made.save(unit)
            await unit.kill()
            await scenario(made, spec, saved, unit.job)

    trio.run(main)


def page_servers(paths) -> list[int]:
    """Return the pids of ``criu lazy-pages`` below the supervisors of this bench."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if b"lazy-pages" in words and parent in supervisors(paths):
            found.append(int(entry.name))
    return found


def exists(pid) -> bool:
    return Path(f"/proc/{pid}").exists()


async def held_while_loading(b, spec, saved, job):
    """Return a unit that runs while its page server stands still, and that server's pid."""
    for _ in range(5):  # on a busy machine the last page may be in before it can be stopped
        unit = await b.rebuild(job, spec, saved, lazy=True)
        servers = page_servers(b.paths)
        with contextlib.suppress(ProcessLookupError):
            for server in servers:
                os.kill(server, signal.SIGSTOP)
                await unit.resume_rst()
                assert unit.is_loading
                return unit, server
        await unit.kill()
    raise AssertionError("the pages were in before anybody could look, five times")


def test_it_runs_first_and_is_whole_later(tmp_path):
    async def scenario(b, spec, saved, job):
        loaded = trio.Event()
        b.agent.on_loaded(lambda *_: loaded.set())
        before = len(whole_lines(b.output(unit := await b.rebuild(job, spec, saved, lazy=True))))
        await unit.resume_rst()
        assert unit.is_loading
        lines = await b.lines(unit, before + 3)
        with trio.fail_after(60):
            await loaded.wait()
        assert not unit.is_loading
        assert page_servers(b.paths) == []
        assert_counts(await b.lines(unit, len(lines) + 3))
        again = await b.save(unit)  # whole again: it can be saved, and comes back from that
        await unit.kill()
        unit = await b.rebuild(job, spec, again)
        assert_counts(whole_lines(b.output(unit)))
        await unit.resume_rst()
        assert not unit.is_loading
        assert_counts(await b.lines(unit, len(lines) + 6))

    run(tmp_path, scenario)


def test_no_checkpoint_while_pages_are_missing_and_a_kill_at_any_time(tmp_path):
    async def scenario(b, spec, saved, job):
        unit, server = await held_while_loading(b, spec, saved, job)
        with pytest.raises(Busy, match="still being loaded"):
            await unit.prepare()
        assert (await unit.processes())[0].inner_pid == 1000
        await unit.kill()
        assert await b.wait_end(job) == Exit(-1, 9)  # the first incarnation's
        assert await b.wait_end(job) == Exit(-1, 9)
        assert not exists(server)
        unit = await b.rebuild(job, spec, saved)
        await unit.resume_rst()
        assert_counts(await b.lines(unit, 10))

    run(tmp_path, scenario)


@pytest.mark.parametrize("how", ["server killed", "image gone"])
def test_memory_that_cannot_be_had_ends_the_unit_before_it_sees_any_other(tmp_path, how):
    async def scenario(b, spec, saved, job):
        pages = saved.directory / "pages-1.img"
        image = pages.read_bytes()
        for _ in range(3 if how == "server killed" else 1):
            unit, server = await held_while_loading(b, spec, saved, job)
            if how == "image gone":
                os.truncate(pages, 1 << 20)
            else:
                os.kill(server, signal.SIGKILL)
            os.kill(server, signal.SIGCONT)
            b.ends.clear()
            ended = await b.wait_end(job)
            assert (ended.code, ended.signal) == (-1, 9)
            assert ended.reason.startswith(
                "pages of the image could not be loaded, so the unit was killed"
            )
            assert await b.agent.attach(job, UNIT) == ended  # whoever comes later hears it, too
            assert_counts(whole_lines(b.output(unit)))  # "wrong page" is no number
            assert not exists(server)
        pages.write_bytes(image)
        unit = await b.rebuild(job, spec, saved)
        await unit.resume_rst()
        assert_counts(await b.lines(unit, 10))

    run(tmp_path, scenario)


def test_a_supervisor_killed_while_pages_are_missing_leaves_nothing(tmp_path):
    async def scenario(b, spec, saved, job):
        unit, server = await held_while_loading(b, spec, saved, job)
        os.kill(server, signal.SIGCONT)
        for pid in supervisors(b.paths):
            os.kill(pid, signal.SIGKILL)
        with trio.fail_after(20):
            while exists(server):
                await trio.sleep(0.005)
        assert await b.agent.attach(job, UNIT) is None
        assert_counts(whole_lines(b.output(unit)))
        b.agent.forget(job, UNIT)
        unit = await b.rebuild(job, spec, saved, lazy=True)
        await unit.resume_rst()
        assert_counts(await b.lines(unit, 10))

    run(tmp_path, scenario)


def test_a_server_that_does_not_start_fails_the_rebuild_and_leaves_nothing(tmp_path):
    async def scenario(b, spec, saved, job):
        inventory = saved.directory / "inventory.img"
        image = inventory.read_bytes()
        inventory.write_bytes(b"no image")
        with pytest.raises(CheckpointerFailed, match="criu lazy-pages"):
            await b.rebuild(job, spec, saved, lazy=True)
        assert page_servers(b.paths) == supervisors(b.paths) == []
        inventory.write_bytes(image)
        unit = await b.rebuild(job, spec, saved, lazy=True)
        await unit.resume_rst()
        assert_counts(await b.lines(unit, 10))

    run(tmp_path, scenario)
