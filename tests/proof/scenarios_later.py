"""The paths on which several things meet: pipes, sparse packs, a volume that was away, padding."""

from __future__ import annotations

from tests.store_kit import PAGE

from .scenario import Scenario, flip, footer_of, one, packs
from .scenarios_packs import half_dead, thinned_with_volume
from .scenarios_volumes import brought_back, collect_with_copies, lost, with_volume
from .world import LIVE, A, B, Shape, World, no_pace


async def commit_out_of_pipes(world: World) -> None:
    """Take a version out of the pipes of a checkpointer."""
    await world.save_from_pipes("a2")


async def thinned_with_copy(world: World) -> None:
    """Have a sparse pack with a copy that is as sparse, and the store's own damaged."""
    await thinned_with_volume(world)
    await world.replicate()
    world.close()
    spoil_sparse_pack(world)


async def thinned_with_whole_copy(world: World) -> None:
    """The same with a copy from before, that has all pages."""
    await half_dead(world)
    await world.add_volume("b")
    await world.replicate()
    world.now_s += 2
    report = await world.collect()
    assert report.packs, f"no pack was written anew: {report}"
    world.close()
    spoil_sparse_pack(world)


def spoil_sparse_pack(world: World) -> None:
    """Flip a bit of a page that the sparse pack still holds."""
    for path in packs(world.directory):
        footer = footer_of(path)
        if footer.present is not None:
            page = int(footer.present[1:].argmax()) + 1
            return flip(path, page * PAGE)
    raise AssertionError("no pack is sparse")


async def mend_thinned(world: World) -> None:
    """Read the damage, then mend the store from the copy."""
    await world.replicate()
    await world.read_all({(A, 5), (B, 1)})
    await world.replicate()


async def thinned_mended(world: World) -> None:
    """Mend it, and see that it is."""
    await mend_thinned(world)
    assert await world.read_all() == set()


async def bring_back_thinned(world: World) -> None:
    """Make a store out of a volume that holds sparse packs."""
    assert brought_back(world).lost == []
    world.note(a5=LIVE, b1=LIVE)


async def thinned_back_at_last(world: World) -> None:
    """The same again; now everything is there."""
    assert brought_back(world).lost == []
    store = world.open()
    assert (store.versions(A), store.versions(B)) == ((5,), (1,))


async def padded(world: World) -> None:
    """Have damage that no block covers, behind the end of a file, and a good copy."""
    await with_volume(world)
    await world.replicate()
    world.close()
    path = packs(world.directory)[0]
    flip(path, footer_of(path).data_end - 1)


async def scrub_packs(world: World) -> None:
    """Find it by reading the packs themselves, and have it mended."""
    await world.replicate()
    await world.store.copies.scrub_packs(no_pace, "", lambda _name, _good: True)
    await world.replicate()


async def packs_scrubbed(world: World) -> None:
    """Do it, and see that it is mended."""
    await scrub_packs(world)
    bad: list[str] = []
    await world.store.copies.scrub_packs(
        no_pace, "", lambda name, good: bool(good or bad.append(name)) or True
    )
    assert not bad, f"pack {bad[0]} is still damaged"


async def was_away(world: World) -> None:
    """Have a volume that missed the removal of a version, and two collections."""
    await with_volume(world)
    await world.replicate()
    volume, aside = world.top / "b", world.top / "aside"
    volume.rename(aside)
    world.remove("a1", trash_s=0)
    await world.replicate()
    for _ in range(2):
        world.now_s += 2
        await world.collect()
    assert (world.directory / "gone.json").exists(), "what the volume missed is not remembered"
    world.close()
    aside.rename(volume)


ROWS = (
    Scenario("commit out of pipes", one, commit_out_of_pipes, shape=Shape(scale=90)),
    Scenario(
        "mend a sparse pack", thinned_with_copy, mend_thinned, hurt=("a5",), again=thinned_mended
    ),
    Scenario(
        "mend a sparse pack from a whole copy",
        thinned_with_whole_copy,
        mend_thinned,
        hurt=("a5",),
        again=thinned_mended,
    ),
    Scenario(
        "recover sparse packs",
        lost(thinned_with_volume),
        bring_back_thinned,
        opens=False,
        again=thinned_back_at_last,
    ),
    Scenario("scrub the packs", padded, scrub_packs, again=packs_scrubbed),
    Scenario("collect a volume that was away", was_away, collect_with_copies),
)
