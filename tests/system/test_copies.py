"""A second volume under a real job: a restart from a damaged store, and what is said of it."""

from __future__ import annotations

import os
import subprocess
import time
from functools import partial

import pytest

from ckptfs.jobs.jsdl_render import JobDescription, render_jsdl
from tests.programs.oracles import last_step
from tests.programs.table import PYTHON

from .installation import (
    OWNER,
    Installation,
    RunningJob,
    eventually,
    refused_control,
    running,
    write_control,
)
from .test_storage_faults import RANDOM_MEMORY, biggest_pack, flip, goes_on, random_memory

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
    head = installation.store / "heads" / job.name / str(version)
    good_head = head.read_bytes()
    flip(head, len(good_head) // 2)
    installation.start()
    assert (place / "job.cpx").read_bytes()  # at the first attempt, although its head is damaged
    eventually(lambda: head.read_bytes() == good_head, "the head is mended")
    eventually(lambda: pack.read_bytes() == good, "the store is mended")
    eventually(
        lambda: (place / "ctl/state").read_text() == "restartable\n", "two copies are known again"
    )
    eventually(lambda: replicas() == b"2", "two copies again")
    goes_on(job)
    assert "copies state=up domain=other" in volumes.read_text()


@pytest.fixture
def alone(tmp_path_factory):
    """A daemon on a fresh store: no volumes yet."""
    with running(tmp_path_factory.mktemp("alone")) as made:
        yield made


LEVELS = """\
<c:JobCheckpointing xmlns:c="urn:ckptfs:jsdl:1"><c:FileManagement>
<c:ReplicationLevel>2</c:ReplicationLevel><c:MinimumLevel>2</c:MinimumLevel>
</c:FileManagement><c:Retention><c:KeepLast>1</c:KeepLast></c:Retention></c:JobCheckpointing>
"""


def replicated(installation: Installation) -> RunningJob:
    """Start a job whose JSDL wants two copies before a checkpoint is complete, and one version."""
    directory = installation.job_directory("levels")
    places = {"stdout": str(directory / "out"), "stderr": str(directory / "err")}
    argv = (PYTHON, "-c", RANDOM_MEMORY, str(MEBIBYTES))
    plain = JobDescription("levels", argv, cwd=str(directory), user=str(OWNER), **places)
    end = "  </jsdl:JobDescription>"
    spooled = installation.mount / "ctl/spool/levels.jsdl"
    spooled.write_text(render_jsdl(plain).replace(end, LEVELS + end))
    name = write_control(installation.mount / "ctl/submit", spooled.name, uid=0)
    job = RunningJob(installation.mount / name, directory / "out", directory)
    installation.jobs.append(job)
    eventually(lambda: last_step(job.output()) >= 1, "the first step")
    return job


def saved(job: RunningJob) -> str:
    """Take a version and return how it ended."""
    job.write("checkpoint", "1")
    return job.wait(
        "checkpoint", lambda text: text.endswith(("complete", ")")) and "1/2" not in text
    )


def test_levels_of_the_jsdl_are_reached_waited_for_and_collected(alone, tmp_path):
    installation = alone
    place = tmp_path / "levels"
    place.mkdir()
    write_control(installation.mount / "ctl/volumes", f"add {place}", uid=0)
    job = replicated(installation)
    assert job.read("replication") == "2 min=2"
    assert saved(job) == "1 complete"
    assert [path.name for path in place.glob("heads/*/*")] == ["1"]  # complete means copied
    assert saved(job) == "2 complete"
    eventually(lambda: not (job.path / "1").exists(), "the older version goes")
    eventually(lambda: [p.name for p in place.glob("heads/*/*")] == ["2"], "and its copy, too")
    goes_on(job)
    job.kill()
    pack = biggest_pack(installation.store)
    good = pack.read_bytes()
    flip(pack, 1 << 20)
    job.restart(2)
    goes_on(job)
    eventually(lambda: pack.read_bytes() == good, "the store is mended")


def mounted(place, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], check=True)
    place.chmod(0o700)


def test_whatever_is_wrong_with_a_volume_is_said_and_holds_up_nobody(alone, tmp_path):
    place, mount = tmp_path / "moody", alone.mount
    place.mkdir()
    mounted(place, "size=2m")
    try:
        write_control(mount / "ctl/volumes", f"add {place}", uid=0)
        job = random_memory(alone, MEBIBYTES)
        job.write("replication", "2")
        version = job.path / str(job.checkpoint())
        row = partial(row_of, mount, "moody")

        def becomes(state: str, replicas: int) -> str:
            job.write("replication", "2")  # looked at now, not in half a minute
            eventually(lambda: f" state={state} " in row(), f"{state}: {row()}")
            eventually(
                lambda: os.getxattr(version, "user.ckptfs.replicas") == b"%d" % replicas, row()
            )
            health = (mount / "ctl/health").read_text()
            assert state == "up" or f"volume moody ({place}) is {state}: " in health
            return health

        becomes("full", 1)
        subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
        becomes("up", 2)
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        becomes("readonly", 2)
        subprocess.run(["mount", "-o", "remount,rw", place], check=True)
        becomes("up", 2)
        marker = place / "VOLUME"
        good = marker.read_bytes()
        broken = {
            "foreign": good.replace(b'"store": "', b'"store": "0'),
            "unknown_format": good.replace(b'"format": 1', b'"format": 99'),
            "failing": b"{",
        }
        marker.chmod(0o600)
        for state, document in broken.items():
            marker.write_bytes(document)
            assert "moody" in becomes(state, 1)
            marker.write_bytes(good)
            becomes("up", 2)
        marker.unlink()
        os.mkfifo(marker)  # whoever opens it hangs
        becomes("slow", 1)
        begun_s = time.monotonic()
        names = {path.name for path in job.path.iterdir()}
        assert version.name in names
        assert os.stat(version / "ctl").st_nlink
        goes_on(job)
        assert time.monotonic() - begun_s < 5
        writer = os.open(marker, os.O_WRONLY)  # the thread in there comes back
        marker.unlink()
        os.close(writer)
        becomes("missing", 1)
        marker.write_bytes(good)
        becomes("up", 2)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def row_of(mount, volume: str) -> str:
    """Return the line of a volume in ctl/volumes."""
    lines = (mount / "ctl/volumes").read_text().splitlines()
    return next((line for line in lines if line.startswith(f"{volume} ")), "")
