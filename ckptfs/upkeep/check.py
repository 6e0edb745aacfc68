"""`ckptfs check`: store, copies on volumes, leftovers, catalog.  Changes nothing, takes no lock."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..errors import CkptfsError
from ..jobs.record import JobRecord
from ..store.check import StoreCheck, leftovers
from ..store.check_volumes import Found, VolumeCheck, learn
from ..store.copies_plan import Key
from ..store.offline_volumes import Seen, open_volumes
from ..store.superblock import Superblock, open_superblock
from ..store.syscalls import Syscalls
from ..store.versions import Versions
from ..store.volume import LocalVolume
from .records import compare, load_records, removed_versions

Progress = Callable[[float], None]
STORE_SHARE = 0.5  # of the progress shown, where there are volumes too


@dataclass(slots=True)
class _Copies:
    """What came of the volumes: sentences, and in which domains each version is whole."""

    wrong: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    domains: dict[Key, set[str]] = field(default_factory=dict[Key, set[str]])
    unread: list[str] = field(default_factory=list[str])  # a sentence for each that cannot be read

    def add(self, seen: Seen, found: Found) -> None:
        self.wrong += found.wrong
        self.notes += found.notes
        for key in found.whole:
            self.domains.setdefault(key, set()).add(seen.record.domain)


def check_all(store: Path, progress: Progress, volume: str = "") -> tuple[list[str], list[str]]:
    """Return (what is wrong, what is worth knowing and no damage), one sentence each.

    *volume*: check the copies on this one alone.  A service may run meanwhile: what it is about
    to index is looked at twice.  Raises NotFound (no volume is called so).
    """
    calls = Syscalls()
    try:
        block = open_superblock(store, calls, lock=False)
    except (CkptfsError, OSError) as error:
        return [str(error)], []
    seen, unread = open_volumes(block, calls, volume)
    if volume:
        copies = _check_copies(block, calls, seen, progress)
        return [*unread, *copies.wrong], copies.notes
    share = STORE_SHARE if seen else 1.0
    local = StoreCheck(block, calls, lambda done: progress(share * done))
    wrong = list(local.run())
    copies = _check_copies(block, calls, seen, lambda done: progress(share + (1 - share) * done))
    copies.unread = unread
    records, troubles, differing = _check_records(store, block, calls)
    notes = [*unread, *copies.notes]
    notes += _missing(records, _versions(block, calls), copies, local.damaged)
    return [*wrong, *copies.wrong, *troubles, *differing], [*leftovers(store), *notes]


def _versions(block: Superblock, calls: Syscalls) -> Versions:
    return Versions(block, LocalVolume(block.directory, calls), calls)


def _check_copies(
    block: Superblock, calls: Syscalls, volumes: Sequence[Seen], progress: Progress
) -> _Copies:
    made, done, steps = _Copies(), 0, 1
    if not volumes:
        return made
    versions = _versions(block, calls)
    known = learn(block, calls, versions)

    def tell() -> None:
        nonlocal done
        done += 1
        progress(min(1.0, done / steps))

    checks = [(seen, VolumeCheck(seen, versions, known, tell)) for seen in volumes]
    steps = sum(check.steps for _, check in checks) or 1
    for seen, check in checks:
        made.add(seen, check.run())
    return made


def _check_records(
    store: Path, block: Superblock, calls: Syscalls
) -> tuple[Sequence[JobRecord], list[str], list[str]]:
    """Return (records, sentences about them, sentences about the catalog)."""
    found: list[set[str]] = []
    records: list[JobRecord] = []
    troubles: list[str] = []
    for _ in range(2):
        records, troubles = load_records(store)
        versions = _versions(block, calls)
        removed = partial(removed_versions, block, calls, versions)
        found.append(set(compare(store, records, versions, removed).sentences()))
    return records, troubles, sorted(found[0] & found[1])


def _missing(
    records: Sequence[JobRecord],
    versions: Versions,
    copies: _Copies,
    damaged: Collection[Key],
) -> Iterator[str]:
    """Yield what has fewer copies than its job wants; the service makes them in the background."""
    here = socket.gethostname().partition(".")[0] or "localhost"  # the store's own domain
    but = "; not every volume could be read" if copies.unread else ""
    for record in records:
        if record.replication < 2:
            continue
        for version in versions.versions(record.id):
            key = (record.id, version)
            domains = _domains(key, copies.domains, here, is_sound=key not in damaged)
            if len(domains) < record.replication:
                yield (
                    f"version {version} of {record.id} is whole in {len(domains)} of the "
                    f"{record.replication} failure domains that it is wanted in{but}"
                )


def _domains(key: Key, found: Mapping[Key, set[str]], here: str, *, is_sound: bool) -> set[str]:
    return found.get(key, set()) | ({here} if is_sound else set())
