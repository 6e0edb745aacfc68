"""The staging area through the kernel, used as a checkpointer uses it."""

import errno
import os

import pytest

pytestmark = pytest.mark.fuse
UNIT = ".staging/heat.42.2/JobUnit_1"


@pytest.fixture
def staged(mounted):
    mounted.out("echo 1 > heat.42/ctl/checkpoint")
    return mounted


def test_it_is_not_listed_and_belongs_to_root(staged):
    assert staged.out("ls -A").split() == ["ctl", "heat.42"]
    assert staged.out("stat -c '%a %u' .staging; ls .staging") == "700 0\nheat.42.2\n"
    assert staged.sh("ls .staging", uid=65534).returncode != 0
    assert staged.sh(f"touch {UNIT}/x", uid=65534).returncode != 0


def test_files_are_written_read_back_renamed_and_removed(staged):
    script = f"""cd {UNIT}; ls -A
        printf abc > a.img; printf de >> a.img; cat a.img; stat -c ' %s' a.img
        mv a.img b.img; ls; mkdir files; cp b.img files/1; ls files; rm b.img; truncate -s 3 files/1
        cat files/1; mkdir files 2>/dev/null || rmdir files 2>/dev/null || rm files/1 && rmdir files
        ls -A"""
    assert staged.out(script) == "abcde 5\nb.img\n1\nabc"


def test_big_requests_arrive_whole_and_commit_makes_them_visible(staged):
    data = os.urandom(5 << 20)
    fd = os.open(staged.path / UNIT / "pages-1.img", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    read_end, write_end = os.pipe()
    sent = 0
    while sent < len(data):  # as CRIU does: through a pipe, by splice
        sent_now = os.write(write_end, data[sent : sent + 65536])
        moved = 0
        while moved < sent_now:
            moved += os.splice(read_end, fd, sent_now - moved)
        sent += sent_now
    os.fsync(fd)
    assert os.fstat(fd).st_size == len(data)
    assert os.pread(fd, 1000, 1 << 20) == data[1 << 20 : (1 << 20) + 1000]
    os.close(fd)
    os.close(read_end)
    os.close(write_end)
    staged.tell("complete", "heat.42")
    assert (staged.path / "heat.42/2/JobUnit_1/pages-1.img").read_bytes() == data
    assert staged.out("ls -A .staging") == ""


@pytest.mark.parametrize("end", ["complete", "fail"])
def test_an_open_file_is_enodev_once_the_version_is_sealed_or_given_up(staged, end):
    fd = os.open(staged.path / UNIT / "x", os.O_RDWR | os.O_CREAT, 0o600)
    os.write(fd, b"early")
    staged.tell(end, "heat.42")
    with pytest.raises(OSError, match="No such device") as info:
        os.write(fd, b"late")
    assert info.value.errno == errno.ENODEV
    os.close(fd)
    expected = "1 2 ctl latest" if end == "complete" else "1 ctl latest"
    assert staged.out("ls heat.42").split() == expected.split()


@pytest.mark.parametrize(
    "script",
    [
        f"ln -s ../1 {UNIT}/parent",
        f"mkdir {UNIT}/other",
        f"touch {UNIT}/files/deep/er",
        "mkdir .staging/heat.42.9",
        "touch .staging/x",
        f"mv {UNIT}/x ctl/spool/",
        "touch .staging/heat.42.2/JobUnit_2/x",
    ],
)
def test_what_is_refused(staged, script):
    staged.out(f"touch {UNIT}/x")
    assert staged.sh(script).returncode != 0
    assert staged.out(f"ls -A {UNIT}") == "x\n"
