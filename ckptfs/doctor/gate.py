"""Run the checks: all of them for a report, or until the first that refuses.  I/O.

The daemon calls `require` at mount, before it touches anything: 5 ms once CRIU has been tried
since boot, 0.3 s the first time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ..errors import CannotRun
from .checks import CHECKS, Need
from .machine import Machine


@dataclass(frozen=True)
class Finding:
    """What one check said; *sentence* is '' when all is well."""

    name: str
    need: Need
    sentence: str


def examine(machine: Machine | None = None, but: Collection[str] = ()) -> Iterator[Finding]:
    """Yield one finding per check, as each is done, *but* those of these names."""
    machine = machine or Machine()
    for check in CHECKS:
        if check.name in but:
            continue
        if check.as_root and machine.uid != 0:
            yield Finding(check.name, Need.NOTE, "not tried, because that takes root")
        else:
            yield Finding(check.name, check.need, check.probe(machine))


def require(*needs: Need, machine: Machine | None = None) -> None:
    """Return when this machine has all that *needs* name (default: mount and checkpoint).

    Raises CannotRun with the first sentence that says what is missing and how to get it.
    """
    wanted = needs or (Need.MOUNT, Need.CHECKPOINT)
    machine = machine or Machine()
    for check in CHECKS:
        if check.need in wanted:
            sentence = check.probe(machine)
            if sentence:
                raise CannotRun(sentence)
