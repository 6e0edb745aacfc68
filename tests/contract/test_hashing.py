"""Hashing here and in a process of its own: the same answers, in the same order."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import blake3
import numpy as np
import pytest

from ckptfs.errors import CkptfsError
from ckptfs.store import packs
from ckptfs.store.hash_ring import HERE_MAX, SLOTS, HashWorker, RingHashing
from ckptfs.store.hashing import HereHashing
from ckptfs.store.packs import Piece
from ckptfs.store.pages import BLOCK, BLOCK_PAGES, PAGE, hash_pages
from ckptfs.store.syscalls import Syscalls
from ckptfs.store.volume import LocalVolume

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part

SEED = 0x1234_5678_9ABC_DEF0


@pytest.fixture(scope="module")
def worker():
    worker = HashWorker()
    yield worker
    worker.close()


@pytest.fixture(params=["here", "ring"])
def hashing(request, worker):
    return HereHashing(SEED) if request.param == "here" else RingHashing(worker, SEED)


class Book:
    """What was answered, in order."""

    def __init__(self):
        self.blocks = []

    def __call__(self, rows, digests, hashes):
        data = b"".join(part.tobytes() for part in rows)
        assert len(data) == PAGE * len(hashes)
        for number, digest in enumerate(digests):
            block = data[number * BLOCK : (number + 1) * BLOCK]
            mine = hashes[number * BLOCK_PAGES : (number + 1) * BLOCK_PAGES]
            self.blocks.append((block, digest, mine.tolist()))


def noise(size):
    return np.random.default_rng(size).bytes(size)


def answer(block):
    padded = block.ljust(-(-len(block) // PAGE) * PAGE, b"\0")
    return padded, blake3.blake3(block).digest(), hash_pages(padded, SEED).tolist()


def feed(hashing, stream, data, book, cut=None):
    for at in range(0, len(data), BLOCK):
        block = memoryview(data[at : at + BLOCK])
        hashing.block(stream, [block[:cut], block[cut:]] if cut else [block], book)


@pytest.mark.parametrize("size", [1, PAGE, HERE_MAX, HERE_MAX + 1, BLOCK, BLOCK + 5, 3 * BLOCK])
def test_a_file(hashing, size):
    book, data = Book(), noise(size)
    stream = hashing.begin()
    feed(hashing, stream, data, book)
    assert hashing.end(stream) == blake3.blake3(data).digest()
    assert book.blocks == [answer(data[at : at + BLOCK]) for at in range(0, size, BLOCK)]


def test_an_empty_file(hashing):
    assert hashing.end(hashing.begin()) == blake3.blake3().digest()


@pytest.mark.parametrize("cut", [PAGE, 37 * PAGE, 1000])
def test_a_block_in_two_parts(hashing, cut):
    book, data = Book(), noise(2 * BLOCK)
    stream = hashing.begin()
    feed(hashing, stream, data, book, cut)
    assert hashing.end(stream) == blake3.blake3(data).digest()
    assert book.blocks == [answer(data[:BLOCK]), answer(data[BLOCK:])]


def test_many_files_at_once_and_more_blocks_than_the_ring_holds(hashing):
    datas = [noise(BLOCK + number) for number in range(SLOTS + 3)]
    books, streams = [Book() for _ in datas], [hashing.begin() for _ in datas]
    for at in (0, BLOCK):
        for stream, data, book in zip(streams, datas, books, strict=True):
            feed(hashing, stream, data[at : at + BLOCK], book)
    hashing.drain()
    for stream, data, book in zip(streams, datas, books, strict=True):
        blocks = [block for block in (data[:BLOCK], data[BLOCK:]) if block]
        assert book.blocks == [answer(block) for block in blocks]
        assert hashing.end(stream) == blake3.blake3(data).digest()


def test_nothing_of_a_block_before_is_left_behind_a_short_one(hashing):
    feed(hashing, hashing.begin(), b"\xff" * BLOCK * SLOTS, Book())
    book, data = Book(), noise(BLOCK // 2 + 1)
    feed(hashing, hashing.begin(), data, book)
    hashing.drain()
    assert book.blocks == [answer(data)]


def test_what_nobody_ends_is_forgotten(worker):
    hashing = RingHashing(worker, SEED)
    given_up = hashing.begin()
    feed(hashing, given_up, noise(2 * BLOCK), Book())
    hashing.forget()
    stream, data, book = hashing.begin(), noise(BLOCK), Book()
    feed(hashing, stream, data, book)
    assert hashing.end(stream) == blake3.blake3(data).digest()
    assert book.blocks == [answer(data)]
    assert worker.ring().end(given_up) == blake3.blake3().digest()  # as one it has never seen


def test_thousands_of_streams_are_forgotten_without_a_pipe_running_full(worker):
    hashing, data = RingHashing(worker, SEED), noise(HERE_MAX + 1)
    for _ in range(6000):  # 64 KiB of pipe hold 2730 requests, or 1638 replies
        feed(hashing, hashing.begin(), data, Book())
    hashing.forget()
    stream = hashing.begin()
    feed(hashing, stream, data, Book())
    assert hashing.end(stream) == blake3.blake3(data).digest()


def feed_more_than_fits(hashing, stream):
    for _ in range(SLOTS + 1):
        feed(hashing, stream, noise(BLOCK), Book())


def test_a_worker_that_was_killed_is_an_error_not_a_wait_and_the_next_one_works():
    worker = HashWorker()
    try:
        hashing = RingHashing(worker, SEED)
        stream = hashing.begin()
        os.kill(worker.ring().pid, signal.SIGKILL)
        with pytest.raises(CkptfsError, match="hashes has ended"):
            feed_more_than_fits(hashing, stream)
        with pytest.raises(CkptfsError, match="hashes has ended"):
            hashing.end(stream)
        again, book, data = RingHashing(worker, SEED), Book(), noise(BLOCK)
        feed(again, stream := again.begin(), data, book)
        assert again.end(stream) == blake3.blake3(data).digest()
    finally:
        worker.close()
        worker.close()


def test_the_worker_ends_with_its_store():
    worker = HashWorker()
    pid = worker.ring().pid
    os.kill(pid, 0)
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def _ring_bytes():
    """Return how much of the rings' memory this process has touched."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    touched, is_ours = 0, False
    for line in lines:
        name, *rest = line.split()
        if not name.endswith(":"):
            is_ours = any("memfd:ckptfs-hash" in word for word in rest)
        elif is_ours and name == "Rss:":
            touched += int(rest[0]) * 1024
    return touched


def test_room_is_touched_before_the_first_byte_comes_and_only_as_much_as_is_expected():
    worker = HashWorker()
    before = _ring_bytes()
    hashing, book, data = RingHashing(worker, SEED), Book(), noise(3 * BLOCK + 5)
    hashing.warm(3 * BLOCK)
    assert 3 * BLOCK <= _ring_bytes() - before < 4 * BLOCK
    stream = hashing.begin()
    feed(hashing, stream, data, book)
    hashing.warm(1 << 40)  # with blocks in its slots, which stay as they are
    assert _ring_bytes() - before >= SLOTS * BLOCK
    assert hashing.end(stream) == blake3.blake3(data).digest()
    assert [block for block, _, _ in book.blocks] == [
        answer(data[at : at + BLOCK])[0] for at in range(0, len(data), BLOCK)
    ]
    worker.close()


def test_buffers_of_a_pack_are_made_once_and_no_more_than_are_needed(monkeypatch):
    made = []
    monkeypatch.setattr(packs, "Piece", lambda: made.append(Piece()) or made[-1])
    few, many = (
        packs.PackSet(
            LocalVolume(Path("/nowhere"), Syscalls()), Syscalls(), b"s" * 16, *[print] * 2
        )
        for _ in range(2)
    )
    few.make_pieces(packs.PIECE + 1)
    assert len(made) == 2
    few.room(1)
    assert len(made) == 2  # taken, not made
    few.make_pieces(packs.PIECE)
    assert len(made) == 2
    many.make_pieces(1 << 40)
    assert len(made) == 2 + packs.BUFFERS
