"""One restart of a job from a version, as a table.  Pure.

All units are held rebuilt and frozen at one barrier, and every byte of the version has been
proved, before any is let go.
Whatever was rebuilt is killed when one fails, and the version stays restartable.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from ..ids import UnitName
from .events import Event, Order
from .machine import Barrier, BarrierMachine


class RestartPhase(enum.StrEnum):
    """Where a restart stands; written to the catalog before its order is given."""

    PLACING = "placing"
    VERIFYING = "verifying"
    REBUILDING = "rebuilding"
    PROVING = "proving"
    RESUMING = "resuming"
    UNDOING = "undoing"
    RUNNING = "running"
    FAILED = "failed"


_P = RestartPhase
_UNDO: Final = (_P.UNDOING, Order.KILL)

RESTART: Final[Mapping[RestartPhase, Barrier[RestartPhase]]] = {
    _P.PLACING: Barrier(Event.PLACED, _P.VERIFYING, Order.VERIFY, _P.FAILED, central=True),
    _P.VERIFYING: Barrier(Event.VERIFIED, _P.REBUILDING, Order.REBUILD, _P.FAILED, central=True),
    _P.REBUILDING: Barrier(Event.REBUILT, _P.PROVING, Order.PROVE, *_UNDO),
    _P.PROVING: Barrier(Event.PROVED, _P.RESUMING, Order.RESUME_RST, *_UNDO, central=True),
    _P.RESUMING: Barrier(Event.RESUMED, _P.RUNNING, None, *_UNDO),
    _P.UNDOING: Barrier(Event.KILLED, _P.FAILED, None),
}


def restart_machine(units: frozenset[UnitName]) -> BarrierMachine[RestartPhase]:
    """Return a machine before its first order; the checks of the request are behind it."""
    return BarrierMachine(RESTART, units, RestartPhase.PLACING, Order.PLACE)
