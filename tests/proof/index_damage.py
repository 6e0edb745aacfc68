"""The catalog and its log, damaged in every way: it costs a rebuild, never a version."""

from __future__ import annotations

import dataclasses
import random
import shutil
from pathlib import Path

from ckptfs.catalog import jobs as catalog_jobs
from ckptfs.catalog.connection import Connection
from ckptfs.errors import CkptfsError
from ckptfs.ids import Version
from ckptfs.jobs.directory import JobsDirectory
from ckptfs.upkeep.check import check_all
from tests.unit.test_catalog_records import RECORD

from .damage import SPOILS, damage
from .disk import Disk, Image, put_down
from .places import workplace
from .scenario import mend_store
from .world import A, World

FILES = ("store/catalog.db", "store/catalog.db-wal")


async def build(world: World) -> Image:
    """Return a store with a record, a catalog, and a log that was not folded in."""
    world.open()
    for word in ("a1", "a2"):
        await world.save(word)
    world.close()
    record = dataclasses.replace(RECORD, id=A, highest_version=2)
    JobsDirectory(world.directory / "jobs", world.directory / "logs").create(record)
    mend_store(world)
    catalog = Connection(world.directory / "catalog.db")
    try:
        catalog_jobs.remove_version(catalog, A, Version(2))
        with catalog.transaction():
            catalog.execute("PRAGMA user_version")
        store = world.open()
        catalog_jobs.save_version(catalog, store.head(A, Version(2)))
        world.close()
        return Disk.load(world.top).image()  # while the log is there
    finally:
        catalog.close()


async def try_index_damage(*, seed: int = 0, rounds: int = 3) -> int:
    """Damage catalog and log *rounds* times in every way; return how many cases were tried."""
    rng = random.Random(f"catalog{seed}")
    place = workplace()
    count = 0
    try:
        put_down({}, place / "disk")
        image = await build(World(place / "disk"))
        shutil.rmtree(place / "disk")
        for path in FILES:
            for spoil in (spoil for _ in range(rounds) for spoil in SPOILS):
                before = image[path][0] or b""
                after = SPOILS[spoil](before, image[FILES[0]][0] or b"", rng)
                put_down(image, place / "disk")
                damage(place / "disk" / path, after)
                try:
                    await one_case(place / "disk", serve=count % 2 == 0)
                except Exception as error:
                    raise AssertionError(f"damage: {path}, {spoil}: {error!r}") from error
                shutil.rmtree(place / "disk")
                count += 1
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return count


async def one_case(top: Path, *, serve: bool) -> None:
    """Check, open as a service does, repair, check, read."""
    world = World(top)
    check_all(world.directory, lambda _: None)
    if serve:
        try:
            Connection(world.directory / "catalog.db").close()
        except CkptfsError as error:
            raise AssertionError(f"a service does not start: {error}") from error
    assert mend_store(world).lost == []
    wrong, left = check_all(world.directory, lambda _: None)
    assert (wrong, left) == ([], []), f"after the repair: {[*wrong, *left]}"
    world.open()
    try:
        assert world.store.versions(A) == (1, 2)
        await world.read_all()
    finally:
        world.close()
