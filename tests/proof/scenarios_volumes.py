"""The paths in which volumes take part: copied, drained, mended from, read, recovered from."""

from __future__ import annotations

import shutil

from ckptfs.store.copies_record import COMPRESS, ENCRYPT
from ckptfs.upkeep.keys import Opening
from ckptfs.upkeep.recover import Recovered, recover

from .scenario import Scenario, Step, flip, packs, two
from .world import GONE, LIVE, PASSPHRASE, A, Shape, World, word_of

SPLIT = Shape(pack_pages=6)  # every version is in several packs


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
    world.now_s += 2
    await world.collect()
    await world.replicate()


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


async def with_sealed_volume(world: World) -> None:
    """Have a key, and a volume whose copies are encrypted."""
    await two(world)
    world.make_key()
    await world.add_volume("b", ENCRYPT)


async def change_key(world: World) -> None:
    """Take another key; the old one is for reading from then on."""
    world.make_key(replacing=True)


async def sealed(world: World) -> None:
    """Have encrypted copies of everything, and a volume whose copies are compressed."""
    await with_sealed_volume(world)
    await world.replicate()
    await world.add_volume("c", COMPRESS)


async def sealed_and_collected(world: World) -> None:
    """Have encrypted copies of versions that were removed."""
    await sealed(world)
    world.remove("a1", trash_s=0)


async def damaged_with_sealed_copy(world: World) -> None:
    """Have a bad page in the store, and a good encrypted copy."""
    await with_sealed_volume(world)
    await world.replicate()
    world.close()
    flip(packs(world.directory)[0])


async def rotten_copies(world: World) -> None:
    """Have a copy that has rotted on its volume."""
    await with_volume(world)
    await world.replicate()
    world.close()
    flip(packs(world.top / "b")[0])


async def scrub(world: World) -> None:
    """Find it, and copy it anew."""
    await world.replicate()
    await world.scrub("b")
    await world.replicate()


def lost(prepare: Step) -> Step:
    """Return the step that does *prepare*, and then loses the store and keeps the volumes."""

    async def lose(world: World) -> None:
        await prepare(world)
        await world.replicate()
        world.close()
        shutil.rmtree(world.directory)
        world.directory.mkdir()
        world.note(**{word_of(key): GONE for key in world.spec.of(LIVE)})

    return lose


async def bring_back(world: World) -> None:
    """Make a store out of the volume."""
    assert brought_back(world).lost == []
    world.note(a1=LIVE, a2=LIVE)


async def bring_back_at_last(world: World) -> None:
    """The same again; now everything is there."""
    assert brought_back(world).lost == []
    found = world.open().versions(A)
    assert found == (1, 2), f"brought back: {found}"


def brought_back(world: World) -> Recovered:
    """Run ``ckptfs recover``."""
    opening = Opening(passphrase=PASSPHRASE)
    return recover(
        world.top / "b", world.directory, opening, progress=lambda _: None, calls=world.calls
    )


BOTH = ("a1", "a2")
ROWS = (
    Scenario("replicate", with_volume, replicate),
    Scenario("replicate several packs", with_volume, replicate, shape=SPLIT),
    Scenario("replicate, encrypted", with_sealed_volume, replicate),
    Scenario("change the key", sealed, change_key),
    Scenario("drain a volume", replicated, drain),
    Scenario("drain a volume, encrypted", sealed, drain),
    Scenario("collect beside copies", collected_copies, collect_with_copies),
    Scenario("collect beside encrypted copies", sealed_and_collected, collect_with_copies),
    Scenario("scrub a volume", rotten_copies, scrub),
    Scenario("mend from a copy", damaged_with_copy, mend, hurt=BOTH, again=mended),
    Scenario("mend several packs", damaged_with_copy, mend, hurt=BOTH, again=mended, shape=SPLIT),
    Scenario(
        "mend from an encrypted copy", damaged_with_sealed_copy, mend, hurt=BOTH, again=mended
    ),
    Scenario(
        "recover from a volume",
        lost(with_volume),
        bring_back,
        opens=False,
        again=bring_back_at_last,
    ),
    Scenario(
        "recover from an encrypted volume",
        lost(with_sealed_volume),
        bring_back,
        opens=False,
        again=bring_back_at_last,
    ),
)
