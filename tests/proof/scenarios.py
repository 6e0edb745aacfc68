"""What is tried with every crash and every fault: one row per path that changes the disk.

A scenario prepares a store, then does one thing that is recorded, or met by faults.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from ckptfs.errors import StoreFull
from ckptfs.store.syscalls import Syscalls
from ckptfs.upkeep.repair import Outcome, repair

from .calls import Plan, ProofCalls, failure, no_fault
from .world import NOW_S, A, World

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
    scale: int = 1  # of the versions' size


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


async def commit(world: World) -> None:
    """Write the next version, and the first one of another job."""
    await world.save("a3")
    await world.save("b1")


async def commit_first(world: World) -> None:
    """Write the first version of all."""
    await world.save("a1")


async def commit_second(world: World) -> None:
    """Write the second version."""
    await world.save("a2")


async def commit_refused(world: World) -> None:
    """Fail to keep the head: everything of the version is taken back."""
    try:
        await world.save("a3")
    except StoreFull:
        world.note()


def no_room_for_heads(_number: int, call: str, what: str) -> OSError | None:
    """The disk is full when the head comes."""
    hit = call == "create" and "/heads/" in what
    return failure(errno.ENOSPC) if hit else None


def no_room_for_directories(_number: int, call: str, _what: str) -> OSError | None:
    """The disk takes no further directory and no further file."""
    return failure(errno.ENOSPC) if call in {"mkdir", "create"} else None


async def remove(world: World) -> None:
    """Put a version in the trash."""
    world.remove("a1")


async def removed(world: World) -> None:
    """Have two versions, and one in the trash."""
    await two(world)
    await world.save("a3")
    world.remove("a2")


async def undelete(world: World) -> None:
    """Bring it back."""
    world.undelete("a2")


async def markers(world: World) -> None:
    """Leave everything that lies beside heads, and the record of the scrub."""
    world.store.pin(A, 1, True)
    await world.verify("a1")
    await world.store.sums(A, 2)
    world.store.pin(A, 1, False)
    world.store.keep_scrub_record(b"{}")


async def expired(world: World) -> None:
    """Have versions that stay, and removed ones whose time is over."""
    world.open()
    for word in ("a1", "a2", "a3", "b1", "b2"):
        await world.save(word)
    world.remove("a1", trash_s=0)
    world.remove("a2", trash_s=0)
    world.remove("b1", trash_s=0)


async def collect(world: World) -> None:
    """Collect garbage."""
    world.now_s += 2
    await world.collect()


async def with_volume(world: World) -> None:
    """Have a volume that is to take copies."""
    await two(world)
    await world.add_volume("b")


async def replicate(world: World) -> None:
    """Copy everything."""
    await world.replicate()


async def replicated(world: World) -> None:
    """Have copies of everything, and another volume."""
    await with_volume(world)
    await world.replicate()
    await world.add_volume("c")


async def drain(world: World) -> None:
    """Empty a volume and let it go."""
    await world.replicate()
    world.store.copies.set_draining("b", True)
    await world.replicate()
    await world.store.copies.remove("b", {A: 2})


async def collected_copies(world: World) -> None:
    """Have copies of versions that were removed."""
    await replicated(world)
    world.remove("a1", trash_s=0)


async def collect_with_copies(world: World) -> None:
    """Collect the store, and have a round afterwards."""
    await world.replicate()
    await collect(world)
    await world.replicate()


def flip(path: Path, offset: int = 5 * 4096 + 100) -> None:
    """Change one bit."""
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


async def damaged(world: World) -> None:
    """Have two versions with a bad page in what the first has written."""
    await two(world)
    world.close()
    flip(packs(world.directory)[0])


async def find_damage(world: World) -> None:
    """Scrub: the damage is noted, the pack goes to quarantine."""
    assert await world.verify("a1") != []
    await world.verify("a2")


async def heal(world: World) -> None:
    """Write a version after the damage was found: bad pages are written anew."""
    await find_damage(world)
    await world.save("a3")


async def damaged_with_copy(world: World) -> None:
    """The same, with a good copy on a volume."""
    await with_volume(world)
    await world.replicate()
    world.close()
    flip(packs(world.directory)[0])


async def mend(world: World) -> None:
    """Read the damage, then mend the store from the copy."""
    await world.replicate()
    await world.read_all({(A, 1), (A, 2)})
    await world.replicate()


async def mended(world: World) -> None:
    """Mend it, and see that it is."""
    await mend(world)
    assert await world.read_all() == set()


async def broken(world: World) -> None:
    """Leave what a repair puts right: torn files, a lost page table, a lost directory."""
    await two(world)
    world.close()
    (world.directory / "heads" / A / ".3.tmp").write_bytes(b"half a head")
    (world.directory / "packs/open" / f"{'0' * 32}.0").write_bytes(b"x")
    next(world.directory.glob("manifests/??/*.pages")).unlink()
    (world.directory / "trash").rmdir()


async def put_right(world: World) -> None:
    """Repair the store (its catalog is not of this layer)."""
    mend_store(world)


async def put_right_at_last(world: World) -> None:
    """Repair it, and see that nothing was lost."""
    assert mend_store(world).lost == []


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


SCENARIOS = {
    row.name: row
    for row in (
        Scenario("create a store", nothing, create, opens=False),
        Scenario("commit the first", create, commit_first),
        Scenario("commit the next", two, commit),
        Scenario("commit a larger one", one, commit_second, scale=90),
        Scenario("commit refused at the head", two, commit_refused, plan=no_room_for_heads),
        Scenario("remove", two, remove),
        Scenario("remove on a full disk", two, remove, plan=no_room_for_directories),
        Scenario("undelete", removed, undelete),
        Scenario("pin, verify, sums, scrub record", two, markers),
        Scenario("collect", expired, collect),
        Scenario("collect on a full disk", expired, collect, plan=no_room_for_directories),
        Scenario("replicate", with_volume, replicate),
        Scenario("drain a volume", replicated, drain),
        Scenario("collect beside copies", collected_copies, collect_with_copies),
        Scenario("find damage", damaged, find_damage, hurt=("a1", "a2")),
        Scenario("write after damage", damaged, heal, hurt=("a1", "a2")),
        Scenario("mend from a copy", damaged_with_copy, mend, hurt=("a1", "a2"), again=mended),
        Scenario("repair", broken, put_right, opens=False, again=put_right_at_last),
    )
}


async def prepared(scenario: Scenario, top: Path) -> World:
    """Return the world before the thing is done, closed."""
    world = World(top, scale=scenario.scale)
    try:
        await scenario.prepare(world)
    finally:
        world.close()
    return world


async def act(scenario: Scenario, before: World, top: Path, calls: Syscalls) -> World:
    """Do it with *calls* in *top*, a copy of *before*; the world is left open."""
    world = World(top, calls, scale=scenario.scale)
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
