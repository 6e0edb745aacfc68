"""The few system calls that Python's os module lacks, with errors as OSError."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000

_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_SLAVE = 0x80000
_MS_NOSUID_NODEV_NOEXEC = 0xE
_MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

_SYS = {
    "x86_64": {"setfsuid": 122, "setfsgid": 123, "setgroups": 116},
    "aarch64": {"setfsuid": 151, "setfsgid": 152, "setgroups": 159},
}[os.uname().machine]

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags))


def make_mounts_slave() -> None:
    """Let mounts of the parent namespace arrive here, and none of ours go back."""
    _check(_libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None))


def mount_proc() -> None:
    """Mount the proc of the caller's pid namespace over /proc."""
    _check(_libc.mount(b"proc", b"/proc", b"proc", _MS_NOSUID_NODEV_NOEXEC, None))


def bind_mount(directory: str, path: str) -> None:
    """Have *directory* seen at *path* too, in the caller's mount namespace."""
    _check(_libc.mount(os.fsencode(directory), os.fsencode(path), None, _MS_BIND, None))


def detach_mount(path: str) -> None:
    """Take a mount out of the caller's mount namespace, busy or not."""
    _check(_libc.umount2(os.fsencode(path), _MNT_DETACH))


def become_subreaper() -> None:
    """Have orphaned descendants reparented to the caller; kept across exec, not inherited."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def die_with_parent(number: int) -> None:
    """Have signal *number* sent to the caller when its parent ends, hence also at reparenting."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0))


def forbid_new_privileges() -> None:
    """Make set-uid programs powerless for the caller and all it executes."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def set_thread_fs_ids(uid: int, gid: int, groups: tuple[int, ...]) -> None:
    """Give the calling *thread alone* other credentials for file access (raw system calls).

    glibc's setgroups(3) would change every thread.  Going away from uid 0
    takes the file capabilities away, coming back returns them.
    """
    array = (ctypes.c_uint32 * max(1, len(groups)))(*groups)
    if uid == 0:  # capabilities first, else setgroups is not ours to call
        _libc.syscall(_SYS["setfsuid"], ctypes.c_uint32(uid))
    _check(_libc.syscall(_SYS["setgroups"], len(groups), array))
    _libc.syscall(_SYS["setfsgid"], ctypes.c_uint32(gid))
    _libc.syscall(_SYS["setfsuid"], ctypes.c_uint32(uid))
    # Both return the previous id and never fail loudly; asking with -1 reads without changing.
    now = _libc.syscall(_SYS["setfsuid"], ctypes.c_uint32(0xFFFFFFFF))
    if now != uid:
        raise PermissionError(1, f"the file system uid is {now}, not {uid}")


def rename_argument(old: bytes, new: bytes) -> None:
    """Write *new* over our last argument *old*, for ps(1) to see; nothing when it is too long.

    proc(5): ``arg_start`` and ``arg_end`` are fields 48 and 49 of /proc/self/stat.
    """
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    end = int(fields[49 - 3])
    start = end - len(old) - 1
    if len(new) <= len(old) and ctypes.string_at(start, len(old)) == old:
        ctypes.memmove(start, new.ljust(len(old) + 1, b"\0"), len(old) + 1)
