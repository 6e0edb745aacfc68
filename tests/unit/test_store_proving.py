"""The pass over a version before a restart relies on it, and who is let go first."""

from dataclasses import replace
from functools import partial

import pytest
import trio

from ckptfs.errors import Corrupt
from ckptfs.model import FileEntry
from ckptfs.store.blocks import BlockLoader
from ckptfs.store.manifest import decode_manifest
from ckptfs.store.proving import Pace, Proof
from ckptfs.store.store import open_store
from tests.store_kit import MIB, UNIT, draft, noise, save


class Gone:
    """No pack is there."""

    def get(self, pack_id):
        raise Corrupt("it is not there")

    def drop(self, pack_id):
        assert pack_id


@pytest.fixture
def prove(tmp_path):
    """Prove 13 blocks without a pack: which were not left out, and the shares told."""
    store = open_store(tmp_path / "store", create=True)
    data = noise(MIB) * 12 + b"end"
    name = trio.run(partial(save, store, {"pages-1.img": data})).files[0].manifest.partition(":")[0]
    store.close()
    path = tmp_path / "store" / "manifests" / name[:2] / name
    manifest = decode_manifest(name, path.read_bytes())
    file = manifest.files[0]
    entry = FileEntry(
        UNIT, file.name, file.size_bytes, file.blake3.hex(), f"{manifest.manifest_id}:0"
    )
    head = replace(draft(), files=(entry,))

    def prove(noted, pace=None):
        shares = []
        proof = Proof(
            head,
            manifest,
            BlockLoader(Gone()),
            progress=shares.append,
            suspect=lambda _: None,
            noted=noted,
            pace=pace,
        )
        found = proof.run(lambda: None, up_to_bytes=1 << 40)
        return [damage.block for damage in found], shares

    return prove


def test_a_proof_leaves_out_what_was_noted(prove):
    left, shares = prove({(0, block) for block in range(13)} - {(0, 4), (0, 11)})
    assert (left, shares[-1]) == ([4, 11], 1.0)
    assert prove(set())[0] == list(range(13))


class Reading(Pace):
    """A reader that has some more blocks loaded before each look, and then stops."""

    def __init__(self, noted, blocks):
        super().__init__(noted)
        self._to_come = blocks

    @property
    def is_fast(self):
        with self._lock:
            self._noted.update(self._to_come[:2])
            del self._to_come[:2]
            return bool(self._to_come)


def test_a_proof_leaves_a_version_to_who_reads_it_fast_and_proves_the_rest(prove):
    noted = set()
    left, shares = prove(noted, Reading(noted, [(0, block) for block in range(9)]))
    assert (left, shares[-1]) == ([9, 10, 11, 12], 1.0)


def test_readers_are_fast_while_they_have_blocks_loaded_faster_than_slow_disks():
    now_s, noted = 10.0, set()
    pace = Pace(noted, lambda: now_s)
    seen = []
    for blocks, past_s in [(0, 0.02), (9, 0.02), (9, 0.001), (5, 0.02), (5, 0.02), (0, 5.0)]:
        noted |= {(0, len(noted) + more) for more in range(blocks)}
        now_s += past_s
        seen.append(pace.is_fast)
    # not yet; 9 in 20 ms; too early to look; 14 in 21 ms; 5 in 20 ms; nothing more
    assert seen == [False, True, True, True, False, False]
