"""Carries out the orders of a machine: units side by side, a deadline at every barrier.

Whatever happens to the driver (cancelled, a bug, a journal that cannot be
written), it walks the machine to its end under a shield first, so that no unit
is left stopped and none half-built (style 3.7.7).
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import trio

from ..errors import CkptfsError
from ..ids import UnitName
from .events import Event, Order
from .machine import BarrierMachine

log = logging.getLogger(__name__)
INTERRUPTED = "it was interrupted; try again"
KILLED = "it was killed meanwhile"
PhaseT = TypeVar("PhaseT", bound=enum.Enum)
Journal = Callable[[str, str], None]  # (phase, reason), durable when it returns


@dataclass(frozen=True, slots=True)
class Action:
    """How one order is carried out for one unit (or for `machine.SERVICE`).

    *shielded*: not cancelled halfway, because it cannot say afterwards whether
    it happened; its deadline alone ends it.
    """

    act: Callable[[UnitName], Awaitable[object]]
    report: Event
    deadline_s: float
    shielded: bool = False


async def drive(
    machine: BarrierMachine[PhaseT],
    order: Order | None,
    actions: Mapping[Order, Action],
    journal: Journal,
) -> None:
    """Walk *machine* from *order* to its end; each phase is journalled before its order is given.

    Trouble of units ends in the machine's failure phase, not in an exception.
    Cancelled raises after everything was undone.
    """
    reason = INTERRUPTED
    try:
        while order is not None:
            journal(machine.phase.value, machine.reason)
            order = await _carry_out(machine, order, actions)
    except CkptfsError as error:  # only the journal raises here
        log.error("the phase %s could not be written down: %s", machine.phase.value, error)
        reason = str(error)
    finally:
        if not machine.is_ended:
            with trio.CancelScope(shield=True):
                await _give_up(machine, reason, actions, journal)
    _note(machine, journal)


async def _give_up(
    machine: BarrierMachine[PhaseT],
    reason: str,
    actions: Mapping[Order, Action],
    journal: Journal,
) -> None:
    order = machine.abandon(reason)
    while order is not None:
        _note(machine, journal)
        order = await _carry_out(machine, order, actions)
    _note(machine, journal)


def _note(machine: BarrierMachine[PhaseT], journal: Journal) -> None:
    """Journal, but never let a journal that fails keep a unit stopped."""
    try:
        journal(machine.phase.value, machine.reason)
    except Exception:
        log.exception("the phase %s could not be written down", machine.phase.value)


async def _carry_out(
    machine: BarrierMachine[PhaseT], order: Order, actions: Mapping[Order, Action]
) -> Order | None:
    """Have every reporter obey; return the next order as soon as the phase has changed."""
    phase, action = machine.phase, actions[order]
    following: list[Order | None] = []

    async def attempt(unit: UnitName, others: trio.CancelScope) -> None:
        event, reason = await _perform(unit, order, action)
        if machine.phase is not phase:
            return  # another unit failed meanwhile
        given = machine.handle(unit, event, reason)
        if machine.phase is not phase:
            following.append(given)
            others.cancel()  # after a failure nobody needs to finish a large image

    async with trio.open_nursery() as nursery:
        for unit in sorted(machine.reporters):
            nursery.start_soon(attempt, unit, nursery.cancel_scope)
    return following[0] if following else machine.order


async def _perform(unit: UnitName, order: Order, action: Action) -> tuple[Event, str]:
    who = unit or "the service"
    try:
        with trio.CancelScope(shield=action.shielded), trio.fail_after(action.deadline_s):
            await action.act(unit)
    except CkptfsError as error:
        log.warning("%s: %s failed: %s", who, order, error)
        return Event.FAILED, str(error)
    except trio.TooSlowError:
        log.warning("%s: %s took more than %g s", who, order, action.deadline_s)
        return Event.FAILED, f"no answer to {order} within {action.deadline_s:g} s"
    except Exception:
        log.exception("%s: %s ended in a bug", who, order)
        return Event.FAILED, f"internal error while carrying out {order}; see the daemon's log"
    return action.report, ""
