"""Every path again, with one call failing: no space, an I/O error, half a write, a failed read.

Or with a write or read that is cut short and does not fail: nobody may notice.

After it the same store still reads what was there and takes a version, unless it says that it is
read-only; and what it left on the disk is judged as after a crash.
"""

from __future__ import annotations

import errno
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ckptfs.errors import Busy, CkptfsError, StoreFull

from .calls import Plan, ProofCalls, failure, nth
from .crashes import Recording, do_again, record
from .disk import put_down
from .judge import judge
from .places import workplace
from .scenario import Scenario
from .scenarios import SCENARIOS
from .world import GONE, LIVE, Key, World, word_of

LATER = "a9"  # written after the fault


@dataclass(frozen=True)
class Fault:
    """What happens at a call; *half*: after half of a write; *only*: calls of this name count."""

    name: str
    number: int  # errno; 0: half is done, and no error
    half: bool = False
    reading: bool = False
    only: str = ""


KINDS = (
    Fault("no space", errno.ENOSPC),
    Fault("input/output error", errno.EIO),
    Fault("half a write, then no space", errno.ENOSPC, half=True, only="pwrite"),
    Fault("half a write, then an input/output error", errno.EIO, half=True, only="pwrite"),
    Fault("a short write", 0, only="pwrite"),
    Fault("a read fails", errno.EIO, reading=True),
    Fault("a short read", 0, reading=True, only="pread_into"),
)


def both(first: Plan, second: Plan) -> Plan:
    """Return the plan in which either may fail a call."""
    return lambda number, call, what: first(number, call, what) or second(number, call, what)


class Once:
    """The plan in which one call fails; *hit* says which it was."""

    def __init__(self, number: int, fault: Fault) -> None:
        self.hit, self.fault = "", fault
        self._number, self._seen = number, 0
        self._chosen = nth(number, fault.number, reading=fault.reading)

    def __call__(self, at: int, call: str, what: str) -> OSError | None:
        if self.hit:
            return None
        if self.fault.only:
            is_kind = call == self.fault.only
            self._seen += is_kind
            hit = is_kind and self._seen == self._number + 1
            error = failure(self.fault.number) if hit else None
        else:
            error = self._chosen(at, call, what)
        if error is not None:
            self.hit = f"{call} {what}"
        return error


@dataclass
class Bench:
    """One scenario with everything that its cases share."""

    scenario: Scenario
    recording: Recording

    def cases(self, rng: random.Random, most: int) -> Iterator[tuple[int, Fault]]:
        """Yield (call, fault): all of them, or *most* drawn by chance."""
        every = [(number, kind) for kind in KINDS for number in self.hit_by(kind)]
        yield from (
            every
            if len(every) <= most
            else sorted(rng.sample(every, most), key=lambda case: (case[1].name, case[0]))
        )

    def hit_by(self, kind: Fault) -> range:
        """Return the numbers of the calls that can fail so."""
        calls = self.recording.reading if kind.reading else self.recording.changing
        return range(calls.count(kind.only) if kind.only else len(calls))


async def strike(
    name: str, *, seed: int = 0, most: int = 10**6, works: float = 1.0
) -> Counter[str]:
    """Try *most* faults in one scenario; return how many were tried of each kind.

    *works*: the share after which the store is opened and used on.
    """
    rng = random.Random(f"{name}{seed}")
    place = workplace()
    count: Counter[str] = Counter()
    try:
        bench = Bench(SCENARIOS[name], await record(SCENARIOS[name], place / "disk"))
        for number, fault in bench.cases(rng, most):
            used = rng.random() < works
            await one_case(bench, number, fault, place / "disk", works=used)
            count[fault.name] += 1
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return count


async def one_case(bench: Bench, number: int, fault: Fault, top: Path, *, works: bool) -> None:
    """Let one call fail, look, and say which it was when something is not right."""
    plan = Once(number, fault)
    try:
        put_down(bench.recording.before.image(), top)
        calls = ProofCalls(top, plan=both(bench.scenario.plan, plan), half=fault.half)
        allowed = await use(bench, calls, plan, top)
        if bench.scenario.again is not None:
            await do_again(bench.scenario, top)
        await judge(
            top, allowed, hurt=bench.recording.lost, shape=bench.scenario.shape, works=works
        )
    except Exception as error:
        raise AssertionError(
            f"{bench.scenario.name}: {fault.name} at call {number} {plan.hit}: {error!r}"
        ) from error
    finally:
        shutil.rmtree(top)


async def use(bench: Bench, calls: ProofCalls, plan: Once, top: Path) -> dict[Key, frozenset[str]]:
    """Do the thing with a fault, go on with the same store; return what may be left."""
    scenario = bench.scenario
    world = World(top, calls, scenario.shape)
    world.spec.states = dict(bench.recording.history[0][1])
    world.note()
    world.now_s = bench.recording.now_s
    try:
        try:
            if scenario.opens:
                world.open()
            await scenario.act(world)
        except CkptfsError as error:
            told(error, plan)
        if world.is_open:
            visible(world, possible(bench.recording, world))
        # not hit by now: it is meant for what closing the store writes
        goes = plan.hit and world.is_open and await goes_on(world, bench.recording.hurt)
        later = LATER if goes else ""
    finally:
        world.close()
    allowed = possible(bench.recording, world)
    if later:
        world.note(**{later: LIVE})
        allowed |= {
            key: frozenset({state})
            for key, state in world.spec.states.items()
            if key not in allowed
        }
    return allowed


def told(error: CkptfsError, plan: Once) -> None:
    """Raise AssertionError unless the caller is told what happened: a full disk, or a bad one.

    Busy is what follows where the failure itself went to ctl/volumes: a drain that got stuck.
    """
    if not plan.fault.number:
        raise AssertionError(f"{plan.fault.name} is no failure, and yet: {error!r}") from error
    is_full = plan.fault.number == errno.ENOSPC
    if isinstance(error, Busy):
        return
    if is_full != isinstance(error, StoreFull):
        raise AssertionError(f"after {plan.fault.name} the caller is told {error!r}") from error


def visible(world: World, allowed: dict[Key, frozenset[str]]) -> None:
    """Raise AssertionError when the store that met the fault shows what it should not."""
    for job in world.store.jobs():
        for version in world.store.versions(job):
            key = (job, int(version))
            assert LIVE in allowed.get(key, ()), f"{word_of(key)} is visible"


async def goes_on(world: World, hurt: set[Key]) -> bool:
    """Read everything and write one more version; False when the store is read-only."""
    await world.read_all(hurt)
    if world.store.degraded():
        return False
    try:
        await world.save(LATER)
    except StoreFull:
        return False
    return True


def possible(recording: Recording, world: World) -> dict[Key, frozenset[str]]:
    """Return what each version may be: as acknowledged, or as the step that failed makes it."""
    done = [states for _, states in world.history]
    steps = [states for _, states in recording.history]
    reached = done[-1]
    after = steps[min(len(done), len(steps) - 1)]
    return {
        key: frozenset({reached.get(key, GONE), after.get(key, GONE)})
        for key in reached.keys() | after.keys()
    }
