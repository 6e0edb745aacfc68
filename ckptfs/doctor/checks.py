"""The table of what ckptfs needs of a machine.  Reads only, but for two rows that try things.

A row is a name, what it is needed for, and a probe.  A probe returns '' when all is well, else
one sentence that says what is missing and how to get it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata

from .criu_trial import probe_criu
from .machine import Machine

PYFUSE3_MIN = (3, 5)  # Operations.poll came with 3.5.0
LIBRARIES = ("blake3", "cryptography", "lxml", "numpy", "trio", "xattr", "xxhash")
ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
COMMANDS = ("unshare", "nsenter", "setpriv")
NAMESPACES = ("pid", "mnt", "ipc", "uts")
CAP_SYS_RESOURCE = 24
FUSE_DEVICE = os.makedev(10, 229)  # Documentation/admin-guide/devices.txt of Linux
_SETUP = "run tools/setup in the checkout of ckptfs"


class Need(StrEnum):
    """What a row is needed for."""

    MOUNT = "mount"
    CHECKPOINT = "checkpoint"
    NOTE = "note"  # works without, less well


@dataclass(frozen=True)
class Check:
    """One row: *probe* returns '' or the sentence that says what to do."""

    name: str
    need: Need
    probe: Callable[[Machine], str]
    as_root: bool = False  # tells nothing when tried by another user


def _root(machine: Machine) -> str:
    if machine.uid == 0:
        return ""
    return "ckptfs mounts, makes namespaces and dumps processes, which takes root: use sudo"


def _fuse_device(machine: Machine) -> str:
    device = machine.path("/dev/fuse")
    in_container = "start the container with `--device /dev/fuse --cap-add SYS_ADMIN`"
    try:
        found = device.stat()
    except OSError:
        return f"there is no /dev/fuse: run `modprobe fuse`, or {in_container}"
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != FUSE_DEVICE:
        return (
            "/dev/fuse is not the FUSE device: remove it, then run "
            "`mknod -m 666 /dev/fuse c 10 229`"
        )
    if machine.uid != 0:
        return ""  # only root opens it for us, and that root is needed is said above
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))  # opening alone changes nothing
    except OSError as e:
        return f"/dev/fuse cannot be opened ({e.strerror}): run `modprobe fuse`, or {in_container}"
    return ""


def _pyfuse3(machine: Machine) -> str:
    del machine
    try:
        version = metadata.version("pyfuse3")
    except metadata.PackageNotFoundError:
        return f"the Python package pyfuse3 is missing: {_SETUP}"
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if numbers >= PYFUSE3_MIN:
        return ""
    return f"pyfuse3 {version} cannot poll, 3.5 or newer is needed: {_SETUP}"


def _libraries(machine: Machine) -> str:
    del machine
    missing = [name for name in (*LIBRARIES, ZSTD) if not _is_there(name)]
    return f"these Python packages are missing: {', '.join(missing)}; {_SETUP}" if missing else ""


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # what it lies in is missing
        return False


def _commands(machine: Machine) -> str:
    missing = [name for name in COMMANDS if machine.which(name) is None]
    if not missing:
        return ""
    return f"these commands are missing: {', '.join(missing)}; run `apt-get install util-linux`"


def _cgroup(machine: Machine) -> str:
    top = machine.cgroup2()
    if top is None:
        return (
            "cgroup v2 is not mounted: run `mount -t cgroup2 none /sys/fs/cgroup`, or boot with "
            "systemd.unified_cgroup_hierarchy=1"
        )
    trial = top / f"ckptfs-doctor-{os.getpid()}"
    try:
        trial.mkdir()
    except OSError as e:
        return (
            f"no cgroup can be made below {top} ({e.strerror}): start the container with a "
            "writable cgroup v2, for instance `--cgroupns private --privileged`"
        )
    try:
        missing = [n for n in ("cgroup.freeze", "cgroup.kill") if not (trial / n).exists()]
    finally:
        trial.rmdir()
    if not missing:
        return ""
    return f"cgroups here have no {' and no '.join(missing)}: Linux 5.14 or newer is needed"


def _namespaces(machine: Machine) -> str:
    missing = [n for n in NAMESPACES if not machine.path(f"/proc/self/ns/{n}").exists()]
    if missing:
        return f"this kernel has no {', '.join(missing)} namespaces: boot a distribution's kernel"
    argv = ["unshare", "--pid", "--fork", "--mount", "--ipc", "--uts", "--mount-proc", "true"]
    if machine.run(argv) is not None:
        return ""
    return (
        "fresh PID, mount, IPC and UTS namespaces cannot be made here: in a container, start it "
        "with `--cap-add SYS_ADMIN` and without a seccomp filter that forbids unshare(2)"
    )


def _ns_last_pid(machine: Machine) -> str:
    if machine.path("/proc/sys/kernel/ns_last_pid").exists():
        return ""
    return (
        "there is no /proc/sys/kernel/ns_last_pid: the kernel needs CONFIG_CHECKPOINT_RESTORE, "
        "which the kernels of Debian and Ubuntu have"
    )


def _sys_resource(machine: Machine) -> str:
    if machine.has_capability(CAP_SYS_RESOURCE):
        return ""
    return (
        "root lacks CAP_SYS_RESOURCE here: jobs whose limits are above ours cannot be restored "
        "with them; in a container add `--cap-add SYS_RESOURCE`"
    )


CHECKS = (
    Check("root", Need.MOUNT, _root),
    Check("fuse_device", Need.MOUNT, _fuse_device),
    Check("pyfuse3", Need.MOUNT, _pyfuse3),
    Check("libraries", Need.MOUNT, _libraries),
    Check("commands", Need.CHECKPOINT, _commands),
    Check("cgroup", Need.CHECKPOINT, _cgroup, as_root=True),
    Check("namespaces", Need.CHECKPOINT, _namespaces, as_root=True),
    Check("ns_last_pid", Need.CHECKPOINT, _ns_last_pid),
    Check("criu", Need.CHECKPOINT, probe_criu, as_root=True),
    Check("sys_resource", Need.NOTE, _sys_resource),
)
