# ruff: noqa: ASYNC110 - what is waited for happens in other processes and raises no trio.Event
"""Daemon, criu, supervisor killed at any time: the job goes on within 2 s, never left frozen."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from ckptfs.errors import CheckpointerFailed, CkptfsError
from ckptfs.node.api import Exit
from ckptfs.node.client import connect
from ckptfs.translib import freezer

from .nodes import COUNTER, UNIT, Saved, assert_counts, bench, python_job, supervisors, whole_lines

pytestmark = pytest.mark.criu

# 192 MiB in 8 processes with threads: a dump long enough to be hit anywhere, and steps to count.
LARGE = """
import os, threading, time
keep = bytearray(os.urandom(1 << 20)) * 24
def work():
    while True: time.sleep(0.003)
for _ in range(7):
    if os.fork() == 0: break
for _ in range(3): threading.Thread(target=work, daemon=True).start()
root = os.getpid() == 1000
i = 0
while True:
    if root: print(i, flush=True)
    keep[(i * 4096) % len(keep)] = 1
    i += 1
    time.sleep(0.004)
"""


def run(tmp_path, scenario):
    async def main():
        async with bench(tmp_path) as made:
            await scenario(made)

    trio.run(main)


async def goes_on(b, unit, count, within_s=2.0):
    with trio.fail_after(within_s):
        await b.lines(unit, count + 3)


def unit_cgroup_path(b, unit):
    from ckptfs.node.cgroup import unit_cgroup

    return unit_cgroup(b.paths.store_id, unit.job, UNIT)


def states(cgroup: Path) -> dict[int, str]:
    """Return pid → state and tracer of every thread of a unit."""
    found = {}
    for pid in freezer.member_pids(cgroup):
        for task in Path(f"/proc/{pid}/task").glob("*"):
            lines = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
            found[int(task.name)] = lines["State"].split()[0] + lines["TracerPid"].strip()
    return found


def criu_pids(holder_ns: str) -> list[int]:
    """Return the criu processes inside one unit's pid namespace."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            inside = os.readlink(entry / "ns/pid") == holder_ns
        except OSError:
            continue
        if inside and b"dump" in words and any(word.endswith(b"sbin/criu") for word in words):
            found.append(int(entry.name))
    return found


def test_closed_connection_thaws(tmp_path):
    async def scenario(b):
        unit = await b.start(python_job(COUNTER))
        await b.lines(unit, 3)
        await unit.prepare()
        await unit.stop(lease_s=600)
        count = len(whole_lines(b.output(unit)))
        await unit.aclose()
        await goes_on(b, unit, count)
        again = await b.agent.attach(unit.job, UNIT)
        await b.save(again)

    run(tmp_path, scenario)


def test_lease_runs_out(tmp_path):
    async def scenario(b):
        unit = await b.start(python_job(COUNTER))
        await b.lines(unit, 3)
        await unit.prepare()
        await unit.stop(lease_s=0.2)
        count = len(whole_lines(b.output(unit)))
        await goes_on(b, unit, count)
        with pytest.raises(CkptfsError):
            await unit.checkpoint(tmp_path)
        with pytest.raises(CheckpointerFailed, match="lease was over"):
            await unit.confirm(tmp_path)  # pages still in a pipe would be those of now
        await unit.resume_cp()
        await b.save(unit)

    run(tmp_path, scenario)


def test_lease_runs_out_while_criu_dumps(tmp_path):
    """Whoever has stopped it is still connected and stands still: nobody else thaws."""

    async def scenario(b):
        unit = await b.start(python_job(LARGE))
        await b.lines(unit, 3)
        cgroup = unit_cgroup_path(b, unit)
        await unit.prepare()
        await unit.stop(lease_s=0.05)  # the dump takes longer
        count = len(whole_lines(b.output(unit)))
        with pytest.raises(CkptfsError, match="lease was over"):
            await unit.checkpoint(tmp_path)
        await goes_on(b, unit, count)
        assert set((await settled(cgroup)).values()) <= {"S0", "R0", "D0"}
        await unit.aclose()
        await b.save(await b.agent.attach(unit.job, UNIT))

    run(tmp_path, scenario)


@pytest.mark.slow
def test_daemon_gone_while_criu_dumps(tmp_path):
    """The connection closes at many moments of a dump: criu is ended, the job survives whole."""

    async def scenario(b):
        spec = python_job(LARGE)
        unit = await b.start(spec)
        await b.lines(unit, 3)
        cgroup = unit_cgroup_path(b, unit)
        pids = set(freezer.member_pids(cgroup))
        for moment in (0.0, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3):
            await unit.prepare()
            await unit.stop(lease_s=600)
            directory = tmp_path / f"cut{moment}"
            directory.mkdir()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(try_checkpoint, unit, directory)
                await trio.sleep(moment)
                count = len(whole_lines(b.output(unit)))
                await unit.aclose()
                await goes_on(b, unit, count)
            assert set(freezer.member_pids(cgroup)) == pids
            seen = await settled(cgroup)
            assert set(seen.values()) <= {"S0", "R0", "D0"}, (moment, seen)
            unit = await b.agent.attach(unit.job, UNIT)
        assert_counts(whole_lines(b.output(unit)))
        await restartable(b, unit, spec)

    run(tmp_path, scenario)


def written_bytes(directory):
    """Sum of the page images; which of them holds the memory changes from dump to dump."""
    return sum(image.stat().st_size for image in directory.glob("pages-*.img"))


PART = 20 << 20  # bytes; ten of them are well before the end of the image of 256 MiB


@pytest.mark.slow
def test_criu_killed_while_it_writes_pages(tmp_path):
    """SIGKILL to criu at many moments: the checkpoint fails, the unit stays stopped, goes on."""

    async def scenario(b):
        spec = python_job(LARGE.replace("range(7)", "()").replace("* 24", "* 256"))
        unit = await b.start(spec)
        await b.lines(unit, 3)
        cgroup = unit_cgroup_path(b, unit)
        pids = set(freezer.member_pids(cgroup))
        namespace = os.readlink(f"/proc/{unit.pid}/ns/pid")
        for number in range(10):
            await unit.prepare()
            await unit.stop(lease_s=600)
            directory = tmp_path / f"kill{number}"
            directory.mkdir()
            outcome = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(try_checkpoint, unit, directory, outcome)
                with trio.fail_after(10):
                    while written_bytes(directory) < (number + 1) * PART:
                        await trio.sleep(0.0005)
                for pid in criu_pids(namespace):
                    os.kill(pid, signal.SIGKILL)
            assert isinstance(outcome[0], CheckpointerFailed)
            before = len(whole_lines(b.output(unit)))
            await trio.sleep(0.02)
            assert len(whole_lines(b.output(unit))) == before  # ours to thaw, nobody else's
            await unit.resume_cp()
            await goes_on(b, unit, before)
            assert set(freezer.member_pids(cgroup)) == pids
            seen = await settled(cgroup)
            assert set(seen.values()) <= {"S0", "R0", "D0"}, (number, seen)
        assert_counts(whole_lines(b.output(unit)))
        await restartable(b, unit, spec)

    run(tmp_path, scenario)


async def try_checkpoint(unit, directory, outcome=None):
    outcome = [] if outcome is None else outcome
    try:
        await unit.checkpoint(directory)
    except CkptfsError as bad:
        outcome.append(bad)
    else:
        outcome.append(None)


async def settled(cgroup):
    """Return the states once no task is in a passing one."""
    with trio.move_on_after(2):
        while not set((seen := states(cgroup)).values()) <= {"S0", "R0", "D0"}:
            await trio.sleep(0.01)
    return seen


async def restartable(b, unit, spec):
    saved = await b.save(unit)
    await unit.kill()
    unit = await b.rebuild(unit.job, spec, saved)
    count = len(whole_lines(b.output(unit)))
    await unit.resume_rst()
    assert_counts(await b.lines(unit, count + 5))


def test_supervisor_killed_takes_the_unit_along(tmp_path):
    """No unit without a supervisor: it ends with it, and the agent says lost."""

    async def scenario(b):
        unit = await b.start(python_job(COUNTER))
        await b.lines(unit, 3)
        cgroup = unit_cgroup_path(b, unit)
        os.kill(min(supervisors(b.paths)), signal.SIGKILL)
        assert await b.wait_end(unit.job) is None
        with trio.fail_after(5):
            while freezer.member_pids(cgroup):
                await trio.sleep(0.01)
        assert await b.agent.attach(unit.job, UNIT) is None
        assert not cgroup.exists()
        unit = await b.start(python_job(COUNTER), unit.job)
        await b.lines(unit, 3)

    run(tmp_path, scenario)


def test_agent_that_comes_back_finds_its_units(tmp_path):
    async def scenario(b):
        unit = await b.start(python_job(COUNTER))
        other = await b.start(python_job("raise SystemExit(5)"))
        await b.wait_end(other.job)
        await unit.aclose()
        found = await b.agent.attach(unit.job, UNIT)
        assert found.pid == unit.pid or found.pid > 0
        assert [process.inner_pid for process in await found.processes()] == [1000]
        assert await b.agent.attach(other.job, UNIT) == Exit(5)
        await found.kill()
        assert await b.wait_end(found.job) == Exit(-1, 9)

    run(tmp_path, scenario)


def test_rebuilt_but_not_resumed_goes_away_with_its_daemon(tmp_path):
    """Half a restart is none: a unit that nobody let go leaves nothing behind."""

    async def scenario(b):
        spec = python_job(COUNTER)
        unit = await b.start(spec)
        await b.lines(unit, 3)
        saved: Saved = await b.save(unit)
        await unit.kill()
        await b.wait_end(unit.job)
        rebuilt = await b.rebuild(unit.job, spec, saved)
        await rebuilt.aclose()
        with trio.fail_after(5):
            while supervisors(b.paths):
                await trio.sleep(0.01)
        assert await b.agent.attach(unit.job, UNIT) is None
        again = await b.rebuild(unit.job, spec, saved)
        await again.resume_rst()
        await b.lines(again, 8)
        await again.aclose()  # now it is nobody's half
        count = len(whole_lines(b.output(unit)))
        await goes_on(b, again, count)

    run(tmp_path, scenario)


def test_garbage_on_the_socket_harms_nothing(tmp_path):
    async def scenario(b):
        unit = await b.start(python_job(COUNTER))
        path = b.agent.unit_paths(unit.job, UNIT).socket
        for junk in (b"\n", b"\xff\xfe\n", b"[1]\n", b'{"id": 1}\n', b'{"do": "stop", "id": 2}\n'):
            stream = await trio.open_unix_socket(str(path))
            await stream.send_all(junk)
            await stream.aclose()
        assert oct(path.stat().st_mode)[-3:] == "600"
        client = await connect(path, lambda _: None)
        await client.aclose()
        await b.lines(unit, len(whole_lines(b.output(unit))) + 3)
        await b.save(unit)

    run(tmp_path, scenario)
