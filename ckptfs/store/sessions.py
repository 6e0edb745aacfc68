"""Sessions: who is writing, durable before the first page.

A session file names host, boot, process and start time of the writer.  When a
store is opened, sessions of writers that are gone are ended, and their open
packs, which nothing refers to, are removed.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from ..ids import JobId, Version
from . import layout
from .syscalls import Syscalls, write_durably

log = logging.getLogger(__name__)

SESSION_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class Session:
    """One version being written."""

    session_id: str  # 32 hex digits
    host: str
    boot_id: str
    pid: int
    start: str  # field 22 of /proc/<pid>/stat, clock ticks since boot
    job: JobId
    version: Version
    expect_bytes: int
    began_ns: int
    epoch: int


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def begin_session(
    directory: Path,
    calls: Syscalls,
    job: JobId,
    version: Version,
    *,
    expect_bytes: int,
    now_ns: int,
    epoch: int,
) -> Session:
    """Write a session file durably and return it.  Raises OSError."""
    pid = os.getpid()
    session = Session(
        secrets.token_hex(16),
        socket.gethostname(),
        _boot_id(),
        pid,
        _start_of(pid),
        job,
        version,
        expect_bytes,
        now_ns,
        epoch,
    )
    path = directory / layout.SESSIONS / session.session_id
    write_durably(calls, path, json.dumps(asdict(session)).encode(), mode=0o600)
    return session


def end_session(directory: Path, calls: Syscalls, session_id: str) -> None:
    """Remove a session file.  May be repeated."""
    calls.unlink(directory / layout.SESSIONS / session_id)


def is_dead(row: dict[str, Any]) -> bool:
    """Whether the writer of a session is gone.  A document that does not parse is a dead one's."""
    try:
        if row["host"] != socket.gethostname():
            return False  # not ours to judge
        if row["boot_id"] != _boot_id():
            return True
        # Our own pid: this process opens the store, so it does not write into it.
        return int(row["pid"]) == os.getpid() or _start_of(int(row["pid"])) != row["start"]
    except (KeyError, ValueError, TypeError):
        return True


def sweep_sessions(directory: Path, calls: Syscalls, running: Collection[str] = frozenset()) -> int:
    """End the sessions of dead writers, remove open packs of no session; return how many packs.

    *running*: the sessions of this process.  Only with the store's lock held.
    """
    alive: set[str] = set()
    for entry in list(calls.scan(directory / layout.SESSIONS)):
        if entry.name in running:
            alive.add(entry.name)
            continue
        try:
            row = cast("dict[str, Any]", json.loads(calls.read_file(Path(entry.path), SESSION_MAX)))
        except ValueError:
            row = {}
        except OSError as error:  # it may be alive: its pages stay until the disk says
            log.warning("session %s cannot be read: %s", entry.name, error)
            row = None
        if row is not None and is_dead(row):
            calls.unlink(Path(entry.path))
        else:
            alive.add(entry.name)
    removed = 0
    for entry in list(calls.scan(directory / layout.OPEN_PACKS)):
        if entry.name.partition(".")[0] not in alive:
            calls.unlink(Path(entry.path))
            removed += 1
    return removed
