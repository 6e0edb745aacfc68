"""tools/bench scale: a store with many versions and packs: mount, ls, df, what a collection costs.

The store is synthetic (`synthetic`), everything measured is real: the mount, ls(1), the
collector through ctl/gc.  "Index lost" is a mount after the file was deleted in which the
service keeps what the heads say in short.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from . import machine
from .machine import CKPTFS, ROOT
from .scratch import scratch

JOB = "scale.1"
MAKER = Path(__file__).with_name("synthetic.py")
COLLECTED_S = 120.0
LATENCY_EVERY_S = 0.02
SCRUB_S = 10.0
Row = tuple[str, str, float, str]  # what, goal, measured, unit


def _timed(step: Callable[[], object]) -> float:
    start = time.monotonic()
    step()
    return time.monotonic() - start


def _ls(mount: Path, *options: str) -> float:
    listing = ["ls", *options, str(mount / JOB)]
    return _timed(lambda: subprocess.run(listing, stdout=subprocess.DEVNULL, check=True))


def _mount(base: Path, mount: Path) -> float:
    return _timed(lambda: machine.run(CKPTFS, "mount", "--store", base / "store", mount))


def _wait_collected(mount: Path) -> None:
    """Wait until the store was counted and the collection that follows each mount is over."""
    deadline_s = time.monotonic() + COLLECTED_S
    while "\ncollections 0\n" in (mount / "ctl" / "stat").read_text():
        if time.monotonic() > deadline_s:
            sys.exit(f"bench: nothing was collected within {COLLECTED_S:.0f} s")
        time.sleep(0.1)


class Latency:
    """The longest of each kind of request while a block runs, seconds; one reader for each."""

    def __init__(self, mount: Path) -> None:
        job = mount / JOB
        self._kinds: dict[str, Callable[[], object]] = {
            "stat of a control file": (mount / "ctl" / "health").stat,
            "cat ctl/stat": (mount / "ctl" / "stat").read_bytes,
            "cat of a job's state": (job / "ctl" / "state").read_bytes,
            "ls of a version": lambda: os.listdir(job / "1"),
        }
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._watch, args=(k,)) for k in self._kinds]
        self.times_s: dict[str, list[float]] = {kind: [0.0] for kind in self._kinds}

    def __enter__(self) -> Latency:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _watch(self, kind: str) -> None:
        while not self._stop.wait(LATENCY_EVERY_S):
            self.times_s[kind].append(_timed(self._kinds[kind]))

    def rows(self, during: str) -> list[Row]:
        """Return the longest of each kind."""
        return [
            (f"longest {kind} during {during}", "0.1", max(times), "s")
            for kind, times in self.times_s.items()
        ]


def _command(*words: str) -> None:
    machine.run(CKPTFS, *words)


def _collect(mount: Path) -> float:
    """Return the seconds that a dry run takes: list, mark, plan, nothing deleted."""
    return _timed(lambda: machine.run(CKPTFS, "gc", "--dry-run"))


def measure(base: Path, mount: Path, size: argparse.Namespace) -> list[Row]:
    """Mount three times (index missing, collection, all at rest) and measure."""
    rows: list[Row] = []

    def note(what: str, goal: str, value: float, unit: str = "s") -> None:
        rows.append((what, goal, value, unit))
        print(f"{what:58} {goal:>22} {value:9.3f} {unit}", flush=True)

    print(f"{size.versions} versions, {size.packs} packs, {size.extents} extents")
    print(f"{'':58} {'must; stretch':>22} {'measured':>9}")
    (base / "store" / "heads.index").unlink(missing_ok=True)
    note("mount, nothing known (after the catalog is made)", "", _mount(base, mount))
    note("ls, the first after that", "0.5; 0.1", _ls(mount))
    note("ckptfs gc --dry-run, asked at once", "", _collect(mount))
    with Latency(mount) as seen:
        _wait_collected(mount)
    for row in seen.rows("a collection"):
        note(*row)
    note("ckptfs ls -l of the job, the first", "2", _timed(lambda: _command("ls", "-l", JOB)))
    note("ckptfs plot, the first: all is counted", "", _timed(lambda: _command("plot", JOB)))
    note("ckptfs ls -l again", "2", _timed(lambda: _command("ls", "-l", JOB)))
    note("ckptfs plot again", "", _timed(lambda: _command("plot", JOB)))
    note("ckptfs df", "", _timed(lambda: _command("df")))
    machine.run(CKPTFS, "scrub", "--no-wait")
    with Latency(mount) as seen:
        time.sleep(SCRUB_S)
    for row in seen.rows("a scrub"):
        note(*row)
    machine.run(CKPTFS, "scrub", "--stop")
    machine.run(CKPTFS, "umount", mount)

    note(f"mount, {size.packs} packs known", "1; 0.3", _mount(base, mount))
    note(f"ls of {size.versions} versions, the first", "0.5; 0.1", _ls(mount))
    note("ls again, while the collector runs", "", _ls(mount))
    note("df", "", _timed(lambda: os.statvfs(mount)))
    _wait_collected(mount)
    note("ls, at rest", "0.5; 0.1", _ls(mount))
    note("ls -l, at rest", "", _ls(mount, "-l"))
    note("df, at rest", "", _timed(lambda: os.statvfs(mount)))
    note("gc mark + plan", "60; 20", _collect(mount))
    note("gc mark + plan again", "", _collect(mount))
    peak = machine.status_bytes(machine.daemon_pid(base), "VmHWM")
    note("peak memory of the service", "1024", peak / (1 << 20), "MiB")
    machine.run(CKPTFS, "umount", mount)
    return rows


def scale(arguments: argparse.Namespace) -> None:
    """Make the store, measure, print, write JSON."""
    names = ("versions", "packs", "extents", "dead")
    size = {name: getattr(arguments, name) for name in names}
    maker: list[str | Path] = [ROOT / ".venv/bin/python", MAKER]
    with scratch(arguments.dir) as base:
        (mount := base / "ckpt").mkdir()
        os.environ["CKPTFS_MOUNT"] = str(mount)
        words = [*maker, base / "store", *map(str, size.values())]
        print(f"made in {_timed(lambda: machine.run(*words)):.0f} s", flush=True)
        _mount(base, mount)  # a new store has no catalog yet
        machine.run(CKPTFS, "umount", mount)
        rows = measure(base, mount, arguments)
    if arguments.json:
        named = [dict(zip(("what", "goal", "value", "unit"), row, strict=True)) for row in rows]
        arguments.json.write_text(json.dumps({"size": size, "rows": named}, indent=1) + "\n")
