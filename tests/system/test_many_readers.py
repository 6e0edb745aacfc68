"""While a big version is being written: three hundred pollers all wake, and ls answers at once."""

from __future__ import annotations

import os
import select
import shutil
import statistics
import time
from pathlib import Path

import pytest

from tests.programs.oracles import last_step
from tests.programs.table import PYTHON

from .installation import OWNER, RunningJob, acting_as, eventually

pytestmark = [pytest.mark.fuse, pytest.mark.criu, pytest.mark.slow]

POLLERS = 300
LS_MEDIAN_S = 0.05  # measured 1 ms; far from what a waiting handler would cost
WAKE_S = 30.0


@pytest.fixture(scope="module")
def job(installation):
    """A job of 256 MiB: its version takes half a second to write."""
    directory = installation.job_directory("memory")
    shutil.copy(Path(__file__).parents[1] / "programs/memory.py", directory)
    (directory / "memory.py").chmod(0o644)
    words = (PYTHON, "memory.py", "1000000", "0.02", "256")
    made = installation.run(*words, name="memory", directory=directory)
    eventually(lambda: last_step(made.output()) >= 1, "the first step")
    return made


def wake(poller: select.poll, deadline: float, pending: set[int]) -> None:
    """Take the descriptors of *pending* that have changed, until all have or it is too late."""
    while pending:
        left_s = deadline - time.monotonic()
        assert left_s > 0, f"{len(pending)} of {POLLERS} were never woken"
        for descriptor, _ in poller.poll(left_s * 1000):
            if b"complete" in os.pread(descriptor, 4096, 0):
                pending.discard(descriptor)
                poller.unregister(descriptor)


def test_three_hundred_pollers_hear_of_one_checkpoint(job: RunningJob):
    with acting_as(OWNER):
        opened = [os.open(job.control("checkpoint"), os.O_RDONLY) for _ in range(POLLERS)]
    try:
        poller = select.poll()
        for descriptor in opened:
            os.pread(descriptor, 4096, 0)
            poller.register(descriptor, select.POLLPRI)
        job.write("checkpoint", "1")
        wake(poller, time.monotonic() + WAKE_S, set(opened))
    finally:
        for descriptor in opened:
            os.close(descriptor)
    job.wait("state", lambda text: text == "running")


def test_ls_answers_at_once_while_a_version_is_written(job: RunningJob):
    took: list[float] = []
    job.write("checkpoint", "1")
    while "saving" in job.read("checkpoint"):
        begun = time.monotonic()
        assert "ctl" in os.listdir(job.path)
        took.append(time.monotonic() - begun)
    assert len(took) > 5
    assert statistics.median(took) < LS_MEDIAN_S, took
    job.wait("state", lambda text: text == "running")
