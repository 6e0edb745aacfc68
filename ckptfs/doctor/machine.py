"""What the checks look at: this machine, or a described one in a test.  I/O, reads only.

Every path is resolved below ``root``, every command goes through ``run``, so that a test hands in
a directory and a function instead of a machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .smoke import SmokeResult, try_criu

INSTALLED_CRIU = "/opt/ckptfs/criu/bin/criu"  # where tools/setup puts it
COMMAND_TIMEOUT_S = 10.0


def run_command(argv: list[str]) -> str | None:
    """Run a command without input; return what it printed, or None when it failed."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@dataclass(frozen=True)
class Machine:
    """One machine to be checked; the defaults are the one we run on."""

    root: Path = Path("/")
    uid: int = field(default_factory=os.geteuid)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    release: str = field(default_factory=lambda: os.uname().release)
    run: Callable[[list[str]], str | None] = run_command
    smoke: Callable[[str], SmokeResult] = try_criu

    def path(self, name: str) -> Path:
        """Return the absolute path *name* below the root."""
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str:
        """Return the contents of a small file, '' when it cannot be read."""
        try:
            return self.path(name).read_text(errors="replace")
        except OSError:
            return ""

    def which(self, name: str) -> str | None:
        """Return the path of a command in $PATH."""
        return shutil.which(name, path=self.environ.get("PATH", ""))

    def cgroup2(self) -> Path | None:
        """Return where cgroup v2 is mounted, from /proc/self/mountinfo.

        Not always /sys/fs/cgroup: beside v1 hierarchies it is often /sys/fs/cgroup/unified.
        """
        found = re.search(r"^\S+ \S+ \S+ \S+ (\S+) .*- cgroup2 ", self.text(_MOUNTINFO), re.M)
        return self.path(found[1].replace("\\040", " ")) if found else None

    def has_capability(self, number: int) -> bool:
        """Return whether capability *number* (capabilities(7)) is among our effective ones."""
        found = re.search(r"^CapEff:\s*([0-9a-fA-F]+)", self.text("/proc/self/status"), re.M)
        return bool(found) and bool(int(found[1], 16) >> number & 1)

    def criu(self) -> str | None:
        """Return the CRIU to use: $CKPTFS_CRIU, ours, or the one in $PATH, in this order."""
        named = self.environ.get("CKPTFS_CRIU")
        if named:
            return named
        if os.access(self.path(INSTALLED_CRIU), os.X_OK):
            return str(self.path(INSTALLED_CRIU))
        return self.which("criu")


_MOUNTINFO = "/proc/self/mountinfo"
