"""tools/bench slack: what whole packs cost when most of their pages are dead.

Each program runs by itself, a version a second; then its retention keeps the last few and the
collector takes what no version needs, packs first, then the dead pages of those under half alive.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from . import machine
from .machine import CKPTFS, ROOT
from .programs import PROGRAMS, write_program
from .scratch import scratch

LOOKER = Path(__file__).with_name("liveness.py")
DIRTYING_S = 1.0


def savings(packs: Sequence[tuple[int, int, int]]) -> tuple[int, int, int, int]:
    """Return bytes (were all packs whole, on the disk, alive, freed within packs).  Pure."""
    whole, taken, alive = (sum(row[column] for row in packs) for column in range(3))
    return whole, taken, alive, whole - taken


def _measure(base: Path, program: str, arguments: argparse.Namespace) -> tuple[int, int, int, int]:
    work = base / program
    work.mkdir()
    with (
        machine.mounted(work) as mount,
        machine.job(mount, work, write_program(work, program, arguments.mib)) as job,
    ):
        for _ in range(arguments.versions):
            machine.run(CKPTFS, "checkpoint", job.id)
            time.sleep(DIRTYING_S)
        (job.directory / "ctl" / "retention").write_text(f"keep_last {arguments.keep}\n")
        machine.run(CKPTFS, "gc")  # waits for the one that the retention has begun
        looked = machine.run(ROOT / ".venv/bin/python", LOOKER, work / "store")
    return savings(json.loads(looked))


def slack(arguments: argparse.Namespace) -> None:
    """Measure each program in a store of its own."""
    print(f"{arguments.mib} MiB, {arguments.versions} versions, the last {arguments.keep} kept; MB")
    print(f"{'':12}{'whole':>8}{'stored':>8}{'alive':>8}{'freed':>8}{'saved':>8}")
    with scratch(arguments.dir) as base:
        for program in arguments.programs or PROGRAMS:
            found = _measure(base, program, arguments)
            share = 100 * found[3] / found[0]
            cells = "".join(f"{value / 1e6:8.0f}" for value in found)
            print(f"{program:12}{cells}{share:7.0f} %", flush=True)
