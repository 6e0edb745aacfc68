"""Scrub, repair and a lost catalog, through the real service."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.programs.oracles import last_step
from tests.programs.table import PYTHON

from .installation import RunningJob, eventually, refused_control, wait_control, write_control

pytestmark = [pytest.mark.fuse, pytest.mark.criu, pytest.mark.slow]

PROGRAM = """
import time
memory = bytes(range(256)) * 8192
step = 0
while True:
    step += 1
    print("step", step, flush=True)
    time.sleep(0.02)
"""


def started(installation) -> RunningJob:
    job = installation.run(PYTHON, "-c", PROGRAM, name="steps")
    eventually(lambda: last_step(job.output()) >= 1, "the first step")
    return job


def repair(installation, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ckptfs.cli.main", "repair", *options]
    where = ["--store", str(installation.store)]
    return subprocess.run([*command, *where], capture_output=True, text=True, check=False)


def lose_catalog(installation) -> None:
    for path in installation.store.glob("catalog.db*"):
        path.unlink()


def rebuild(installation) -> None:
    done = repair(installation, "--rebuild-catalog")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "made the catalog again" in done.stdout


@pytest.mark.parametrize("change", [lose_catalog, rebuild])
def test_a_catalog_deleted_or_made_again_costs_nothing(installation, change):
    job = started(installation)
    version = job.checkpoint()
    listed = sorted(os.listdir(job.path))
    assert repair(installation).returncode == 4  # the service has it open
    installation.stop_daemon()
    change(installation)
    installation.start()
    assert sorted(os.listdir(job.path)) == listed
    assert job.read("state") == "running"
    assert (installation.mount / "ctl/health").read_text() == "ok\n"
    later = job.checkpoint()
    assert later == version + 1
    job.kill()
    job.restart(version)
    before = last_step(job.output())
    eventually(lambda: last_step(job.output()) > before, "the job goes on")
    job.kill()
    for number in (version, later):
        os.rmdir(job.path / str(number))


def test_a_scrub_finds_a_changed_byte_and_a_repair_names_it(installation):
    job = started(installation)
    version = job.checkpoint()
    job.kill()
    scrub = installation.mount / "ctl/scrub"
    with pytest.raises(PermissionError):
        write_control(scrub, "1")  # root alone
    write_control(scrub, "1", uid=0)
    wait_control(scrub, lambda text: text.startswith("idle (last"), uid=0)
    assert scrub.read_text().endswith(", 0 errors)\n")
    assert (job.path / str(version) / "ctl/verify").read_text().startswith("ok ")

    packs = [path for path in installation.store.glob("packs/??/*") if path.is_file()]
    pack = max(packs, key=lambda path: path.stat().st_mtime_ns)
    data = bytearray(pack.read_bytes())
    data[8192] ^= 1
    pack.write_bytes(data)
    installation.is_wrong = "a damaged pack has no copy; its version ends in the trash"
    write_control(scrub, "1", uid=0)
    wait_control(scrub, lambda text: text.startswith("idle (last"), uid=0)
    degraded = (installation.mount / "ctl/degraded").read_text()
    assert f"{job.name}/{version} damaged (" in degraded
    assert f"{job.name}/{version}" in (installation.mount / "ctl/health").read_text()

    installation.stop_daemon()
    done = repair(installation)
    assert done.returncode == 10
    assert f"version {version} of {job.name} is damaged" in done.stdout
    installation.start()
    state = job.path / str(version) / "ctl/state"
    assert state.read_text().startswith("damaged (")  # known without another look
    assert refused_control(job.control("restart"), str(version))[0] == 5
    os.rmdir(job.path / str(version))
    assert (installation.mount / "ctl/degraded").read_text() == "0\n"


def test_a_head_that_vanished_while_the_service_was_down_is_missed_and_comes_back(
    installation, tmp_path
):
    copies = tmp_path / "copies"
    copies.mkdir()
    job = started(installation)
    assert write_control(installation.mount / "ctl/volumes", f"add {copies}", uid=0) == "copies"
    job.write("replication", "2")
    first, second = job.checkpoint(), job.checkpoint()
    state = job.path / str(first) / "ctl/state"
    eventually(lambda: state.read_text() == "restartable\n", "two copies")
    installation.stop_daemon()
    (installation.store / "heads" / job.name / str(first)).unlink()
    away = copies.rename(tmp_path / "away")
    installation.start()
    health = (installation.mount / "ctl/health").read_text()
    assert f"the head of version {first} of {job.name} is missing, and nobody removed it" in health
    assert sorted(entry for entry in os.listdir(job.path) if entry.isdigit()) == [str(second)]
    eventually(
        lambda: "is missing" in (installation.mount / "ctl/gc").read_text(),
        "the collector's doubt",
        explain=lambda: (
            (installation.mount / "ctl/gc").read_text()
            + (installation.mount / "ctl/health").read_text()
        ),
    )
    away.rename(copies)
    write_control(installation.mount / "ctl/volumes", "copies up", uid=0)
    eventually(lambda: (job.path / str(first)).is_dir(), "the version is back")
    job.kill()
    job.restart(first)
    eventually(lambda: (installation.mount / "ctl/health").read_text() == "ok\n", "health")
    job.kill()
    for number in (first, second):
        os.rmdir(job.path / str(number))
