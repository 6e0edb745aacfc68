"""A disk that fills while a job is being saved, and one byte of a pack that has changed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.programs.oracles import last_step
from tests.programs.table import PYTHON

from .installation import Installation, RunningJob, eventually, refused_control
from .small_disk import fill, on_small_disk, remove
from .watch import UnitWatch, catch

pytestmark = [pytest.mark.fuse, pytest.mark.criu, pytest.mark.slow]

GOES_ON_S = 2.0
UNIT = "JobUnit_1"
BLOCK = 4096
MIB = 1 << 20
# memory that no store can make smaller, and steps that show that it is still whole
RANDOM_MEMORY = """
import os, sys, time, zlib
memory = os.urandom(int(sys.argv[1]) << 20)
crc = zlib.crc32(memory)
step = 0
while True:
    step += 1
    place = step * 4096 % len(memory)
    whole = step % 50 or zlib.crc32(memory) == crc
    print("step" if whole else "torn", step, flush=True)
    time.sleep(0.02)
"""


def random_memory(installation: Installation, mebibytes: int) -> RunningJob:
    job = installation.run(PYTHON, "-c", RANDOM_MEMORY, str(mebibytes), name="random")
    eventually(lambda: last_step(job.output()) >= 1, "the first step")
    return job


def goes_on(job: RunningJob) -> None:
    before = last_step(job.output())
    eventually(lambda: last_step(job.output()) > before, "the job goes on", GOES_ON_S)
    lines = job.output().decode().splitlines()
    assert lines == [f"step {n}" for n in range(1, len(lines) + 1)]


# -- a full disk ---------------------------------------------------------------------------------

DISK_MIB = 640
JOB_MIB = 160


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    """An installation whose store is a small ext4 of its own."""
    with on_small_disk(tmp_path_factory.mktemp("small"), DISK_MIB) as made:
        yield made


def test_disk_full_in_the_middle_of_a_dump(small_disk):
    job = random_memory(small_disk, JOB_MIB)
    watch = UnitWatch.of(job.root_pid())
    before = small_disk.taken_bytes()
    version = int(job.write("checkpoint", "1"))
    assert catch(
        lambda: small_disk.taken_bytes() - before > MIB,
        lambda: "saving" not in job.read("checkpoint"),
    )
    filler = fill(small_disk.store)
    try:
        said = job.wait("checkpoint", lambda text: "saving" not in text)
        goes_on(job)
        assert said.startswith(f"{version} failed ("), said
        assert "full" in said or "space" in said, said
        assert not watch.is_frozen()
        assert job.read("state") == "running"
        assert str(version) not in os.listdir(job.path)
        assert os.listdir(small_disk.mount / ".staging") == []
    finally:
        remove(filler)

    later = job.checkpoint()
    assert later > version
    assert sorted(n for n in os.listdir(job.path) if n.isdecimal()) == [str(later)]
    goes_on(job)
    job.kill()


def test_a_version_that_cannot_fit_is_refused_before_anything_is_stopped(small_disk):
    job = random_memory(small_disk, JOB_MIB)
    filler = fill(small_disk.store)
    before = job.read("stat")
    try:
        number, sentence = refused_control(job.control("checkpoint"), "1")
        assert number == errno.ENOSPC, sentence
        assert sentence.startswith("error ")
        assert job.read("stat") == before
        goes_on(job)
    finally:
        remove(filler)
    job.checkpoint()
    job.kill()


# -- a changed byte ------------------------------------------------------------------------------


def biggest_pack(store: Path) -> Path:
    packs = [path for path in (store / "packs").glob("??/*") if path.is_file()]
    return max(packs, key=lambda path: path.stat().st_size)


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def read_blocks(path: Path) -> list[bytes | None]:
    """Read a file block by block; None where the reader got EIO."""
    found: list[bytes | None] = []
    with path.open("rb", buffering=0) as file:
        for offset in range(0, os.fstat(file.fileno()).st_size, BLOCK):
            try:
                found.append(os.pread(file.fileno(), BLOCK, offset))
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                found.append(None)
    return found


def test_one_changed_byte_is_never_read_and_never_restarted(installation):
    job = random_memory(installation, 32)
    version = job.checkpoint()
    job.kill()
    output = job.output()
    pack = biggest_pack(installation.store)
    flip(pack, pack.stat().st_size // 2)

    job.write("restart", str(version))
    said = job.wait("restart", lambda text: "rebuilding" not in text)
    assert said.startswith(f"{version} failed ("), said
    assert f"{UNIT}/pages-" in said
    assert "block " in said
    assert job.read("state") == "done"
    assert job.output() == output
    number, sentence = refused_control(job.control("restart"), str(version))
    assert number == errno.EIO
    assert f"{UNIT}/pages-" in sentence
    assert "block " in sentence
    state = (job.path / str(version) / "ctl/state").read_text()
    assert state.startswith("damaged (")

    images = job.path / str(version) / UNIT
    names = [name for name in os.listdir(images) if (images / name).is_file()]
    damaged = {name: read_blocks(images / name) for name in names}
    lost = {name: blocks.count(None) for name, blocks in damaged.items() if None in blocks}
    # what cannot be told apart from the changed byte is refused with it: its region of the pack
    assert 1 <= sum(lost.values()) <= MIB // BLOCK, lost

    flip(pack, pack.stat().st_size // 2)
    installation.kill_daemon()  # with all that it and the kernel remember of the files
    installation.start()
    for name, blocks in damaged.items():
        for right, found in zip(read_blocks(images / name), blocks, strict=True):
            assert right is not None
            assert found in (None, right)
