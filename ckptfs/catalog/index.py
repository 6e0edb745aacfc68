"""What a catalog says there is, read without changing it: for checks while no service runs."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import Corrupt
from ..ids import JobId, Version
from . import schema
from .connection import FAILURES

VersionRow = tuple[str | int, ...]  # as in the table


@dataclass(frozen=True, slots=True)
class Indexed:
    """What a catalog says there is: jobs, and the versions of each, with their rows."""

    jobs: frozenset[JobId]
    versions: Mapping[tuple[JobId, Version], VersionRow]


def read_index(path: Path) -> Indexed:
    """Return what the catalog at *path* says, changing nothing.  Raises Corrupt: not usable."""
    if not path.exists():
        raise Corrupt("the catalog is missing")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as raw:
            if raw.execute("PRAGMA user_version").fetchone() != (schema.VERSION,):
                raise Corrupt("the catalog has another schema")
            if raw.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise Corrupt("the catalog is damaged")
            rows = raw.execute("SELECT * FROM versions").fetchall()
            names = raw.execute("SELECT id FROM jobs").fetchall()
        return Indexed(
            frozenset(JobId(str(name)) for (name,) in names),
            {(JobId(str(row[0])), Version(int(row[1]))): tuple(row) for row in rows},
        )
    except (*FAILURES, ValueError, TypeError) as error:  # and a text where a number belongs
        raise Corrupt(f"the catalog cannot be read: {error}") from error
