"""tools/bench restart: from the request until the job steps, plain criu restore against ckptfs.

Both sides bring back the same process from images taken a moment apart.  The clock runs from
the start of ``criu restore``, or from the write to ``ctl/restart``, until the job itself has
written its first line after the restart.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import machine
from .machine import CKPTFS, CRIU, Job
from .programs import write_program
from .scratch import scratch

STEP_TIMEOUT_S = 120.0
LOOK_EVERY_S = 0.001
REST_S = 4.0  # what either side does after a restart (unmapping, the next supervisor) is over then
PLAIN, OURS, LAZY = "criu restore", "ckptfs restart", "ckptfs, lazy"
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def _wait_for_step(gaps: Path, size: int) -> float:
    """Return the monotonic time at which *gaps* had grown beyond *size* bytes."""
    deadline_s = time.monotonic() + STEP_TIMEOUT_S
    while gaps.stat().st_size <= size:
        if time.monotonic() > deadline_s:
            sys.exit(f"bench: the job took no step within {STEP_TIMEOUT_S:.0f} s")
        time.sleep(LOOK_EVERY_S)
    return time.monotonic()


def restart_plain(job: Job, images: Path, size: int) -> float:
    """Restore into fresh namespaces, end them, and return the seconds to the first step."""
    restore: list[str | Path] = [CRIU, "restore", "-d", "-D", images, "-W", images]
    restore += ["-o", "restore.log", "-v2", "--manage-cgroups=ignore", "--network-lock", "skip"]
    restore += ["--file-locks", "--tcp-established", "--no-default-config"]
    # PID 1 must outlive criu, or the kernel ends the namespace and the job with it
    argv = ["unshare", "--fork", "--kill-child", "-p", "-m", "-i", "-u", "--mount-proc"]
    argv += ["/bin/sh", "-c", '"$@" && exec sleep 1000', "sh", *map(str, restore)]
    start_s = time.monotonic()
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            return _wait_for_step(job.gaps, size) - start_s
        finally:
            process.send_signal(signal.SIGKILL)  # --kill-child: PID 1 of the namespace goes, too


def restart_ours(job: Job, size: int, *words: str) -> float:
    """Restart from the mount, kill the job, and return the seconds to the first step."""
    start_s = time.monotonic()
    (job.directory / "ctl" / "restart").write_text(" ".join(("latest", *words)) + "\n")
    try:
        return _wait_for_step(job.gaps, size) - start_s
    finally:
        machine.run(CKPTFS, "kill", job.id)


def _prepared(job: Job, size: int, *, cold: bool) -> None:
    """Make both sides begin with the same file, and with the same caches."""
    os.truncate(job.gaps, size)
    os.sync()
    time.sleep(REST_S)
    if cold:
        DROP_CACHES.write_text("3\n")


def _say(found: dict[str, list[float]], label: str) -> float:
    middle = {name: statistics.median(times) for name, times in found.items()}
    print(f"{label}: first step of the job, median of {len(found[PLAIN])} (least, most):")
    for name, times in found.items():
        print(f"  {name:16}{middle[name]:8.3f} s  ({min(times):.3f}, {max(times):.3f})")
    return middle[OURS] / middle[PLAIN]


def _sides(job: Job, images: Path, size: int, *, lazy: bool) -> dict[str, Callable[[], float]]:
    sides: dict[str, Callable[[], float]] = {
        PLAIN: lambda: restart_plain(job, images, size),
        OURS: lambda: restart_ours(job, size),
    }
    if lazy:
        sides[LAZY] = lambda: restart_ours(job, size, "lazy=yes")
    return sides


def restart(arguments: argparse.Namespace) -> None:
    """Take one version both ways, then restart from each in turn, warm and with --cold cold."""
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(scratch(arguments.dir))
        argv = write_program(base, arguments.program, arguments.mib)
        (images := base / "plain").mkdir()
        mount = stack.enter_context(machine.mounted(base))
        job = stack.enter_context(machine.job(mount, base, argv))
        machine.run(*map(str, machine.dump_command(job, images)))
        time.sleep(machine.SETTLE_S)
        machine.run(CKPTFS, "suspend", job.id)
        size = job.gaps.stat().st_size  # nothing was written after the version
        sides = _sides(job, images, size, lazy=arguments.lazy)
        ratio = 0.0
        for label in ("cold", "warm") if arguments.cold else ("warm",):
            found: dict[str, list[float]] = {name: [] for name in sides}
            for number in range(arguments.rounds + 1):
                for name in list(sides) if number % 2 else reversed(list(sides)):
                    _prepared(job, size, cold=label == "cold")
                    took_s = sides[name]()
                    # ckptfs writes past the page cache: after the first both sides are warm
                    shown = label if number else f"{label}, first"
                    print(f"{shown:12} {number} {name:16}{took_s:8.3f}", flush=True)
                    if number:
                        found[name].append(took_s)
            ratio = _say(found, f"{label}, {arguments.mib} MiB")
            print(f"ratio {ratio:.2f}", flush=True)
