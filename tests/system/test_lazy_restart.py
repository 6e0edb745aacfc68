"""Lazy restarts on the real mount: at once, whole later, and never on other memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ckptfs.errors import Busy
from tests.programs.oracles import complaints, last_step
from tests.programs.table import PYTHON

from .installation import RunningJob, eventually
from .test_storage_faults import biggest_pack, flip, goes_on, random_memory
from .watch import UnitWatch

pytestmark = [pytest.mark.fuse, pytest.mark.criu, pytest.mark.slow]

CKPTFS = Path(sys.executable).with_name("ckptfs")
STEPS = 1_000_000
MEBIBYTES = 256  # as the oracle has it
PROGRAMS = Path(__file__).parents[1] / "programs"


@pytest.fixture
def job(installation):
    """A job with memory whose every block is checked, step by step; version 1 of it is there."""
    directory = installation.job_directory("memory")
    shutil.copy(PROGRAMS / "memory.py", directory)
    (directory / "memory.py").chmod(0o644)
    words = (PYTHON, "memory.py", str(STEPS), "0.02", str(MEBIBYTES))
    made = installation.run(*words, name="memory", directory=directory)
    go_on(made)
    assert made.checkpoint() == 1
    made.kill()
    yield made
    if made.read("state") == "running":
        made.write("kill", "1")


def go_on(job: RunningJob, count: int = 3) -> None:
    target = last_step(job.output()) + count
    at_target = lambda: last_step(job.output()) >= target  # noqa: E731
    eventually(at_target, f"{job.name} at step {target}", explain=job.describe)


def is_right(job: RunningJob) -> bool:
    output = job.output()
    return complaints("memory", last_step(output) + 1, {"": output}, finished=False) == []


def test_it_steps_before_it_is_loaded_and_is_right_for_ever(job):
    job.write("restart", "1 lazy=yes")
    job.wait_restarted()
    go_on(job)
    eventually(lambda: "loaded 1" in job.read("events"), "loaded", explain=job.describe)
    assert "state=running" in job.read("units")
    go_on(job)
    version = job.checkpoint()
    job.kill()
    assert is_right(job)
    job.restart(version)
    go_on(job)
    assert is_right(job)


def test_damage_found_while_it_runs_ends_it_and_names_the_block(installation):
    job = random_memory(installation, 64)
    assert job.checkpoint() == 1
    job.kill()
    pack = biggest_pack(installation.store)
    flip(pack, pack.stat().st_size // 2)
    job.write("restart", "1 lazy=yes")
    state = job.wait("state", lambda text: text.startswith("failed"))
    assert "pages of the image could not be loaded" in state
    assert "(JobUnit_1/pages-1.img, block " in state
    assert "could not be loaded" in job.read("error")
    assert job.read("exit_status") == "signal 9"
    assert (job.path / "1/ctl/state").read_text().startswith("damaged (")
    flip(pack, pack.stat().st_size // 2)
    (job.path / "1/ctl/verify").write_text("1\n")
    is_whole = lambda: (job.path / "1/ctl/state").read_text() == "restartable\n"  # noqa: E731
    eventually(is_whole, "the version is whole again", explain=job.describe)
    job.restart(1)
    goes_on(job)
    job.kill()


def test_a_service_killed_half_way_ends_the_job_and_it_can_be_restarted(job, installation):
    job.write("restart", "1 lazy=yes")
    job.wait_restarted()
    watch = UnitWatch.of(job.root_pid())
    (server,) = watch.criu("lazy-pages")
    os.kill(server, signal.SIGSTOP)
    assert "state=loading" in job.read("units")
    installation.kill_daemon()
    os.kill(server, signal.SIGCONT)
    eventually(lambda: not watch.members(), "the job has ended", explain=installation.log)
    installation.start()
    assert job.read("state").startswith("failed (JobUnit_1: pages of the image could not")
    assert job.read("exit_status") == "signal 9"
    assert is_right(job)
    job.write("restart", "1 lazy=yes")
    job.wait_restarted()
    go_on(job)
    assert is_right(job)


def umount(job: RunningJob, *options: str) -> subprocess.CompletedProcess[str]:
    words = [CKPTFS, "umount", *options, job.path.parent]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


def start_loading(job: RunningJob) -> tuple[UnitWatch, int]:
    """Restart lazily; return the unit, and the server of its pages, which stands still."""
    job.write("restart", "1 lazy=yes")
    job.wait_restarted()
    watch = UnitWatch.of(job.root_pid())
    (server,) = watch.criu("lazy-pages")
    os.kill(server, signal.SIGSTOP)
    assert "state=loading" in job.read("units")
    return watch, server


def test_a_mount_from_which_memory_is_read_stays_or_serves_until_all_is_there(job, installation):
    watch, server = start_loading(job)
    done = umount(job)
    assert done.returncode == Busy.exit_code
    assert f"the memory of {job.name} is still being read" in done.stderr
    assert "state=loading" in job.read("units")

    assert umount(job, "--lazy").returncode == 0
    assert not os.path.ismount(installation.mount)
    os.kill(server, signal.SIGCONT)
    eventually(lambda: not watch.criu("lazy-pages"), "all is loaded", explain=installation.log)
    go_on(job)
    installation.stop_daemon()
    installation.start()
    assert "state=running" in job.read("units")
    go_on(job)
    job.kill()
    assert is_right(job)


def test_a_service_told_to_end_half_way_ends_the_job_and_it_can_be_restarted(job, installation):
    watch, server = start_loading(job)
    installation.stop_daemon()
    os.kill(server, signal.SIGCONT)
    eventually(lambda: not watch.members(), "the job has ended", explain=installation.log)
    installation.start()
    assert job.read("state").startswith("failed (JobUnit_1: pages of the image could not")
    assert is_right(job)
    job.write("restart", "1 lazy=yes")
    job.wait_restarted()
    go_on(job)
    assert is_right(job)
