"""What versions hold alone: against a count page by page, kept over a restart, and not too long."""

from __future__ import annotations

import random

import pytest
import trio

from ckptfs.errors import Corrupt
from ckptfs.ids import Version
from ckptfs.store import layout
from ckptfs.store.pages import PAGE
from ckptfs.store.store import open_store
from tests.store_kit import JOB, dirtied, noise, save

PAGES = 64


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "store", create=True)
    yield opened
    opened.close()


async def save_versions(store, count: int) -> dict[int, list[bytes]]:
    """Save versions of one file in which some pages change; return the pages of each."""
    data, kept = noise(PAGES * PAGE), {}
    for version in range(1, count + 1):
        await save(store, {"pages": data}, version=version)
        kept[version] = [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
        data = dirtied(data, random.Random(version).randint(0, PAGES // 2), seed=version)
    return kept


def documents(store, version: int) -> int:
    """The size of a version's manifest and page table."""
    head = store.head(JOB, Version(version))
    name = head.files[0].manifest.partition(":")[0]
    volume = store._volume
    return volume.size("manifests", name) + volume.size("tables", name)


def test_it_is_what_no_other_version_of_the_job_has(store):
    async def main():
        kept = await save_versions(store, 8)
        for gone in (3, 6):
            store.remove(JOB, Version(gone))
            del kept[gone]
        await store.summaries.count_alone(JOB)
        for version, pages in kept.items():
            others = {page for other, held in kept.items() if other != version for page in held}
            expected = len({page for page in pages if page not in others}) * PAGE
            found = store.summaries.alone_bytes(JOB, Version(version))
            assert found == expected + documents(store, version)
            assert found == store.unique_bytes(JOB, Version(version))

    trio.run(main)


def test_a_neighbour_that_comes_or_goes_has_it_counted_anew(store):
    async def main():
        kept = await save_versions(store, 2)
        await store.summaries.count_alone(JOB)
        assert store.summaries.alone_bytes(JOB, Version(2)) is not None
        await save(store, {"pages": b"".join(kept[2])}, version=3)
        assert store.summaries.alone_bytes(JOB, Version(1)) is not None
        assert store.summaries.alone_bytes(JOB, Version(2)) is None
        assert store.unique_bytes(JOB, Version(2)) == documents(store, 2)
        store.remove(JOB, Version(3))
        assert store.summaries.alone_bytes(JOB, Version(2)) is None

    trio.run(main)


def test_it_is_known_after_a_restart_and_heads_are_told_without_reading_them(tmp_path):
    store = open_store(tmp_path / "kept", create=True)

    async def count() -> list[int | None]:
        await save_versions(store, 3)
        await store.summaries.count_alone(JOB)
        return [store.summaries.alone_bytes(JOB, Version(v)) for v in (1, 2, 3)]

    counted = trio.run(count)
    store.close()
    again = open_store(tmp_path / "kept", create=False)
    assert [again.summaries.alone_bytes(JOB, Version(v)) for v in (1, 2, 3)] == counted
    assert again.summaries.unread() == 0
    again.close()

    (tmp_path / "kept" / layout.HEAD_INDEX).unlink()
    without = open_store(tmp_path / "kept", create=False)
    assert without.summaries.unread() == 3
    assert without.summaries.account(JOB, Version(1)) is None
    trio.run(without.count)
    assert without.summaries.unread() == 0
    assert without.summaries.account(JOB, Version(1)).files == 1
    without.close()


@pytest.mark.wrong_store("a manifest is damaged")
def test_a_version_whose_manifest_is_damaged_counts_nothing_and_holds_nobody_up(store, tmp_path):
    async def main():
        await save_versions(store, 3)
        head = store.head(JOB, Version(2))
        name = head.files[0].manifest.partition(":")[0]
        path = tmp_path / "store" / layout.object_path("manifests", name)
        path.chmod(0o600)
        path.write_bytes(b"torn")
        store._versions._manifests.clear()
        await store.summaries.count_alone(JOB)
        found = [store.summaries.alone_bytes(JOB, Version(v)) for v in (1, 2, 3)]
        assert found[1] == 0
        assert found[0] > PAGES // 2 * PAGE  # nothing can be told of what the neighbour has
        with pytest.raises(Corrupt):
            store.unique_bytes(JOB, Version(2))

    trio.run(main)


def test_counting_waits_when_it_is_told_to_and_may_be_cancelled(store):
    async def main():
        await save_versions(store, 4)
        asked = []

        async def pace():
            asked.append(len(asked))
            if len(asked) == 3:
                await trio.sleep_forever()

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.summaries.count_alone, JOB, None, pace)
                while len(asked) < 3:
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        known = [store.summaries.alone_bytes(JOB, Version(v)) is not None for v in (1, 2, 3, 4)]
        assert known == [True, True, False, False]

    trio.run(main)
