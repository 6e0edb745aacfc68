"""The index of the heads: quick, and never believed against the heads themselves."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ckptfs.errors import Corrupt, StoreFull
from ckptfs.ids import JobId, Version
from ckptfs.model import Initiator, Protocol, Purpose
from ckptfs.store import layout
from ckptfs.store.api import Account, Alone
from ckptfs.store.head_index import decode_index, encode_index
from ckptfs.store.store import open_store
from ckptfs.store.syscalls import Syscalls
from tests.store_kit import JOB, Cut, FaultyCalls, noise, save

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
ROWS = {
    (JobId("a.1"), Version(1)): (
        (1, 2, 3, 4),
        Account(5, 6, Purpose.USER, Initiator.SYSTEM, None, 7),
    ),
    (JobId("a.1"), Version(2)): (
        (5, 6, 7, 8),
        Account(8, 9, Purpose.MIGRATION, Initiator.USER, Version(1), 9),
    ),
    (JobId("b.2"), Version(3)): (
        (9, 10, 11, 12),
        Account(
            8,
            9,
            Purpose.USER,
            Initiator.USER,
            Version(1),
            9,
            frozen_usec=412034,
            files=21,
            protocol=Protocol.INDEPENDENT,
            keep=True,
            note="before \u2026",
            alone=Alone(4096, Version(1), None),
        ),
    ),
}


class Reads(Syscalls):
    """Real calls that remember which heads were read."""

    def __init__(self) -> None:
        self.heads: list[str] = []

    def read_file(self, path, limit):
        if path.parent.name == JOB:
            self.heads.append(path.name)
        return super().read_file(path, limit)


class NoRoom(Syscalls):
    """A disk that takes no index any more."""

    def create(self, path, *, direct=False, mode=0o600):
        if layout.HEAD_INDEX in path.name:
            raise OSError(StoreFull.errno, "full")
        return super().create(path, direct=direct, mode=mode)


def test_what_is_written_is_read_again():
    assert decode_index(encode_index(ROWS, KEY), KEY.public_key()) == ROWS


def test_no_altered_byte_is_believed():
    document = encode_index(ROWS, KEY)
    for at in range(len(document)):
        altered = document[:at] + bytes([document[at] ^ 1]) + document[at + 1 :]
        try:
            found = decode_index(altered, KEY.public_key())
        except Corrupt:
            continue
        assert found == ROWS, at  # a padding bit of the signature's base64 at most


def test_no_torn_index_is_believed():
    document = encode_index(ROWS, KEY)
    for length in range(len(document)):
        with pytest.raises(Corrupt):
            decode_index(document[:length], KEY.public_key())


@pytest.fixture
def kept(tmp_path):
    """A closed store of three versions; returns its directory."""
    directory = tmp_path / "kept"
    store = open_store(directory, create=True)

    async def main():
        for version in (1, 2, 3):
            await save(store, {"pages": noise(8192, seed=version)}, version=version)

    trio.run(main)
    store.close()
    return directory


def heads_read(directory) -> list[str]:
    """Open, ask for every version, close; return which heads had to be read."""
    calls = Reads()
    store = open_store(directory, create=False, calls=calls)
    try:
        for version in store.versions(JOB):
            try:
                account = store.account(JOB, version)
            except Corrupt:
                continue
            assert account.committed_ns == store.head(JOB, version).committed_ns
            calls.heads.remove(str(version))  # read for that comparison
    finally:
        store.close()
    return calls.heads


def test_no_head_is_read_that_is_the_file_it_was(kept):
    assert heads_read(kept) == []


@pytest.mark.parametrize("harm", ["missing", "torn", "altered"])
def test_without_a_good_index_every_head_is_read_and_the_index_made_anew(kept, harm):
    index = kept / layout.HEAD_INDEX
    document = bytearray(index.read_bytes())
    index.unlink()
    document[-20] ^= 1
    if harm != "missing":
        index.write_bytes(document[: 100 if harm == "torn" else None])

    assert heads_read(kept) == ["1", "2", "3"]
    assert heads_read(kept) == []


@pytest.mark.wrong_store("a head is damaged")
def test_a_head_that_changed_is_read(kept):
    head = kept / layout.head_path(JOB, Version(2))
    document = bytearray(head.read_bytes())
    document[-1] ^= 1
    times = head.stat()
    head.chmod(0o600)
    head.write_bytes(document)
    os.utime(head, ns=(times.st_atime_ns, times.st_mtime_ns))  # also where nothing else shows it

    store = open_store(kept, create=False)
    try:
        with pytest.raises(Corrupt, match="version 2"):
            store.account(JOB, Version(2))
        assert store.account(JOB, Version(1)).logical_bytes == 8192
    finally:
        store.close()


@pytest.mark.wrong_store("a head is damaged")
def test_a_head_that_changes_while_the_store_is_open_is_not_vouched_for(kept):
    store = open_store(kept, create=False)
    assert store.account(JOB, Version(2)).logical_bytes == 8192
    head = kept / layout.head_path(JOB, Version(2))
    head.chmod(0o600)
    head.write_bytes(b"something else")
    store.remove(JOB, Version(3))  # so that the index is written again
    store.close()

    again = open_store(kept, create=False)
    try:
        with pytest.raises(Corrupt):
            again.account(JOB, Version(2))
        assert [*again.versions(JOB)] == [1, 2]
    finally:
        again.close()


def test_a_version_that_comes_back_from_the_trash_is_read_once(kept):
    store = open_store(kept, create=False)
    store.remove(JOB, Version(3))
    store.undelete(JOB, Version(3))
    store.close()

    assert heads_read(kept) == ["3"]
    assert heads_read(kept) == []


def test_power_lost_at_every_call_of_its_writing(kept, tmp_path):
    (kept / layout.HEAD_INDEX).unlink()
    tried, seen = 0, set()
    while True:
        directory = tmp_path / f"cut-{tried}"
        shutil.copytree(kept, directory)
        calls = FaultyCalls()
        store = open_store(directory, create=False, calls=calls)
        store.account(JOB, Version(1))
        calls.cut_at = len(calls.log) + tried
        with suppress(Cut):
            store.close()
        if not calls.was_cut:
            break
        seen.add(tuple(heads_read(directory)))
        assert heads_read(directory) == []
        tried += 1
    assert tried == 6  # unlink, create, pwrite, fsync, rename, fsync of the directory
    assert seen == {("1", "2", "3"), ("2", "3")}  # the row is there or it is not


def test_a_disk_that_takes_no_index_is_no_trouble(kept):
    (kept / layout.HEAD_INDEX).unlink()
    store = open_store(kept, create=False, calls=NoRoom())
    assert store.account(JOB, Version(1)).logical_bytes == 8192
    store.close()

    assert not (kept / layout.HEAD_INDEX).exists()
    assert heads_read(kept) == ["1", "2", "3"]
