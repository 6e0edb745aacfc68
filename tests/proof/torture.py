"""The proof at length: all parts, round after round with another seed, until the time is over.

    tools/torture --minutes 60 [--seed 7] [--parts crashes,faults]

Prints what each part tries and how many cases that were; ends with a table.  The first thing that
is not right ends it with exit code 1, the sentence, and the command that does the same again.
Ctrl-C and SIGTERM end it with the table so far; nothing is left behind.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import FrameType

import trio

from ckptfs.doctor.checks import Need
from ckptfs.doctor.gate import require
from ckptfs.errors import CannotRun
from tests.plugins import leftovers

from . import (
    crashes,
    damage,
    faults,
    full,
    index_damage,
    killed,
    killed_users,
    machine,
    recoveries,
)
from .scenarios import SCENARIOS

Tried = tuple[str, int]  # what, how many cases
INTERRUPTED = 130  # exit code, as shells have it
AGAIN_S = 0.5
Part = Callable[[int], Iterator[Tried]]  # seed → as it goes


def mixed(names: Iterable[str], seed: int) -> list[str]:
    """Return the names in another order for each seed: short runs begin with other ones."""
    every = list(names)
    return random.Random(seed).sample(every, len(every))


def try_crashes(seed: int) -> Iterator[Tried]:
    """Lose power everywhere, each die thrown four times."""
    for name in mixed(SCENARIOS, seed):
        yield name, trio.run(lambda name=name: crashes.explore(name, seed=seed, throws=4))


def try_recoveries(seed: int) -> Iterator[Tried]:
    """Lose power again while the store recovers."""
    for name in mixed(recoveries.NAMES, seed):
        explore = partial(recoveries.explore_recoveries, name, seed=seed, first=2, second=60)
        yield name, trio.run(explore)


def try_faults(seed: int) -> Iterator[Tried]:
    """Let every call fail in every way."""
    for name in mixed(SCENARIOS, seed):
        found = trio.run(lambda name=name: faults.strike(name, seed=seed))
        for kind, count in found.items():
            yield f"{name}: {kind}", count


def try_damages(seed: int) -> Iterator[Tried]:
    """Damage every object in every way."""
    yield "every kind of object", trio.run(lambda: damage.try_damage(seed=seed))
    yield "the catalog", trio.run(lambda: index_damage.try_index_damage(seed=seed, rounds=10))


def try_histories(seed: int) -> Iterator[Tried]:
    """Play random histories."""
    for number in range(10):
        found = machine.play(seed=seed * 10 + number, examples=30, steps=50)
        yield ", ".join(f"{name} {count}" for name, count in sorted(found.items())), found.total()


def try_kills(seed: int) -> Iterator[Tried]:
    """Kill processes and services."""
    found = trio.run(lambda: killed_users.kill_users(seed=seed, rounds=28))
    yield from ((f"processes: {phase}", count) for phase, count in found.items())
    yield "rebuilds", trio.run(lambda: killed_users.kill_rebuilds(seed=seed, rounds=10))
    found = killed.kill_services(seed=seed, rounds=2 * len(killed.MOMENTS))
    yield from ((f"services: {moment}", count) for moment, count in found.items())


def try_full_disks(seed: int) -> Iterator[Tried]:
    """Fill a disk in every phase."""
    yield "phases", trio.run(lambda: full.fill_up(seed=seed))


PARTS: dict[str, Part] = {
    "crashes": try_crashes,
    "recoveries": try_recoveries,
    "faults": try_faults,
    "damage": try_damages,
    "histories": try_histories,
    "kills": try_kills,
    "full": try_full_disks,
}


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        prog="torture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    parser.add_argument("--seed", type=int, default=None, help="of the first round (the clock's)")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)} (all)")
    found = parser.parse_args(argv)
    unknown = sorted(set(found.parts.split(",")) - PARTS.keys())
    if unknown:
        parser.error(f"there is no part {unknown[0]}: {', '.join(PARTS)}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Torture the store; return the exit code."""
    wanted = arguments(sys.argv[1:] if argv is None else argv)
    refuse = why_not(wanted.parts.split(","))
    if refuse:
        print(f"torture: {refuse}", file=sys.stderr)
        return 2
    logging.disable(logging.CRITICAL)  # what the faults make the store say is not news
    seed = int(time.time()) % 1_000_000 if wanted.seed is None else wanted.seed
    ends_s = time.monotonic() + wanted.minutes * 60
    tried: Counter[str] = Counter()
    code = 0
    leftovers.clear(None)  # of runs that were killed
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has none
    for number in (signal.SIGTERM, signal.SIGALRM):  # `timeout`
        signal.signal(number, interrupt)
    try:
        while code == 0 and time.monotonic() < ends_s:
            for part in wanted.parts.split(","):
                code = code or run_part(part, seed, ends_s, tried)
            seed += 1
    except* KeyboardInterrupt:
        code = INTERRUPTED
        print("torture: interrupted", file=sys.stderr)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # clearing up takes a second or two
        leftovers.clear(os.getpid())
    for part, count in sorted(tried.items()):
        print(f"{count:9} {part}")
    return code


def interrupt(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does; once more every half second, as Python drops what is raised in callbacks.

    Hypothesis has one in the garbage collector: there a KeyboardInterrupt was lost.
    """
    signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
    signal.raise_signal(signal.SIGINT)


def why_not(parts: Sequence[str]) -> str:
    """Return why a part cannot run on this machine, or nothing."""
    try:
        if "kills" in parts:
            require(Need.MOUNT, Need.CHECKPOINT)
    except CannotRun as error:
        return f"{error} (without that: --parts without kills)"
    if "full" in parts and os.geteuid():
        return "only root can fill a disk of its own (without that: --parts without full)"
    return ""


def run_part(part: str, seed: int, ends_s: float, tried: Counter[str]) -> int:
    """Run one part until it is through or the time is over; return 1 when something is wrong."""
    began_s = time.monotonic()
    if began_s > ends_s:
        return 0
    try:
        for what, count in PARTS[part](seed):
            tried[part] += count
            print(f"seed {seed}  {part:10} {count:6}  {what}", flush=True)
            if time.monotonic() > ends_s:
                break
    except Exception as error:
        said = str(error) if isinstance(error, AssertionError) else traceback.format_exc()
        print(f"\n{said}\n\nagain: tools/torture --parts {part} --seed {seed}", file=sys.stderr)
        return 1
    return 0
