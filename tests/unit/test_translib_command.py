"""A checkpointer that is killed leaves no dead process to its subreaper."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The supervisor in small: a subreaper that runs a command whose child outlives its leader.
PROGRAM = """
import os, signal, sys, trio
from pathlib import Path
from ckptfs.node.syscalls import become_subreaper
from ckptfs.translib.command import run_command

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        while not (Path("leader").exists() and Path("leader").read_text().strip()):
            await trio.sleep(0.01)
        if sys.argv[1] == "killed":
            os.kill(int(Path("leader").read_text()), signal.SIGKILL)
        else:
            nursery.cancel_scope.cancel()

async def run():
    argv = ["sh", "-c", "sleep 1000 & echo $$ > leader; wait"]
    await run_command(argv, output=Path("out"), grace_s=0.1)

become_subreaper()
trio.run(main)
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("nothing left")
"""


@pytest.mark.parametrize("how", ["killed", "cancelled"])
def test_nothing_is_left_of_a_killed_command(tmp_path, how):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "nothing left\n"
