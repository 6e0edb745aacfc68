"""The doctor's table against described machines: a directory for /, a function for commands."""

import os
import stat
import subprocess
from dataclasses import replace

import pytest

from ckptfs.doctor.checks import CHECKS, FUSE_DEVICE, Need
from ckptfs.doctor.criu_trial import REMEMBERED, forget_trial, probe_criu
from ckptfs.doctor.gate import examine, require
from ckptfs.doctor.machine import Machine
from ckptfs.doctor.smoke import SmokeResult
from ckptfs.errors import CannotRun

MOUNTINFO = "41 31 0:38 / {} rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
ALL_CAPS = "CapEff:\t000001ffffffffff\n"
NO_SYS_RESOURCE = "CapEff:\t000001fffeffffff\n"


def write(machine, name, text):
    place = machine.path(name)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    return place


@pytest.fixture
def machine(tmp_path):
    """A machine with everything but a FUSE device, whose commands all succeed."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (tmp_path / "run").mkdir()
    for name in ("unshare", "nsenter", "setpriv", "criu"):
        (commands / name).write_text("")
        (commands / name).chmod(0o755)
    machine = Machine(
        root=tmp_path,
        uid=0,
        environ={"PATH": str(commands)},
        release="6.18.0",
        run=lambda argv: "Version: 4.2.1\n" if argv[-1] == "--version" else "",
        smoke=lambda criu: SmokeResult(True),
    )
    write(machine, "/proc/self/mountinfo", MOUNTINFO.format("/sys/fs/cgroup/unified"))
    write(machine, "/proc/self/status", ALL_CAPS)
    write(machine, "/proc/sys/kernel/ns_last_pid", "1\n")
    for name in ("pid", "mnt", "ipc", "uts"):
        write(machine, f"/proc/self/ns/{name}", "")
    return machine


def sentence(machine, name):
    return next(f.sentence for f in examine(machine) if f.name == name)


def probe(name, machine):
    return next(c for c in CHECKS if c.name == name).probe(machine)


def test_names_are_unique():
    assert len({c.name for c in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize("name", ["root", "commands", "namespaces", "ns_last_pid", "sys_resource"])
def test_nothing_is_missing(machine, name):
    assert sentence(machine, name) == ""


def test_who_is_not_root_is_told_to_use_sudo(machine):
    user = replace(machine, uid=1000)
    assert "sudo" in sentence(user, "root")
    assert sentence(user, "criu") == "not tried, because that takes root"


def test_without_a_fuse_device(machine):
    assert "modprobe fuse" in sentence(machine, "fuse_device")


def test_a_plain_file_is_no_fuse_device(machine):
    write(machine, "/dev/fuse", "")
    assert "mknod" in sentence(machine, "fuse_device")


@pytest.fixture
def nodev(machine):
    """A /dev in which devices can be made, and none can be opened."""
    place = machine.path("/dev")
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nodev,size=64k", "none", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.root
@pytest.mark.parametrize(
    ("device", "said"), [(FUSE_DEVICE, "cannot be opened"), (os.makedev(1, 3), "is not the FUSE")]
)
def test_a_device_that_does_not_open_or_is_another_is_no_fuse_device(machine, nodev, device, said):
    os.mknod(nodev / "fuse", stat.S_IFCHR | 0o666, device)
    assert said in sentence(machine, "fuse_device")


def test_missing_commands_are_named(machine):
    machine.path("/bin/nsenter").unlink()
    assert "nsenter" in sentence(machine, "commands")


def test_a_refused_unshare_is_told(machine):
    refusing = replace(machine, run=lambda argv: None)
    assert "seccomp" in sentence(refusing, "namespaces")


def test_an_old_kernel_without_namespaces(machine):
    machine.path("/proc/self/ns/uts").unlink()
    assert "no uts namespaces" in sentence(machine, "namespaces")


def test_no_cgroup_v2(machine):
    write(machine, "/proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n")
    assert "cgroup v2 is not mounted" in sentence(machine, "cgroup")


def test_a_cgroup_that_nobody_can_make(machine):
    assert "writable cgroup v2" in sentence(machine, "cgroup")


def test_cgroups_without_a_freezer(machine):
    machine.path("/sys/fs/cgroup/unified").mkdir(parents=True)
    assert "no cgroup.freeze and no cgroup.kill" in sentence(machine, "cgroup")
    assert list(machine.path("/sys/fs/cgroup/unified").iterdir()) == []


def test_the_mount_point_may_hold_a_space(machine):
    write(machine, "/proc/self/mountinfo", MOUNTINFO.format("/a\\040b"))
    assert machine.cgroup2() == machine.root / "a b"


@pytest.mark.parametrize(("status", "noted"), [(ALL_CAPS, False), (NO_SYS_RESOURCE, True)])
def test_a_missing_capability_is_only_a_note(machine, status, noted):
    write(machine, "/proc/self/status", status)
    assert ("CAP_SYS_RESOURCE" in sentence(machine, "sys_resource")) is noted
    assert next(c for c in CHECKS if c.name == "sys_resource").need is Need.NOTE


class TestCriu:
    def test_a_success_is_remembered_for_this_kernel_and_file(self, machine):
        tried = []

        def smoke(criu):
            tried.append(criu)
            return SmokeResult(True)

        counting = replace(machine, smoke=smoke)
        assert probe_criu(counting) == probe_criu(counting) == ""
        assert len(tried) == 1
        probe_criu(replace(counting, release="7.0.0"))
        assert len(tried) == 2
        os.utime(machine.which("criu"), (1, 1))
        probe_criu(replace(counting, release="7.0.0"))
        assert len(tried) == 3
        forget_trial(counting)
        assert not machine.path(REMEMBERED).exists()

    def test_a_failure_tells_the_reason_and_is_not_remembered(self, machine):
        broken = replace(machine, smoke=lambda criu: SmokeResult(False, "dump fails: no socket"))
        assert "does not work here (dump fails: no socket)" in probe_criu(broken)
        assert not machine.path(REMEMBERED).exists()
        assert probe_criu(machine) == ""

    def test_none(self, machine):
        machine.path("/bin/criu").unlink()
        assert "there is no CRIU" in probe_criu(machine)

    def test_too_old(self, machine):
        assert "too old" in probe_criu(replace(machine, run=lambda argv: "Version: 3.17.1\n"))

    def test_one_that_does_not_start(self, machine):
        assert "not a CRIU that starts" in probe_criu(replace(machine, run=lambda argv: None))

    def test_the_named_one_comes_first(self, machine):
        named = replace(machine, environ={"CKPTFS_CRIU": "/my/criu", "PATH": "/bin"})
        assert named.criu() == "/my/criu"
        write(machine, "/opt/ckptfs/criu/bin/criu", "").chmod(0o755)
        assert machine.criu() == str(machine.path("/opt/ckptfs/criu/bin/criu"))


def test_require_stops_at_the_first_refusal(machine):
    with pytest.raises(CannotRun, match="no /dev/fuse"):
        require(machine=machine)
    with pytest.raises(CannotRun, match="writable cgroup v2"):
        require(Need.CHECKPOINT, machine=machine)


def test_the_real_pyfuse3_and_libraries_are_there(machine):
    assert probe("pyfuse3", machine) == probe("libraries", machine) == ""


def test_what_is_left_out_is_not_tried(machine):
    def smoke(criu):
        raise AssertionError(f"{criu} has been tried")

    names = [f.name for f in examine(replace(machine, smoke=smoke), but=("criu",))]
    assert names == [c.name for c in CHECKS if c.name != "criu"]
