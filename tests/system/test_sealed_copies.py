"""Encrypted copies under a real job: read from when the store is damaged, and when it is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .installation import OWNER, Installation, RunningJob, eventually, write_control
from .test_storage_faults import biggest_pack, goes_on, random_memory

pytestmark = [pytest.mark.fuse, pytest.mark.criu, pytest.mark.slow]
MEBIBYTES = 4


def ckptfs(*words: str | Path) -> str:
    """Return what a command has printed; it must succeed."""
    argv = [sys.executable, "-m", "ckptfs.cli.main", *map(str, words)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def have_a_round(job: RunningJob) -> None:
    """Have the service look at its volumes now, not within half a minute."""
    job.write("replication", "1")
    job.write("replication", "2")


def test_encrypted_copies_serve_readers_and_outlive_the_store(
    installation: Installation, tmp_path: Path
):
    copies, phrase = tmp_path / "copies", tmp_path / "phrase"
    tmp_path.chmod(0o755)  # the second mount is in there, and used by the owner
    copies.mkdir(mode=0o700)
    phrase.write_text("correct horse battery\n")
    volumes, health = installation.mount / "ctl/volumes", installation.mount / "ctl/health"
    job = random_memory(installation, MEBIBYTES)
    assert write_control(volumes, f"add domain=other seal=encrypt {copies}", uid=0) == "copies"
    job.write("replication", "2")
    version = job.checkpoint()
    place = installation.mount / job.name / str(version)
    owner = "nobody"
    eventually(lambda: f"{owner} has no key" in health.read_text(), "the want of a key is said")
    assert not list(copies.glob("heads/*/*"))

    ckptfs("key", "create", owner, "--passphrase-file", phrase, "--store", installation.store)
    have_a_round(job)
    eventually(lambda: os.getxattr(place, "user.ckptfs.replicas") == b"2", "two copies")
    assert "has no key" not in health.read_text()
    row = next(line for line in volumes.read_text().splitlines() if line.startswith("copies "))
    assert "state=up" in row
    assert "seal=encrypt" in row
    assert "ckptfs: " not in installation.log()
    assert "correct horse" not in installation.log()

    job.kill()
    pack = biggest_pack(installation.store)
    good = pack.read_bytes()
    pack.unlink()
    job.restart(version)
    goes_on(job)
    have_a_round(job)
    eventually(lambda: pack.is_file() and pack.read_bytes() == good, "the store is mended")
    job.kill()

    other = Installation(tmp_path / "other")
    (tmp_path / "other").mkdir()
    said = ckptfs("recover", copies, "--store", other.store, "--passphrase-file", phrase)
    assert said.endswith("1 version recovered\n")
    assert ckptfs("check", "--store", other.store).endswith("whole\n")
    other.start()
    try:
        found = RunningJob(other.mount / job.name, job.stdout, job.directory)
        other.jobs.append(found)
        assert (found.path / str(version)).stat().st_uid == OWNER
        found.restart(version)
        goes_on(found)
    finally:
        other.end()
