"""tools/bench freeze: how long a job stands still, plain criu dump against ckptfs."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

from . import machine
from .machine import CKPTFS, Job
from .programs import write_program
from .scratch import scratch

Row = tuple[float, float, float, float]  # still and wall seconds of both sides


def _round(job: Job, images: Path, *, ours_first: bool) -> Row:
    commands = {0: machine.dump_command(job, images), 1: [CKPTFS, "checkpoint", job.id]}
    found: dict[int, tuple[float, float]] = {}
    for side in (1, 0) if ours_first else (0, 1):
        os.sync()  # neither side pays for what the other left to be written back
        still_s, cost = machine.stood_still(job, *commands[side])
        found[side] = (still_s, cost.wall_s)
    return (*found[0], *found[1])


def _say(rows: list[Row], what: str, mib: int) -> None:
    if not rows:
        return
    still = [statistics.median(row[column] for row in rows) for column in (0, 2)]
    print(f"{what} of a {mib} MiB job, median of {len(rows)}:")
    print(f"  plain criu dump, local directory  {still[0]:.3f} s still")
    print(f"  ckptfs checkpoint, committed      {still[1]:.3f} s still")
    print(f"ratio {still[1] / still[0]:.2f}")


def freeze(arguments: argparse.Namespace) -> None:
    """Each round is a fresh job, *versions* times; the two sides take turns in going first."""
    first: list[Row] = []
    later: list[Row] = []
    with scratch(arguments.dir) as base:
        argv = write_program(base, "scattered", arguments.mib)
        (images := base / "plain").mkdir()
        with machine.mounted(base) as mount:
            print("round  criu still_s  criu wall_s  ckptfs still_s  ckptfs wall_s")
            for number in range(arguments.rounds + 1):
                with machine.job(mount, base, argv) as job:
                    for version in range(1, arguments.versions + 1):
                        row = _round(job, images, ours_first=(number + version) % 2 == 0)
                        # the very first round warms both sides' files
                        label = f"{number}.{version}" if number else "warm"
                        text = f"{row[0]:13.3f} {row[1]:12.3f} {row[2]:15.3f} {row[3]:14.3f}"
                        print(f"{label:>5} {text}", flush=True)
                        if number:
                            (first if version == 1 else later).append(row)
                        time.sleep(arguments.dirty_s)
    _say(first, "first version", arguments.mib)
    _say(later, "later versions", arguments.mib)
