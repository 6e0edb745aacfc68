"""What sums and listings need of every head, kept in memory: 10 000 take 4 MB.

Heads themselves are cached in small numbers only, and reading 10 000 of them takes 1.5 s; so
these are read once, in a worker thread, when the service starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import trio

from ..errors import Corrupt
from ..ids import JobId, Version
from ..model import Head, Initiator, Purpose
from .api import Account, Alone

CHUNK = 100  # heads read in one go of the worker thread: 15 ms
Key = tuple[JobId, Version]
Kind = tuple[Purpose, Initiator]


def account_of(head: Head) -> Account:
    """Return what sums need of a head.  Pure."""
    return Account(
        head.logical_bytes,
        head.stored_bytes,
        head.purpose,
        head.initiator,
        head.parent,
        head.committed_ns,
        head.frozen_usec,
        len(head.files),
        head.protocol,
        head.keep,
        head.note,
    )


class Accounts:
    """Version → figures.  Trio thread only; *load* reads and proves a head in any thread."""

    def __init__(self, load: Callable[[JobId, Version], Head]) -> None:
        self._load = load
        self._known: dict[Key, Account | None] = {}  # None: the head cannot be read
        self.logical_bytes = 0  # of all that are known
        self._totals: dict[JobId, dict[Kind, tuple[int, int]]] = {}

    def preload(self, accounts: Mapping[Key, Account]) -> None:
        """Take in what an earlier service proved."""
        for key, account in accounts.items():
            self._keep(key, account)

    def known(self, key: Key) -> Account | None:
        """Return the figures of a version as far as they are known; reads nothing."""
        return self._known.get(key)

    def unread(self, versions: int) -> int:
        """Return how many of so many *versions* have not been looked at yet."""
        return max(0, versions - len(self._known))

    def note_alone(self, key: Key, alone: Alone) -> None:
        """Take in what a version holds alone, if it is still there."""
        if known := self._known.get(key):
            self._known[key] = replace(known, alone=alone)

    def proved(self) -> dict[Key, Account]:
        """Return what is known of every version whose head could be read."""
        return {key: account for key, account in self._known.items() if account}

    def note(self, head: Head) -> None:
        """Take in a version."""
        self._keep((head.job, head.version), account_of(head))

    def drop(self, key: Key) -> None:
        """Forget a version."""
        if known := self._known.pop(key, None):
            self._count(key[0], known, -1)

    def totals(self, job: JobId) -> Mapping[Kind, tuple[int, int]]:
        """Return (versions, logical bytes) of a job's known versions, by purpose and initiator."""
        return self._totals.get(job, {})

    def _count(self, job: JobId, account: Account, sign: int) -> None:
        self.logical_bytes += sign * account.logical_bytes
        totals, kind = self._totals.setdefault(job, {}), (account.purpose, account.initiator)
        versions, logical_bytes = totals.get(kind, (0, 0))
        totals[kind] = (versions + sign, logical_bytes + sign * account.logical_bytes)
        if not totals[kind][0]:
            del totals[kind]
        if not totals:
            del self._totals[job]

    def get(self, key: Key) -> Account:
        """Return the figures of a version that is there.  Raises Corrupt."""
        if (known := self._known.get(key)) is None:
            known = account_of(self._load(*key))  # one that was damaged may be mended by now
            self._keep(key, known)
        return known

    def fill(self, keys: Iterable[Key]) -> None:
        """Read what is not known yet; what cannot be read counts nothing.  Blocks."""
        for key in keys:
            if key not in self._known:
                self._keep(key, self._read(key))

    async def fill_in_background(
        self, keys: Iterable[Key], is_there: Callable[[Key], bool]
    ) -> None:
        """`fill` in a worker thread; versions may come and go meanwhile."""
        missing = [key for key in keys if key not in self._known]
        for at in range(0, len(missing), CHUNK):
            chunk = missing[at : at + CHUNK]
            read = await trio.to_thread.run_sync(lambda keys=chunk: [self._read(k) for k in keys])
            for key, account in zip(chunk, read, strict=True):
                if key not in self._known and is_there(key):
                    self._keep(key, account)

    def _read(self, key: Key) -> Account | None:
        try:
            return account_of(self._load(*key))
        except Corrupt:
            return None

    def _keep(self, key: Key, account: Account | None) -> None:
        self.drop(key)
        self._known[key] = account
        if account:
            self._count(key[0], account, 1)
