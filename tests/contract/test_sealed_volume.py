"""Volumes whose objects are compressed or encrypted: the contract, and what the sealing adds."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil

import pytest

from ckptfs.errors import Busy, Corrupt, KeyMissing
from ckptfs.store import key_wrapping, sealed_volume
from ckptfs.store.copies_plan import Piece
from ckptfs.store.copy_volume import CopyVolume, piece_path
from ckptfs.store.key_documents import decode_key, encode_key
from ckptfs.store.keyring import KeyRing
from ckptfs.store.sealed_volume import SealedVolume
from ckptfs.store.syscalls import Syscalls
from tests.contract.sealed_kit import AlicesVolume, change, flip
from tests.contract.volume_suite import NAME, OTHER, VolumeSuite
from tests.store_kit import MIB, Cut, FaultyCalls, broken, noise

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part

HEAD = Piece("heads", "heat.42@7")
TEXT = b"all work and no play " * 1000


@pytest.fixture(params=["compress", "encrypt"])
def seal(request):
    return request.param


@pytest.fixture
def volume(tmp_path, keys, seal):
    (tmp_path / "v").mkdir()
    made = AlicesVolume(tmp_path / "v", Syscalls(), "rack2", seal, keys)
    made.claim("a store")
    return made


def stranger(volume, tmp_path, name="stranger"):
    """The same volume, seen from a store that has none of the keys."""
    (tmp_path / name / "keys").mkdir(parents=True)
    ring = KeyRing(tmp_path / name, Syscalls())
    return SealedVolume(volume.directory, Syscalls(), "rack2", volume.seal, ring)


class TestSealedVolume(VolumeSuite):
    def test_it_is_never_taken_for_another_kind(self, volume, keys, tmp_path):
        other = {"compress": "encrypt", "encrypt": "compress"}[volume.seal]
        (tmp_path / "source").write_bytes(TEXT)
        volume.receive(tmp_path / "source", HEAD, owner="alice")
        for strange in (
            CopyVolume(volume.directory, Syscalls(), "rack2"),
            SealedVolume(volume.directory, Syscalls(), "rack2", other, keys),
        ):
            with pytest.raises(Busy, match=f"kept {volume.seal}"):
                strange.claim("a store")
        assert b'"format": 2' in (volume.directory / "VOLUME").read_bytes()  # older ones refuse it
        (tmp_path / "plain").mkdir()
        CopyVolume(tmp_path / "plain", Syscalls(), "d").claim("a store")
        with pytest.raises(Busy, match="kept plain"):
            SealedVolume(tmp_path / "plain", Syscalls(), "d", other, keys).check("a store")

    def test_what_is_received_comes_back(self, volume, tmp_path):
        source = tmp_path / "source"
        for data in (b"", b"x", TEXT, noise(3 * MIB + 5), bytes(2 * MIB) + noise(MIB)):
            source.write_bytes(data)
            for piece in (HEAD, Piece("tables", NAME)):
                stored = volume.receive(source, piece, owner="alice")
                path = piece_path(volume.directory, piece)
                assert stored == path.stat().st_size
                assert volume.fetch(piece) == data
                is_hidden = volume.seal == "encrypt" and len(data) > 1
                assert not is_hidden or data[:16] not in path.read_bytes()
                assert path.stat().st_mode & 0o077 == 0
        assert volume.receive(source, HEAD, owner="alice") < MIB + 4096  # zeros take no room
        assert not list(volume.directory.rglob("*.tmp"))

    def test_what_does_not_compress_is_not(self, volume, tmp_path):
        source, data = tmp_path / "source", noise(MIB)
        source.write_bytes(data)
        assert MIB < volume.receive(source, HEAD, owner="alice") < MIB + 400

    def test_listing_proving_and_deleting_need_no_key(self, volume, tmp_path):
        source = tmp_path / "doc"
        source.write_bytes(TEXT)
        pieces = [HEAD, Piece("manifests", NAME), Piece("tables", OTHER)]
        stored = sum(volume.receive(source, piece, owner="alice") for piece in pieces)
        lockless = stranger(volume, tmp_path)
        listing = lockless.listing()
        assert listing.held == set(pieces)
        assert (listing.used_bytes, listing.plain_bytes) == (stored, 3 * len(TEXT))
        for piece in pieces:
            lockless.prove(piece)
            lockless.discard(piece)
        assert lockless.listing().held == frozenset()
        assert lockless.listing().strangers == ()

    def test_a_slow_disk_is_asked_for_few_headers_at_a_time(self, volume, tmp_path, monkeypatch):
        names = [f"{number:040x}" for number in range(4)]
        for name in names:
            volume.put("manifests", name, bytes(1000))
        again = stranger(volume, tmp_path)
        asked = []

        class Counting(Syscalls):
            def read_file(self, path, limit):
                asked.append(path)
                return super().read_file(path, limit)

        again._seal_calls = Counting()
        monkeypatch.setattr(sealed_volume, "HEADERS_S", -1.0)
        for number in range(1, 6):
            assert again.listing().plain_bytes == 4000  # a guess at first
            assert len(asked) == min(number, 4)

    def test_every_flipped_bit_is_found_without_keys(self, volume, tmp_path):
        kind = "packs"
        volume.put(kind, NAME, b"some bytes")
        path = volume.path(kind, NAME)
        good = path.read_bytes()
        lockless = stranger(volume, tmp_path)
        lockless.prove(Piece(kind, NAME))
        for at in range(len(good)):
            change(path, flip(at))
            with pytest.raises(Corrupt):
                lockless.prove(Piece(kind, NAME))
            path.write_bytes(good)
        for length in range(len(good)):
            path.write_bytes(good[:length])
            with pytest.raises(Corrupt):
                lockless.prove(Piece(kind, NAME))
        path.write_bytes(good + b"\0")
        with pytest.raises(Corrupt):
            lockless.prove(Piece(kind, NAME))

    def test_a_renamed_object_is_found_without_keys(self, volume, tmp_path):
        volume.put("manifests", NAME, TEXT)
        volume.put("manifests", OTHER, TEXT)
        volume.path("manifests", NAME).rename(volume.path("manifests", OTHER))
        lockless = stranger(volume, tmp_path)
        with pytest.raises(Corrupt, match="renamed"):
            lockless.prove(Piece("manifests", OTHER))
        with pytest.raises(Corrupt, match="renamed"):
            volume.get("manifests", OTHER, 10)


def test_each_owner_has_a_key_and_it_lies_beside_the_copies(encrypted, keys, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(TEXT)
    for owner, piece in (("alice", HEAD), ("bob", Piece("heads", "heat.43@1"))):
        encrypted.receive(source, piece, owner=owner)
        key_id, key = keys.sealing(owner)
        assert bytes.fromhex(key_id) in piece_path(encrypted.directory, piece).read_bytes()
        wrapped = (encrypted.directory / f"keys/{key_id}.json").read_bytes()
        assert b"passphrase" in wrapped
        assert b'"store"' not in wrapped
        assert key.hex().encode() not in wrapped
    with pytest.raises(KeyMissing, match="carol has no key"):
        encrypted.receive(source, Piece("heads", "heat.44@1"), owner="carol")
    assert len(encrypted.listing().held) == 2
    assert not list(encrypted.directory.rglob("*.tmp"))


def test_who_may_open_a_key_later_may_open_the_copies_too(encrypted, keys):
    encrypted.put("tables", NAME, TEXT)
    key_id, _ = keys.sealing("alice")
    path = encrypted.directory / f"keys/{key_id}.json"
    first = decode_key(path.read_bytes(), "it")

    def by_another(key):
        return key_wrapping.wrap_for_passphrase(key, "another passphrase")

    keys.add_wrap(key_id, by_another)
    encrypted.check("a store")
    laid = decode_key(path.read_bytes(), "it")
    assert len(laid.openers()) == 2
    assert laid.openers() == keys.document(key_id).openers()
    keys.take_in(encode_key(first), lambda _: keys.open(key_id))
    path.unlink()
    path.write_bytes(encode_key(first))  # an old one was put back
    again = SealedVolume(encrypted.directory, Syscalls(), "rack2", "encrypt", keys)
    again.check("a store")
    assert decode_key(path.read_bytes(), "it") == laid
    stranger_only = decode_key(path.read_bytes(), "it")
    more = key_wrapping.wrap_for_passphrase(keys.open(key_id), "a third passphrase")
    path.chmod(0o600)
    path.write_bytes(
        encode_key(dataclasses.replace(stranger_only, wraps=(*stranger_only.wraps, more)))
    )
    keys.add_wrap(key_id, by_another)
    again.check("a store")
    assert len(decode_key(path.read_bytes(), "it").openers()) == 4  # none is taken away


def test_an_error_or_a_power_cut_at_any_call_leaves_a_whole_copy_or_none(tmp_path, keys):
    source, data = tmp_path / "source", noise(MIB, 3) + bytes(MIB)
    source.write_bytes(data)
    cases = 0
    for way in ("error", "cut"):
        for number in range(1000):
            place = tmp_path / f"{way}{number}"
            place.mkdir()
            SealedVolume(place, Syscalls(), "d", "encrypt", keys).claim("s")
            calls = FaultyCalls()
            if way == "error":
                calls.fail_at = {number: broken()}
            else:
                calls.cut_at = number
            volume = SealedVolume(place, calls, "d", "encrypt", keys)
            with contextlib.suppress(OSError, Cut):
                volume.receive(source, HEAD, owner="alice")
            after = SealedVolume(place, Syscalls(), "d", "encrypt", keys)
            after.check("s")
            if HEAD in after.listing().held:
                after.prove(HEAD)
                assert after.fetch(HEAD) == data
            if way == "error":
                assert not list(place.rglob("*.tmp"))
            after.receive(source, HEAD, owner="alice")  # and once more, with a disk that works
            assert after.fetch(HEAD) == data
            assert after.listing().torn == ()
            if len(calls.log) <= number:
                break
            cases += 1
        shutil.rmtree(place)
    assert cases > 30
    print(f"{cases} cases tried")


def test_without_the_key_nothing_is_read_and_the_sentence_says_what_to_do(encrypted, tmp_path):
    encrypted.put("manifests", NAME, TEXT)
    lockless = stranger(encrypted, tmp_path)
    with pytest.raises(KeyMissing, match="ckptfs key import"):
        lockless.get("manifests", NAME, 10)
    with pytest.raises(KeyMissing):
        lockless.fetch(Piece("manifests", NAME))
    assert lockless.size("manifests", NAME) == len(TEXT)


def test_a_copy_that_is_not_what_was_written_is_not_kept(tmp_path, keys):
    """A disk that flips a bit between write and read."""

    class Lying(Syscalls):
        def fsync(self, fd):
            super().fsync(fd)
            if os.fstat(fd).st_size > 500_000:
                os.pwrite(fd, bytes([os.pread(fd, 1, 1000)[0] ^ 1]), 1000)

    (tmp_path / "v").mkdir()
    volume = SealedVolume(tmp_path / "v", Lying(), "d", "encrypt", keys)
    volume.claim("s")
    source = tmp_path / "source"
    source.write_bytes(noise(MIB))
    with pytest.raises(Corrupt, match="checksum"):
        volume.receive(source, HEAD, owner="alice")
    assert volume.listing().held == frozenset()
    assert not list(volume.directory.rglob("*.tmp"))


def test_a_full_disk_leaves_nothing(tmp_path, keys):
    class Full(Syscalls):
        def pwrite(self, fd, data, offset):
            if offset > MIB:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().pwrite(fd, data, offset)

    (tmp_path / "v").mkdir()
    volume = SealedVolume(tmp_path / "v", Full(), "d", "encrypt", keys)
    volume.claim("s")
    source = tmp_path / "source"
    source.write_bytes(noise(3 * MIB))
    with pytest.raises(OSError, match="No space"):
        volume.receive(source, HEAD, owner="alice")
    assert volume.listing().held == frozenset()
    assert not list(volume.directory.rglob("*.tmp"))
