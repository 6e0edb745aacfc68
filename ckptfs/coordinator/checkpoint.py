"""One coordinated checkpoint of a job, as a table.  Pure.

Resumed before committed: once every unit's image is whole in the service's
hands, nothing that is still to do (hashing, packs, fsyncs, the head) needs the
job to stand still, and what was saved is the state in which every unit stood
still together, whenever it becomes visible.  A commit that fails then costs the
version and nothing else.  A suspension keeps the other order, commit, then end:
its units run on nowhere else, so the version must be safe first, and as safe as
the job's `min_level` asks for: too few copies in time, and the job goes on.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from ..ids import UnitName
from .events import Event, Order
from .machine import Barrier, BarrierMachine


class CheckpointPhase(enum.StrEnum):
    """Where a version in work stands; written to the catalog before its order is given."""

    PREPARING = "preparing"
    STOPPING = "stopping"
    SAVING = "saving"
    COMMITTING = "committing"
    COPYING = "copying"
    RESUMING = "resuming"
    ENDING = "ending"
    ABORTING = "aborting"
    COMPLETE = "complete"
    FAILED = "failed"


_P = CheckpointPhase
_ABORT: Final = (_P.ABORTING, Order.RESUME_CP)

CHECKPOINT: Final[Mapping[CheckpointPhase, Barrier[CheckpointPhase]]] = {
    _P.PREPARING: Barrier(Event.PREPARED, _P.STOPPING, Order.STOP, _P.FAILED),
    _P.STOPPING: Barrier(Event.STOPPED, _P.SAVING, Order.CHECKPOINT, *_ABORT),
    _P.SAVING: Barrier(Event.SAVED, _P.RESUMING, Order.RESUME_CP, *_ABORT),
    # Whoever does not answer is lost, not the version: its image is whole.
    _P.RESUMING: Barrier(Event.RESUMED, _P.COMMITTING, Order.COMMIT),
    _P.COMMITTING: Barrier(Event.COMMITTED, _P.COMPLETE, None, *_ABORT, central=True),
    _P.ABORTING: Barrier(Event.RESUMED, _P.FAILED, None),
}
SUSPENSION: Final[Mapping[CheckpointPhase, Barrier[CheckpointPhase]]] = {
    **{phase: row for phase, row in CHECKPOINT.items() if phase is not _P.RESUMING},
    _P.SAVING: Barrier(Event.SAVED, _P.COMMITTING, Order.COMMIT, *_ABORT),
    _P.COMMITTING: Barrier(Event.COMMITTED, _P.COPYING, Order.AWAIT_COPIES, *_ABORT, central=True),
    _P.COPYING: Barrier(Event.COPIED, _P.ENDING, Order.KILL, *_ABORT, central=True),
    _P.ENDING: Barrier(Event.KILLED, _P.COMPLETE, None),
}


def checkpoint_machine(
    units: frozenset[UnitName], *, end: bool = False
) -> BarrierMachine[CheckpointPhase]:
    """Return a machine before its first order; *end*: kill the saved units, do not resume them."""
    table = SUSPENSION if end else CHECKPOINT
    return BarrierMachine(table, units, CheckpointPhase.PREPARING, Order.PREPARE)
