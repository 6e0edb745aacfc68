"""`ckptfs repair`: store, then catalog."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..catalog.index import VersionRow
from ..store.copies_plan import Key
from ..store.packs import failure_of
from ..store.repair import StoreRepair
from ..store.superblock import Superblock, open_superblock
from ..store.syscalls import Syscalls
from .records import compare, load_records, lost_sentence, rebuild, removed_versions

Say = Callable[[str], None]


@dataclass(slots=True)
class Outcome:
    """What a repair did and what it could not do, one sentence each."""

    fixed: list[str] = field(default_factory=list[str])
    lost: list[str] = field(default_factory=list[str])


def repair(
    store: Path,
    *,
    rebuild_catalog: bool,
    discard: bool,
    progress: Callable[[float], None],
    volume: str = "",
    clock: Callable[[], int] = time.time_ns,
    calls: Syscalls | None = None,
) -> Outcome:
    """Repair the store in *store*; *clock*: nanoseconds since the epoch.

    *volume*: of the copies read only those on this one.
    Raises NotFound (no store, no such volume), Busy (a service has it open), Corrupt or CannotRun
    (FORMAT or a key is damaged: nothing is touched), StoreFull, Degraded (no changes are taken).
    """
    outcome, calls = Outcome(), calls or Syscalls()
    try:
        block = open_superblock(store, calls, lock=True)
    except OSError as error:
        raise failure_of(error) from error
    try:
        mending = StoreRepair(
            block,
            calls,
            fixed=outcome.fixed.append,
            lost=outcome.lost.append,
            progress=progress,
            now_ns=clock(),
        )
        lost = _find_lost(store, block, mending, calls)
        mending.run(discard=discard)
        mending.mend_volumes(volume)
        mending.tell_unread()
        _mend_catalog(
            store,
            mending,
            outcome,
            lost=lost,
            removed=partial(removed_versions, block, calls, mending.versions),
            wanted=rebuild_catalog,
            discard=discard,
        )
    except OSError as error:
        raise failure_of(error) from error
    finally:
        os.close(block.lock_fd)
    return outcome


def _find_lost(
    store: Path, block: Superblock, mending: StoreRepair, calls: Syscalls
) -> Mapping[Key, VersionRow]:
    """Return what of the versions that the catalog alone knows no volume gives back."""
    versions = mending.versions
    removed = partial(removed_versions, block, calls, versions)
    lost = dict(compare(store, load_records(store)[0], versions, removed).lost)
    for key in mending.fetch_heads(sorted(lost)):
        del lost[key]
    return lost


def _mend_catalog(
    store: Path,
    mending: StoreRepair,
    outcome: Outcome,
    *,
    lost: Mapping[Key, VersionRow],
    removed: Callable[[], set[Key]],
    wanted: bool,
    discard: bool,
) -> None:
    records, troubles = load_records(store)
    outcome.lost.extend(f"{trouble}; its versions can still be restarted" for trouble in troubles)
    wrong = compare(store, records, mending.versions, removed).wrong
    outcome.fixed.extend(wrong)
    if wanted or wrong or (discard and lost):
        rebuild(store, records, mending.versions, () if discard else lost.values())
        outcome.fixed.append(f"made the catalog again: {len(records)} jobs")
    given_up = (
        "given up"
        if discard
        else ("the collector deletes nothing while it is missed; --discard gives it up")
    )
    outcome.lost.extend(f"{lost_sentence(*key)}; {given_up}" for key in sorted(lost))
