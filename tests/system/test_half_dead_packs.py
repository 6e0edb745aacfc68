"""A job of which few versions are kept: packs take less, and what is kept is all there."""

from __future__ import annotations

import re
import subprocess

import pytest

from ckptfs.store.check import check
from tests.programs.oracles import last_step
from tests.programs.table import PYTHON

from .installation import Installation, eventually, running, write_control
from .test_garbage import ckptfs, stored_bytes

pytestmark = [pytest.mark.fuse, pytest.mark.criu, pytest.mark.slow]
MIB = 1 << 20
JOB_MIB = 12
VERSIONS, KEEP = 10, 3

# Every eighth page is never written; of the others a seventh at each step, each page with a sum.
WORKER = """
import os, sys, time, zlib
PAGE = 4096
count = int(sys.argv[1]) << 8
memory = bytearray(os.urandom(count * PAGE))
sums = [zlib.crc32(memory[n * PAGE:(n + 1) * PAGE]) for n in range(count)]
step = 0
while True:
    step += 1
    for n in range(1 + step % 7, count, 8):
        memory[n * PAGE:(n + 1) * PAGE] = page = os.urandom(PAGE)
        sums[n] = zlib.crc32(page)
    whole = all(zlib.crc32(memory[n * PAGE:(n + 1) * PAGE]) == sums[n] for n in range(count))
    print("step" if whole else "torn", step, flush=True)
    time.sleep(0.02)
"""


@pytest.fixture
def installation(tmp_path_factory):
    with running(tmp_path_factory.mktemp("half-dead")) as made:
        yield made


def test_ten_versions_of_which_three_are_kept(installation: Installation):
    job = installation.run(PYTHON, "-c", WORKER, str(JOB_MIB), name="worker")
    for _ in range(VERSIONS):
        before = last_step(job.output())
        eventually(lambda before=before: last_step(job.output()) > before + 1, "two steps")
        version = job.checkpoint()
    assert version == VERSIONS
    before = stored_bytes(installation)
    job.write("retention", f"keep_last {KEEP}")
    gc = installation.mount / "ctl/gc"
    eventually(lambda: re.search("1 pack|[0-9] packs", gc.read_text()), "packs written anew")
    eventually(lambda: gc.read_text().startswith("idle"), "the collection ends")
    thinned = re.search(r"thinned_bytes=(\d+)", (installation.mount / "ctl/space").read_text())
    assert thinned is not None
    assert int(thinned[1]) > JOB_MIB * MIB // 2  # seven eighths of what the first version wrote
    assert "less since packs were thinned" in ckptfs(installation, "df")
    assert stored_bytes(installation) < before - (VERSIONS - KEEP - 1) * JOB_MIB * MIB // 2

    job.kill()
    oldest = VERSIONS - KEEP + 1
    job.restart(oldest)
    steps = last_step(job.output())
    eventually(lambda: last_step(job.output()) > steps + 10, "every page is what it was")
    assert b"torn" not in job.output()
    assert job.checkpoint() == VERSIONS + 1
    job.kill()

    write_control(installation.mount / "ctl/scrub", "1", uid=0)
    scrub = installation.mount / "ctl/scrub"
    # On a busy machine it reads at a sixteenth of its pace.
    eventually(lambda: scrub.read_text().startswith("idle"), "the scrub ends", timeout_s=120)
    assert (installation.mount / "ctl/health").read_text() == "ok\n"
    installation.stop_daemon()
    assert check(installation.store) == []
    done = subprocess.run(
        ["du", "-s", "--block-size=1", "--apparent-size", str(installation.store / "packs")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout.split()[0]) > stored_bytes(installation) + JOB_MIB * MIB // 2
