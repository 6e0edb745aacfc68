"""The files of a job: recorded, cut, put back, refused; nothing is ever destroyed."""

from __future__ import annotations

import dataclasses
import mmap
import os
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfs.errors import Corrupt, Forbidden, NotAuthenticated, NotFound
from ckptfs.model import OpenFile, Owner
from ckptfs.node.credentials import Rights, as_owner
from ckptfs.node.files import record_open_files, save_copies
from ckptfs.node.putting_back import put_back

ME = Owner(os.getuid(), os.getgid(), (), "me")
NOBODY = Owner(65534, 65534, (), "nobody")


@contextmanager
def opened(path: Path):
    path.mkdir(exist_ok=True)
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def rights(tmp_path, owner=ME):
    return Rights(owner, tmp_path / "logs" / "heat.1")


def recorded(path: Path) -> OpenFile:
    """Return the record of a file as it is now."""
    there = path.stat()
    return OpenFile(
        str(path),
        there.st_dev,
        there.st_ino,
        there.st_size,
        there.st_size,
        os.O_WRONLY | os.O_APPEND,
        there.st_mode & 0o7777,
        there.st_uid,
        there.st_gid,
        1000,
        3,
    )


def restart(tmp_path, *items, suffix="after-7", same_boot=True, owner=ME, image=None):
    with opened(image or tmp_path / "image") as fd:
        return put_back(items, fd, suffix, rights(tmp_path, owner), same_boot=same_boot)


def test_records_what_is_open_for_writing(tmp_path):
    shared, private = tmp_path / "shared", tmp_path / "private"
    for path in (shared, private):
        path.write_bytes(b"x" * 4096)
    with (
        open(tmp_path / "out", "ab") as out,
        open(tmp_path / "both", "w+b") as both,
        open(shared, "rb"),
        open(tmp_path / "gone", "wb") as gone,
        open("/dev/null", "wb"),
        open(shared, "r+b") as base,
        open(private, "rb") as other,
    ):
        out.write(b"12345")
        out.flush()
        both.write(b"abcdef")
        both.seek(2)
        os.unlink(tmp_path / "gone")
        assert gone
        with (
            mmap.mmap(base.fileno(), 4096),
            mmap.mmap(other.fileno(), 4096, access=mmap.ACCESS_COPY),
        ):
            base.close()
            found = [
                item
                for item in record_open_files([os.getpid()])
                if item.path.startswith(str(tmp_path))
            ]
    by_name = {(Path(item.path).name, item.fd == -1): item for item in found}
    # mmap keeps a descriptor of its own, so the mapped file comes twice.
    assert set(by_name) == {("out", False), ("both", False), ("shared", True), ("shared", False)}
    assert by_name["out", False].size_bytes == 5
    assert by_name["out", False].flags & os.O_APPEND
    assert by_name["both", False].position == 2
    assert by_name["shared", True].inode == shared.stat().st_ino


def test_grown_file_is_cut_and_its_tail_kept(tmp_path):
    path = tmp_path / "out"
    path.write_text("1\n2\n")
    item = recorded(path)
    with open(path, "a") as file:
        file.write("3\n4\n")
    assert restart(tmp_path, item) == (f"{path}.after-7",)
    assert path.read_text() == "1\n2\n"
    assert path.with_name("out.after-7").read_text() == "3\n4\n"
    assert path.stat().st_ino == item.inode
    assert restart(tmp_path, item) == ()  # a second try finds nothing to do


def test_tails_are_never_overwritten(tmp_path):
    path = tmp_path / "out"
    path.write_text("1\n")
    item = recorded(path)
    for tail in ("2\n", "3\n", "4\n"):
        with open(path, "a") as file:
            file.write(tail)
        restart(tmp_path, item)
    kept = {p.name: p.read_text() for p in tmp_path.glob("out.*")}
    assert kept == {"out.after-7": "2\n", "out.after-7.2": "3\n", "out.after-7.3": "4\n"}


@given(st.binary(max_size=300), st.binary(max_size=300))
@pytest.mark.slow
def test_nothing_is_lost(tmp_path_factory, head, tail):
    tmp_path = tmp_path_factory.mktemp("any")
    path = tmp_path / "out"
    path.write_bytes(head)
    item = recorded(path)
    path.write_bytes(head + tail)
    kept = restart(tmp_path, item)
    assert path.read_bytes() + b"".join(Path(name).read_bytes() for name in kept) == head + tail
    assert path.read_bytes() == head


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda p: p.unlink(), NotFound, "is gone"),
        (lambda p: (p.rename(p.with_name("x")), p.write_text("12345")), Forbidden, "was replaced"),
        (lambda p: p.write_text("1"), Forbidden, "is shorter than at the checkpoint"),
        (lambda p: (p.unlink(), p.symlink_to("/etc/hostname")), Forbidden, "cannot be used"),
        (lambda p: (p.unlink(), p.mkdir()), Forbidden, "cannot be used"),
        (lambda p: (p.unlink(), os.mkfifo(p)), Forbidden, "was replaced"),
    ],
)
def test_refused_before_anything_is_touched(tmp_path, change, error, words):
    good, bad = tmp_path / "a-good", tmp_path / "bad"
    for path in (good, bad):
        path.write_text("123")
    items = [recorded(good), recorded(bad)]
    good.write_text("12345")
    change(bad)
    with pytest.raises(error, match=words) as caught:
        restart(tmp_path, *items)
    assert str(bad) in str(caught.value)
    assert good.read_text() == "12345"
    assert not list(tmp_path.glob("a-good.*"))


def test_device_numbers_count_within_one_boot_only(tmp_path):
    path = tmp_path / "out"
    path.write_text("123")
    item = dataclasses.replace(recorded(path), device=1)
    with pytest.raises(Forbidden):
        restart(tmp_path, item)
    assert restart(tmp_path, item, same_boot=False) == ()


# -- the owner's rights --------------------------------------------------------------------------


@pytest.mark.root
def test_owner_rights_hold_for_one_thread(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    seen, changed, read = {}, threading.Event(), threading.Event()

    def other():
        changed.wait()
        seen["other"] = secret.read_text()
        read.set()

    thread = threading.Thread(target=other)
    thread.start()
    with as_owner(NOBODY):
        changed.set()
        assert read.wait(10)
        with pytest.raises(PermissionError):
            secret.read_text()
    thread.join()
    assert seen["other"] == secret.read_text() == "x"


@pytest.mark.root
def test_root_cuts_nothing_for_a_symlinked_directory(tmp_path):
    """The owner puts a symlink where the directory was: root's file is not touched."""
    theirs, roots = tmp_path / "theirs", tmp_path / "roots"
    for directory in (theirs, roots):
        directory.mkdir()
        (directory / "out").write_text("123")
    os.chown(theirs, 65534, 65534)
    os.chown(theirs / "out", 65534, 65534)
    os.chmod(tmp_path, 0o755)
    os.chmod(roots / "out", 0o644)
    item = dataclasses.replace(
        recorded(roots / "out"), path=str(theirs / "out")
    )  # even with a record that says so
    (roots / "out").write_text("12345")
    theirs.rename(tmp_path / "moved")
    theirs.symlink_to(roots)
    with pytest.raises(NotAuthenticated, match="may not write"):
        restart(tmp_path, item, owner=NOBODY)
    assert (roots / "out").read_text() == "12345"


@pytest.mark.root
def test_log_directory_is_ours_and_the_tail_the_owners(tmp_path):
    logs = tmp_path / "logs" / "heat.1"
    logs.mkdir(mode=0o700, parents=True)
    path = logs / "out"
    path.write_text("123")
    os.chown(path, 65534, 65534)
    item = recorded(path)
    with open(path, "a") as file:
        file.write("45")
    (name,) = restart(tmp_path, item, owner=NOBODY)
    assert Path(name).read_text() == "45"
    assert Path(name).stat().st_uid == 65534


# -- rollback=copy -------------------------------------------------------------------------------


def save(tmp_path, *paths):
    with opened(tmp_path / "image") as fd:
        return save_copies([recorded(path) for path in paths], fd, rights(tmp_path))


def test_content_goes_back_in_place(tmp_path):
    path = tmp_path / "db"
    path.write_text("old content")
    (item,) = save(tmp_path, path)
    assert item.copy == "1"
    inode = path.stat().st_ino
    path.write_text("new and longer content")
    (tmp_path / "db-journal").write_text("hot")
    (tmp_path / "db2").write_text("somebody else's")
    kept = restart(tmp_path, item)
    assert path.read_text() == "old content"
    assert path.stat().st_ino == inode
    assert sorted(kept) == [f"{path}-journal.after-7", f"{path}.after-7"]
    assert Path(f"{path}.after-7").read_text() == "new and longer content"
    assert Path(f"{path}-journal.after-7").read_text() == "hot"
    assert not (tmp_path / "db-journal").exists()
    assert (tmp_path / "db2").exists()


def test_sibling_of_the_checkpoint_stays(tmp_path):
    path = tmp_path / "db"
    path.write_text("1")
    (tmp_path / "db-wal").write_text("w")
    (item,) = save(tmp_path, path)
    restart(tmp_path, item)
    assert (tmp_path / "db-wal").read_text() == "w"


def test_file_that_is_gone_is_made_again(tmp_path):
    path = tmp_path / "db"
    path.write_text("old")
    path.chmod(0o640)
    (item,) = save(tmp_path, path)
    path.unlink()
    assert restart(tmp_path, item) == ()
    assert path.read_text() == "old"
    assert path.stat().st_mode & 0o777 == 0o640


def test_damaged_copies_touch_nothing(tmp_path):
    path = tmp_path / "db"
    path.write_text("old")
    (item,) = save(tmp_path, path)
    path.write_text("new!")
    for bad in (
        dataclasses.replace(item, copy="../../etc/passwd"),
        dataclasses.replace(item, copy="99"),
        dataclasses.replace(item, size_bytes=1),
    ):
        with pytest.raises(Corrupt):
            restart(tmp_path, bad)
    (tmp_path / "image/files/siblings.json").write_text("{")
    with pytest.raises(Corrupt):
        restart(tmp_path, item)
    assert path.read_text() == "new!"


def test_replaced_by_a_symlink_is_refused(tmp_path):
    path, target = tmp_path / "db", tmp_path / "target"
    path.write_text("old")
    target.write_text("precious")
    (item,) = save(tmp_path, path)
    path.unlink()
    path.symlink_to(target)
    with pytest.raises(Forbidden):
        restart(tmp_path, item)
    assert target.read_text() == "precious"


def test_large_files_are_cut_not_copied(tmp_path, monkeypatch):
    monkeypatch.setattr("ckptfs.node.rollback.COPY_MAX", 4)
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_text("1234")
    large.write_text("12345")
    copies = {Path(item.path).name: item.copy for item in save(tmp_path, small, large)}
    assert copies == {"small": "1", "large": ""}
