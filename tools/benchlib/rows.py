"""tools/bench rows: the goals of the store, each with what was measured, all in one run.

One job, ten versions, both sides taking turns.  What each row is:

- stands still: from inside the job, plain ``criu dump`` to a local directory beside it
- ingest: images copied through the mount until they are committed, against a copy with fsync of the
  same file on the same disk; no criu in either (see ingest.py); once on the disk there is, once on
  one of known speed (see disk.py)
- restic: the whole checkpoint until it is committed, criu and the command included
- changed pages: found by comparing the versions themselves, pages that any file of the version
  before has had are not counted; the first version is all of its pages
- read: one file through the mount, the kernel's copy of it dropped, the packs in the page cache
- memory: growth of the service's own memory from a job of 1 GiB to one of 3 GiB, by the GiB; what
  any job takes is printed beside it (see memory.py)

The rows of large stores are measured by tools/bench scale.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import disk, machine, peers, restart
from .ingest import Copied, largest_image, measure_ingest
from .machine import CKPTFS, Job
from .memory import Memory, measure_memory
from .programs import write_program
from .scratch import scratch

PAGE = 4096
CHUNK = 1 << 20
DIRTYING_S = 1.5  # between versions; 10 % of the pages of "scattered" a second
RESTARTS = 3
READS = 3
COPIES = 4  # versions copied through the mount
COPIES_DIRTYING_S = 2.0  # 75 to 80 % of the pages are as they were
DISK_MB_S = 300  # what the goal of ingest was written for
DISK_JOBS = 4  # times the job: a first version, four later ones, a copy
MEMORY_JOBS = 4  # times the job, beside the disk: job, images, pages of both sides in the cache


@dataclass(frozen=True)
class Goal:
    """One row of the table.  *better*: whether more is better; values in *unit*."""

    what: str
    must: float
    stretch: float
    unit: str
    better: str = "less"

    def verdict(self, value: float) -> str:
        """Return ``stretch``, ``must`` or ``missed``."""
        sign = 1 if self.better == "less" else -1
        if sign * value <= sign * self.stretch:
            return "stretch"
        return "must" if sign * value <= sign * self.must else "missed"


GOALS = {
    "later": Goal("stands still, later versions / plain criu dump", 1.0, 0.6, "x"),
    "first": Goal("stands still, first version / plain criu dump", 1.5, 1.0, "x"),
    "ingest": Goal("cp + fsync / durable ingest, 75 % duplicates", 3.0, 5.0, "x", "more"),
    "disk": Goal("the same on a disk of {disk_mb_s} MB/s", 3.0, 5.0, "x", "more"),
    "restic": Goal("criu dump + restic / checkpoint until committed", 8.0, 15.0, "x", "more"),
    "stored": Goal("stored, ten versions / pages that changed", 1.3, 1.1, "x"),
    "read": Goal("verified read, packs in the page cache", 1.2, 2.0, "GB/s", "more"),
    "restart": Goal("restart / criu restore", 1.5, 1.0, "x"),
    "memory": Goal("memory of the service per GiB of job", 16.0, 8.0, "MiB"),
}


@dataclass
class Found:
    """What was measured, a number per version."""

    plain_still_s: list[float] = field(default_factory=list[float])
    plain_wall_s: list[float] = field(default_factory=list[float])
    still_s: list[float] = field(default_factory=list[float])
    wall_s: list[float] = field(default_factory=list[float])
    copied: Copied = field(default_factory=Copied)
    copied_slowly: Copied = field(default_factory=Copied)  # to the disk of known speed
    restic_s: list[float] = field(default_factory=list[float])
    stored_bytes: list[int] = field(default_factory=list[int])  # by all versions so far
    changed_bytes: list[int] = field(default_factory=list[int])  # by each
    read_gb_s: list[float] = field(default_factory=list[float])
    restart_ratio: float = 0.0
    memory: Memory | None = None


def page_hashes(directory: Path) -> Iterator[bytes]:
    """Yield the hash of each page of each file below *directory* that is not all zero."""
    zero = bytes(PAGE)
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name != "SHA256SUMS" and "ctl" not in path.parts:
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    for at in range(0, len(chunk), PAGE):
                        page = chunk[at : at + PAGE]
                        if page != zero:
                            yield hashlib.blake2b(page, digest_size=12).digest()


def _read_gb_s(path: Path, packs: Path) -> float:
    """Return how fast a file of the mount is read that only the packs are in the cache of."""
    for pack in packs.glob("??/*"):
        with pack.open("rb") as file:
            while file.read(CHUNK):
                pass
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        os.posix_fadvise(descriptor, 0, size, os.POSIX_FADV_DONTNEED)
        start_s = time.monotonic()
        while os.read(descriptor, CHUNK):
            pass
        return size / (time.monotonic() - start_s) / 1e9
    finally:
        os.close(descriptor)


def _version(job: Job, base: Path, images: Path, restic: peers.Keeper | None, found: Found) -> None:
    number = len(found.still_s) + 1
    stored = [base / "store" / name for name in ("packs", "manifests", "heads")]

    def plain() -> None:
        os.sync()
        still_s, dump = machine.stood_still(job, *machine.dump_command(job, images))
        found.plain_still_s.append(still_s)
        found.plain_wall_s.append(dump.wall_s)

    def ours() -> None:
        os.sync()
        still_s, cost = machine.stood_still(job, CKPTFS, "checkpoint", job.id)
        found.still_s.append(still_s)
        found.wall_s.append(cost.wall_s)
        found.stored_bytes.append(sum(map(machine.disk_bytes, stored)))

    sides: list[Callable[[], None]] = [plain, ours]
    for side in sides if number % 2 else reversed(sides):
        side()
    os.kill(job.pid, signal.SIGSTOP)  # or restic would take so long that every page is written to
    if restic is not None:
        found.restic_s.append(sum(cost.wall_s for cost in restic.keep(number)))
    os.kill(job.pid, signal.SIGCONT)
    time.sleep(DIRTYING_S)


def _compare_versions(job: Job, count: int, found: Found) -> None:
    before: set[bytes] = set()
    for number in range(1, count + 1):
        now = set(page_hashes(job.directory / str(number)))
        found.changed_bytes.append(PAGE * len(now - before))
        before = now


def _restarts(job: Job, images: Path, found: Found) -> None:
    time.sleep(machine.SETTLE_S)
    machine.run(CKPTFS, "suspend", job.id)
    size = job.gaps.stat().st_size
    plain: list[float] = []
    ours: list[float] = []
    for number in range(2 * (1 + RESTARTS)):
        os.truncate(job.gaps, size)
        os.sync()
        time.sleep(restart.REST_S)
        if number % 2:
            ours.append(restart.restart_ours(job, size))
        else:
            plain.append(restart.restart_plain(job, images, size))
    del ours[0], plain[0]  # ckptfs writes past the page cache: after the first both sides are warm
    found.restart_ratio = statistics.median(ours) / statistics.median(plain)


def results(found: Found) -> dict[str, float]:
    """Return the value of each row that could be measured.  Pure."""
    later = slice(1, None)
    middle = statistics.median
    values: dict[str, float] = {}
    if found.still_s:
        still = list(zip(found.still_s, found.plain_still_s, strict=True))
        values["first"] = still[0][0] / still[0][1]
        values["later"] = middle(a / b for a, b in still[later])
        values["stored"] = found.stored_bytes[-1] / sum(found.changed_bytes)
        values["read"] = middle(found.read_gb_s)
        values["restart"] = found.restart_ratio
    if found.restic_s:
        dumped = zip(found.plain_wall_s, found.restic_s, strict=True)
        whole = [dump + backup for dump, backup in dumped]
        values["restic"] = middle(
            a / b for a, b in zip(whole[later], found.wall_s[later], strict=True)
        )
    if found.copied.ours_s:
        values["ingest"] = found.copied.ratio
    if found.copied_slowly.ours_s:
        values["disk"] = found.copied_slowly.ratio
    if found.memory:
        values["memory"] = found.memory.per_gib
    return values


def table(values: dict[str, float], disk_mb_s: int = DISK_MB_S) -> Iterator[str]:
    """Yield the rows as they are printed.  Pure."""
    yield f"{'':52}{'must':>8}{'stretch':>8}{'measured':>10}"
    for key, goal in GOALS.items():
        what = goal.what.format(disk_mb_s=disk_mb_s)
        head = f"{what:52}{goal.must:8g}{goal.stretch:8g}"
        if key in values:
            yield f"{head}{values[key]:10.2f} {goal.unit:5}{goal.verdict(values[key])}"
        else:
            yield f"{head}{'-':>10} {goal.unit}"


def _of_one_job(arguments: argparse.Namespace, base: Path, found: Found) -> None:
    """Measure the rows that come of one job and its versions."""
    argv = write_program(base, arguments.program, arguments.mib)
    (images := base / "plain").mkdir()
    restic = None
    if arguments.no_restic:
        pass
    elif shutil.which("restic"):
        restic = peers.make_restic(images, base)
    else:
        print(
            "bench: restic is missing (tools/setup --bench): its row is left out", file=sys.stderr
        )
    with machine.mounted(base) as mount, machine.job(mount, base, argv) as job:
        machine.run(*map(str, machine.dump_command(job, images)))  # plain's files are warm
        for _ in range(arguments.versions):
            _version(job, base, images, restic, found)
        latest = largest_image(job.directory / str(arguments.versions))
        found.read_gb_s = [_read_gb_s(latest, base / "store" / "packs") for _ in range(READS)]
        _compare_versions(job, arguments.versions, found)
        _restarts(job, images, found)


def _of_copies(arguments: argparse.Namespace, base: Path, found: Found) -> None:
    found.copied = measure_ingest(base, base, arguments.mib, COPIES, COPIES_DIRTYING_S)


def _of_a_known_disk(arguments: argparse.Namespace, base: Path, found: Found) -> None:
    mib = arguments.mib
    if reason := disk.why_not((DISK_JOBS + MEMORY_JOBS) * mib):
        print(f"bench: no disk of known speed: {reason}: its row is left out", file=sys.stderr)
        return
    with disk.limited_disk(base, DISK_JOBS * mib, arguments.disk_mb_s) as place:
        found.copied_slowly = measure_ingest(base, place, mib, COPIES, COPIES_DIRTYING_S)


def _of_sizes(arguments: argparse.Namespace, base: Path, found: Found) -> None:
    found.memory = measure_memory(base, arguments.mib)


PARTS = {"job": _of_one_job, "ingest": _of_copies, "disk": _of_a_known_disk, "memory": _of_sizes}


def remarks(found: Found, disk_mb_s: int = DISK_MB_S) -> Iterator[str]:
    """Yield what belongs to the table and is no row of it.  Pure."""
    if found.plain_still_s:
        spread = max(found.plain_still_s) / min(found.plain_still_s)
        yield f"slowest / fastest plain dump {spread:.1f}"
    for where, copied in (("", found.copied), (", disk of known speed", found.copied_slowly)):
        if copied.known:
            known = 100 * statistics.median(copied.known)
            plain_s, ours_s = statistics.median(copied.plain_s), statistics.median(copied.ours_s)
            yield (
                f"durable ingest{where}: {ours_s:.2f} s against {plain_s:.2f} s; "
                f"{known:.0f} % of the pages were stored already"
            )
    if found.copied_slowly.image_bytes:
        # a copy into the page cache begins with what memory takes, and writes back after it
        alone_s = statistics.median(found.copied_slowly.image_bytes) / disk_mb_s / 1e6
        ratio = alone_s / statistics.median(found.copied_slowly.ours_s)
        yield f"disk of known speed: its own time for the copy is {alone_s:.2f} s, {ratio:.2f} x"
    if found.memory:
        yield f"memory: {found.memory.fixed:.0f} MiB more, whatever the size of the job"


def rows(arguments: argparse.Namespace) -> None:
    """Measure and print; with --json write all single numbers, too."""
    found = Found()
    for part in arguments.parts or PARTS:
        with scratch(arguments.dir) as base:
            PARTS[part](arguments, base, found)
    values = results(found)
    print(f"{arguments.program}, {arguments.mib} MiB, {arguments.versions} versions")
    print("\n".join(table(values, arguments.disk_mb_s)))
    print("\n".join(remarks(found, arguments.disk_mb_s)))
    if arguments.json:
        record = {"rows": values, "measured": dataclasses.asdict(found), "mib": arguments.mib}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
