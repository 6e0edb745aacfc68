"""A version that is over holds nothing large, however long somebody holds on to it."""

from __future__ import annotations

import threading
import tracemalloc

import pytest
import trio

from ckptfs.ids import Version
from ckptfs.store import packs
from ckptfs.store.store import open_store
from tests.store_kit import JOB, MIB, UNIT, draft, noise, write_file


@pytest.fixture
def maps(monkeypatch):
    """Weigh the buffers of packs as well: what mmap takes is not counted by Python."""
    made = threading.Event()

    class Weighed(packs.Piece):
        def __init__(self):
            super().__init__()
            self.weight = bytearray(packs.PIECE)
            made.set()

    monkeypatch.setattr(packs, "Piece", Weighed)
    return made


@pytest.mark.parametrize("end", ["committed", "given up"])
def test_a_version_that_is_over_holds_nothing_large(tmp_path, maps, end):
    store = open_store(tmp_path / "store", create=True)
    data = noise(24 * MIB, 1)

    async def main():
        ingest = store.begin(JOB, Version(1), expect_bytes=len(data))
        await write_file(ingest, UNIT, "pages-1.img", data, MIB)
        await trio.to_thread.run_sync(maps.wait)
        if end == "committed":
            await ingest.commit(draft())
        else:
            await ingest.abort()
        return ingest

    tracemalloc.start()
    try:
        held = trio.run(main)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak > packs.PIECE
    assert kept < MIB
    assert held.names == 1
    store.close()
