"""Ctrl-C at tools/torture, in the middle of a part: nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.leftovers import sweep

ROOT = Path(__file__).parents[2]
END_S = 60.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "number"),
    [
        ("crashes", signal.SIGINT),
        ("histories", signal.SIGTERM),
        pytest.param("full", signal.SIGINT, marks=pytest.mark.root),
    ],
)
def test_it_says_so_and_nothing_is_left(part, number):
    words = [sys.executable, "-m", "tests.proof", "--minutes", "5", "--seed", "1", "--parts", part]
    run = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert run.stdout.readline().startswith("seed 1")  # it is at work, and goes on with more
        run.send_signal(number)
        out, errors = run.communicate(timeout=END_S)
    finally:
        run.kill()
        run.communicate()
    assert run.returncode == 130, errors
    assert "torture: interrupted" in errors
    assert "Traceback" not in errors
    assert part in out.splitlines()[-1], "the table is missing"
    assert sweep(run.pid) == []
    for top in ("/dev/shm", "/tmp"):
        assert f"ckptfs-test-{run.pid}" not in os.listdir(top)
