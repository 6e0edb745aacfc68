"""``ckptfs plot``: a job's versions over time, in the terminal or as a PNG."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import InvalidInput
from ..chart import Panel, axis_line, panel_lines
from ..client import Mount, translated
from ..entry import add_mount_option, mount_of, warn
from ..listing import read_rows, time_of
from ..naming import find_job
from ..tables import size_text

EXAMPLES = """\
ckptfs plot heat
ckptfs plot heat -o heat.png
"""
DRAWN = ("committed_at", "logical_bytes", "unique_bytes", "frozen_usec", "replicas")
WIDTH = 100  # characters, where nobody knows how wide the output is


@dataclass(frozen=True, slots=True)
class Point:
    """What is drawn of one version."""

    version: int
    committed_s: float  # since the epoch
    size_bytes: int
    unique_bytes: int
    stopped_s: float
    replicas: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_mount_option(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="write a PNG instead")
    parser.add_argument("job", metavar="JOB", help="the job whose versions are drawn")


def point_of(version: int, stat: Mapping[str, str]) -> Point | None:
    """Return what ``ctl/versions`` tells, None of a version whose head cannot be read.  Pure."""
    try:
        return Point(
            version,
            time_of(stat["committed_at"]),
            int(stat["logical_bytes"]),
            int(stat["unique_bytes"]),
            int(stat["frozen_usec"]) / 1e6,
            int(stat["replicas"]),
        )
    except (KeyError, ValueError):
        return None


def read_points(mount: Mount, job: str) -> list[Point]:
    """Return the versions of *job* by time; those that cannot be read are left out, and said so."""
    points: list[Point] = []
    for version, row in read_rows(mount, job, DRAWN).items():
        point = point_of(version, row)
        if point is None:
            warn(f"version {version} is left out: its head cannot be read")
        else:
            points.append(point)
    return sorted(points, key=lambda point: (point.committed_s, point.version))


def panels_of(points: list[Point]) -> list[Panel]:
    """Return the four figures that are drawn.  Pure."""
    return [
        Panel("size", tuple(float(p.size_bytes) for p in points), _size),
        Panel("held by this version alone", tuple(float(p.unique_bytes) for p in points), _size),
        Panel("stood still", tuple(p.stopped_s for p in points), lambda value: f"{value:.2f} s"),
        Panel("copies", tuple(float(p.replicas) for p in points), lambda value: f"{value:g}"),
    ]


def _size(value: float) -> str:
    return size_text(round(value))


def end_text(point: Point) -> str:
    """Return what stands at an end of the time axis.  Pure."""
    at = time.strftime("%Y-%m-%d %H:%M", time.gmtime(point.committed_s))
    return f"version {point.version}, {at}"


def run(args: argparse.Namespace) -> int:
    """Draw; nothing is drawn of a job without versions, and that is no failure."""
    if args.output is not None and not args.output.endswith(".png"):
        raise InvalidInput(f"a picture is a PNG: call it {args.output}.png")
    mount = mount_of(args)
    job = find_job(mount, args.job)
    points = read_points(mount, job)
    if not points:
        warn(f"{job} has no versions")
        return 0
    if args.output:
        _write(Path(args.output), job, points)
    else:
        print("\n".join(_text(points)))
    return 0


def _write(path: Path, job: str, points: list[Point]) -> None:
    from ..picture import png  # Pillow takes 0.1 s to come in

    times = [point.committed_s for point in points]
    picture = png(panels_of(points), times, f"versions of {job}", _ends(points))
    with translated(path):
        path.write_bytes(picture)


def _ends(points: list[Point]) -> tuple[str, str]:
    return end_text(points[0]), end_text(points[-1])


def _text(points: list[Point]) -> list[str]:
    width = shutil.get_terminal_size((WIDTH, 0)).columns if os.isatty(1) else WIDTH
    braille = "utf" in (sys.stdout.encoding or "").lower()
    times = [point.committed_s for point in points]
    lines: list[str] = []
    for panel in panels_of(points):
        lines += panel_lines(panel, times, width, braille=braille)
    first, last = _ends(points)
    return [*lines, axis_line(first, last if len(points) > 1 else "", width)]
