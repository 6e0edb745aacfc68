"""One coordinated checkpoint of a job, as a table (checkpointing.md 3, S3 2.3.4).  Pure.

Committed before resumed: a version that becomes visible is the state in which
every unit stood still together.  A suspension ends the stopped units instead of
resuming them, so that nothing runs beyond the version it will come back from.
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
    _P.SAVING: Barrier(Event.SAVED, _P.COMMITTING, Order.COMMIT, *_ABORT),
    _P.COMMITTING: Barrier(Event.COMMITTED, _P.RESUMING, Order.RESUME_CP, *_ABORT, central=True),
    _P.RESUMING: Barrier(Event.RESUMED, _P.COMPLETE, None),
    _P.ABORTING: Barrier(Event.RESUMED, _P.FAILED, None),
}
SUSPENSION: Final[Mapping[CheckpointPhase, Barrier[CheckpointPhase]]] = {
    **{phase: row for phase, row in CHECKPOINT.items() if phase is not _P.RESUMING},
    _P.COMMITTING: Barrier(Event.COMMITTED, _P.ENDING, Order.KILL, *_ABORT, central=True),
    _P.ENDING: Barrier(Event.KILLED, _P.COMPLETE, None),
}


def checkpoint_machine(
    units: frozenset[UnitName], *, end: bool = False
) -> BarrierMachine[CheckpointPhase]:
    """Return a machine before its first order; *end*: kill the saved units, do not resume them."""
    table = SUSPENSION if end else CHECKPOINT
    return BarrierMachine(table, units, CheckpointPhase.PREPARING, Order.PREPARE)
