"""Durable ingest through the mount against a copy on the same disk: no checkpointer in either.

The service is given a checkpointer that copies: a script that stands in for criu's ``dump`` and
writes, with dd(1), images that were taken before into the directory it is told.  All else is as
always: request, real mount, hashing, dedup, commit.  The small images go in first; timed is from
the first byte of the pages to the end of ``ckptfs checkpoint``, when the version is durable.  The
other side is dd(1) with fsync of the same file, from the same page cache.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import machine
from .machine import CKPTFS, Job
from .programs import write_program

IMAGES = "images"  # below the run's directory
SLEEPER = ("/bin/sh", "-c", 'echo ready > "$1"; exec sleep 1000000', "sleeper")
SCRIPT = """#!/bin/sh
# criu, but what "dump" writes is copied from {images}
[ "$1" = --help ] && exit 0  # it names no --stream: the images go through the mount
[ "$1" = dump ] && [ -e {largest} ] || exec {criu} "$@"
while [ "$1" != -D ]; do shift; done
for image in {images}/*.img; do
    [ "$image" = "$(cat {largest})" ] || cat "$image" > "$2/${{image##*/}}" || exit 1
done
date +%s.%N > {began}
exec dd if="$(cat {largest})" of="$2/pages-1.img" bs=1M status=none
"""


@dataclass
class Copied:
    """What was measured, a number per version after the first."""

    plain_s: list[float] = field(default_factory=list[float])
    ours_s: list[float] = field(default_factory=list[float])
    known: list[float] = field(default_factory=list[float])  # share of the pages stored already
    image_bytes: list[int] = field(default_factory=list[int])  # of the file that is copied

    @property
    def ratio(self) -> float:
        """How many times faster ours was, the middle of all pairs."""
        return statistics.median(a / b for a, b in zip(self.plain_s, self.ours_s, strict=True))


def largest_image(directory: Path) -> Path:
    """Return the image that holds the pages."""
    return max(directory.rglob("pages-*.img"), key=lambda path: path.stat().st_size)


def plain_copy_s(source: Path, target: Path) -> float:
    """Return the seconds of a copy that is on the disk at the end."""
    cost = machine.measure("dd", f"if={source}", f"of={target}", "bs=1M", "conv=fsync")
    target.unlink()
    return cost.wall_s


@contextlib.contextmanager
def _named(variable: str, value: str):  # noqa: ANN202 - a context
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        os.environ.pop(variable)
        if before is not None:
            os.environ[variable] = before


def _write_script(base: Path, images: Path) -> Path:
    script = base / "copier"
    script.write_text(
        SCRIPT.format(
            images=images, criu=machine.CRIU, largest=base / "largest", began=base / "began"
        )
    )
    script.chmod(0o755)
    return script


def _ours_s(base: Path, sleeper: Job) -> float:
    os.sync()
    machine.measure(CKPTFS, "checkpoint", sleeper.id)
    return time.time() - float((base / "began").read_text())


def _version(
    base: Path, disk: Path, source: Job, sleeper: Job, number: int
) -> tuple[float, float, float, int]:
    images = base / IMAGES
    machine.run(*map(str, machine.dump_command(source, images)))
    os.kill(source.pid, signal.SIGSTOP)
    largest = largest_image(images)
    (base / "largest").write_text(f"{largest}\n")
    packs = disk / "store" / "packs"
    before = machine.disk_bytes(packs)
    sides = [lambda: _ours_s(base, sleeper), lambda: plain_copy_s(largest, disk / "copied")]
    found: dict[int, float] = {}
    for side in (0, 1) if number % 2 else (1, 0):
        os.sync()
        found[side] = sides[side]()
    new = machine.disk_bytes(packs) - before
    os.kill(source.pid, signal.SIGCONT)
    size = largest.stat().st_size
    return found[0], found[1], 1 - new / size, size


def measure_ingest(base: Path, disk: Path, mib: int, versions: int, dirtying_s: float) -> Copied:
    """Copy *versions* images of a changing program into a fresh store and beside it, in turns.

    Both are below *disk*; the images, read out of the page cache, are below *base*.
    """
    copied = Copied()
    (images := base / IMAGES).mkdir()
    argv = write_program(base, "scattered", mib)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_named("CKPTFS_CRIU", str(_write_script(base, images))))
        mount = stack.enter_context(machine.mounted(disk))
        source = stack.enter_context(machine.job(mount, base, argv))
        sleeper = stack.enter_context(machine.job(mount, base, SLEEPER))
        for number in range(versions + 1):
            ours_s, plain_s, known, size = _version(base, disk, source, sleeper, number)
            if number:  # the first has nothing to be like
                copied.ours_s.append(ours_s)
                copied.plain_s.append(plain_s)
                copied.known.append(known)
                copied.image_bytes.append(size)
            time.sleep(dirtying_s)
    return copied
