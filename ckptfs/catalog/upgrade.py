"""Schema versions, forward only."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

from ..errors import Corrupt
from . import schema

# from version → statements that lead to the next one
STEPS: Final[Mapping[int, str]] = {0: schema.TABLES}


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring the file to `schema.VERSION`, one transaction per step.

    Raises Corrupt when a newer ckptfs wrote it: the caller puts it aside and rebuilds.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > schema.VERSION:
        raise Corrupt(f"the catalog has schema {version}, this program knows {schema.VERSION}")
    while version < schema.VERSION:
        statements = f"BEGIN;{STEPS[version]}PRAGMA user_version={version + 1};COMMIT;"
        connection.executescript(statements)
        version += 1
