"""A store that hashes in a process of its own, and what happens when that process is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from ckptfs.errors import CkptfsError
from ckptfs.store.store import open_store
from tests.store_kit import MIB, UNIT, dirtied, draft, load, noise, save

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path / "store", create=True, hash_worker=True)
    yield store
    store.close()


def children():
    return {
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    }


def test_versions_are_the_same_and_share_pages(store):
    async def main():
        big, small = noise(9 * MIB + 5), noise(5 * MIB, 1)
        files = {"pages-1.img": big, "pages-2.img": small, "core-1.img": b"x" * 100}
        await save(store, files)
        files["pages-1.img"] = dirtied(big, 20, 2)
        head = await save(store, files, version=2)
        assert head.stored_bytes < MIB
        for name, data in files.items():
            assert await load(store, name, version=2) == data
        assert await load(store, "pages-1.img", version=1) == big

    trio.run(main)


@pytest.mark.parametrize("when", ["before", "between", "at the end"])
def test_a_killed_worker_costs_one_version(tmp_path, when):
    before = children()
    store = open_store(tmp_path / "store", create=True, hash_worker=True)
    (worker,) = children() - before
    data = noise(40 * MIB)

    async def write():
        ingest = store.begin(draft().job, draft().version, expect_bytes=len(data))
        try:
            file = ingest.create(UNIT, "pages-1.img")
            for at in range(0, len(data), MIB):
                if (when, at) in {("before", 0), ("between", 20 * MIB)}:
                    os.kill(worker, signal.SIGKILL)
                await file.wait_writable()
                file.write(at, data[at : at + MIB])
            if when == "at the end":
                os.kill(worker, signal.SIGKILL)
            return await ingest.commit(draft())
        finally:
            await ingest.abort()

    async def main():
        with pytest.raises(CkptfsError, match="the process that hashes has ended; try again"):
            await write()
        assert store.versions(draft().job) == ()
        await save(store, {"pages-1.img": data})
        assert await load(store, "pages-1.img") == data

    try:
        trio.run(main)
    finally:
        store.close()
    assert children() == before
