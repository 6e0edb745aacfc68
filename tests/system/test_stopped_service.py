"""The service stands still (SIGSTOP) in the middle of a dump over pipes: the lease alone thaws.

With the deadlines of a test: the lease is their sum, a quarter of an hour for those of every day.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.programs.oracles import complaints, last_step
from tests.programs.table import PYTHON

from .installation import Installation, eventually
from .watch import UnitWatch, catch, catch_one, task_states

pytestmark = [pytest.mark.fuse, pytest.mark.criu, pytest.mark.slow]

SOURCES = Path(__file__).parents[1] / "programs"
STEPS, MEBIBYTES = 1_000_000, 256  # what the oracle expects
LEASE_S = 3.5  # stop, save and commit below
WITH_SHORT_DEADLINES = """
import sys
from functools import partial
from ckptfs import daemon
from ckptfs.coordinator.parts import Deadlines
limits = Deadlines(stop_s=0.5, save_s=2.0, save_s_per_gib=0.0, commit_s=1.0)
daemon.make_parts = partial(daemon.make_parts, deadlines=limits)
sys.exit(daemon.main())
"""


@pytest.fixture
def installation(tmp_path):
    tmp_path.chmod(0o755)
    made = Installation(tmp_path, program=("-c", WITH_SHORT_DEADLINES))
    try:
        made.start()
        yield made
    finally:
        if made.daemon is not None:
            made.daemon.send_signal(signal.SIGCONT)
        made.end()


def staged(installation, before):
    return installation.taken_bytes() - before > MEBIBYTES << 19


def test_a_service_that_is_stopped_in_the_middle_of_a_dump(installation):
    directory = installation.job_directory("memory")
    shutil.copy(SOURCES / "memory.py", directory)
    (directory / "memory.py").chmod(0o644)
    words = (PYTHON, "memory.py", str(STEPS), "0.02", str(MEBIBYTES))
    job = installation.run(*words, name="memory", directory=directory)
    eventually(lambda: last_step(job.output()) >= 1, "the first step")
    root = job.root_pid()
    watch = UnitWatch.of(root)
    before = []

    def begin():
        job.wait("state", lambda text: text == "running")
        before.append(installation.taken_bytes())
        return int(job.write("checkpoint", "1"))

    def caught():
        over = lambda: "saving" not in job.read("checkpoint")  # noqa: E731
        if not catch(lambda: staged(installation, before[-1]), over):
            return False
        installation.daemon.send_signal(signal.SIGSTOP)
        if watch.criu("dump"):
            return True
        installation.daemon.send_signal(signal.SIGCONT)  # the dump was over already
        return False

    version = catch_one(begin, caught)
    step = last_step(job.output())  # from here on nothing of the mount answers

    eventually(lambda: last_step(job.output()) > step, "the lease has ended", LEASE_S + 2.0)
    eventually(lambda: not watch.criu("dump"), "criu has been ended", 2.0)
    eventually(lambda: last_step(job.output()) > step + 20, "it goes on", 5.0)
    assert not watch.is_frozen()
    assert not task_states(root) & {"T", "t"}

    installation.daemon.send_signal(signal.SIGCONT)
    said = job.wait("checkpoint", lambda text: "saving" not in text)
    assert re.fullmatch(rf"{version} failed \(.{{20,}}\)", said), said
    job.wait("state", lambda text: text == "running")
    assert job.root_pid() == root
    assert os.listdir(installation.mount / ".staging") == []
    assert str(version) not in os.listdir(job.path)
    later = job.checkpoint()
    assert later > version
    job.kill()
    job.restart(later)
    step = last_step(job.output())
    eventually(lambda: last_step(job.output()) > step + 3, "it goes on after the restart")
    expected = complaints("memory", last_step(job.output()) + 1, {"": job.output()}, finished=False)
    assert expected == []
