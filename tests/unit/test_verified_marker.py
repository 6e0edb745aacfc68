"""The time of the last verification: believed only as it was written, for its own version."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptfs.ids import JobId, Version
from ckptfs.store.store import open_store
from ckptfs.store.syscalls import Syscalls
from ckptfs.store.verification import decode_verified, encode_verified
from tests.store_kit import JOB, noise, save

ONE, NS = Version(1), 1_795_000_000_123_456_789
MARKER = encode_verified(JOB, ONE, NS)


def test_it_comes_back_as_it_was_written():
    for ns in (0, 1, NS, 2**63):
        assert decode_verified(JOB, ONE, encode_verified(JOB, ONE, ns)) == ns


def test_every_flipped_bit_and_every_shorter_marker_means_never():
    for at in range(len(MARKER) * 8):
        bad = bytearray(MARKER)
        bad[at // 8] ^= 1 << at % 8
        assert decode_verified(JOB, ONE, bytes(bad)) == 0
    for size in range(len(MARKER)):
        assert decode_verified(JOB, ONE, MARKER[:size]) == 0


def test_that_of_another_version_and_an_old_one_mean_never():
    assert decode_verified(JOB, Version(2), MARKER) == 0
    assert decode_verified(JobId("other.1"), ONE, MARKER) == 0
    for old in (None, b"", str(NS).encode(), b"9" * 5000, "١٢ ".encode(), b"\xff\xfe"):
        assert decode_verified(JOB, ONE, old) == 0


@pytest.mark.slow
async def test_a_store_with_an_old_marker_reads_that_version_again(tmp_path):
    store = open_store(tmp_path / "store", create=True)
    try:
        await save(store, {"a": noise(5000)})
        assert await store.verify(JOB, ONE) == []
        assert store.verified_ns(JOB, ONE) > NS - 10**18
        store.close()
        marker = tmp_path / "store" / "heads" / JOB / "1.verified"
        marker.write_bytes(str(NS).encode())
        store = open_store(tmp_path / "store", create=False)
        assert store.verified_ns(JOB, ONE) == 0
        assert await store.verify(JOB, ONE) == []
        assert store.verified_ns(JOB, ONE) > 0
    finally:
        store.close()


class Reads(Syscalls):
    """Notes which markers are read."""

    def __init__(self) -> None:
        self.markers: list[str] = []

    def read_file(self, path: Path, limit: int) -> bytes:
        if path.suffix == ".verified":
            self.markers.append(path.name)
        return super().read_file(path, limit)


@pytest.mark.slow
async def test_markers_are_read_once_and_in_the_background(tmp_path):
    store = open_store(tmp_path / "store", create=True)
    for version in (1, 2, 3):
        await save(store, {"a": noise(5000, seed=version)}, version=version)
    assert await store.verify(JOB, ONE) == await store.verify(JOB, Version(2)) == []
    times = [store.verified_ns(JOB, Version(version)) for version in (1, 2, 3)]
    store.close()
    store = open_store(tmp_path / "store", create=False, calls=(reads := Reads()))
    try:
        await store.count()
        assert sorted(reads.markers) == ["1.verified", "2.verified"]
        assert [store.verified_ns(JOB, Version(version)) for version in (1, 2, 3)] == times
        assert await store.verify(JOB, ONE) == []
        assert store.verified_ns(JOB, ONE) > times[0]
        store.remove(JOB, Version(2))
        store.undelete(JOB, Version(2))
        assert store.verified_ns(JOB, Version(2)) == 0  # nobody looked at it in the trash
        assert len(reads.markers) == 2
    finally:
        store.close()
