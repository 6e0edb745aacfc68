"""The files of one unit outside the mount: where they are, and how they are written durably.

``run`` (on a tmpfs, gone after a reboot): the supervisor's socket, its launch
record, the checkpointer's work directory.  ``state`` (in the store): how the
unit ended, and the log of a checkpointer that failed.  ``logs``: the job's
stdout and stderr where the user named no files.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import Forbidden
from ..ids import JobId, UnitName, job_number
from ..model import OpenFile
from .api import Exit
from .records import exit_from, to_json


@dataclass(frozen=True, slots=True)
class NodePaths:
    """The three places of a node's files, and the store's id."""

    store_id: str
    run: Path  # /run/ckptfs/<store_id>
    state: Path  # <store>/jobs
    logs: Path  # <store>/logs


@dataclass(frozen=True, slots=True)
class UnitPaths:
    """The files of one unit."""

    run: Path
    state: Path
    stdout: Path
    stderr: Path

    @property
    def socket(self) -> Path:
        """Where the supervisor listens."""
        return self.run / "sock"

    @property
    def launch(self) -> Path:
        """What the supervisor was told to start."""
        return self.run / "launch.json"

    @property
    def work(self) -> Path:
        """The translib's work directory."""
        return self.run / "work"

    @property
    def exit(self) -> Path:
        """How the unit ended."""
        return self.state / "exit.json"


@dataclass(frozen=True, slots=True)
class LogView:
    """The log directory of a job, resolved: *own* outside, *shown* to its processes.

    They differ for a clone, and for a store that was moved or recovered: inside the
    unit, and in what is recorded of it, its logs have the names that they were first opened with.
    """

    own: Path
    shown: Path

    def is_log(self, item: OpenFile) -> bool:
        """Whether a file, named as the unit sees it, is one of the job's default logs."""
        return Path(item.path).parent == self.shown

    def outside(self, item: OpenFile) -> OpenFile:
        """Return the record of a file with the name it has outside the unit."""
        if self.own == self.shown or not self.is_log(item):
            return item
        return replace(item, path=str(self.own / Path(item.path).name))


def unit_paths(paths: NodePaths, job: JobId, unit: UnitName) -> UnitPaths:
    """Return the paths of a unit's files.

    The run directory is ``<job number>.<unit number>``, because a socket's
    path may not be longer than 107 bytes and a job's name may be 64.
    """
    short = f"{job_number(job)}.{unit.rpartition('_')[2]}"
    logs = paths.logs / job
    return UnitPaths(
        run=paths.run / short,
        state=paths.state / job / unit,
        stdout=logs / f"{unit}.out",
        stderr=logs / f"{unit}.err",
    )


def make_directory(path: Path, mode: int) -> None:
    """Make a directory of exactly *mode*, and its parents; root's umask plays no part."""
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    path.chmod(mode)


def make_shown(logs: Path) -> None:
    """Have a directory where the logs of an image can be mounted.

    The path is the image's word: whatever is there is left as it is.  Raises Forbidden.
    """
    try:
        if not logs.is_absolute() or ".." in logs.parts or logs.resolve() != logs:
            raise Forbidden(f"the image names its logs in {logs}, which leads elsewhere")
        logs.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as bad:
        raise Forbidden(f"the image names its logs in {logs}: {bad.strerror}") from None


def make_output_files(paths: UnitPaths, uid: int, gid: int) -> None:
    """Make the default stdout and stderr, owned by the job's owner, in a directory that is root's.

    The directory is root's so that nobody can put a symlink where root opens a file.
    """
    make_directory(paths.stdout.parent, 0o755)
    for path in (paths.stdout, paths.stderr):
        fd = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640
        )
        try:
            os.fchown(fd, uid, gid)
        finally:
            os.close(fd)


def write_durably(path: Path, data: bytes) -> None:
    """Write a small file, whole or not there after a crash: temp, fsync, rename, fsync."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def store_exit(paths: UnitPaths, ended: Exit) -> None:
    """Write durably how the unit ended."""
    write_durably(paths.exit, json.dumps(to_json(ended)).encode("ascii"))


def load_exit(paths: UnitPaths) -> Exit | None:
    """Return how the unit ended, or None when nothing (readable) is recorded."""
    try:
        return exit_from(json.loads(paths.exit.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_run(paths: UnitPaths) -> None:
    """Remove the run directory.  Repeating is harmless."""
    shutil.rmtree(paths.run, ignore_errors=True)


def remove_empty(run: Path) -> None:
    """Remove what is empty below *run*, the directory of all stores: services that were killed.

    A service that is just making its directory makes it again with the first
    unit's; one that holds anything, or is no directory, is left alone.
    """
    for path in run.glob("*"):
        with suppress(OSError):
            path.rmdir()


def keep_log(source: Path, paths: UnitPaths) -> None:
    """Keep the log of a checkpointer that failed beside the unit's state, as ``<name>``."""
    if source.exists():
        make_directory(paths.state, 0o700)
        shutil.copyfile(source, paths.state / source.name)
