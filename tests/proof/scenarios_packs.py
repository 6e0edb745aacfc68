"""The paths on which packs are written anew without their dead pages."""

from __future__ import annotations

from .scenario import Scenario
from .scenarios_volumes import replicate
from .world import Shape, World

SPLIT = Shape(scale=2, pack_pages=17)  # every version is in several packs


async def half_dead(world: World) -> None:
    """Have a pack of which little is needed, and what keeps the rest of it about to go."""
    world.open()
    for word in ("a1", "a2", "a3", "a4", "a5", "b1"):
        await world.save(word)
    for word in ("a1", "a2", "a3", "a4"):
        world.remove(word, trash_s=0)


async def thin(world: World) -> None:
    """Collect garbage, also within packs."""
    world.now_s += 2
    await world.collect()


async def thin_once_more(world: World) -> None:
    """Collect, and write a version that hits what is left."""
    await thin(world)
    await world.save("a8")


async def thinned(world: World) -> None:
    """Have a sparse pack of which little is needed again."""
    await half_dead(world)
    world.now_s += 2
    report = await world.collect()
    assert report.packs, f"no pack was written anew: {report}"
    for word in ("a6", "a7"):
        await world.save(word)
    for word in ("a5", "a6"):
        world.remove(word, trash_s=0)


async def thinned_with_volume(world: World) -> None:
    """Have sparse packs, and a volume that is to take copies of them."""
    await half_dead(world)
    world.now_s += 2
    report = await world.collect()
    assert report.packs, f"no pack was written anew: {report}"
    await world.add_volume("b")


ROWS = (
    Scenario("collect within packs", half_dead, thin),
    Scenario("collect within several packs", half_dead, thin, shape=SPLIT),
    Scenario("collect within sparse packs", thinned, thin_once_more, shape=Shape(scale=3)),
    Scenario("replicate sparse packs", thinned_with_volume, replicate),
)
