"""The commands on a real mount: a whole session as a user would type it, and the wrong way too."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .installation import OWNER, eventually

pytestmark = [pytest.mark.fuse, pytest.mark.criu]

TIMEOUT_S = 60
STEPS = """\
import itertools, os, sys, time
for step in itertools.count(1):
    print(step, flush=True)
    time.sleep(0.02)
    if os.path.exists(sys.argv[1]):
        break
"""


class Shell:
    """Runs commands against one mount, as root or as somebody else."""

    def __init__(self, top: Path) -> None:
        self.top, self.store, self.mount = top, top / "store", top / "mount"
        self.work = top / "work"
        self.environment = {**os.environ, "CKPTFS_MOUNT": str(self.mount)}

    def argv(self, *words: str) -> list[str]:
        program, *rest = words
        module = "ckptfs.cli.main" if program == "ckptfs" else f"ckptfs.cli.{program}"
        return [sys.executable, "-m", module, *rest]

    def __call__(self, *words: str, uid: int = 0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words),
            cwd=self.work,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            user=uid,
            group=uid,
            extra_groups=[],
        )

    def out(self, *words: str, uid: int = 0) -> str:
        """Return stdout of a command that succeeds."""
        done = self(*words, uid=uid)
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")

    def mount_store(self) -> None:
        self.out("ckptfs", "mount", "--store", str(self.store), str(self.mount))

    def start(self, name: str) -> str:
        """Start a job that prints steps until `finish`; return its id."""
        python, until = "/usr/bin/python3", f"{name}.enough"
        options = ["--name", name, "--stdout", f"{name}.out", "--clean-env"]
        return self.out("ckptfs", "run", *options, "--", python, "-c", STEPS, until, uid=OWNER)

    def finish(self, name: str) -> None:
        """Have the job end by itself after the step it is at."""
        (self.work / f"{name}.enough").touch()

    def reached(self, name: str, step: int) -> None:
        """Return when the job has printed *step*."""
        file = self.work / f"{name}.out"
        eventually(lambda: file.exists() and f"{step}\n" in file.read_text(), f"step {step}")


@pytest.fixture(scope="module")
def shell(tmp_path_factory) -> Iterator[Shell]:
    top = tmp_path_factory.mktemp("commands")
    for parent in (top, top.parent):
        parent.chmod(0o755)
    shell = Shell(top)
    shell.work.mkdir()
    os.chown(shell.work, OWNER, OWNER)
    shell.mount_store()
    try:
        yield shell
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            jobs = shell("ckptfs", "ls").stdout.split()
            if jobs:
                shell("ckptfs", "kill", *jobs)
            if shell("ckptfs", "umount", str(shell.mount)).returncode:
                shell("ckptfs", "umount", "--lazy", str(shell.mount))


def test_a_session_loses_nothing(shell):
    job = shell.start("heat")
    shell.reached("heat", 5)
    assert shell.out("ckptfs", "checkpoint", "heat", "--note", "early", uid=OWNER) == "1"
    shell.reached("heat", 30)
    assert shell.out("xcheckpoint", job, uid=OWNER) == "2"
    (row, _) = json.loads(shell.out("ckptfs", "ls", "--json", "heat", uid=OWNER))
    assert (row["version"], row["note"], row["state"]) == (1, "early", "restartable")

    refused = shell("ckptfs", "restart", "heat", "1", uid=OWNER)
    assert refused.returncode == 4
    assert "--kill" in refused.stderr
    assert shell.out("ckptfs", "restart", "heat", "1", "--kill", uid=OWNER) == "1"
    shell.reached("heat", 50)
    shell.finish("heat")
    assert shell("ckptfs", "wait", "heat", uid=OWNER).returncode == 0
    steps = (shell.work / "heat.out").read_text().split()
    assert len(steps) >= 50
    assert steps == [str(step) for step in range(1, len(steps) + 1)]

    assert shell("ckptfs", "rm", "heat", "1", uid=OWNER - 1).returncode == 6
    assert "removed" in shell.out("ckptfs", "rm", "heat", "1", uid=OWNER)
    assert shell.out("ckptfs", "ls", "heat", uid=OWNER) == "2"
    assert "heat.1" in shell.out("ckptfs", "rm", job, uid=OWNER)
    assert shell.out("ckptfs", "ls", uid=OWNER) == ""
    shell.out("ckptfs", "undelete", job, uid=OWNER)
    assert shell.out("ckptfs", "ls", "heat", uid=OWNER).split() == ["1", "2"]


def test_suspend_and_resume(shell):
    shell.start("nap")
    shell.reached("nap", 3)
    assert shell.out("ckptfs", "suspend", "nap", uid=OWNER) == "1"
    assert "suspended" in shell.out("ckptfs", "ps", uid=OWNER)
    assert shell("ckptfs", "checkpoint", "nap", uid=OWNER).returncode == 4
    assert shell.out("xrestart", "nap", "1", uid=OWNER) == "1"
    assert "nap." in shell.out("xps", "-j", "nap", uid=OWNER)
    assert shell("xkill", "-j", "nap", "-e", "KILL", uid=OWNER).returncode == 0
    assert shell("xwait", "-j", "nap", uid=OWNER).returncode == 128 + signal.SIGKILL


def test_a_stranger_learns_nothing_and_changes_nothing(shell):
    job = shell.start("secret")
    shell.reached("secret", 3)
    stranger = OWNER - 1
    for words in (
        ("checkpoint", job), ("restart", job), ("suspend", job), ("resume", job), ("kill", job),
        ("signal", job, "TERM"), ("wait", job), ("logs", job), ("ls", job), ("rm", job),
    ):  # fmt: skip
        done = shell("ckptfs", *words, uid=stranger)
        assert done.returncode == 6, (words, done)
        assert done.stderr.count("\n") == 1
        assert job in done.stderr
    assert shell("xps", "-j", job, uid=stranger).returncode == 6
    assert (shell.mount / job / "ctl/state").read_text() == "running\n"
    assert (shell.mount / job / "ctl/error").read_text() == ""


def test_an_exit_code_goes_through(shell):
    run = ("ckptfs", "run", "--wait", "--clean-env", "--name", "end", "--", "/bin/sh", "-c")
    assert shell(*run, "echo said; exit 7", uid=OWNER).returncode == 7
    assert shell.out("ckptfs", "logs", "end", uid=OWNER) == "said"
    assert shell(*run[:-2], "/no/such/program", uid=OWNER).returncode == 3
    assert shell("ckptfs", "run", "--uid", "0", "id", uid=OWNER).returncode == 6


def test_ctrl_c_ends_the_waiting_alone(shell):
    job = shell.start("on")
    waiting = subprocess.Popen(
        shell.argv("xwait", "-v", "-j", job),
        env=shell.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stderr is not None
    assert "waiting" in waiting.stderr.readline()
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=TIMEOUT_S)
    assert waiting.returncode == 130
    assert "Traceback" not in said
    assert (shell.mount / job / "ctl/state").read_text() == "running\n"


def test_jobs_go_on_when_the_service_does_not(shell):
    job = shell.start("steady")
    shell.reached("steady", 2)
    held = subprocess.Popen(["sleep", "60"], cwd=shell.mount / "ctl")
    try:
        refused = shell("ckptfs", "umount", str(shell.mount))
    finally:
        held.kill()
        held.wait()
    assert refused.returncode == 4
    assert f"sleep ({held.pid})" in refused.stderr

    ended = shell("ckptfs", "umount", str(shell.mount))
    assert ended.returncode == 0
    assert "on; mount again" in ended.stderr
    assert shell("ckptfs", "ls").returncode == 12
    before = len((shell.work / "steady.out").read_text())
    shell.mount_store()
    eventually(lambda: len((shell.work / "steady.out").read_text()) > before, "it goes on")
    assert shell.out("ckptfs", "checkpoint", job, uid=OWNER) == "1"
    again = shell("ckptfs", "mount", "--store", str(shell.store), str(shell.mount))
    assert again.returncode == 12
    assert again.stderr.count("\n") == 1
