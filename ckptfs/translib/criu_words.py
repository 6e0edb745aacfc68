"""The words of criu's command line, and what they need to know of this machine and the unit."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from . import criu_log
from .api import UnitHandle

GHOST_LIMIT_BYTES = 1 << 30  # unlinked files up to this size go into the image
DUMP_TIMEOUT_S = (
    120  # CRIU's own limit for collecting the tasks; its default of 10 s is short for many threads
)
CRIU_PLACES = ("/opt/ckptfs/criu/bin/criu",)
_HERE = Path(__file__).parent
_STREAM = re.compile(r"^\s*--stream\b", re.MULTILINE)
_VERSION = re.compile(r"Version: (\d+)\.(\d+)(?:\.(\d+))?")

# (kernel, oldest CRIU that can dump on it): before 4.1 the vdso of 6.13 is not understood, before
# 4.2 any inet socket fails on 6.16 although `criu check` is content.
_NEEDS = (((6, 16), (4, 2)), ((6, 13), (4, 1)), ((0, 0), (3, 17)))


def find_criu() -> str | None:
    """Return the criu to use: $CKPTFS_CRIU, the one ``tools/setup`` installed, or PATH's."""
    given = os.environ.get("CKPTFS_CRIU")
    places = (given,) if given else CRIU_PLACES
    for place in places:
        if os.access(place, os.X_OK):
            return place
    return None if given else shutil.which("criu")


def parse_version(text: str) -> tuple[int, int, int] | None:
    """Return (major, minor, patch) out of what ``criu --version`` prints, or None."""
    match = _VERSION.search(text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def can_stream(text: str) -> bool:
    """Whether what ``criu --help`` prints names the option that sends images through pipes."""
    return bool(_STREAM.search(text))


def needed_version(kernel_release: str) -> tuple[int, int]:
    """Return the oldest CRIU (major, minor) that works on a kernel such as ``6.18.4-amd64``."""
    match = re.match(r"(\d+)\.(\d+)", kernel_release)
    kernel = (int(match[1]), int(match[2])) if match else (0, 0)
    return next(criu for above, criu in _NEEDS if kernel >= above)


def _has_sys_resource() -> bool:
    effective = re.search(
        r"^CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(), re.MULTILINE
    )
    return bool(effective and int(effective[1], 16) >> 24 & 1)


def own_cgroup(unit: UnitHandle) -> Path:
    """Return the directory of our own cgroup v2, where criu goes at pre-resume."""
    path = next(
        line.strip()[3:]
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.startswith("0::")
    )
    for above in unit.cgroup.parents:
        if not (above / "cgroup.procs").exists():
            break
        candidate = above / path.lstrip("/")
        if (candidate / "cgroup.procs").exists() and not (above.parent / "cgroup.procs").exists():
            return candidate
    return unit.cgroup.parent


@dataclass(slots=True)
class Attempt:
    """The files of one CRIU run in the work directory."""

    log: Path
    output: Path

    def failure(self, status: int) -> str:
        """Return the reason of the failure, one sentence."""
        texts = [
            path.read_text(errors="replace") if path.exists() else ""
            for path in (self.log, self.output)
        ]
        return criu_log.reason(texts[0], texts[1], status)


def dump_options(unit: UnitHandle, *, streams: bool) -> tuple[str, ...]:
    """Return the words behind ``criu dump``; *streams*: into pipes, one for each image."""
    return (
        *("-t", str(unit.root_pid), "--leave-running"),
        *("--freeze-cgroup", str(unit.cgroup), "--timeout", str(DUMP_TIMEOUT_S)),
        *(("--stream",) if streams else ()),
    )


def restore_options(*, lazy: bool) -> tuple[str, ...]:
    """Return the words behind ``criu restore``."""
    return ("-d", "--action-script", str(_HERE / "hold.sh"), *(("--lazy-pages",) if lazy else ()))


def as_owner(unit: UnitHandle) -> tuple[str, ...]:
    """Return the words in front of ``criu dump`` on a machine without CAP_SYS_RESOURCE.

    prlimit(2) on another uid's task needs that capability, unless the caller's
    *real* uid and gid are the task's.
    """
    if unit.uid == 0 or _has_sys_resource():
        return ()
    return ("setpriv", "--ruid", str(unit.uid), "--rgid", str(unit.gid), "--keep-groups")


def executable(binary: str) -> tuple[str, ...]:
    """Return how to execute criu, which may be a wrapper script around its own loader.

    Between ``setpriv`` and criu, dash would put the effective uid back to the
    real one, unless told ``-p``.
    """
    with open(binary, "rb") as file:
        return ("/bin/sh", "-p", binary) if file.read(9) == b"#!/bin/sh" else (binary,)


def inside_cgroup(unit: UnitHandle) -> tuple[str, ...]:
    """Return the words in front of ``criu restore``."""
    return ("/bin/sh", str(_HERE / "enter_cgroup.sh"), str(unit.cgroup))
