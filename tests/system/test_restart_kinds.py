"""Restarts of every kind on the real mount: clone, stopped, resumed, refused, and tried again."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from ckptfs.doctor.checks import CAP_SYS_RESOURCE
from ckptfs.doctor.machine import Machine
from ckptfs.fs.images import STRAIGHT_BYTES
from ckptfs.jobs.jsdl_render import JobDescription
from ckptfs.node.oom import SPARED
from tests.programs.oracles import complaints, last_step
from tests.programs.table import PYTHON

from .installation import OWNER, Installation, RunningJob, eventually, refused_control
from .test_storage_faults import UNIT, random_memory
from .watch import UnitWatch, catch, end_process, task_states

pytestmark = [pytest.mark.fuse, pytest.mark.criu, pytest.mark.slow]

STEPS = 1_000_000
PROGRAMS = Path(__file__).parents[1] / "programs"


@pytest.fixture
def job(installation):
    """A counter that has done a few steps."""
    directory = installation.job_directory("counter")
    shutil.copy(PROGRAMS / "counter.py", directory)
    (directory / "counter.py").chmod(0o644)
    words = (PYTHON, "counter.py", str(STEPS), "0.02")
    made = installation.run(*words, name="counter", directory=directory)
    go_on(made)
    yield made
    if made.read("state") in {"running", "checkpointing"}:
        made.write("kill", "1")


def go_on(job: RunningJob, count: int = 3) -> None:
    target = last_step(job.output()) + count
    at_target = lambda: last_step(job.output()) >= target  # noqa: E731
    eventually(at_target, f"{job.name} at step {target}", explain=job.describe)


def is_right(output: bytes) -> bool:
    return complaints("counter", STEPS, {"": output}, finished=False) == []


def test_the_tail_is_kept_beside_the_output(job):
    version = job.checkpoint()
    go_on(job)
    job.kill()
    before = job.output()
    job.restart(version)
    go_on(job)
    tail = job.stdout.with_name(f"out.after-{version}").read_bytes()
    assert tail
    assert before.endswith(tail)
    assert is_right(before.removesuffix(tail))
    assert is_right(job.output())


def test_the_oom_killer_spares_the_supervisor_and_not_the_job(job):
    def score(pid: int) -> str:
        return Path(f"/proc/{pid}/oom_score_adj").read_text()

    inherited = score(os.getpid())  # the daemon is our child
    assert score(job.root_pid()) == inherited
    version = job.checkpoint()
    job.kill()
    job.restart(version)
    assert score(job.root_pid()) == inherited
    may_lower = Machine().has_capability(CAP_SYS_RESOURCE)
    spared = f"{SPARED}\n" if may_lower else inherited
    assert score(UnitWatch.of(job.root_pid()).supervisor) == spared


def cached_bytes(path: Path) -> int:
    """Return how much of a file is in the kernel's page cache."""
    words = ["fincore", "--bytes", "--noheadings", "--output", "RES", "--", str(path)]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def test_a_restart_leaves_no_second_copy_of_the_memory_in_the_page_cache(installation):
    job = random_memory(installation, 32)
    version = job.checkpoint()
    job.kill()
    job.write("restart", str(version))
    job.wait_restarted()
    images = (job.path / str(version) / UNIT).glob("pages-*.img")
    memory = max(images, key=lambda path: path.stat().st_size)
    assert cached_bytes(memory) == 0
    size = len(memory.read_bytes())
    assert size > STRAIGHT_BYTES
    assert cached_bytes(memory) >= size
    job.write("kill", "1")


def test_an_older_version_than_the_running_job_is_busy(job):
    version = job.checkpoint()
    number, sentence = refused_control(job.control("restart"), str(version))
    assert number == errno.EBUSY, sentence
    go_on(job)
    assert is_right(job.output())


def test_a_clone_of_an_ended_job(job, installation):
    version = job.checkpoint()
    number, sentence = refused_control(job.control("restart"), f"{version} as=clone")
    assert number == errno.EBUSY  # it would write into the same file
    assert str(job.directory) in sentence
    job.kill()
    name = job.write("restart", f"{version} as=clone")
    assert name != job.name
    clone = RunningJob(installation.mount / name, job.stdout, job.directory)
    installation.jobs.append(clone)
    clone.wait_restarted()
    go_on(clone)
    assert job.read("state") == "done"
    assert clone.checkpoint() == 1
    clone.kill()
    clone.restart("latest")
    go_on(clone)
    assert is_right(clone.output())
    newer = clone.checkpoint()
    go_on(clone)
    clone.kill()
    job.restart(version)  # takes the file over in turn
    go_on(job)
    assert is_right(job.output())
    job.kill()
    clone.restart(newer)
    go_on(clone)
    assert is_right(clone.output())
    clone.kill()


def test_clones_beside_a_running_job(installation):
    """Default logs: every job of the family has its own, each step once, whoever is restarted."""
    directory = installation.job_directory("logs")
    shutil.copy(PROGRAMS / "counter.py", directory)
    (directory / "counter.py").chmod(0o644)
    argv = (PYTHON, "counter.py", str(STEPS), "0.02")
    job = installation.submit(
        JobDescription(name="logs", argv=argv, cwd=str(directory), user=str(OWNER)), directory
    )
    family = [job]

    def clone(of: RunningJob, version: int) -> RunningJob:
        name = of.write("restart", f"{version} as=clone")
        path = installation.mount / name
        made = RunningJob(path, Path((path / "ctl/stdout").read_text().strip()), directory)
        installation.jobs.append(made)
        family.append(made)
        made.wait_restarted()
        return made

    job.stdout = Path(job.read("stdout"))
    go_on(job)
    version = job.checkpoint()
    go_on(job)
    first = clone(job, version)
    go_on(first)
    second = clone(first, first.checkpoint())
    installation.stop_daemon()
    installation.start()
    go_on(second)
    first.kill()
    first.restart("latest")
    job.kill()
    job.restart(version)
    for member in family:
        go_on(member)
        member.checkpoint()
        member.kill()
        assert is_right(member.output())
    assert len({member.stdout for member in family}) == 3


def test_an_older_version_and_then_a_newer_one_again(job):
    versions = []
    for _ in range(3):
        versions.append(job.checkpoint())
        go_on(job)
    for version in (versions[0], versions[2], versions[1], versions[2]):
        job.kill()
        job.restart(version)
        go_on(job)
        assert is_right(job.output())


def test_a_unit_keeps_no_ckptfs_mount_alive(installation, tmp_path):
    os.chmod(tmp_path, 0o755)
    other = Installation(tmp_path)
    other.start()
    try:
        job = installation.run("/bin/sleep", "1000", name="sleeper")
        mounts = Path(f"/proc/{job.root_pid()}/mountinfo").read_text()
        assert "fuse.ckptfs" in Path("/proc/self/mountinfo").read_text()
        assert "fuse.ckptfs" not in mounts
        job.checkpoint()
        job.kill()
    finally:
        other.end()


def test_stopped_for_a_debugger(job):
    version = job.checkpoint()
    job.kill()
    job.write("restart", f"{version} stopped=yes")
    job.wait_restarted()
    pid = job.root_pid()
    assert task_states(pid) == {"T"}
    job.write("signal", "CONT")
    go_on(job)
    assert is_right(job.output())


def test_suspend_and_resume(job):
    watch = UnitWatch.of(job.root_pid())
    version = job.write("suspend", "1")
    assert job.wait("state", lambda text: text not in {"running", "checkpointing"}) == "suspended"
    assert watch.members() == []
    assert job.write("resume", "1") == version
    job.wait("state", lambda text: text == "running")
    go_on(job)
    assert is_right(job.output())


def test_signals_reach_the_processes(job):
    job.write("signal", "STOP")
    eventually(lambda: task_states(job.root_pid()) == {"T"}, "stopped")
    number, _ = refused_control(job.control("signal"), "999")
    assert number == errno.ERANGE
    number, _ = refused_control(job.control("signal"), f"15 only={os.getpid()}")
    assert number == errno.ESRCH
    job.write("signal", str(int(signal.SIGCONT)))
    go_on(job)
    job.write("signal", "TERM")
    assert job.wait("exit_status", lambda text: text != "none") == "signal 15"
    assert job.read("state") == "done"


@pytest.mark.parametrize("harm", ["gone", "replaced", "cut"])
def test_an_output_file_that_is_not_the_same_is_refused_by_name(job, harm):
    version = job.checkpoint()
    job.kill()
    kept = job.output()
    if harm == "cut":
        os.truncate(job.stdout, 3)
    else:
        job.stdout.rename(job.stdout.with_name("elsewhere"))
    if harm == "replaced":
        job.stdout.write_bytes(kept)
    watch_before = job.read("units")
    job.write("restart", str(version))
    said = job.wait("restart", lambda text: "rebuilding" not in text)
    assert said.startswith(f"{version} failed ("), said
    assert str(job.stdout) in said
    assert job.read("units") == watch_before
    assert job.read("state") == "done"

    if harm == "cut":
        job.stdout.write_bytes(kept)
    else:
        job.stdout.with_name("elsewhere").rename(job.stdout)
    job.restart(version)
    go_on(job)
    assert is_right(job.output())


def test_criu_killed_during_a_restart_can_be_tried_again(installation):
    directory = installation.job_directory("memory")
    shutil.copy(PROGRAMS / "memory.py", directory)
    (directory / "memory.py").chmod(0o644)
    words = (PYTHON, "memory.py", str(STEPS), "0.02", "256")
    job = installation.run(*words, name="memory", directory=directory)
    go_on(job)
    watch = UnitWatch.of(job.root_pid())
    version = job.checkpoint()
    job.kill()
    job.write("restart", str(version))
    over = lambda: "rebuilding" not in job.read("restart")  # noqa: E731
    assert catch(watch.members, over)
    for pid in watch.members():  # criu is among them until its tasks are complete
        end_process(pid)
    said = job.wait("restart", lambda text: "rebuilding" not in text)
    assert said.startswith(f"{version} failed ("), said
    assert watch.members() == []
    assert not watch.cgroup.exists()
    assert job.read("state") == "done"
    job.restart(version)
    go_on(job)
    reach = last_step(job.output()) + 1
    assert complaints("memory", reach, {"": job.output()}, finished=False) == []
    job.checkpoint()
    job.kill()


def test_the_job_outlives_the_mount(job, installation: Installation):
    job.checkpoint()
    root = job.root_pid()
    installation.stop_daemon()
    assert not os.path.ismount(installation.mount)
    go_on(job)
    installation.start()
    assert (job.read("state"), job.root_pid()) == ("running", root)
    job.checkpoint()
    job.kill()
    job.restart(1)
    installation.stop_daemon()
    go_on(job)
    installation.start()
    assert job.read("state") == "running"
    assert is_right(job.output())


def test_an_end_while_the_daemon_was_away_is_known_afterwards(job, installation: Installation):
    pid = job.root_pid()
    installation.kill_daemon()
    end_process(pid)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "ended")
    installation.start()
    assert job.read("exit_status") == "signal 9"
    assert job.read("state") == "done"
