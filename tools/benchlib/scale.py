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
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from . import machine
from .machine import CKPTFS, ROOT

JOB = "scale.1"
MAKER = Path(__file__).with_name("synthetic.py")
COLLECTED_S = 120.0
LATENCY_EVERY_S = 0.02
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
    """The longest stat(2) of a control file while a block runs, seconds."""

    def __init__(self, path: Path) -> None:
        self._path, self._stop = path, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.worst_s = 0.0

    def __enter__(self) -> Latency:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(LATENCY_EVERY_S):
            self.worst_s = max(self.worst_s, _timed(self._path.stat))


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
    note("ls, the first after that", "", _ls(mount))
    with Latency(mount / "ctl" / "health") as seen:
        _wait_collected(mount)
    note("longest stat(2) of a control file during a collection", "", seen.worst_s)
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
    with tempfile.TemporaryDirectory(prefix="ckptfs-scale-", dir=arguments.dir) as text:
        base = Path(text)
        (mount := base / "ckpt").mkdir()
        os.environ["CKPTFS_MOUNT"] = str(mount)
        words = [*maker, base / "store", *map(str, size.values())]
        print(f"made in {_timed(lambda: machine.run(*words)):.0f} s", flush=True)
        try:
            _mount(base, mount)  # a new store has no catalog yet
            machine.run(CKPTFS, "umount", mount)
            rows = measure(base, mount, arguments)
        finally:
            if mount.is_mount():
                machine.run(CKPTFS, "umount", mount)
    if arguments.json:
        named = [dict(zip(("what", "goal", "value", "unit"), row, strict=True)) for row in rows]
        arguments.json.write_text(json.dumps({"size": size, "rows": named}, indent=1) + "\n")
