"""tools/bench compare: successive versions of real programs, ckptfs and its peers taking turns."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import machine
from .machine import CKPTFS, CRIU, Cost, Job
from .peers import make_keepers
from .programs import PROGRAMS, write_program
from .scratch import scratch

NEEDED = ("restic", "borg", "zstd", "redis-server")
PLAIN, OURS = "criu", "ckptfs"
PLOT = Path(__file__).with_name("plot.py")
DIRTYING_S = 1.0  # between two versions: about a fifth of the pages are written again


@dataclass
class Side:
    """What was measured of one tool on one program, a number per version."""

    name: str
    still_s: list[float] = field(default_factory=list[float])
    safe_s: list[float] = field(default_factory=list[float])  # until on disk; none: page cache
    cpu_s: list[float] = field(default_factory=list[float])
    stored_bytes: list[int] = field(default_factory=list[int])  # by all versions so far
    peak_bytes: int = 0  # of the daemon, or of the tool's largest process
    restart_s: dict[str, float] = field(default_factory=dict[str, float])  # warm, cold


def _plain_and_peers(job: Job, base: Path, sides: dict[str, Side]) -> Callable[[int], None]:
    """Return what dumps once and has every peer keep that dump."""
    images = base / "images"
    images.mkdir()
    keepers = make_keepers(images, base)
    sizes: list[int] = []

    def take(version: int) -> None:
        still_s, dump = machine.stood_still(job, *machine.dump_command(job, images))
        sizes.append(machine.disk_bytes(images))
        _note(sides[PLAIN], still_s, [dump], None, sum(sizes))
        for keeper in keepers:
            costs = [dump, *keeper.keep(version)]
            wall_s = sum(cost.wall_s for cost in costs)
            side = sides.setdefault(keeper.name, Side(keeper.name))
            _note(side, still_s, costs, wall_s, keeper.stored_bytes())

    return take


def _ours(job: Job, base: Path, side: Side) -> Callable[[int], None]:
    pids = (machine.daemon_pid(base), machine.parent_of(job.holder_pid))  # service, supervisor
    packs = (base / "store" / "packs", base / "store" / "manifests", base / "store" / "heads")
    before = sum(map(machine.disk_bytes, packs))  # of programs measured earlier
    Path(f"/proc/{pids[0]}/clear_refs").write_text("5\n")  # the peak is this program's: proc(5)

    def take(_version: int) -> None:
        start_s = sum(map(machine.cpu_s, pids))
        still_s, command = machine.stood_still(job, CKPTFS, "checkpoint", job.id)
        cpu_s = command.cpu_s + sum(map(machine.cpu_s, pids)) - start_s
        stored = sum(map(machine.disk_bytes, packs)) - before
        peak = machine.status_bytes(pids[0], "VmHWM")
        _note(side, still_s, [Cost(command.wall_s, cpu_s, peak)], command.wall_s, stored)

    return take


def _note(
    side: Side, still_s: float, costs: list[Cost], safe_s: float | None, stored_bytes: int
) -> None:
    side.still_s.append(still_s)
    side.cpu_s.append(sum(cost.cpu_s for cost in costs))
    side.stored_bytes.append(stored_bytes)
    side.peak_bytes = max(side.peak_bytes, *(cost.peak_bytes for cost in costs))
    if safe_s is not None:
        side.safe_s.append(safe_s)


def _restarts(job: Job, images: Path, sides: dict[str, Side], *, cold: bool) -> None:
    """Restart from the last version, both ways in turn; a fresh pid namespace ends plain's."""
    plain: list[str | Path] = ["unshare", "--fork", "-p", "-m", "-i", "-u", "--mount-proc", CRIU]
    plain += ["restore", "-d", "-D", images, "-W", images, "-o", "restore.log", "-v2"]
    plain += ["--manage-cgroups=ignore", "--network-lock", "skip", "--file-locks"]
    plain += ["--tcp-established", "--no-default-config"]
    ours = (CKPTFS, "restart", job.id)
    machine.run(CKPTFS, "kill", job.id)
    for label in ("warm", "cold") if cold else ("warm",):
        for name, argv in ((PLAIN, plain), (OURS, ours)):
            if label == "cold":
                os.sync()
                Path("/proc/sys/vm/drop_caches").write_text("3\n")
            sides[name].restart_s[label] = machine.measure(*argv).wall_s
        machine.run(CKPTFS, "kill", job.id)


def _measure(
    mount: Path, base: Path, program: str, arguments: argparse.Namespace
) -> dict[str, Side]:
    sides = {name: Side(name) for name in (PLAIN, OURS)}
    work = base / program
    work.mkdir()
    with machine.job(mount, work, write_program(work, program, arguments.mib)) as job:
        takers = [_plain_and_peers(job, work, sides), _ours(job, base, sides[OURS])]
        for version in range(1, arguments.versions + 1):
            for take in takers if version % 2 else reversed(takers):
                take(version)
                time.sleep(DIRTYING_S)
        _restarts(job, work / "images", sides, cold=arguments.cold)
    shutil.rmtree(work)
    return sides


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):8.2f}" if values else f"{'-':>8}"


def _row(side: Side) -> str:
    stored = side.stored_bytes
    shown = [f"{stored[at] / 1e6:7.0f}" if at < len(stored) else f"{'-':>7}" for at in (0, 1, 9)]
    later = slice(1, None) if len(side.still_s) > 1 else slice(None)
    restart = [
        _median([side.restart_s[k]] if k in side.restart_s else []) for k in ("warm", "cold")
    ]
    return (
        f"{side.name:21}{_median(side.still_s[:1])}{_median(side.still_s[later])}"
        f"{_median(side.safe_s[later])}{''.join(shown)}{_median(side.cpu_s[later])}"
        f"{side.peak_bytes / 1e6:8.0f}{''.join(restart)}"
    )


HEAD = (
    f"{'':21}{'still 1':>8}{'still 2+':>9}{'safe':>7}{'MB 1':>7}{'MB 2':>7}{'MB 10':>7}"
    f"{'CPU s':>8}{'peak MB':>8}{'warm s':>8}{'cold s':>8}"
)


def _print(program: str, sides: dict[str, Side]) -> None:
    print(f"\n{program}\n{HEAD}")
    for side in sides.values():
        print(_row(side))
    plain, ours = sides[PLAIN].still_s, sides[OURS].still_s
    ratios = [a / b for a, b in zip(ours, plain, strict=True) if b]
    if ratios:
        spread = max(plain) / min(plain)
        print(f"still, ckptfs / criu: first {ratios[0]:.2f}", end="")
        print(f", later {statistics.median(ratios[1:]):.2f}" if ratios[1:] else "", end="")
        print(f"; slowest / fastest plain dump {spread:.1f}", flush=True)


def compare(arguments: argparse.Namespace) -> None:
    """Measure all programs; a table each, and with --json and --plot a file."""
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        sys.exit(f"bench: {', '.join(missing)} missing: run tools/setup --bench")
    results: dict[str, dict[str, dict[str, object]]] = {}
    with scratch(arguments.dir) as base, machine.mounted(base) as mount:
        for program in arguments.programs or PROGRAMS:
            sides = _measure(mount, base, program, arguments)
            _print(program, sides)
            results[program] = {name: vars(side) for name, side in sides.items()}
    record = {"mib": arguments.mib, "versions": arguments.versions, "programs": results}
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    if arguments.plot:
        # the system's Python: matplotlib comes as a package of the distribution
        words = ["/usr/bin/python3", str(PLOT), str(arguments.plot)]
        done = subprocess.run(words, input=json.dumps(record), text=True, check=False)
        sys.exit(done.returncode)
