"""Sealed objects altered by somebody who knows the format, but not the key."""

from __future__ import annotations

import blake3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptfs.errors import Corrupt, KeyMissing
from ckptfs.store.copies_plan import Piece
from ckptfs.store.sealing import DIGEST_SIZE, HEADER_SIZE
from ckptfs.store.syscalls import Syscalls
from tests.contract.sealed_kit import AlicesVolume, change, flip
from tests.contract.volume_suite import NAME
from tests.store_kit import MIB, noise

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part


def test_who_knows_the_format_still_cannot_alter_what_is_encrypted(encrypted):
    """The checksum is not keyed: an enemy makes it right.  The frames still refuse."""
    data = noise(3 * MIB)
    encrypted.put("tables", NAME, data)
    path = encrypted.path("tables", NAME)
    good = path.read_bytes()
    frame = MIB + 16

    def swapped(sealed):
        first, second = (
            slice(HEADER_SIZE, HEADER_SIZE + frame),
            slice(HEADER_SIZE + frame, HEADER_SIZE + 2 * frame),
        )
        sealed[first], sealed[second] = sealed[second], sealed[first]

    def salted(sealed):
        sealed[40] ^= 1

    for edit in (swapped, flip(HEADER_SIZE + 5), flip(HEADER_SIZE + frame - 1), salted):
        path.chmod(0o600)
        path.write_bytes(good)
        change(path, edit)
        body = path.read_bytes()[:-DIGEST_SIZE]
        path.write_bytes(body + blake3.blake3(body).digest())
        encrypted.prove(Piece("tables", NAME))
        with pytest.raises(Corrupt, match="altered"):
            encrypted.get("tables", NAME, 4 * MIB)
    path.write_bytes(good)
    assert encrypted.get("tables", NAME, 4 * MIB) == data


def test_nothing_is_proved_too(encrypted):
    """Somebody who has no key puts an empty object in the place of a full one."""
    encrypted.put("tables", NAME, b"")
    path = encrypted.path("tables", NAME)
    data = bytearray(path.read_bytes())
    assert encrypted.get("tables", NAME, 10) == b""
    data[HEADER_SIZE] ^= 1  # the tag of the only frame
    data[-DIGEST_SIZE:] = blake3.blake3(bytes(data[:-DIGEST_SIZE])).digest()
    path.chmod(0o600)
    path.write_bytes(data)
    encrypted.prove(Piece("tables", NAME))
    with pytest.raises(Corrupt, match="altered"):
        encrypted.get("tables", NAME, 10)


@pytest.mark.parametrize("kind", ["compress", "encrypt"])
def test_any_bytes_at_all_are_the_object_or_refused(tmp_path, keys, kind):
    (tmp_path / "f").mkdir()
    volume = AlicesVolume(tmp_path / "f", Syscalls(), "d", kind, keys)
    volume.claim("s")
    plain = noise(5000) + bytes(5000)
    volume.put("tables", NAME, plain)
    path = volume.path("tables", NAME)
    good = path.read_bytes()
    path.chmod(0o600)
    seen = set()

    @settings(max_examples=400, deadline=None, database=None)
    @given(
        st.lists(
            st.tuples(st.integers(0, len(good) - 1), st.integers(0, 40), st.binary(max_size=40)),
            max_size=4,
        ),
        st.booleans(),
    )
    def check(edits, is_enemy):
        data = bytearray(good)
        for at, size, new in edits:
            data[at : at + size] = new
        if is_enemy:  # who makes the checksum right
            data[-DIGEST_SIZE:] = blake3.blake3(bytes(data[:-DIGEST_SIZE])).digest()
        path.write_bytes(data)
        try:
            read = volume.get("tables", NAME, 1 << 20)
        except (Corrupt, KeyMissing) as error:
            seen.add(type(error))
            return
        seen.add(bytes)
        if kind == "encrypt":
            assert read == plain  # of a compressed one the manifest has to say it

    check()
    assert {Corrupt, bytes} <= seen
