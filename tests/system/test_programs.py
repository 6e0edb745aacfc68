"""Each program: save, go on, save, kill, restart, save, kill, restart the old version, finish.

All as a shell user does it on the mount; the oracle looks at what the program
has written when it is done.  A neighbour with the same inner pids runs all
the time, and its output is judged at the end.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from ckptfs.jobs.jsdl_render import JobDescription
from tests.programs.oracles import complaints, last_step
from tests.programs.table import PROGRAMS, PYTHON, Program

from .installation import OWNER, Installation, RunningJob, eventually, inner_pid, write_control

pytestmark = [pytest.mark.fuse, pytest.mark.criu, pytest.mark.slow]

SOURCES = Path(__file__).parents[1] / "programs"
DELAY_S = 0.02
A_FEW = 4  # steps
ROOT_PID = 1000  # of every unit, inside
NEIGHBOUR_STEPS = 1_000_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(installation: Installation, program: Program) -> tuple[RunningJob, int]:
    """Copy the program into a directory of the owner's and submit it; return it and its port."""
    directory = installation.job_directory(program.name)
    shutil.copy(SOURCES / program.source, directory)
    (directory / program.source).chmod(0o644)
    if program.build:
        subprocess.run(program.build, cwd=directory, check=True, timeout=60)
    port = free_port()
    words = (word.format(steps=program.steps, delay=DELAY_S, port=port) for word in program.argv)
    first, *others = words
    if first.startswith("./"):
        first = str(directory / first)
    description = JobDescription(
        name=program.name,
        argv=(first, *others),
        cwd=str(directory),
        env=program.env,
        user=str(OWNER),
        stdout=str(directory / "out"),
        stderr=str(directory / "err"),
        rollback=program.rollback,
    )
    return installation.submit(description, directory), port


def go_on(job: RunningJob, count: int = A_FEW) -> int:
    """Wait until the job has printed *count* more steps; return the last one."""
    target = last_step(job.output()) + count
    at_target = lambda: last_step(job.output()) >= target  # noqa: E731
    eventually(at_target, f"{job.name} at step {target}", explain=job.describe)
    return last_step(job.output())


@pytest.fixture(scope="module")
def neighbour(installation):
    """Another job whose processes have the same pids inside, going on all the time."""
    directory = installation.job_directory("neighbour")
    shutil.copy(SOURCES / "counter.py", directory)
    (directory / "counter.py").chmod(0o644)
    job = installation.run(
        *(PYTHON, "counter.py", str(NEIGHBOUR_STEPS), "0.05"), name="neighbour", directory=directory
    )
    go_on(job, 1)
    yield job
    assert inner_pid(job.root_pid()) == ROOT_PID
    go_on(job, 1)
    assert complaints("counter", NEIGHBOUR_STEPS, {"": job.output()}, finished=False) == []


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_whole_sequence(installation, neighbour, program):
    if program.build and shutil.which(program.build[0]) is None:
        pytest.skip(f"{program.build[0]} is not installed")
    job, port = launch(installation, program)
    go_on(job)
    assert job.read("blockers") == ""
    assert inner_pid(job.root_pid()) == inner_pid(neighbour.root_pid()) == ROOT_PID

    first = job.checkpoint()
    go_on(job)
    second = job.checkpoint()
    at_second = go_on(job)
    job.kill()

    job.restart("latest")
    ask_from_outside(program, port)
    assert last_step(job.output()) <= at_second + A_FEW
    go_on(job)
    third = job.checkpoint()
    go_on(job)
    job.kill()

    write_control(job.path / str(first) / "ctl/restart", "1")
    job.wait_restarted()
    assert inner_pid(job.root_pid()) == ROOT_PID
    ask_from_outside(program, port)
    assert job.wait("exit_status", lambda text: text != "none") == "0"
    assert [first, second, third] == [1, 2, 3]
    assert judge(program, job) == []
    assert (job.directory / "err").read_bytes() == b""


def ask_from_outside(program: Program, port: int) -> None:
    """The restarted server listens: somebody new can connect."""
    if program.name != "tcpserver":
        return
    with socket.create_connection(("127.0.0.1", port), timeout=10) as stream:
        stream.sendall(b"where\n")
        assert stream.makefile().readline().startswith("at ")


def judge(program: Program, job: RunningJob) -> list[str]:
    """Ask the oracle about everything the program has written."""
    files = {name: job.directory / name for name in program.files}
    found = {name: path.read_bytes() for name, path in files.items() if path.exists()}
    return complaints(program.name, program.steps, {"": job.output(), **found})
