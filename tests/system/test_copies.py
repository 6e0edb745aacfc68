"""A second volume under a real job: a restart from a damaged store, and what is said of it."""

from __future__ import annotations

import os

import pytest

from .installation import Installation, eventually, refused_control, write_control
from .test_storage_faults import biggest_pack, flip, goes_on, random_memory

pytestmark = [pytest.mark.fuse, pytest.mark.criu, pytest.mark.slow]
MEBIBYTES = 4


def test_a_restart_does_not_notice_a_damaged_store(installation: Installation, tmp_path):
    copies = tmp_path / "copies"
    copies.mkdir()
    volumes = installation.mount / "ctl/volumes"
    job = random_memory(installation, MEBIBYTES)
    assert refused_control(job.control("replication"), "2")[1]
    assert write_control(volumes, f"add domain=other {copies}", uid=0) == "copies"
    job.write("replication", "2")
    version = job.checkpoint()
    place = installation.mount / job.name / str(version)

    def replicas() -> bytes:
        return os.getxattr(place, "user.ckptfs.replicas")

    eventually(lambda: replicas() == b"2", "two copies")
    job.kill()

    pack = biggest_pack(installation.store)
    good = pack.read_bytes()
    flip(pack, pack.stat().st_size // 2)
    job.restart(version)
    goes_on(job)
    installation.kill_daemon()  # what is to be mended is known after that as well
    installation.start()
    eventually(lambda: pack.read_bytes() == good, "the store is mended")
    assert (place / "ctl/state").read_text() == "restartable\n"
    eventually(lambda: replicas() == b"2", "two copies again")
    goes_on(job)
    assert "copies state=up domain=other" in volumes.read_text()
