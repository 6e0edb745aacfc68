"""A directory of one run of the bench, taken away however the run ends.

Ctrl-C, SIGTERM and a terminal that is closed end the run once; what comes while it cleans up does
not count.  What a run that was killed has left is taken away by the next.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from types import FrameType

from . import disk

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PREFIX = "ckptfs-bench-"
GONE_S = 30.0  # a service that is told to end
_NAME = re.compile(rf"{PREFIX}(\d+)-")


@contextlib.contextmanager
def scratch(parent: str | None) -> Generator[Path]:
    """Make a directory below *parent* (None: the temporary one); yield it; take it away."""
    top = Path(parent or tempfile.gettempdir())
    for left in leftovers(top):
        print(f"taking away {left}, which an earlier run has left", file=sys.stderr)
        take_away(left)
    base = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=top))
    base.chmod(0o755)
    before = {number: signal.signal(number, _end) for number in ENDING}
    try:
        yield base
    finally:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        take_away(base)
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> None:
    for other in ENDING:  # once: the second Ctrl-C must not cut off the cleaning up
        signal.signal(other, signal.SIG_IGN)
    print(f"bench: interrupted by {signal.Signals(number).name}", file=sys.stderr)
    sys.exit(128 + number)


def leftovers(top: Path) -> Iterator[Path]:
    """Yield directories of runs whose process is no more."""
    for entry in top.iterdir():
        found = _NAME.match(entry.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            yield entry


def take_away(base: Path) -> None:
    """End what serves a mount below *base* or works there, unmount, remove.  Never raises."""
    disk.free(base)  # first: what is not written yet must not wait for its limit
    for mount in _mounts_below(base):
        subprocess.run(["umount", "--lazy", "--", mount], check=False, capture_output=True)
    deadline_s = time.monotonic() + GONE_S
    told = signal.SIGTERM
    while pids := list(_working_in(base)):
        if time.monotonic() > deadline_s:
            told, deadline_s = signal.SIGKILL, time.monotonic() + GONE_S
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, told)
        time.sleep(0.2)
    shutil.rmtree(base, ignore_errors=True)
    if base.exists():
        print(f"bench: {base} could not be taken away", file=sys.stderr)


def _mounts_below(base: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    return sorted((point for point in points if point.startswith(f"{base}/")), reverse=True)


def _working_in(base: Path) -> Iterator[int]:
    """Yield the services of stores below *base*, and the programs that lie there."""
    below = f"{base}/".encode()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            is_service = b"ckptfs.daemon" in words and any(w.startswith(below) for w in words)
            if is_service or any(word.startswith(below) for word in words[:2]):
                yield int(entry.name)
