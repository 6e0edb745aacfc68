"""One SQLite connection, its transactions, and what its failures become.

Used on the trio thread alone; every call is plain.  WAL with synchronous=FULL:
a transaction is on disk when `transaction` ends (one fsync of the log).
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import Corrupt, Degraded, StoreFull
from .upgrade import upgrade

log = logging.getLogger(__name__)
UNSETTLED = 0x434B5055  # application_id of a catalog that is not yet filled again
# damage may stand in what SQLite says of it, which Python then cannot read
FAILURES = (sqlite3.Error, UnicodeDecodeError)
Value = str | int | None
Row = tuple[Value, ...]


class Connection:
    """The catalog's file.  A file that is no usable catalog is put aside, not trusted.

    *was_rebuilt*: the journal of what was under way is lost with the catalog before; it stays
    so, also when the service ends meanwhile, until `settle`.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._sqlite = _open(path)
        except (*FAILURES, Corrupt) as error:
            log.warning("the catalog is damaged (%s); it is rebuilt from the jobs' records", error)
            _put_aside(path)
            self._sqlite = _open(path)
        self.was_rebuilt = self.number("PRAGMA application_id") == UNSETTLED

    def settle(self) -> None:
        """Say that a rebuilt catalog is filled and what was under way dealt with."""
        with self.transaction():
            self.execute("PRAGMA application_id=0")

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All or nothing, durable at the end.  Raises StoreFull, Degraded.  Not nested."""
        try:
            self._sqlite.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._sqlite.execute("COMMIT")
            except BaseException:
                if self._sqlite.in_transaction:
                    self._sqlite.execute("ROLLBACK")
                raise
        except FAILURES as error:
            raise _translate(error) from error

    def execute(self, statement: str, values: Sequence[Value] = ()) -> int:
        """Run one statement inside a transaction; return the id of the row it inserted, or 0."""
        return self._sqlite.execute(statement, values).lastrowid or 0

    def rows(self, statement: str, values: Sequence[Value] = ()) -> list[Row]:
        """Return every row of a query."""
        try:
            return self._sqlite.execute(statement, values).fetchall()
        except FAILURES as error:
            raise _translate(error) from error

    def number(self, statement: str, values: Sequence[Value] = ()) -> int:
        """Return the first column of the only row of a query as a number."""
        value = self.rows(statement, values)[0][0]
        if not isinstance(value, int):
            raise Corrupt("the catalog holds a text where a number belongs")
        return value

    def close(self) -> None:
        """Fold the log into the file and close.  Nothing may be called afterwards."""
        self._sqlite.close()


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=1.0)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise Corrupt("quick_check found damage")
        if connection.execute("PRAGMA user_version").fetchone() == (0,):
            connection.execute(f"PRAGMA application_id={UNSETTLED}")
        upgrade(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _put_aside(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.replace(path.with_name(f"{path.name}{suffix}.damaged"))


def _translate(error: Exception) -> StoreFull | Degraded:
    if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
        return StoreFull("no space is left for the catalog")
    return Degraded(f"the catalog cannot be written: {error}")
