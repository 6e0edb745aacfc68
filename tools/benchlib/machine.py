"""Commands, mounts and jobs of the bench; what they cost, read from the kernel."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CKPTFS = ROOT / ".venv" / "bin" / "ckptfs"
CRIU = os.environ.get("CKPTFS_CRIU", "/opt/ckptfs/criu/bin/criu")
START_TIMEOUT_S = 120.0
SETTLE_S = 0.3  # the clock of a fresh job has ticked evenly by then


@dataclass(frozen=True)
class Cost:
    """What one command took.  Seconds; bytes."""

    wall_s: float
    cpu_s: float
    peak_bytes: int  # of its largest process


def measure(*argv: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> Cost:
    """Run a command to its end; on failure its own words end the program."""
    words = [str(word) for word in argv]
    start = time.monotonic()
    with subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=cwd, env=env
    ) as process:
        said = process.stderr.read() if process.stderr else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"bench: {' '.join(words)}: {said.decode(errors='replace').strip()}")
    return Cost(time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def run(*argv: str | Path, cwd: Path | None = None) -> str:
    """Run a command and return what it printed; on failure its own words end the program."""
    words = [str(word) for word in argv]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        sys.exit(f"bench: {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def disk_bytes(directory: Path) -> int:
    """Return what the files below *directory* take on the disk."""
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*"))


def status_bytes(pid: int, field: str) -> int:
    """Return a ``kB`` line of /proc/PID/status in bytes, 0 when it is not there."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def parent_of(pid: int) -> int:
    """Return the parent's pid."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("PPid:")))


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and of its children that were waited for."""
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, words[11:15])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def mounted(base: Path) -> Generator[Path]:
    """Mount a fresh store below *base*."""
    mount = base / "ckpt"
    mount.mkdir()
    os.environ["CKPTFS_MOUNT"] = str(mount)
    try:
        run(CKPTFS, "mount", "--store", base / "store", mount)
        yield mount
    finally:
        for control in mount.glob("*/ctl/kill"):  # of a job whose start was interrupted
            with contextlib.suppress(OSError):
                control.write_text("1\n")
        if os.path.ismount(mount):
            run(CKPTFS, "umount", mount)


def daemon_pid(base: Path) -> int:
    """Return the pid of the service that `mounted` started."""
    store = str(base / "store").encode()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if b"ckptfs.daemon" in words and store in words:
                return int(entry.name)
    sys.exit(f"bench: no service has {base / 'store'} open")


@dataclass(frozen=True)
class Job:
    """A running job under ckptfs; *gaps* is the file in which it notes when it stood still."""

    mount: Path
    id: str
    gaps: Path

    @property
    def directory(self) -> Path:
        """Return the job's directory in the mount."""
        return self.mount / self.id

    @property
    def pid(self) -> int:
        """Return the pid of the job's first process."""
        units = (self.directory / "ctl" / "units").read_text()
        return int(next(word[4:] for word in units.split() if word.startswith("pid=")))

    @property
    def holder_pid(self) -> int:
        """Return the pid of the process that holds the job's namespaces."""
        return parent_of(self.pid)

    def lines(self) -> int:
        """Return how many lines the job has noted."""
        return len(self.gaps.read_text().splitlines())

    def longest_gap_s(self, since: int) -> float:
        """Return the longest gap noted after the first *since* lines (0.0 when none)."""
        lines = self.gaps.read_text().splitlines()[since:]
        return max((float(line) for line in lines if line != "ready"), default=0.0)


@contextlib.contextmanager
def job(mount: Path, base: Path, argv: Sequence[str | Path]) -> Generator[Job]:
    """Run *argv*, with the name of a file for its gaps behind; wait for "ready"; kill it."""
    gaps = base / f"gaps-{time.monotonic_ns()}"
    name = run(CKPTFS, "run", "--name", "bench", "--", *argv, gaps, cwd=base)
    started = Job(mount, name.strip(), gaps)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (gaps.exists() and "ready" in gaps.read_text()):
            if time.monotonic() > deadline:
                sys.exit(f"bench: {started.id} was not ready within {START_TIMEOUT_S:.0f} s")
            time.sleep(0.05)
        time.sleep(SETTLE_S)
        yield started
    finally:
        run(CKPTFS, "kill", started.id)
        shutil.rmtree(started.directory, ignore_errors=True)


def dump_command(job: Job, directory: Path) -> list[str | Path]:
    """Return the ``criu dump --leave-running`` of *job* into *directory*."""
    argv: list[str | Path] = ["nsenter", "-t", str(job.holder_pid), "-p", "-m", "-i", "-u", "--"]
    argv += [CRIU, "dump", "-t", "1000", "-D", directory, "-W", directory, "-o", "dump.log"]
    argv += ["-v2", "--leave-running", "--manage-cgroups=ignore", "--network-lock", "skip"]
    return [*argv, "--file-locks", "--tcp-established", "--no-default-config"]


def stood_still(job: Job, *argv: str | Path) -> tuple[float, Cost]:
    """Run *argv*; return the seconds that the job stood still, and what the command took."""
    before = job.lines()
    cost = measure(*argv)
    time.sleep(0.2)  # the job notes the gap after it has gone on
    return job.longest_gap_s(before), cost
