"""Finding a mount, and turning its errnos into sentences."""

from __future__ import annotations

import os

import pytest

from ckptfs.cli.client import ERRORS, KernelFiles, Mount, open_mount
from ckptfs.cli.mounts import choose_mount, parse_mountinfo
from ckptfs.errors import (
    Busy,
    CannotRun,
    CkptfsError,
    Corrupt,
    InvalidInput,
    NotAuthenticated,
    NotAuthorised,
    NotFound,
    OutOfRange,
    StoreFull,
)

MOUNTINFO = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
90 22 0:50 / /ckpt rw,nosuid shared:40 - fuse.ckptfs ckptfs rw,user_id=0
91 22 0:51 / /mnt/two\\040words rw - fuse.ckptfs ckptfs rw
92 22 0:52 / /mnt/other rw - fuse.sshfs host: rw
"""


def test_mountinfo_is_read_with_its_escapes():
    assert parse_mountinfo(MOUNTINFO) == ["/ckpt", "/mnt/two words"]


@pytest.mark.parametrize(
    ("wanted", "environment", "mounted", "chosen"),
    [
        ("/a", {"CKPTFS_MOUNT": "/b"}, ["/c"], "/a"),
        ("", {"CKPTFS_MOUNT": "/b"}, ["/c"], "/b"),
        ("", {}, ["/c"], "/c"),
        ("", {}, ["/c", "/c"], "/c"),
    ],
)
def test_the_option_comes_before_the_variable_before_the_only_mount(
    wanted, environment, mounted, chosen
):
    assert choose_mount(wanted, environment, mounted) == chosen


def test_no_mount_and_several_mounts_are_told_apart():
    with pytest.raises(CannotRun, match="ckptfs mount"):
        choose_mount("", {}, [])
    with pytest.raises(InvalidInput, match="/a, /b"):
        choose_mount("", {}, ["/a", "/b"])


def test_a_directory_that_is_no_mount_is_refused(tmp_path):
    with pytest.raises(CannotRun, match="is not a ckptfs mount"):
        open_mount(str(tmp_path))


@pytest.mark.parametrize(
    "cls", [Busy, InvalidInput, NotFound, OutOfRange, StoreFull, NotAuthorised, Corrupt]
)
def test_every_errno_leads_back_to_the_class_that_users_meet(cls):
    assert ERRORS[cls.errno] is cls


def test_what_is_written_and_answered_goes_over_one_descriptor(tmp_path):
    path = tmp_path / "checkpoint"
    path.write_text("")
    assert KernelFiles().write(path, "7") == "7"  # a plain file answers what was written
    assert path.read_text() == "7"


def test_errors_of_the_kernel_become_sentences(tmp_path):
    with pytest.raises(NotFound, match="no such file"):
        KernelFiles().read(tmp_path / "absent")
    with pytest.raises(CkptfsError):
        KernelFiles().write(tmp_path, "1")


def test_a_watch_wakes_up_when_its_time_is_over_and_reads_anew(tmp_path):
    path = tmp_path / "state"
    path.write_text("running\n")
    for watch in KernelFiles().watch(path):
        assert watch.read() == "running\n"
        path.write_text("done\n")
        watch.wait(0.001)
        assert watch.read() == "done\n"


def test_a_long_file_is_read_to_its_end(tmp_path):
    # a pipe gives short reads; a FIFO cannot be pread, so a large file must do
    path = tmp_path / "jobinfo.xml"
    path.write_text("x" * (3 << 20))
    assert len(KernelFiles().read(path)) == 3 << 20


def test_descriptors_are_closed_also_after_an_error(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(CkptfsError):
            KernelFiles().read(tmp_path / "absent")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("place", "sentence", "said"),
    [
        ("ctl/gc", "{path}: permission denied", "use sudo"),
        ("heat.1/ctl/kill", "{path}: permission denied", "heat.1 is not yours"),
        ("ctl/submit", "the owner may not run /etc/passwd", "may not run /etc/passwd"),
        ("heat.1/ctl/restart", "the owner may not write /out", "may not write /out"),
    ],
)
def test_who_is_kept_out_is_told_by_whom(tmp_path, place, sentence, said):
    class Locked(KernelFiles):
        def write(self, path, text):
            raise NotAuthenticated(sentence.format(path=path))

    with pytest.raises(NotAuthenticated, match=said):
        Mount(tmp_path, Locked()).write(place, "1")
