"""One path that changes the disk: what there is before, what is done, and what all build on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from ckptfs.store.pack_format import Footer, read_footer
from ckptfs.store.syscalls import Syscalls
from ckptfs.upkeep.repair import Outcome, repair

from .calls import Plan, ProofCalls, no_fault
from .world import NOW_S, SMALL, Shape, World

Step = Callable[[World], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """*prepare* with real calls, then *act* with recorded or failing ones, on the store opened
    anew unless *act* opens it itself.  *plan*: faults that belong to the path itself.
    """

    name: str
    prepare: Step
    act: Step
    opens: bool = True
    plan: Plan = no_fault
    hurt: tuple[str, ...] = ()  # versions that *prepare* has damaged
    again: Step | None = None  # done after a crash or fault, before anything is judged
    shape: Shape = SMALL


async def nothing(world: World) -> None:
    """Have an empty directory."""
    world.directory.mkdir()


async def one(world: World) -> None:
    """Have one version."""
    world.open()
    await world.save("a1")


async def two(world: World) -> None:
    """Have two versions."""
    await one(world)
    await world.save("a2")


async def create(world: World) -> None:
    """Make the store itself."""
    world.open()


def flip(path: Path, offset: int = 5 * 4096) -> None:
    """Change one bit, of the first byte of a page: the rest of a file's last page is padding."""
    mode = path.stat().st_mode & 0o777
    data = bytearray(path.read_bytes())
    data[offset % len(data)] ^= 0x10
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(mode)


def packs(directory: Path) -> list[Path]:
    """Return the sealed packs, the largest first."""
    found = [path for path in directory.glob("packs/??/*") if path.is_file()]
    return sorted(found, key=lambda path: (-path.stat().st_size, path.name))


def footer_of(path: Path) -> Footer:
    """Return the footer of a pack.  Raises Corrupt."""
    data = path.read_bytes()
    return read_footer(lambda at, size: data[at : at + size], len(data), path.name)


def mend_store(world: World) -> Outcome:
    """Run the repair of a store that nobody has open."""
    return repair(
        world.directory,
        rebuild_catalog=False,
        discard=False,
        progress=lambda _: None,
        clock=lambda: NOW_S * 10**9,
        calls=world.calls,
    )


async def prepared(scenario: Scenario, top: Path) -> World:
    """Return the world before the thing is done, closed."""
    world = World(top, shape=scenario.shape)
    try:
        await scenario.prepare(world)
    finally:
        world.close()
    return world


async def act(scenario: Scenario, before: World, top: Path, calls: Syscalls) -> World:
    """Do it with *calls* in *top*, a copy of *before*; the world is left open."""
    world = World(top, calls, scenario.shape)
    world.spec.states = dict(before.spec.states)
    if isinstance(calls, ProofCalls):
        world.length = lambda: len(calls.log)
    world.note()
    world.now_s = before.now_s
    try:
        if scenario.opens:
            world.open()
        await scenario.act(world)
    except BaseException:
        world.close()
        raise
    return world
