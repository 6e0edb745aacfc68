"""Job records on disk: ``jobs/<id>/{job.json,job.jsdl}``, ``jobs/counter``, ``logs/<id>/``.

A removed job that may be brought back has ``removed.json`` in the place of ``job.json``.

Every write is a temporary file, fsync, rename, fsync of the directory, all
plain (no await): some milliseconds on the trio thread, and nothing in between.
What is here is the truth; numbers of jobs are never given twice, even when the
counter file is lost, because directories and heads are counted too.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ..errors import CkptfsError, Corrupt, Exists, NotFound, StoreFull
from ..ids import JobId, job_number, parse_job_id
from .record import JobRecord, parse_record, render_record

log = logging.getLogger(__name__)
RECORD: Final = "job.json"
REMOVED: Final = "removed.json"
DOCUMENT: Final = "job.jsdl"
TORN: Final = ".new"  # ends the name of a document while it is written
COUNTER: Final = "counter"
RECORD_MAX: Final = 8 << 20  # bytes; arguments and variables are bounded by the JSDL's 1 MiB


class JobsDirectory:
    """The jobs of one store.  *root* is made when missing, readable by root alone."""

    def __init__(self, root: Path, logs: Path) -> None:
        self._root, self._logs = root, logs
        root.mkdir(mode=0o700, exist_ok=True)
        logs.mkdir(exist_ok=True)
        logs.chmod(0o711)  # passable: owners read their own logs below, and list nobody's jobs

    @property
    def logs(self) -> Path:
        """Where the default logs of all jobs are."""
        return self._logs

    def log_directory(self, job: JobId) -> Path:
        """Return where the node puts the default output files of *job*, ``<unit>.out|err``."""
        return self._logs / job

    def next_number(self, others: Iterable[JobId]) -> int:
        """Reserve and return a number above every one ever used, durably.

        *others*: jobs known from heads.  Raises StoreFull.
        """
        used = [job_number(job) for job in [*self._names(), *others]]
        number = max([self._counter(), *used], default=0) + 1
        _write(self._root / COUNTER, f"{number}\n".encode())
        return number

    def create(self, record: JobRecord) -> None:
        """Write a new job.  Raises Exists, StoreFull."""
        directory = self._root / record.id
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError as error:
            raise Exists(f"there is a job {record.id} already") from error
        _write(directory / DOCUMENT, record.spec.jsdl.encode("utf-8", "surrogateescape"))
        self.save(record)
        _sync_directory(self._root)

    def save(self, record: JobRecord) -> None:
        """Replace the record; durable when this returns.  Raises StoreFull."""
        _write(self._root / record.id / RECORD, render_record(record))

    def kept(self, name: str) -> bytes:
        """Return the document *name* beside the jobs, nothing when there is none."""
        try:
            return _read(self._root / name)
        except FileNotFoundError:
            return b""

    def keep(self, name: str, content: bytes) -> None:
        """Replace the document *name* beside the jobs, durably.  Raises StoreFull."""
        _write(self._root / name, content)

    def device(self) -> int:
        """Return which disk the jobs, and so the store, lie on (st_dev)."""
        return self._root.stat().st_dev

    def load(self, *, sweep: bool = True) -> tuple[list[JobRecord], list[str]]:
        """Return every job's record by number, and one sentence for each that cannot be read.

        *sweep*: remove what was never begun; only the service itself may.
        """
        records: list[JobRecord] = []
        troubles: list[str] = []
        if sweep:
            self._remove_torn()
        for job in sorted(self._names(), key=job_number):
            try:
                records.append(self._load(job))
            except NotFound:
                if sweep and not (self._root / job / REMOVED).exists():
                    log.warning("%s was never begun: its record is missing", job)
                    shutil.rmtree(self._root / job, ignore_errors=True)
            except CkptfsError as error:
                troubles.append(f"{job}: {error}")
        return records, troubles

    def load_put_away(self) -> tuple[list[JobRecord], list[str]]:
        """Return the records of removed jobs, and one sentence for each that cannot be read."""
        records: list[JobRecord] = []
        troubles: list[str] = []
        for job in sorted(self._names(), key=job_number):
            directory = self._root / job
            if (directory / REMOVED).exists() and not (directory / RECORD).exists():
                try:
                    records.append(self._load(job, REMOVED))
                except CkptfsError as error:
                    troubles.append(f"{job}, which was removed: {error}")
        return records, troubles

    def put_away(self, job: JobId) -> None:
        """Have a job removed that may be brought back; needs no space.  Raises StoreFull."""
        self._rename(job, RECORD, REMOVED)

    def bring_back(self, job: JobId) -> None:
        """Undo `put_away`.  Raises StoreFull."""
        self._rename(job, REMOVED, RECORD)

    def _rename(self, job: JobId, old: str, new: str) -> None:
        directory = self._root / job
        try:
            (directory / old).replace(directory / new)
            _sync_directory(directory)
        except OSError as error:
            raise StoreFull(f"{old} of {job} could not be renamed: {error.strerror}") from error

    def remove(self, job: JobId, *, keep_log_directory: bool = False) -> None:
        """Remove record and logs.  Harmless when repeated.

        *keep_log_directory*: clones have their own mounted over it; its files go all the same.
        """
        # The record goes first: a job is there or not, never half.
        for name in (RECORD, REMOVED):
            (self._root / job / name).unlink(missing_ok=True)
        shutil.rmtree(self._root / job, ignore_errors=True)
        if keep_log_directory:
            for path in self.log_directory(job).glob("*"):
                path.unlink(missing_ok=True)
        else:
            self.remove_logs(job)
        _sync_directory(self._root)

    def remove_logs(self, job: JobId) -> None:
        """Remove the log directory of a job.  Harmless when repeated."""
        shutil.rmtree(self.log_directory(job), ignore_errors=True)

    def _names(self) -> list[JobId]:
        names: list[JobId] = []
        for entry in self._root.iterdir():
            try:
                names.append(parse_job_id(entry.name))
            except NotFound:
                continue  # the counter, leftovers of a torn write
        return names

    def _remove_torn(self) -> None:
        """Remove what a service that was killed has left of a write; nothing else is writing."""
        for place in (self._root, *(self._root / job for job in self._names())):
            for path in place.glob(f".*{TORN}"):
                if path.is_file():
                    path.unlink(missing_ok=True)

    def _load(self, job: JobId, name: str = RECORD) -> JobRecord:
        directory = self._root / job
        try:
            document = _read(directory / name)
            jsdl = _read(directory / DOCUMENT).decode("utf-8", "surrogateescape")
        except FileNotFoundError as error:
            raise NotFound(f"{job} has no record") from error
        record = parse_record(document, jsdl)
        if record.id != job:
            raise Corrupt(f"the record in {job} is that of {record.id}")
        return record

    def _counter(self) -> int:
        try:
            return int((self._root / COUNTER).read_text("ascii"))
        except (FileNotFoundError, ValueError):
            return 0


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(RECORD_MAX)


def _write(path: Path, content: bytes) -> None:
    """Replace *path* by *content*: old or new after a crash, never torn."""
    temporary = path.with_name(f".{path.name}{TORN}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreFull(f"{path.name} could not be written: {error.strerror}") from error


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
