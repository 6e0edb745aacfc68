"""The order in which the primitives may be called, as a table.  Pure.

``prepare → stop → checkpoint* → resume_cp`` and ``rebuild → resume_rst``.
A pair that is not in the table is illegal and changes nothing; a
repeated call is in the table with ``act=False``: harmless and without effect.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ..errors import Busy


class Phase(enum.Enum):
    """Where a unit stands between two primitives."""

    EMPTY = "not rebuilt yet"
    RUNNING = "running"
    PREPARED = "prepared"
    STOPPED = "stopped"
    RESUMED = "resumed after a checkpoint"
    REBUILT = "rebuilt and stopped"
    RESTARTED = "restarted"


class Primitive(enum.StrEnum):
    """The primitives of `Translib`."""

    PREPARE = "prepare"
    STOP = "stop"
    CHECKPOINT = "checkpoint"
    RESUME_CP = "resume_cp"
    REBUILD = "rebuild"
    RESUME_RST = "resume_rst"


@dataclass(frozen=True, slots=True)
class Step:
    """What a legal call does: the phase after it, and whether there is anything to do."""

    after: Phase
    act: bool = True


_P, _C = Phase, Primitive
_RUNNING = (_P.RUNNING, _P.PREPARED, _P.RESUMED, _P.RESTARTED)

STEPS: dict[tuple[Phase, Primitive], Step] = {
    **{(phase, _C.PREPARE): Step(_P.PREPARED) for phase in _RUNNING},
    (_P.PREPARED, _C.STOP): Step(_P.STOPPED),
    (_P.STOPPED, _C.STOP): Step(_P.STOPPED, act=False),
    (_P.STOPPED, _C.CHECKPOINT): Step(_P.STOPPED),
    (_P.STOPPED, _C.RESUME_CP): Step(_P.RESUMED),
    (_P.PREPARED, _C.RESUME_CP): Step(_P.RESUMED, act=False),  # abort before the stop
    (_P.RESUMED, _C.RESUME_CP): Step(_P.RESUMED, act=False),
    (_P.EMPTY, _C.REBUILD): Step(_P.REBUILT),
    (_P.REBUILT, _C.REBUILD): Step(_P.REBUILT, act=False),
    (_P.REBUILT, _C.RESUME_RST): Step(_P.RESTARTED),
    (_P.RESTARTED, _C.RESUME_RST): Step(_P.RESTARTED, act=False),
}


def next_step(phase: Phase, primitive: Primitive) -> Step:
    """Return what calling *primitive* in *phase* does.  Raises Busy (EBUSY) when it is illegal."""
    step = STEPS.get((phase, primitive))
    if step is None:
        raise Busy(f"{primitive} is not possible now: the unit is {phase.value}")
    return step


class Order:
    """The phase of one unit; one primitive at a time."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self._under_way: Primitive | None = None

    def begin(self, primitive: Primitive) -> Step:
        """Check that *primitive* may start now and note it as under way.  Raises Busy."""
        if self._under_way is not None:
            raise Busy(f"{primitive} is not possible now: {self._under_way} is under way")
        step = next_step(self.phase, primitive)
        self._under_way = primitive
        return step

    def end(self, step: Step, *, done: bool) -> None:
        """Note the end of the primitive under way; the phase moves only when it is *done*."""
        self._under_way = None
        if done:
            self.phase = step.after
