"""Removed versions on a real mount: brought back, or freed for good."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from tests.programs.oracles import last_step
from tests.programs.table import PYTHON

from .installation import Installation, eventually, refused_control, write_control
from .test_storage_faults import RANDOM_MEMORY

pytestmark = [pytest.mark.fuse, pytest.mark.criu, pytest.mark.slow]

MIB = 1 << 20
JOB_MIB = 24


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    top = tmp_path_factory.mktemp("garbage")
    top.chmod(0o755)
    made = Installation(top)
    made.start()
    try:
        yield made
    finally:
        made.end()


def ckptfs(installation: Installation, *argv: str) -> str:
    command = [PYTHON, "-m", "ckptfs.cli.main", *argv, "--mount", str(installation.mount)]
    repository = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=repository)
    assert done.returncode == 0, done.stderr
    return done.stdout


def stored_bytes(installation: Installation) -> int:
    packs = [p for p in (installation.store / "packs").rglob("*") if p.is_file()]
    return sum(path.stat().st_blocks * 512 for path in packs)


def test_remove_bring_back_remove_and_free(installation):
    jobs = [
        installation.run(PYTHON, "-c", RANDOM_MEMORY, str(JOB_MIB), name=name)
        for name in ("stays", "goes")
    ]
    for job in jobs:
        eventually(lambda job=job: last_step(job.output()) >= 1, "the first step")
        assert job.checkpoint() == 1
        job.kill()
    stays, goes = jobs
    before = stored_bytes(installation)
    assert before > 2 * JOB_MIB * MIB

    os.rmdir(goes.path / "1")
    assert f"{goes.name}/1 stays: in the trash until" in ckptfs(installation, "gc", "--dry-run")
    ckptfs(installation, "gc")
    assert stored_bytes(installation) == before
    assert ckptfs(installation, "undelete", goes.name).startswith("1 until=")
    assert ckptfs(installation, "undelete", goes.name, "1") == "1\n"
    assert (goes.path / "1/ctl/pin").read_text() == "1\n"
    goes.restart(1)
    goes.wait_restarted()
    goes.kill()

    write_control(goes.path / "1/ctl/pin", "0")
    os.rmdir(goes.path / "1")
    plan = ckptfs(installation, "gc", "--dry-run", "--empty-trash")
    assert f"{goes.name}/1 goes: the trash is emptied" in plan
    assert f"{stays.name}/1 stays: " in plan
    said = ckptfs(installation, "gc", "--empty-trash")
    assert int(said.split()[1]) > JOB_MIB * MIB
    assert stored_bytes(installation) < before - JOB_MIB * MIB
    used = int((installation.mount / "ctl/volumes").read_text().split("used_bytes=")[1].split()[0])
    assert used < before - JOB_MIB * MIB

    write_control(stays.path / "1/ctl/verify", "1")
    eventually(lambda: (stays.path / "1/ctl/verify").read_text().startswith("ok"), "verified")
    number, _ = refused_control(goes.path / "ctl/undelete", "1")
    assert number == errno.ENOENT
    assert (installation.mount / "ctl/health").read_text() == "ok\n"
