"""Which step a random history takes next: by weight, one of those that have an object.

Hypothesis draws one number per step, which says all of it; so it can leave steps out to find the
smallest history that goes wrong, and what comes how often is for us to say.  Left to its own
choice of rules, and to vary what it had played (`machine.BATCH`), histories were poor in kinds: of
1400 steps no restore and two undeletes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

Draw = Callable[[random.Random], Any]

# kind of step → its weight among those that are possible at the time
WEIGHTS: dict[str, int] = {
    "checkpoint": 6,
    "out_of_pipes": 2,
    "refuse": 3,
    "begin": 2,
    "finish": 5,
    "give_up": 3,
    "remove": 5,
    "undelete": 4,
    "pin": 2,
    "open_reader": 2,
    "read_on": 4,
    "retain": 2,
    "grow_old": 1,
    "collect": 6,
    "pass_time": 2,
    "damage": 3,
    "verify": 2,
    "scrub": 2,
    "scrub_packs": 1,
    "restore": 4,
    "replicate": 6,
    "add_volume": 3,
    "drain": 2,
    "let_go": 2,
    "go_away": 2,
    "come_back": 6,
    "change_key": 5,
    "reopen": 2,
    "repair": 2,
    "lose_power": 5,
}
OMITTED = 0.25  # the chance of a kind to be left out of a history
HARMLESS = 0.6  # the chance of a history without damage: more is asked of it


@dataclass(frozen=True)
class Row:
    """What a step needs: *draws* its arguments, *when* it can be taken."""

    draws: dict[str, Draw]
    when: Callable[[Any], object]


def step(*, when: Callable[[Any], object] = lambda _: True, **draws: Draw):
    """Make a method a step; see `WEIGHTS`."""

    def wrap(method):
        method.row = Row(draws, when)
        return method

    return wrap


def one_of(*values: object) -> Draw:
    """Draw one of these."""
    return lambda rng: rng.choice(values)


def pick(rng: random.Random) -> int:
    """Draw an index into whatever there is."""
    return rng.randrange(10**6)


def omitted(die: str) -> frozenset[str]:
    """Return the kinds that a history does without: others come the more often."""
    rng = random.Random(die)
    found = {name for name in WEIGHTS if rng.random() < OMITTED} if rng.random() < 0.5 else set()
    return frozenset(found | ({"damage"} if rng.random() < HARMLESS else set()))


def choose(machine: object, die: str, without: Collection[str]) -> tuple[str, dict[str, Any]]:
    """Return the next step and its arguments."""
    rng = random.Random(die)
    rows: dict[str, Row] = {name: getattr(machine, name).row for name in WEIGHTS}
    able = [name for name, row in rows.items() if name not in without and row.when(machine)]
    able = able or ["collect"]
    name = rng.choices(able, [WEIGHTS[name] for name in able])[0]
    return name, {key: draw(rng) for key, draw in rows[name].draws.items()}
