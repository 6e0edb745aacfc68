"""Hashing here and in a process of its own: the same answers, in the same order."""

from __future__ import annotations

import os
import signal

import blake3
import numpy as np
import pytest

from ckptfs.errors import CkptfsError
from ckptfs.store.hash_ring import HERE_MAX, SLOTS, HashWorker, RingHashing
from ckptfs.store.hashing import HereHashing
from ckptfs.store.pages import BLOCK, BLOCK_PAGES, PAGE, hash_pages

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
