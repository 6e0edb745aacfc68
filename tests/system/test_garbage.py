"""Removed versions on a real mount: brought back, or freed for good."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest
import trio
import trio.testing

from ckptfs.errors import StoreFull
from ckptfs.gc.decide import is_scarce
from ckptfs.gc.sweep import Sweep
from ckptfs.ids import Version
from ckptfs.store.check import check
from ckptfs.store.store import open_store
from tests.programs.oracles import last_step
from tests.programs.table import PYTHON
from tests.store_kit import JOB, load, noise, save

from .installation import Installation, eventually, refused_control, write_control
from .small_disk import fill
from .test_storage_faults import RANDOM_MEMORY

MIB = 1 << 20
JOB_MIB = 24
DISK_MIB = 96


def ckptfs(installation: Installation, *argv: str) -> str:
    command = [PYTHON, "-m", "ckptfs.cli.main", *argv, "--mount", str(installation.mount)]
    repository = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=repository)
    assert done.returncode == 0, done.stderr
    return done.stdout


def stored_bytes(installation: Installation) -> int:
    packs = [p for p in (installation.store / "packs").rglob("*") if p.is_file()]
    return sum(path.stat().st_blocks * 512 for path in packs)


@pytest.mark.fuse
@pytest.mark.criu
@pytest.mark.slow
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


@pytest.fixture
def small_disk(tmp_path):
    """An empty ext4 of its own."""
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(DISK_MIB * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


async def save_until_full(store) -> int:
    for count in range(DISK_MIB):
        try:
            await save(store, {"pages": noise(8 * MIB, seed=count)}, version=count + 1)
        except StoreFull:
            return count
    raise AssertionError("the disk does not fill")


@pytest.mark.slow
@pytest.mark.root
def test_a_disk_without_one_free_byte_is_freed(small_disk):
    async def main():
        store = open_store(small_disk / "store", create=True)
        sweep = Sweep(
            store.garbage,
            wall_s=lambda: 0.0,  # stands still: the trash goes because the disk is full
            uptime_s=lambda: 0.0,
            is_scarce=lambda: is_scarce(*store.garbage.free_and_total()),
        )
        count = await save_until_full(store)
        fill(small_disk)
        assert store.usage().free_bytes == 0
        for version in range(1, count):
            store.remove(JOB, Version(version))
        report = await sweep.run(asked=False, empty_trash=False, tell=lambda *_: None)
        assert report.doubt == ""
        assert report.freed_bytes > (count - 1) * 8 * MIB
        os.sync()  # ext4 hands freed blocks out again once its journal has committed
        assert store.usage().free_bytes > (count - 1) * 8 * MIB
        assert await load(store, "pages", version=count) == noise(8 * MIB, seed=count - 1)
        await save(store, {"pages": noise(8 * MIB, seed=99)}, version=count + 1)
        store.close()
        assert check(small_disk / "store") == []

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
