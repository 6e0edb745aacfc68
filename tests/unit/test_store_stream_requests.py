"""The requests of ``criu dump --stream``, byte by byte, whole and wrong."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfs.errors import InvalidInput
from ckptfs.store.stream_requests import NAME_MAX, Requests


def message(name: bytes) -> bytes:
    body = bytes([0x0A, len(name)]) + name
    return struct.pack("<I", len(body)) + body


def read(requests, data, pipes_at_end=1):
    """Give *data* as a socket would; return the names."""
    names = []
    while data:
        part, data = data[: requests.wants], data[requests.wants :]
        is_pipe = requests.wants == 1 and part == b"\0"
        names.append(requests.take(part, pipes_at_end if is_pipe else 0))
    return [name for name in names if name]


@given(st.lists(st.from_regex(r"[a-z0-9.-]{1,60}", fullmatch=True), max_size=4))
def test_names_in_their_order(names):
    requests = Requests()
    data = b"".join(message(name.encode()) + b"\0" for name in names)
    assert read(requests, data) == names
    assert requests.end() is None


def test_in_pieces():
    requests, whole = Requests(), message(b"inventory.img")
    got = [requests.take(bytes([byte]), 0) for byte in whole]
    assert set(got) == {""}
    assert requests.take(b"\0", 1) == "inventory.img"


@pytest.mark.parametrize("upto", range(1, len(message(b"a.img")) + 1))
def test_an_end_in_the_middle_is_told(upto):
    requests = Requests()
    read(requests, message(b"a.img")[:upto])
    assert isinstance(requests.end(), InvalidInput)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<I", 0),
        struct.pack("<I", 2),
        struct.pack("<I", NAME_MAX + 3),
        struct.pack("<I", 0xFFFFFFFF),
        struct.pack("<I", 4) + b"\x0b\x02ab",
        struct.pack("<I", 4) + b"\x0a\x03ab",
        struct.pack("<I", 4) + b"\x0a\x01ab",
        struct.pack("<I", 4) + b"\x0a\x02\xff\xfe",
    ],
)
def test_what_is_no_request_is_refused(data):
    with pytest.raises(InvalidInput, match="cannot be understood"):
        read(Requests(), data)


def test_a_pipe_where_none_belongs_and_none_where_one_does():
    with pytest.raises(InvalidInput, match="descriptors"):
        Requests().take(b"\x05\0\0\0", 1)
    requests = Requests()
    read(requests, message(b"a.img"))
    with pytest.raises(InvalidInput, match="0 descriptors where 1"):
        requests.take(b"\0", 0)


@given(st.binary(max_size=200), st.integers(0, 2))
def test_nothing_but_a_refusal_comes_of_noise(data, pipes):
    try:
        names = read(Requests(), data, pipes)
    except InvalidInput:
        return
    assert all(name.isascii() and len(name) <= NAME_MAX for name in names)
