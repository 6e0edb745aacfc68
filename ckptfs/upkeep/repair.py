"""`ckptfs repair`: store, then catalog."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..store.packs import failure_of
from ..store.repair import StoreRepair
from ..store.superblock import open_superblock
from ..store.syscalls import Syscalls
from .records import compare, load_records, rebuild

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
    clock: Callable[[], int] = time.time_ns,
    calls: Syscalls | None = None,
) -> Outcome:
    """Repair the store in *store*; *clock*: nanoseconds since the epoch.

    Raises NotFound (no store), Busy (a service has it open), Corrupt or CannotRun (FORMAT or a key
    is damaged: nothing is touched), StoreFull, Degraded (the disk takes no changes).
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
        mending.run(discard=discard)
        _mend_catalog(store, mending, outcome, wanted=rebuild_catalog)
    except OSError as error:
        raise failure_of(error) from error
    finally:
        os.close(block.lock_fd)
    return outcome


def _mend_catalog(store: Path, mending: StoreRepair, outcome: Outcome, *, wanted: bool) -> None:
    records, troubles = load_records(store)
    outcome.lost.extend(f"{trouble}; its versions can still be restarted" for trouble in troubles)
    wrong = list(compare(store, records, mending.versions))
    outcome.fixed.extend(wrong)
    if wanted or wrong:
        rebuild(store, records, mending.versions)
        outcome.fixed.append(f"made the catalog again: {len(records)} jobs")
