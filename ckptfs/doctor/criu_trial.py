"""Whether there is a CRIU and whether it works here; remembers a success until reboot.  I/O.

A trial takes 0.3 s, so its success is kept in /run/ckptfs/criu-works, for exactly this kernel and
this file; tools/setup writes and reads the same line.  Failures are never kept.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from .machine import Machine

REMEMBERED = "/run/ckptfs/criu-works"
CRIU_MIN = (4, 0)
_GET_ONE = "run tools/setup in the checkout of ckptfs: it installs one under /opt/ckptfs/criu"


def probe_criu(machine: Machine) -> str:
    """Return '' when CRIU is there and works (a remembered trial will do), else a sentence."""
    criu = machine.criu()
    if criu is None:
        return f"there is no CRIU: {_GET_ONE}"
    said = machine.run([criu, "--version"])
    version = re.search(r"Version: (\S+)", said or "")
    if version is None:
        return f"{criu} is not a CRIU that starts: {_GET_ONE}, or name another in $CKPTFS_CRIU"
    if tuple(int(n) for n in re.findall(r"\d+", version[1])[:2]) < CRIU_MIN:
        return f"CRIU {version[1]} is too old, 4.0 or newer is needed: {_GET_ONE}"
    key = _key(machine, criu)
    if key and machine.text(REMEMBERED).strip() == key:
        return ""
    result = machine.smoke(criu)
    if not result.works:
        return f"CRIU {version[1]} does not work here ({result.reason}): {_GET_ONE}"
    _remember(machine, key)
    return ""


def forget_trial(machine: Machine) -> None:
    """Make the next probe try CRIU for real."""
    with suppress(OSError):
        machine.path(REMEMBERED).unlink()


def _key(machine: Machine, criu: str) -> str:
    """Return what a successful trial holds for: kernel, path, time of change and size."""
    try:
        found = Path(criu).stat()
    except OSError:
        return ""
    return f"{machine.release} {criu} {int(found.st_mtime)} {found.st_size}"


def _remember(machine: Machine, key: str) -> None:
    place = machine.path(REMEMBERED)
    with suppress(OSError):  # a read-only /run only makes the next probe slower
        place.parent.mkdir(mode=0o700, exist_ok=True)
        place.write_text(key + "\n")
