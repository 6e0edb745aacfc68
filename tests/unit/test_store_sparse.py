"""Sparse packs: how they look, what proves them, and that whatever reads packs takes them."""

from __future__ import annotations

import os

import numpy as np
import pytest

from ckptfs.errors import Corrupt
from ckptfs.store.counting import taken_bytes
from ckptfs.store.pack_format import (
    Footer,
    decode_trailer,
    encode_footer,
    read_footer,
    read_tail,
    sparse_tail,
)
from ckptfs.store.pages import PAGE, filled_runs, region_checksum
from ckptfs.store.receiving import prove_pack, receive_pack
from ckptfs.store.syscalls import Syscalls
from tests.store_kit import noise

PAGES = 300  # two regions
LIVE = (0, 3, 4, 5, 200, 260, 299)


def whole_pack() -> tuple[str, bytes, bytes]:
    """Return (name, pages, all that goes behind them)."""
    data = noise(PAGES * PAGE)
    regions = tuple(
        region_checksum(data[at : at + (1 << 20)]) for at in range(0, len(data), 1 << 20)
    )
    name, tail = encode_footer(Footer(b"s" * 16, 3, len(data), regions))
    return name, data, tail


def sparse_pack() -> tuple[str, bytes]:
    """Return (name, bytes) of a pack that has lost its dead pages."""
    name, data, tail = whole_pack()
    present = np.zeros(PAGES, dtype=np.bool_)
    present[list(LIVE)] = True
    kept = b"".join(
        data[n * PAGE : (n + 1) * PAGE] if present[n] else bytes(PAGE) for n in range(PAGES)
    )
    regions = tuple(
        region_checksum(kept[at : at + (1 << 20)]) for at in range(0, len(kept), 1 << 20)
    )
    body, footer = read_tail(reader(data + tail), len(data + tail), name)
    return name, kept + sparse_tail(body, footer, present, regions)


def reader(data: bytes):
    return lambda offset, size: data[offset : offset + size]


def test_a_sparse_pack_has_the_name_of_the_whole_one_and_says_what_it_holds():
    name, data = sparse_pack()
    footer = read_footer(reader(data), len(data), name)
    assert footer.present is not None
    assert np.flatnonzero(footer.present).tolist() == list(LIVE)
    assert footer.regions[0] == region_checksum(data[: 1 << 20])
    assert (footer.number, footer.page_end) == (3, PAGES)
    assert len(data) % PAGE == 0
    _, whole, tail = whole_pack()
    assert read_footer(reader(whole + tail), len(whole + tail), name).present is None


def test_any_altered_byte_behind_the_pages_of_a_sparse_pack_is_noticed_or_means_nothing():
    name, data = sparse_pack()
    right = read_footer(reader(data), len(data), name)
    noticed = 0
    for at in range(PAGES * PAGE, len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        try:
            found = read_footer(reader(bytes(changed)), len(changed), name)
        except Corrupt:
            noticed += 1
        else:  # padding; or the record is not found: then the first checksums count, and fail
            assert found.regions == right.regions or found.present is None
    trailer = decode_trailer(data[-64:], len(data))
    assert noticed > trailer.length + trailer.record


def test_the_record_of_another_pack_is_refused():
    name, data = sparse_pack()
    trailer = decode_trailer(data[-64:], len(data))
    record = trailer.at + trailer.length
    _, footer = read_tail(reader(data), len(data), name)
    other = Footer(b"t" * 16, 3, footer.data_end, footer.regions)
    strange, tail = encode_footer(other)
    assert footer.present is not None
    mixed = bytearray(sparse_tail(tail[: trailer.length], other, footer.present, footer.regions))
    mixed[trailer.length : trailer.length + trailer.record] = data[record : record + trailer.record]
    with pytest.raises(Corrupt, match="record"):
        read_footer(reader(data[: trailer.at] + bytes(mixed)), trailer.at + len(mixed), strange)


def test_runs_of_pages_that_hold_something():
    assert filled_runs(bytes(3 * PAGE)) == []
    data = bytes(PAGE) + b"\0" * 8 + b"x" * (PAGE - 8) + noise(PAGE) + bytes(PAGE) + noise(PAGE)
    assert filled_runs(data) == [(PAGE, 2 * PAGE), (4 * PAGE, PAGE)]
    assert filled_runs(memoryview(bytearray(noise(PAGE)))) == [(0, PAGE)]


def test_a_copy_of_a_sparse_pack_is_proved_and_takes_no_more_room(tmp_path):
    calls = Syscalls()
    name, data = sparse_pack()
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    assert taken_bytes(os.stat(source)) == len(data)
    assert receive_pack(calls, source, target, name) == len(data)
    assert target.read_bytes() == data
    behind = len(data) - PAGES * PAGE
    # and at most a page in which the file system keeps where the runs are
    assert taken_bytes(os.stat(target)) <= (len(LIVE) + 1) * PAGE + behind
    flipped = bytearray(data)
    flipped[200 * PAGE + 7] ^= 4
    source.write_bytes(flipped)
    with pytest.raises(Corrupt, match="region 0"):
        prove_pack(calls, source, name)
    flipped = bytearray(data)
    flipped[100 * PAGE] = 1  # in a hole
    source.write_bytes(flipped)
    with pytest.raises(Corrupt, match="region 0"):
        prove_pack(calls, source, name)


def test_small_files_count_as_before(tmp_path):
    path = tmp_path / "small"
    path.write_bytes(b"abc")
    assert taken_bytes(path.stat()) == 3
    path.write_bytes(b"")
    assert taken_bytes(path.stat()) == 0
