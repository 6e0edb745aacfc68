"""Sealed versions through the kernel: reading, removing, and not changing."""

import errno
import os
import subprocess

import pytest

from .conftest import start, stop

pytestmark = pytest.mark.fuse
VERSION = "heat.42/1"


def test_what_is_read_is_what_was_sealed(shared):
    assert shared.out(f"cd {VERSION}; sha256sum -c --quiet SHA256SUMS; cat job.cpx") == "<job/>\n"
    assert shared.out(f"cat {VERSION}/JobUnit_1/files/1") == "step 1\n"
    digests = shared.out(f"cd {VERSION}/JobUnit_1; cat pages-1.img pages-1.img | wc -c")
    assert digests == f"{2 * 3 * 4096 * 256}\n"


def test_modes_owner_and_time(shared):
    script = f"stat -c '%a %F %u' {VERSION} {VERSION}/JobUnit_1 {VERSION}/JobUnit_1/pages-1.img"
    assert shared.out(script) == "700 directory 0\n700 directory 0\n400 regular file 0\n"
    assert shared.out(f"stat -c %Y {VERSION}") == "1790000000\n"


def test_sizes_are_logical_and_du_is_what_only_this_version_holds(shared):
    files = 3 * 4096 * 256 + len("<job/>\n<unit/>\nstep 1\n")
    sums = int(shared.out(f"stat -c %s {VERSION}/SHA256SUMS"))
    assert shared.out(f"du -sb {VERSION}").split()[0] == str(files + sums)
    assert shared.out(f"du -s -B512 {VERSION}").split()[0] == str(files // 2 // 512)


def test_df_tells_what_is_available(shared):
    line = shared.out("df -B1 --output=size,avail .").splitlines()[1].split()
    stored = (3 * 4096 * 256 + 22) // 2
    assert line == [str(((40 << 30) + stored) // 4096 * 4096), str(39 << 30)]


def test_xattrs(shared):
    text = shared.out(f"getfattr -d {VERSION}/JobUnit_1/pages-1.img")
    names = [line.partition("=")[0].removeprefix("user.ckptfs.") for line in text.splitlines()[1:]]
    assert sorted(filter(None, names)) == [
        "blake3",
        "charged_bytes",
        "class",
        "initiator",
        "level",
        "owner",
        "purpose",
        "replicas",
        "sha256",
        "unique_bytes",
        "verified_at",
    ]
    sums = shared.out(f"grep pages {VERSION}/SHA256SUMS").split()[0]
    assert os.getxattr(shared.path / VERSION / "JobUnit_1/pages-1.img", "user.ckptfs.sha256") == (
        sums.encode()
    )
    version = shared.path / VERSION
    assert os.getxattr(version, "user.ckptfs.owner") == b"root"
    unique = int(os.getxattr(version, "user.ckptfs.unique_bytes"))
    assert unique == (3 * 4096 * 256 + 22) // 2
    with pytest.raises(OSError, match="No data"):
        os.getxattr(version, "user.ckptfs.nothing")
    with pytest.raises(OSError, match="not permitted"):
        os.setxattr(version, "user.ckptfs.owner", b"me")


@pytest.mark.parametrize(
    "script",
    [
        "mv heat.42/1 heat.42/9",
        "mv heat.42/1/job.cpx heat.42/1/other",
        "mv heat.42/1/job.cpx ctl/spool/",
        "cp /etc/hostname heat.42/1/",
        "cp /etc/hostname heat.42/1/JobUnit_1/",
        "chmod 777 heat.42/1",
        "chmod 777 heat.42/1/job.cpx",
        "chown 1:1 heat.42/1",
        "truncate -s 0 heat.42/1/job.cpx",
        "echo x >> heat.42/1/job.cpx",
        "mkdir heat.42/1/dir",
        "mkdir heat.42/1/JobUnit_1/files/dir",
        "touch heat.42/1/job.cpx",
        "ln heat.42/1/job.cpx heat.42/1/again",
        "ln -s x heat.42/1/again",
        "mkfifo heat.42/1/fifo",
        "rm heat.42/latest && false",
        "mkdir heat.42/77",
        "touch heat.42/77",
    ],
)
def test_a_version_cannot_be_changed(shared, script):
    before = shared.out("find heat.42/1 -type f -path '*Job*' | sort | xargs sha256sum")
    done = shared.sh(script)
    assert done.returncode != 0
    assert "not permitted" in done.stderr or "cross-device" in done.stderr or "busy" in done.stderr
    assert shared.out("find heat.42/1 -type f -path '*Job*' | sort | xargs sha256sum") == before


@pytest.mark.parametrize("command", ["rmdir", "rm -r", "rm -rf"])
def test_a_version_can_be_removed(mounted, command):
    mounted.tell("version", "heat.42")
    mounted.out(f"ls -lR heat.42 > /dev/null; cat {VERSION}/job.cpx; {command} {VERSION}")
    assert mounted.out("ls heat.42").split() == ["2", "ctl", "latest"]
    assert mounted.sh(f"ls {VERSION}").returncode != 0
    mounted.out("cd heat.42/2; sha256sum -c --quiet SHA256SUMS")


def test_python_removes_a_version(mounted):
    script = "import shutil, sys; shutil.rmtree(sys.argv[1])"
    mounted.out(f"/usr/bin/python3 -c '{script}' {VERSION}")
    assert mounted.out("ls heat.42").split() == ["ctl"]


def test_a_file_removed_by_mistake_is_there_again(shared):
    shared.out(f"ls -R {VERSION}; rm -f {VERSION}/JobUnit_1/pages-1.img {VERSION}/job.cpx")
    shared.out(f"cd {VERSION}; sha256sum -c --quiet SHA256SUMS")
    assert "not empty" in shared.sh(f"rmdir {VERSION}/JobUnit_1").stderr
    assert shared.out(f"ls {VERSION}").split() == ["JobUnit_1", "SHA256SUMS", "ctl", "job.cpx"]


@pytest.mark.parametrize("command", ["rmdir", "rm -r", "rm -rf"])
def test_a_pinned_version_stays_whole(mounted, command):
    mounted.out(f"echo 1 > {VERSION}/ctl/pin")
    done = mounted.sh(f"{command} {VERSION}")
    assert done.returncode != 0
    assert "busy" in done.stderr
    mounted.out(f"cd {VERSION}; sha256sum -c --quiet SHA256SUMS")
    mounted.out(f"echo 0 > {VERSION}/ctl/pin; {command} {VERSION}")


def test_an_ended_job_can_be_removed_whole(mounted):
    assert "busy" in mounted.sh("rmdir heat.42").stderr
    mounted.tell("finish", "heat.42")
    assert "not empty" in mounted.sh("rmdir heat.42").stderr
    mounted.out("rm -r heat.42")
    assert mounted.out("ls").split() == ["ctl"]


def test_a_version_that_the_service_removes_goes_from_the_kernel_too(mounted):
    mounted.out(f"ls -lR heat.42; cat {VERSION}/job.cpx")
    mounted.tell("expire", "heat.42", "1")
    for _ in range(100):  # the kernel is told in a thread of its own
        if mounted.sh(f"stat {VERSION}").returncode != 0:
            break
    assert mounted.out("ls heat.42").split() == ["ctl"]
    assert mounted.sh(f"cat {VERSION}/job.cpx").returncode != 0


def test_damage_is_an_eio_for_that_block_alone(mounted):
    mounted.tell("corrupt", "heat.42", "1", "pages-1.img", "2")
    fd = os.open(mounted.path / VERSION / "JobUnit_1/pages-1.img", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead into the bad block
    assert os.pread(fd, 4096, 0) == bytes(range(256)) * 16
    assert mounted.out(f"cat {VERSION}/ctl/state") == "restartable\n"
    with pytest.raises(OSError, match="Input/output") as info:
        os.pread(fd, 4096, 2 << 20)
    assert info.value.errno == errno.EIO
    os.close(fd)
    assert mounted.out(f"cat {VERSION}/ctl/state") == "damaged (JobUnit_1/pages-1.img, block 2)\n"
    assert mounted.out("ls heat.42").split() == ["1", "ctl"]  # nothing is the latest any more


def test_another_user_gets_nowhere(shared):
    other = 65534
    assert shared.sh("ls", uid=other).stdout.split() == ["ctl", "heat.42"]
    for script in (
        "ls heat.42",
        "cat heat.42/ctl/state",
        "echo 1 > heat.42/ctl/checkpoint",
        "echo 1 > heat.42/ctl/kill",
        "echo 1 > heat.42/1/ctl/restart",
        "cat heat.42/1/JobUnit_1/pages-1.img",
        "rmdir heat.42/1",
        "rmdir heat.42",
        "mv heat.42 ctl/spool/x",
        "cat ctl/degraded",
        "echo x > ctl/version",
        "ls .staging",
        "getfattr -d heat.42/1 && false",
    ):
        done = shared.sh(script, uid=other)
        assert done.returncode != 0, script
    assert shared.out("cat heat.42/ctl/state") == "running\n"
    assert shared.out("cat heat.42/ctl/error") == ""


def test_another_users_spool_file_is_his(mounted):
    mounted.out("printf '<JobDefinition/>' > ctl/spool/mine")
    for script in (
        "rm -f ctl/spool/mine",
        "mv ctl/spool/mine ctl/spool/x",
        "echo > ctl/spool/mine",
    ):
        assert mounted.sh(script, uid=65534).returncode != 0
    done = mounted.sh("echo mine > ctl/submit", uid=65534)
    assert "not permitted" in done.stderr
    theirs = mounted.sh(
        "printf '<JobDefinition/>' > ctl/spool/y && echo y > ctl/submit && cat */ctl/state",
        uid=65534,
    )
    assert theirs.stdout == "running\n", theirs.stderr


def test_hidden_jobs_are_not_listed_but_keep_their_names(tmp_path):
    (tmp_path / "mnt").mkdir()
    for parent in (tmp_path / "mnt", tmp_path, tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    server = start(tmp_path / "mnt", tmp_path / "log", "hide_jobs")
    try:
        server.tell("job", "heat")
        server.tell("job", "mine", "65534")
        assert server.out("ls").split() == ["ctl", "heat.42", "mine.43"]
        assert server.sh("ls", uid=65534).stdout.split() == ["ctl", "mine.43"]
        assert "Permission denied" in server.sh("ls heat.42", uid=65534).stderr
        assert server.out("ls heat.42").split() == ["ctl"]  # no negative entry was left
    finally:
        stop(server)


def test_inode_numbers_survive_a_remount(tmp_path):
    (tmp_path / "mnt").mkdir()
    numbers = []
    for _ in range(2):
        server = start(tmp_path / "mnt", tmp_path / "log")
        try:
            server.tell("job", "heat")
            server.tell("version", "heat.42")
            numbers.append(server.out("find . -printf '%i %p\n' | sort"))
        finally:
            stop(server)
    assert numbers[0] == numbers[1]
    assert len({line.split()[0] for line in numbers[0].splitlines()}) == len(
        numbers[0].splitlines()
    )


def test_a_dead_mount_is_taken_away_first(tmp_path):
    (tmp_path / "mnt").mkdir()
    server = start(tmp_path / "mnt", tmp_path / "log")
    server.process.kill()
    server.process.wait()
    server.process.stdin.close()
    server.process.stdout.close()
    assert subprocess.run(["ls", tmp_path / "mnt"], capture_output=True, check=False).returncode
    again = start(tmp_path / "mnt", tmp_path / "log")
    try:
        assert again.out("ls") == "ctl\n"
    finally:
        stop(again)


def test_unmounting_by_hand_ends_the_server(mounted):
    subprocess.run(["umount", str(mounted.path)], check=True)
    assert mounted.process.wait(10) == 0
