"""A table of barriers over job units, and the machine that walks it.  Pure.

In each phase every reporter must report the awaited event; then the next phase
is entered and its order given.  A failure goes to the row's failure phase, or,
where the row has none, counts as lost and the others go on: once a version is
safe (or given up) nothing may keep the rest of a job standing still.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from ..errors import Busy
from ..ids import UnitName
from .events import Event, Order

SERVICE: Final = UnitName("")  # reporter of central phases; job.cpx belongs to it as well
PhaseT = TypeVar("PhaseT", bound=enum.Enum)


@dataclass(frozen=True, slots=True)
class Barrier(Generic[PhaseT]):
    """One row: what is awaited, what follows, and where a failure leads."""

    awaited: Event
    following: PhaseT
    order: Order | None  # given on entering *following*
    failed: PhaseT | None = None  # None: whoever fails is lost, the others go on
    failed_order: Order | None = None
    central: bool = False  # the service reports, not the units


class BarrierMachine(Generic[PhaseT]):
    """State of one operation on the given *units*; *order* is the one to start with."""

    def __init__(
        self,
        table: Mapping[PhaseT, Barrier[PhaseT]],
        units: frozenset[UnitName],
        phase: PhaseT,
        order: Order,
    ) -> None:
        self._table = table
        self._units = units
        self._reported: set[UnitName] = set()
        self.phase: PhaseT = phase
        self.order: Order | None = order  # in force now; None once ended
        self.reason = ""  # of the first failure
        self.lost: set[UnitName] = set()

    @property
    def is_ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.phase not in self._table

    @property
    def reporters(self) -> frozenset[UnitName]:
        """Who must report in this phase."""
        if self.is_ended:
            return frozenset()
        return frozenset({SERVICE}) if self._table[self.phase].central else self._units

    def handle(self, unit: UnitName, event: Event, reason: str = "") -> Order | None:
        """Record *event* of *unit*; return the order to give when a phase was entered.

        Raises Busy (EBUSY) when the event is not legal here; the state is then
        unchanged.  A repeated event changes nothing.
        """
        row = self._table.get(self.phase)
        if row is None or unit not in self.reporters:
            raise Busy(f"{event} of {unit or 'the service'} while {self.phase.value}")
        if event is Event.FAILED:
            return self._fail(row, unit, reason)
        if event is not row.awaited:
            raise Busy(f"{event} while {self.phase.value}")
        return self._report(row, unit)

    def abandon(self, reason: str) -> Order | None:
        """Give up: the driver was cancelled.  Return the order that must still be carried out.

        Where failures are passed over (resuming, aborting) the order in force stays.
        """
        row = self._table.get(self.phase)
        if row is None:
            return None
        self.reason = self.reason or reason
        if row.failed is None:
            return self.order
        return self._enter(row.failed, row.failed_order)

    def _fail(self, row: Barrier[PhaseT], unit: UnitName, reason: str) -> Order | None:
        sentence = reason or f"failed while {self.phase.value}"
        if row.failed is None:
            self.lost.add(unit)
            return self._report(row, unit)
        self.reason = self.reason or (f"{unit}: {sentence}" if unit else sentence)
        return self._enter(row.failed, row.failed_order)

    def _report(self, row: Barrier[PhaseT], unit: UnitName) -> Order | None:
        self._reported.add(unit)
        if self._reported >= self.reporters:
            return self._enter(row.following, row.order)
        return None

    def _enter(self, phase: PhaseT, order: Order | None) -> Order | None:
        self.phase, self.order, self._reported = phase, order, set()
        return order
