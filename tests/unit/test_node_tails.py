"""Any version of any run comes back: from the file, or from what restarts kept beside it."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptfs.errors import CheckpointerFailed, Forbidden
from ckptfs.model import OpenFile, Owner
from ckptfs.node.credentials import Rights
from ckptfs.node.files import record_open_files, save_copies
from ckptfs.node.putting_back import LineBack, put_back

ME = Owner(os.getuid(), os.getgid(), (), "me")


class Log:
    """A file that a job appends to, checkpointed and restarted as a job would be."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "out"
        self.image = directory / "image"
        self.image.mkdir()
        self.path.touch()
        self.versions: list[tuple[OpenFile, bytes]] = []

    def write(self, data: bytes) -> None:
        with open(self.path, "ab") as file:
            file.write(data)

    def checkpoint(self) -> int:
        with open(self.path, "ab"):
            found = record_open_files([os.getpid()])
        (item,) = [item for item in found if item.path == str(self.path)]
        self.versions.append((item, self.path.read_bytes()))
        return len(self.versions) - 1

    def rights(self) -> Rights:
        return Rights(ME, self.path.parent / "logs" / "heat.1")

    def restart(self, version: int, **changes) -> tuple[str, ...]:
        item = dataclasses.replace(self.versions[version][0], **changes)
        fd = os.open(self.image, os.O_RDONLY)
        try:
            suffix = f"after-{version}"
            return put_back([item], fd, suffix, self.rights(), same_boot=True)
        finally:
            os.close(fd)

    def tear(self, version: int, count: int) -> None:
        """Be killed while *version* is put back, *count* bytes into writing."""
        item, content = self.versions[version]
        with closing(LineBack(item, f"after-{version}", same_boot=True)) as step:
            step.check()
            step.keep()
            fork = step._fork
        with open(self.path, "r+b") as file:
            file.seek(fork)
            file.write(content[fork : fork + count])

    def assert_is(self, version: int) -> None:
        assert self.path.read_bytes() == self.versions[version][1]

    def kept(self) -> list[bytes]:
        return [path.read_bytes() for path in self.path.parent.glob("out.after-*")]


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path)


def test_an_old_version_and_then_a_newer_one_again(log):
    log.write(b"1\n")
    first = log.checkpoint()
    log.write(b"2\n3\n")
    second = log.checkpoint()
    log.write(b"4\n")
    log.restart(first)
    log.assert_is(first)
    assert log.kept() == [b"2\n3\n4\n"]
    log.restart(second)
    log.assert_is(second)
    assert log.kept() == [b"2\n3\n4\n"]  # a kept tail stays
    log.restart(first)
    log.assert_is(first)


def test_bytes_of_another_run_are_not_taken_for_those_of_the_checkpoint(log):
    log.write(b"start\n")
    first = log.checkpoint()
    log.write(b"a run of ours\n")
    second = log.checkpoint()
    log.restart(first)
    log.write(b"another run, longer than the other\n")
    third = log.checkpoint()
    log.write(b"and on\n")
    for version in (second, third, first, third, second):
        log.restart(version)
        log.assert_is(version)
    assert b"another run, longer than the other\nand on\n" in log.kept()


def test_a_tail_that_was_cut_out_of_another(log):
    """Two joints: the file, a part of the newer tail, a part of the older one."""
    for text in (b"a" * 20, b"b" * 30, b"c" * 30):
        log.write(text)
        log.checkpoint()
    log.write(b"d" * 20)
    log.restart(1)
    log.write(b"B" * 40)
    log.restart(0)
    log.write(b"A" * 10)
    log.restart(2)
    log.assert_is(2)


def test_more_than_the_window(log):
    log.write(os.urandom(200_000))
    first = log.checkpoint()
    log.write(os.urandom(300_000))
    second = log.checkpoint()
    log.restart(first)
    log.write(os.urandom(400_000))
    log.restart(second)
    log.assert_is(second)


def test_changed_before_its_end_is_refused_by_name(log):
    log.write(b"1234")
    version = log.checkpoint()
    log.write(b"56")
    with open(log.path, "r+b") as file:
        file.write(b"X")
    with pytest.raises(Forbidden, match="other bytes before byte 4") as caught:
        log.restart(version)
    assert str(log.path) in str(caught.value)
    assert log.path.read_bytes() == b"X23456"
    assert log.kept() == []


def test_rotated_by_copy_and_truncate_is_refused_by_name(log):
    log.write(b"1\n2\n")
    version = log.checkpoint()
    os.truncate(log.path, 0)
    log.write(b"3\n4\n5\n")
    with pytest.raises(Forbidden, match="other bytes before byte 4"):
        log.restart(version)
    assert log.path.read_bytes() == b"3\n4\n5\n"


def test_a_tail_that_was_changed_is_refused(log):
    log.write(b"1\n")
    first = log.checkpoint()
    log.write(b"2\n")
    second = log.checkpoint()
    log.restart(first)
    log.path.with_name("out.after-0").write_bytes(b"X\n")
    with pytest.raises(Forbidden, match="is shorter"):
        log.restart(second)
    log.path.with_name("out.after-0").write_bytes(b"2\n")  # mended: the note is still there
    log.restart(second)
    log.assert_is(second)


def test_what_a_user_puts_there_harms_nothing(log):
    log.write(b"1\n")
    first = log.checkpoint()
    log.write(b"2\n")
    second = log.checkpoint()
    log.restart(first)
    os.mkfifo(log.path.with_name("out.after-3"))
    log.path.with_name("out.after-4").symlink_to("/etc/shadow")
    log.path.with_name("out.after-5").mkdir()
    for number, note in enumerate((b"", b"0 999999999 x", b"2 2 " + b"0" * 32, b"9" * 999), 6):
        path = log.path.with_name(f"out.after-{number}")
        path.write_bytes(b"9\n")
        os.setxattr(path, "user.ckptfs.fork", note)
    log.restart(second)
    log.assert_is(second)


def test_without_extended_attributes(log, monkeypatch):
    def unsupported(*_args):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "setxattr", unsupported)
    monkeypatch.setattr(os, "getxattr", unsupported)
    log.write(b"1\n")
    first = log.checkpoint()
    log.write(b"2\n")
    second = log.checkpoint()
    log.restart(first)
    log.restart(second)
    log.assert_is(second)


def test_a_file_not_written_at_its_end_has_no_mark(tmp_path):
    """A program that writes in the middle changes what is before the end; size is all we know."""
    path = tmp_path / "out"
    with open(path, "w+b") as file:
        file.write(b"1234")
        file.seek(0)
        (item,) = [i for i in record_open_files([os.getpid()]) if i.path == str(path)]
    assert (item.tail_bytes, item.tail_hash) == (0, "")


def test_an_old_record_without_mark_goes_by_size(log):
    log.write(b"1\n")
    version = log.checkpoint()
    log.write(b"2\n")
    log.restart(version, tail_bytes=0, tail_hash="")
    log.assert_is(version)
    log.path.write_bytes(b"1")
    with pytest.raises(Forbidden, match="is shorter"):
        log.restart(version, tail_bytes=0, tail_hash="")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.binary(min_size=1, max_size=40)),
        st.tuples(st.just("checkpoint"), st.none()),
        st.tuples(st.just("restart"), st.integers(0, 20)),
        st.tuples(st.just("tear"), st.tuples(st.integers(0, 20), st.integers(0, 60))),
    ),
    max_size=40,
)


@pytest.mark.slow
@given(STEPS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_every_version_comes_back_whatever_was_done(tmp_path_factory, steps):
    """Also when restarts were killed half-way; and nothing that was ever written is lost."""
    log = Log(tmp_path_factory.mktemp("any"))
    log.checkpoint()
    for word, value in steps:
        if word == "write":
            log.write(value)
        elif word == "checkpoint":
            log.checkpoint()
        elif word == "restart":
            log.restart(value % len(log.versions))
            log.assert_is(value % len(log.versions))
        else:
            version, count = value
            log.tear(version % len(log.versions), count)
            log.restart(version % len(log.versions))
            log.assert_is(version % len(log.versions))
    for version in range(len(log.versions)):
        log.restart(version)
        log.assert_is(version)


# -- a full disk ---------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Take all space but *leave* bytes; return the file to remove."""
    path = disk / "filler"
    there = os.statvfs(disk)
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, there.f_bavail * there.f_bsize - leave)
    return path


def listing(disk: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in disk.iterdir() if p.is_file() and p.name != "filler"}


@pytest.mark.root
def test_no_space_for_the_tail_changes_nothing(small_disk):
    log = Log(small_disk)
    log.write(b"1" * 5000)
    version = log.checkpoint()
    log.write(b"2" * 100_000)
    filler = fill(small_disk, leave=40_960)
    before = listing(small_disk)
    with pytest.raises(CheckpointerFailed, match=r"out .*cannot be kept beside it: No space"):
        log.restart(version)
    assert listing(small_disk) == before
    filler.unlink()
    log.restart(version)
    log.assert_is(version)


@pytest.mark.root
def test_no_space_for_kept_bytes_changes_nothing(small_disk):
    log = Log(small_disk)
    first = log.checkpoint()
    log.write(b"2" * 200_000)
    second = log.checkpoint()
    log.restart(first)
    log.write(b"3\n")
    filler = fill(small_disk, leave=8192)
    before = listing(small_disk)
    with pytest.raises(CheckpointerFailed, match="No space"):
        log.restart(second)
    assert listing(small_disk) == before
    filler.unlink()
    log.restart(second)
    log.assert_is(second)


@pytest.mark.root
@pytest.mark.parametrize("gone", [False, True])
def test_no_space_for_a_copy_changes_nothing(small_disk, tmp_path, gone):
    log = Log(small_disk)
    log.image = tmp_path / "image"
    log.image.mkdir()
    log.write(b"old" * 50_000)
    version = log.checkpoint()
    fd = os.open(log.image, os.O_RDONLY)
    (item,) = save_copies([log.versions[version][0]], fd, log.rights())
    os.close(fd)
    log.path.unlink() if gone else os.truncate(log.path, 10)
    filler = fill(small_disk, leave=8192)
    before = listing(small_disk)
    with pytest.raises(CheckpointerFailed, match="No space"):
        log.restart(version, copy=item.copy)
    assert listing(small_disk) == before
    filler.unlink()
    log.restart(version, copy=item.copy)
    log.assert_is(version)
