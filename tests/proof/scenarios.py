"""What is tried with every crash and every fault: one row per path that changes the disk.

A scenario prepares a store, then does one thing that is recorded, or met by faults.
"""

from __future__ import annotations

import errno

from ckptfs.errors import StoreFull

from . import scenarios_later, scenarios_packs, scenarios_volumes
from .calls import failure
from .scenario import Scenario, create, flip, mend_store, nothing, one, packs, two
from .world import A, Shape, World

SPLIT = Shape(pack_pages=6)  # every version is in several packs


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


async def commit_third(world: World) -> None:
    """Write the third version."""
    await world.save("a3")


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


SCENARIOS = {
    row.name: row
    for row in (
        Scenario("create a store", nothing, create, opens=False),
        Scenario("commit the first", create, commit_first),
        Scenario("commit the next", two, commit),
        Scenario("commit several packs", two, commit_third, shape=SPLIT),
        Scenario("commit a larger one", one, commit_second, shape=Shape(scale=90)),
        Scenario("commit refused at the head", two, commit_refused, plan=no_room_for_heads),
        Scenario("remove", two, remove),
        Scenario("remove on a full disk", two, remove, plan=no_room_for_directories),
        Scenario("undelete", removed, undelete),
        Scenario("pin, verify, sums, scrub record", two, markers),
        Scenario("collect", expired, collect),
        Scenario("collect several packs", expired, collect, shape=SPLIT),
        Scenario("collect on a full disk", expired, collect, plan=no_room_for_directories),
        Scenario("find damage", damaged, find_damage, hurt=("a1", "a2")),
        Scenario("write after damage", damaged, heal, hurt=("a1", "a2")),
        Scenario("repair", broken, put_right, opens=False, again=put_right_at_last),
        *scenarios_volumes.ROWS,
        *scenarios_packs.ROWS,
        *scenarios_later.ROWS,
    )
}
