"""The format of sealed objects: what is noticed, and by whom."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfs.errors import Corrupt, InvalidInput
from ckptfs.store import sealing
from ckptfs.store.sealing import COMPRESSED, ENCRYPTED, Frames, Header
from tests.store_kit import noise

KEY = bytes(range(32))
KEY_ID = b"k" * 16
FLAGS = (0, COMPRESSED, ENCRYPTED, COMPRESSED | ENCRYPTED)


def header(flags: int, size: int, name: str = "a", **more) -> Header:
    key_id = KEY_ID if flags & ENCRYPTED else sealing.NO_KEY
    salt = more.pop("salt", os.urandom(sealing.SALT_SIZE))
    return Header(flags, size, key_id, salt, sealing.place_digest("packs", name), **more)


def sealed(made: Header, data: bytes, key: bytes | None = KEY) -> list[tuple[bytes, bool]]:
    frames, size = Frames(made, key), made.frame_size
    parts = [frames.seal(n, data[n * size :][:size]) for n in range(made.frames)]
    assert all(entry >> 1 == len(stored) for stored, entry in parts)
    return [(stored, bool(entry & 1)) for stored, entry in parts]


def opened(made: Header, parts: list[tuple[bytes, bool]], key: bytes | None = KEY) -> bytes:
    frames = Frames(made, key)
    return b"".join(frames.open(n, s, is_compressed=c) for n, (s, c) in enumerate(parts))


@given(
    st.binary(max_size=2000) | st.builds(bytes, st.integers(0, 5000)),
    st.sampled_from(FLAGS),
    st.integers(1, 700),
)
def test_what_was_sealed_is_opened(data, flags, frame_size):
    made = header(flags, len(data), frame_size=frame_size)
    assert sealing.decode_header(sealing.encode_header(made), "it") == made
    assert opened(made, sealed(made, data)) == data


def test_equal_bytes_are_sealed_to_different_ones():
    first, second = header(ENCRYPTED, 64), header(ENCRYPTED, 64)
    assert sealed(first, bytes(64)) != sealed(second, bytes(64))
    twice = header(ENCRYPTED, 64, frame_size=32)
    parts = sealed(twice, bytes(64))
    assert parts[0] != parts[1]


def test_frames_cannot_be_altered_swapped_dropped_or_renamed():
    made = header(COMPRESSED | ENCRYPTED, 300, frame_size=100)
    parts = sealed(made, bytes(100) + noise(200))
    assert [is_compressed for _, is_compressed in parts] == [True, False, False]
    frames = Frames(made, KEY)
    for number, (stored, is_compressed) in enumerate(parts):
        for at in range(len(stored)):
            bad = bytearray(stored)
            bad[at] ^= 1
            with pytest.raises(Corrupt, match="altered"):
                frames.open(number, bad, is_compressed=is_compressed)
        with pytest.raises(Corrupt, match="altered"):
            frames.open(number, stored, is_compressed=not is_compressed)
    with pytest.raises(Corrupt, match="altered"):
        opened(made, [parts[0], parts[2], parts[1]])
    shorter = header(made.flags, 200, frame_size=100, salt=made.salt)  # one frame less claimed
    with pytest.raises(Corrupt, match="altered"):
        opened(shorter, parts[:2])
    renamed = header(made.flags, 300, "b", frame_size=100, salt=made.salt)
    with pytest.raises(Corrupt, match="altered"):
        opened(renamed, parts)


def test_another_key_opens_nothing():
    made = header(ENCRYPTED, 10)
    parts = sealed(made, bytes(10))
    with pytest.raises(Corrupt, match="altered"):
        opened(made, parts, bytes(32))
    with pytest.raises(InvalidInput):
        Frames(made, None)


def test_unpacking_makes_no_more_than_the_frame_may_hold():
    made = header(COMPRESSED, 100)
    bomb = sealing.zstd.compress(bytes(1 << 24), 1)
    frames = Frames(made, None)
    for stored in (bomb, bomb[:40], b"no zstd", sealing.zstd.compress(bytes(99), 1)):
        with pytest.raises(Corrupt):
            frames.open(0, stored, is_compressed=True)
    with pytest.raises(Corrupt, match="does not end"):
        frames.open(0, sealing.zstd.compress(bytes(100), 1) + b"more", is_compressed=True)


def test_headers_that_mean_nothing_are_refused():
    good = sealing.encode_header(header(ENCRYPTED, 10))
    for bad in (
        good[:-1],
        b"X" + good[1:],
        good[:8] + b"\2" + good[9:],  # format
        good[:10] + b"\4" + good[11:],  # a flag that nobody knows
        good[:10] + b"\0" + good[11:],  # a key, but not encrypted
        good[:12] + bytes(4) + good[16:],  # frames of nothing
    ):
        with pytest.raises(Corrupt):
            sealing.decode_header(bad, "it")


def test_an_index_must_fit_its_frames():
    index = sealing.encode_index([20 << 1 | 1, 5 << 1])
    at = sealing.HEADER_SIZE
    assert sealing.decode_index(index, at + 25, "it") == [(at, 20, True), (at + 20, 5, False)]
    for wrong in (at + 24, at + 26):
        with pytest.raises(Corrupt, match="does not fit"):
            sealing.decode_index(index, wrong, "it")
    with pytest.raises(Corrupt, match="frame of"):
        sealing.decode_index(sealing.encode_index([2**31]), at, "it")


def test_the_probe_finds_what_pays():
    assert sealing.worth_compressing([bytes(1000)])
    assert not sealing.worth_compressing([noise(1000)])
    assert not sealing.worth_compressing([])
    assert sealing.probe_offsets(0) == []
    assert sealing.probe_offsets(10) == [0]
    offsets = sealing.probe_offsets(256 << 20)
    assert len(offsets) == sealing.PROBES
    assert offsets[-1] == (256 << 20) - sealing.PROBE_SIZE
