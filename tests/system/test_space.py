"""Who pays, on a real mount: space provided, quotas, df, and a store on a disk that is full."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess

import pytest

from ckptfs.jobs.jsdl_render import JobDescription
from tests.programs.oracles import last_step
from tests.programs.table import PYTHON

from .installation import (
    OWNER,
    Installation,
    RunningJob,
    eventually,
    refused_control,
    write_control,
)
from .small_disk import fill, on_small_disk, remove
from .test_garbage import ckptfs
from .test_storage_faults import RANDOM_MEMORY, goes_on

pytestmark = [pytest.mark.fuse, pytest.mark.criu, pytest.mark.slow]
MIB = 1 << 20
JOB_MIB = 12
DISK_MIB = 256
STRANGER = 65533


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An installation whose store is a small ext4 of its own."""
    with on_small_disk(tmp_path_factory.mktemp("space"), DISK_MIB) as made:
        yield made


def start(installation: Installation, name: str, **fields) -> RunningJob:
    directory = installation.job_directory(name)
    description = JobDescription(
        name,
        (PYTHON, "-c", RANDOM_MEMORY, str(JOB_MIB)),
        cwd=str(directory),
        user=str(OWNER),
        stdout=str(directory / "out"),
        stderr=str(directory / "err"),
        **fields,
    )
    job = installation.submit(description, directory)
    eventually(lambda: last_step(job.output()) >= 1, "the first step")
    return job


def space_of(installation: Installation, *, uid: int = 0) -> dict[str, dict[str, str]]:
    path = installation.mount / "ctl/space"
    done = subprocess.run(
        ["cat", str(path)],
        user=uid,
        group=uid,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = (line.split() for line in done.stdout.splitlines())
    return {key: dict(word.split("=") for word in words) for key, *words in rows}


def test_space_that_is_full_refuses_and_keeps(small):
    job = start(small, "spacious", space_bytes=70 * MIB, keep_last=1)
    job.checkpoint()
    size = int(os.getxattr(job.path / "1", "user.ckptfs.charged_bytes"))
    for _ in range(70 * MIB // size - 1):  # what is left may hold no version as it is estimated
        with contextlib.suppress(OSError):
            job.checkpoint()
    versions = sorted(int(name) for name in os.listdir(job.path) if name.isdecimal())
    assert len(versions) >= 2  # keep_last 1 lets none within the space go
    before = job.read("events")
    refused, sentence = refused_control(job.control("checkpoint"), "1")
    assert (refused, "provided for versions" in sentence) == (errno.EDQUOT, True)
    assert job.read("events") == before
    goes_on(job)

    sizes = {v: int(os.getxattr(job.path / str(v), "user.ckptfs.charged_bytes")) for v in versions}
    assert os.getxattr(job.path / str(versions[0]), "user.ckptfs.class") == b"user"
    assert f"charged_bytes {sum(sizes.values())}\n" in job.read("stat") + "\n"
    rows = space_of(small)
    owner = next(key for key in rows if key.endswith("/user"))
    assert int(rows[owner]["charged_bytes"]) == sum(sizes.values())
    assert int(rows[owner]["added_bytes"]) < sum(sizes.values())
    assert space_of(small, uid=STRANGER).keys() == {"store"}

    write_control(job.control("checkpoint"), "initiator=system", uid=0)
    eventually(lambda: "complete" in job.read("checkpoint"), "the system's version")
    assert any(key.endswith("/system") for key in space_of(small))
    listed = json.loads(ckptfs(small, "ls", "--json", job.name))
    assert [(row["space_class"], row["charged"] > 0) for row in listed[-2:]] == [
        ("user", True),
        ("system", False),
    ]
    assert owner.partition("/")[0] in ckptfs(small, "df")
    os.rmdir(job.path / str(versions[0]))
    job.checkpoint()
    job.kill()


def test_a_quota_is_roots_to_set_and_holds(small):
    job = start(small, "limited")
    quota = small.mount / "ctl/quota"
    with pytest.raises(PermissionError):
        write_control(quota, f"{OWNER} 1K", uid=OWNER)
    assert ckptfs(small, "quota", str(OWNER), "1K") == f"{OWNER} 1024\n"
    refused, sentence = refused_control(job.control("checkpoint"), "1")
    assert (refused, "quota of" in sentence) == (errno.EDQUOT, True)
    goes_on(job)
    small.kill_daemon()
    small.start()
    assert refused_control(job.control("checkpoint"), "1")[0] == errno.EDQUOT
    assert "limit_bytes=1024 " in quota.read_text()
    write_control(quota, f"{OWNER} none", uid=0)
    job.checkpoint()
    job.kill()


def test_a_job_removed_on_a_full_disk_comes_back(small):
    job = start(small, "back")
    version = job.checkpoint()
    job.kill()
    output = job.output()
    others = [path for path in small.mount.iterdir() if path.name.rpartition(".")[2].isdecimal()]
    for path in others:
        if path != job.path:
            subprocess.run(["rm", "-r", str(path)], check=True)
    filler = fill(small.store)
    try:
        assert small.store.stat().st_dev == filler.stat().st_dev
        subprocess.run(["rm", "-r", str(job.path)], check=True)
        assert not job.path.exists()
        assert os.statvfs(small.store).f_bavail == 0
    finally:
        remove(filler)
    undelete = small.mount / "ctl/undelete"
    assert f"{job.name} versions={version} until=" in undelete.read_text()
    small.kill_daemon()
    small.start()
    assert f"{job.name} versions={version} until=" in ckptfs(small, "undelete")
    assert refused_control(undelete, job.name, uid=STRANGER)[0] == errno.EPERM
    assert ckptfs(small, "undelete", job.name) == f"{job.name}\n"
    assert (job.path / str(version) / "ctl/pin").read_text() == "1\n"
    assert job.output() == output
    job.restart(version)
    job.wait_restarted()
    goes_on(job)
    job.kill()


def test_a_disk_that_fills_frees_itself(small):
    """What was removed in the tests before goes early, without anybody asking."""

    def in_trash() -> int:
        return sum(1 for path in (small.store / "trash").rglob("*@*"))

    assert in_trash() > 0
    filler = fill(small.store)
    try:
        small.kill_daemon()
        small.start()  # which looks at once
        eventually(lambda: in_trash() == 0, "the trash goes", 60)
        health = (small.mount / "ctl/health").read_text()
        assert "nearly full" in health
        os.sync()  # ext4 hands freed blocks out again once its journal has committed
        assert os.statvfs(small.store).f_bavail > 0
    finally:
        remove(filler)
