"""Below the low mark the trash goes early, oldest first, until the high mark; not further."""

from __future__ import annotations

import pytest

from ckptfs.errors import StoreFull
from ckptfs.gc.decide import is_ample, is_scarce
from ckptfs.gc.sweep import Sweep
from ckptfs.ids import Version
from ckptfs.store.space import FLOOR, RESERVE_MAX, Space
from tests.store_kit import JOB, MIB, noise, save
from tests.unit.test_gc_sweep import World

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part

COUNT = 8
TOTAL = 40 * MIB


class Disk:
    """Free and total bytes as a small disk would tell them: it is full but for what was freed."""

    def __init__(self, world: World) -> None:
        self.world, self.full = world, world.bytes_on_disk()

    def room(self) -> tuple[int, int]:
        return MIB + self.full - self.world.bytes_on_disk(), TOTAL


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    for version in range(1, COUNT + 1):
        await save(world.store, {"pages": noise(MIB, seed=version)}, version=version)
    for version in range(1, COUNT):
        world.pass_time(60)
        world.store.remove(JOB, Version(version))
    yield world
    world.store.close()


def sweep_with(world: World, room) -> Sweep:
    return Sweep(
        world.store.garbage,
        wall_s=lambda: world.now_s,
        uptime_s=lambda: world.uptime_s,
        is_scarce=lambda: is_scarce(*room()),
        room=room,
    )


async def run(sweep: Sweep):
    return await sweep.run(asked=False, empty_trash=False, tell=lambda *_: None)


async def test_the_oldest_go_until_enough_is_free(world, autojump_clock):
    disk = Disk(world)
    assert is_scarce(*disk.room())
    report = await run(sweep_with(world, disk.room))
    assert report.doubt == ""
    left = [version for version, _ in world.store.trashed(JOB)]
    assert left == [5, 6, 7]  # two a round; 1 + 4 MiB of 40 are a tenth
    assert report.freed_bytes >= 4 * MIB
    assert is_ample(*disk.room())
    assert (await run(sweep_with(world, disk.room))).freed_bytes == 0
    assert [version for version, _ in world.store.trashed(JOB)] == left


async def test_a_disk_that_is_slow_to_tell_does_not_cost_more(world, autojump_clock):
    """ext4 hands freed blocks out, and counts them, once its journal has committed."""
    report = await run(sweep_with(world, lambda: (MIB, TOTAL)))
    assert report.doubt == ""
    assert [version for version, _ in world.store.trashed(JOB)] == [5, 6, 7]


async def test_all_go_when_that_is_not_enough_and_what_has_expired_goes_anyway(
    world, autojump_clock
):
    assert (await run(sweep_with(world, lambda: (0, 1 << 40)))).doubt == ""
    assert world.store.trashed(JOB) == []
    world.store.remove(JOB, Version(COUNT))
    world.pass_time(24 * 3600)
    await run(sweep_with(world, lambda: (1 << 39, 1 << 40)))
    assert world.store.trashed(JOB) == []


class Told:
    """A volume that is as full as the test says."""

    domain = "local"

    def __init__(self, free: int, total: int) -> None:
        self.free, self.total = free, total

    def free_and_total(self) -> tuple[int, int]:
        return self.free, self.total


@pytest.mark.parametrize(
    ("total", "reserve"), [(1 << 30, FLOOR), (10 << 30, (10 << 30) // 100), (1 << 40, RESERVE_MAX)]
)
def test_new_versions_leave_the_reserve_alone_and_those_under_way_may_use_it(total, reserve):
    volume = Told(reserve + 65 * MIB, total)
    space = Space(volume)  # type: ignore[arg-type]
    promise = space.promise(64 * MIB - 2 * MIB, lambda: 0)
    with pytest.raises(StoreFull, match="remove versions"):
        space.promise(4 * MIB, lambda: 0)
    volume.free = reserve + 63 * MIB
    if reserve > FLOOR:
        promise.ensure(64 * MIB)
    promise.release()
    assert space.reserved_bytes == 0


def test_the_marks():
    assert [is_scarce(free, 100) for free in (4, 5, 9, 10)] == [True, False, False, False]
    assert [is_ample(free, 100) for free in (4, 5, 9, 10)] == [False, False, False, True]
