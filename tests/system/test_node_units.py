# ruff: noqa: ASYNC110 - what is waited for happens in other processes and raises no trio.Event
"""Real units under real supervisors: start, checkpoint, rebuild, end, and all that can go wrong."""

from __future__ import annotations

import dataclasses
import os
import signal

import pytest
import trio

from ckptfs.errors import (
    Busy,
    CheckpointerFailed,
    Corrupt,
    Forbidden,
    NoSuchProcess,
    NotAuthenticated,
    NotAuthorised,
    NotFound,
    OutOfRange,
)
from ckptfs.node.api import Exit

from .nodes import (
    COUNTER,
    UNIT,
    assert_counts,
    bench,
    python_job,
    unit_cgroups,
    whole_lines,
    with_rollback,
)

pytestmark = pytest.mark.criu


def run(tmp_path, scenario):
    async def main():
        async with bench(tmp_path) as made:
            await scenario(made)

    trio.run(main)


def test_whole_sequence(tmp_path):
    """Save, go on, save, kill, restart, save the restarted one, restart the old version."""

    async def scenario(b):
        spec = python_job(COUNTER)
        unit = await b.start(spec)
        await b.lines(unit, 10)
        first = await b.save(unit)
        await b.lines(unit, len(whole_lines(b.output(unit))) + 5)
        second = await b.save(unit)
        await unit.kill()
        assert await b.wait_end(unit.job) == Exit(-1, signal.SIGKILL)
        restarted = await b.rebuild(unit.job, spec, second)
        standing = whole_lines(b.output(restarted))
        assert_counts(standing)
        await restarted.resume_rst()
        assert_counts(await b.lines(restarted, len(standing) + 5))
        third = await b.save(restarted)
        await restarted.kill()
        for saved in (third, first):
            again = await b.rebuild(unit.job, spec, saved)
            count = len(whole_lines(b.output(again)))
            await again.resume_rst()
            assert_counts(await b.lines(again, count + 5))
            await again.kill()
        # The first restart kept the tail of the run before it.
        assert b.output(unit).with_name("JobUnit_1.out.after-1").exists()

    run(tmp_path, scenario)


def test_stopped_unit_stands_still_and_goes_on(tmp_path):
    async def scenario(b):
        unit = await b.start(python_job(COUNTER))
        await b.lines(unit, 3)
        await unit.prepare()
        await unit.stop(lease_s=60)
        before = b.output(unit).read_bytes()
        await trio.sleep(0.1)
        assert b.output(unit).read_bytes() == before
        await unit.stop(lease_s=60)  # a repeat is harmless
        await unit.resume_cp()
        await unit.resume_cp()
        await b.lines(unit, len(before.splitlines()) + 3)

    run(tmp_path, scenario)


def test_illegal_order_is_busy_and_changes_nothing(tmp_path):
    async def scenario(b):
        unit = await b.start(python_job(COUNTER))
        with pytest.raises(Busy):
            await unit.stop(lease_s=60)
        with pytest.raises(Busy):
            await unit.resume_rst()
        with pytest.raises(Busy):
            await b.start(python_job(COUNTER), unit.job)
        await b.lines(unit, 5)

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"argv": ("/no/such/program",)}, NotFound, "program"),
        ({"argv": ("no-such-program",)}, NotFound, "program"),
        ({"argv": ("/etc/passwd",)}, NotAuthenticated, "program"),
        ({"cwd": "/no/such/directory"}, NotFound, "working directory"),
        ({"cwd": "{closed}"}, NotAuthenticated, "working directory"),
        ({"stdout": "/etc/ckptfs-test-never"}, NotAuthenticated, "stdout"),
        ({"stderr": "/no/such/file"}, NotFound, "stderr"),
        ({"stdin": "/etc/shadow"}, NotAuthenticated, "stdin"),
    ],
)
def test_refused_start_leaves_nothing(tmp_path, changes, error, words):
    async def scenario(b):
        with pytest.raises(error, match=words):
            await b.start(dataclasses.replace(python_job(COUNTER), **changes))
        assert unit_cgroups(b.paths) == []
        assert list(b.paths.run.iterdir()) == []

    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    changes = {key: str(closed) if value == "{closed}" else value for key, value in changes.items()}
    run(tmp_path, scenario)


def test_program_sees_its_owner_and_little_else(tmp_path):
    program = """
import os, sys, signal, json
print(json.dumps({
    "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(), "pid": os.getpid(),
    "sid": os.getsid(0), "cwd": os.getcwd(), "umask": os.umask(0), "env": dict(os.environ),
    "fds": sorted(int(x) for x in os.listdir("/proc/self/fd"))[:-1],
    "pipe": signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN,
    "init": os.path.exists("/proc/1/status"), "stdin": os.readlink("/proc/self/fd/0"),
    "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
}), flush=True)
signal.pause()
"""

    async def scenario(b):
        import json

        spec = python_job(program, cwd="/tmp", umask=0o077, env={"A": "b c"})
        unit = await b.start(spec)
        seen = json.loads((await b.lines(unit, 0))[0])
        assert seen["uids"] == [65534] * 3
        assert seen["gids"] == [65534] * 3
        assert seen["groups"] == []
        assert seen["pid"] == seen["sid"] == 1000
        assert (seen["cwd"], seen["umask"], seen["stdin"]) == ("/tmp", 0o077, "/dev/null")
        assert seen["fds"] == [0, 1, 2]
        assert seen["env"]["A"] == "b c"
        assert seen["env"]["CKPTFS_JOB"] == unit.job
        assert not {"CKPTFS_CRIU", "PYTHONPATH", "SSH_AUTH_SOCK"} & set(seen["env"])
        assert seen["blocked"] == 0

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("program", "ended"),
    [
        ("raise SystemExit(7)", Exit(7)),
        ("import os; os.kill(os.getpid(), 15)", Exit(-1, 15)),
        ("import os, time\nif not os.fork(): time.sleep(1000)\nos._exit(3)", Exit(3)),
    ],
)
def test_exit_is_durable_and_ends_the_rest(tmp_path, program, ended):
    async def scenario(b):
        unit = await b.start(python_job(program))
        assert await b.wait_end(unit.job) == ended
        assert await b.agent.attach(unit.job, UNIT) == ended
        assert unit_cgroups(b.paths) == []
        b.agent.forget(unit.job, UNIT)
        assert await b.agent.attach(unit.job, UNIT) is None

    run(tmp_path, scenario)


def test_exit_of_a_restarted_program(tmp_path):
    """The supervisor is the parent after a restart, too: the real status arrives."""
    program = (
        "import os, time\nprint(1, flush=True)\nwhile not os.path.exists({!r}): time.sleep(0.01)\n"
    )
    flag = tmp_path / "go"

    async def scenario(b):
        spec = python_job(program.format(str(flag)) + "raise SystemExit(42)")
        unit = await b.start(spec)
        await b.lines(unit, 0)
        saved = await b.save(unit)
        await unit.kill()
        await b.wait_end(unit.job)
        unit = await b.rebuild(unit.job, spec, saved)
        await unit.resume_rst()
        flag.touch()
        assert await b.wait_end(unit.job) == Exit(42)

    run(tmp_path, scenario)


def test_restart_stopped_for_a_debugger(tmp_path):
    async def scenario(b):
        spec = python_job(COUNTER)
        unit = await b.start(spec)
        await b.lines(unit, 3)
        saved = await b.save(unit)
        await unit.kill()
        unit = await b.rebuild(unit.job, spec, saved)
        await unit.resume_rst(stopped=True)
        count = len(whole_lines(b.output(unit)))
        with trio.fail_after(10):  # on its way from the freezer into the stop it may show as R
            while [process.state for process in await unit.processes()] != ["T"]:
                await trio.sleep(0.005)
        assert len(whole_lines(b.output(unit))) == count
        await unit.signal(signal.SIGCONT)
        assert_counts(await b.lines(unit, count + 3))

    run(tmp_path, scenario)


def test_signals(tmp_path):
    program = """
import os, signal, time
for number in (10, 12):
    signal.signal(number, lambda n, _: print(os.getpid(), n, flush=True))
os.fork()
print("up", flush=True)
while True: time.sleep(1)
"""

    async def scenario(b):
        unit = await b.start(python_job(program))
        await b.lines(unit, 1)
        pids = {process.inner_pid: process.pid for process in await unit.processes()}
        assert set(pids) == {1000, 1001}
        await unit.signal(10)
        assert set((await b.lines(unit, 3))[2:]) == {"1000 10", "1001 10"}
        await unit.signal(12, only=[pids[1001]])
        assert (await b.lines(unit, 4))[4:] == ["1001 12"]
        await unit.signal(12, master=True)
        assert (await b.lines(unit, 5))[5:] == ["1000 12"]
        await unit.signal(12, others=[pids[1000]])
        assert (await b.lines(unit, 6))[6:] == ["1001 12"]
        with pytest.raises(OutOfRange):
            await unit.signal(65)
        with pytest.raises(NoSuchProcess):
            await unit.signal(10, only=[1])

    run(tmp_path, scenario)


def test_failed_rebuild_leaves_nothing_and_can_be_tried_again(tmp_path):
    async def scenario(b):
        spec = python_job(COUNTER)
        unit = await b.start(spec)
        await b.lines(unit, 3)
        saved = await b.save(unit)
        await unit.kill()
        await b.wait_end(unit.job)
        core = saved.directory / "core-1000.img"
        good = core.read_bytes()
        core.write_bytes(good[:50])
        with pytest.raises(Corrupt):
            await b.rebuild(unit.job, spec, saved)
        core.write_bytes(good)
        pagemap = saved.directory / "pagemap-1000.img"
        kept = pagemap.read_bytes()
        pagemap.write_bytes(b"")
        with pytest.raises(CheckpointerFailed, match="criu restore"):
            await b.rebuild(unit.job, spec, saved)
        pagemap.write_bytes(kept)
        assert unit_cgroups(b.paths) == []
        assert list(b.paths.run.iterdir()) == []
        assert b.ends == []  # a unit that was never there does not end
        unit = await b.rebuild(unit.job, spec, saved)
        await unit.resume_rst()
        assert_counts(await b.lines(unit, 8))

    run(tmp_path, scenario)


def test_foreign_processes_in_the_image_are_refused(tmp_path):
    async def scenario(b):
        spec = python_job(COUNTER)
        unit = await b.start(spec)
        await b.lines(unit, 3)
        saved = await b.save(unit)
        await unit.kill()
        other = dataclasses.replace(spec, owner=dataclasses.replace(spec.owner, uid=65533))
        with pytest.raises(NotAuthorised, match="65534"):
            await b.rebuild(unit.job, other, saved)

    run(tmp_path, scenario)


def test_restart_refuses_a_file_that_is_gone(tmp_path):
    async def scenario(b):
        out = tmp_path / "work"
        out.mkdir()
        os.chown(out, 65534, 65534)
        spec = python_job(COUNTER, stdout=str(out / "result"))
        unit = await b.start(spec)
        with trio.fail_after(10):
            while len(whole_lines(out / "result")) < 5:
                await trio.sleep(0.01)
        saved = await b.save(unit)
        await unit.kill()
        (out / "result").rename(out / "moved")
        with pytest.raises(NotFound, match="work/result"):
            await b.rebuild(unit.job, spec, saved)
        (out / "result").write_text("something else, and longer than it was before\n" * 99)
        os.chown(out / "result", 65534, 65534)
        with pytest.raises(Forbidden, match="replaced"):
            await b.rebuild(unit.job, spec, saved)
        (out / "moved").rename(out / "result")
        unit = await b.rebuild(unit.job, spec, saved)
        await unit.resume_rst()
        with trio.fail_after(10):
            while len(whole_lines(out / "result")) < 10:
                await trio.sleep(0.01)
        assert_counts(whole_lines(out / "result"))

    run(tmp_path, scenario)


DATABASE = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("create table if not exists steps (n integer primary key, filler text)")
db.execute("delete from steps")
n = 0
while True:
    n += 1
    db.execute("insert into steps values (?, ?)", (n, "x" * 200))
    db.execute("update steps set filler = ? where n = ?", ("y" * (n % 300), n // 2))
    print(n, flush=True)
    time.sleep(0.002)
"""


def test_rollback_copy_brings_a_database_back(tmp_path):
    """The database changes in its middle and grows: its content of the checkpoint comes back."""
    import sqlite3

    async def scenario(b):
        work = tmp_path / "work"
        work.mkdir()
        os.chown(work, 65534, 65534)
        path = work / "steps.db"
        spec = with_rollback(python_job(DATABASE))
        spec = dataclasses.replace(spec, argv=(*spec.argv, str(path)))
        unit = await b.start(spec)
        await b.lines(unit, 50)
        saved = await b.save(unit)
        assert {item.copy != "" for item in saved.facts.files} == {True}
        seen = len(whole_lines(b.output(unit)))
        await b.lines(unit, seen + 100)
        await unit.kill()
        await b.wait_end(unit.job)
        (work / "steps.db-journal").write_bytes(b"left by a crash after the checkpoint")
        os.chown(work / "steps.db-journal", 65534, 65534)
        unit = await b.rebuild(unit.job, spec, saved)
        steps = [int(line) for line in whole_lines(b.output(unit))]
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) < seen + 10
        await unit.resume_rst()
        await b.lines(unit, len(steps) + 20)
        await unit.kill()
        with sqlite3.connect(path) as db:
            assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
            rows = [row[0] for row in db.execute("select n from steps order by n")]
        db.close()
        assert rows == list(range(1, len(rows) + 1))
        assert len(rows) >= len(steps) + 20
        kept = {item.name for item in work.iterdir()}
        assert {"steps.db.after-1", "steps.db-journal.after-1"} <= kept

    run(tmp_path, scenario)
