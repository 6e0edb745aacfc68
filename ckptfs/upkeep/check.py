"""`ckptfs check`: the store, its leftovers, and the catalog.  Changes nothing, takes no lock."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..errors import CkptfsError
from ..store.check import check, leftovers
from ..store.superblock import open_superblock
from ..store.syscalls import Syscalls
from ..store.versions import Versions
from ..store.volume import LocalVolume
from .records import compare, load_records, removed_versions


def check_all(store: Path, progress: Callable[[float], None]) -> tuple[list[str], list[str]]:
    """Return (what is wrong, what is left over), one sentence each.

    A service may run meanwhile: what it is about to index is looked at twice.
    """
    wrong = check(store, progress)
    calls = Syscalls()
    try:
        block = open_superblock(store, calls, lock=False)
    except (CkptfsError, OSError):
        return wrong, []  # said by check
    found: list[set[str]] = []
    troubles: list[str] = []
    for _ in range(2):
        records, troubles = load_records(store)
        versions = Versions(block, LocalVolume(block.directory, calls), calls)
        removed = partial(removed_versions, block, calls, versions)
        found.append(set(compare(store, records, versions, removed).sentences()))
    return [*wrong, *troubles, *sorted(found[0] & found[1])], leftovers(store)
