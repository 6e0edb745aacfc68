"""Run one call per unit at the same time; the first failure is the one that is raised."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import trio

from ..errors import CkptfsError, TimedOut
from ..ids import UnitName

ResultT = TypeVar("ResultT")


async def side_by_side(
    units: Iterable[UnitName],
    call: Callable[[UnitName], Awaitable[ResultT]],
    *,
    what: str,
    deadline_s: float,
) -> dict[UnitName, ResultT]:
    """Return the result of *call* per unit.

    Raises the first CkptfsError, in which case the other calls are cancelled,
    or TimedOut (ETIMEDOUT) after *deadline_s* seconds.
    """
    results: dict[UnitName, ResultT] = {}
    errors: list[CkptfsError] = []

    async def attempt(unit: UnitName, others: trio.CancelScope) -> None:
        try:
            results[unit] = await call(unit)
        except CkptfsError as error:
            errors.append(error)
            others.cancel()

    with trio.move_on_after(deadline_s) as scope:
        async with trio.open_nursery() as nursery:
            for unit in units:
                nursery.start_soon(attempt, unit, nursery.cancel_scope)
    if errors:
        raise errors[0]
    if scope.cancelled_caught:
        raise TimedOut(f"no answer to {what} within {deadline_s:g} s")
    return results
