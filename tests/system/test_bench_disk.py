"""The bench's disk of known speed: as slow as asked for both ways of writing, and gone after."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.benchlib import disk
from tools.benchlib.scratch import take_away

pytestmark = [pytest.mark.root, pytest.mark.slow]

SIZE_MIB = 64
MB_S = 16
WRITTEN = 8 << 20
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def possible():
    if reason := disk.why_not(SIZE_MIB):
        pytest.skip(f"no disk of known speed: {reason}")


def write(path, flags):
    buffer = mmap.mmap(-1, WRITTEN)  # aligned, for O_DIRECT
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flags)
    try:
        start = time.monotonic()
        os.write(descriptor, buffer)
        os.fsync(descriptor)
        return time.monotonic() - start
    finally:
        os.close(descriptor)


def traces(device, base):
    """Return whatever still stands of a disk."""
    mounts = Path("/proc/self/mountinfo").read_text()
    backing = Path(f"/sys/block/{Path(device).name}/loop/backing_file")
    number = os.stat(device).st_rdev
    limits = disk.THROTTLE.read_text().split()
    return [
        str(base) in mounts,
        backing.exists(),
        f"{os.major(number)}:{os.minor(number)}" in limits,
        any(base.iterdir()),
    ]


def test_both_ways_of_writing_are_as_slow_as_asked_and_nothing_stays(tmp_path):
    with disk.limited_disk(tmp_path, SIZE_MIB, MB_S) as place:
        device = (tmp_path / disk.NOTE).read_text()
        assert traces(device, tmp_path) == [True] * 4
        for flags in (0, os.O_DIRECT):
            # the first tenth of a second may pass at once
            assert write(place / "file", flags) > 0.7 * WRITTEN / (MB_S * 1e6)
    assert traces(device, tmp_path) == [False] * 4


def test_an_interrupt_takes_the_disk_away(tmp_path):
    made = disk.limited_disk(tmp_path, SIZE_MIB, MB_S)
    made.__enter__()
    device = (tmp_path / disk.NOTE).read_text()
    assert made.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) is False
    assert traces(device, tmp_path) == [False] * 4


def test_the_disk_of_a_killed_run_is_taken_away_with_its_directory(tmp_path):
    (base := tmp_path / "run").mkdir()
    code = (
        "import sys; from pathlib import Path; from tools.benchlib import disk\n"
        f"with disk.limited_disk(Path({str(base)!r}), {SIZE_MIB}, {MB_S}):\n"
        "    print('there', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"there\n"
        process.kill()
    device = (base / disk.NOTE).read_text()
    assert traces(device, base) == [True] * 4
    take_away(base)
    assert not base.exists()
    assert traces(device, tmp_path) == [False] * 4


def test_what_is_missing_is_said(monkeypatch):
    assert "MiB of memory" in disk.why_not(1 << 30)
    monkeypatch.setattr(disk, "THROTTLE", Path("/nowhere"))
    assert "cgroup v1" in disk.why_not(SIZE_MIB)
