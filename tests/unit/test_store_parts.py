"""The pure parts of the store, against simple models."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptfs.errors import CannotRun, Corrupt, InvalidInput, NotADirectory, Unsupported
from ckptfs.ids import JobId, UnitName, Version
from ckptfs.model import FileEntry
from ckptfs.store.check import check
from ckptfs.store.dedup import sort_places, split_reads
from ckptfs.store.heads import decode_head, encode_head
from ckptfs.store.index import PACK_PAGES, PageIndex
from ckptfs.store.layout import check_place
from ckptfs.store.manifest import from_extents, to_extents
from ckptfs.store.pack_format import Footer, decode_footer, decode_trailer, encode_footer
from ckptfs.store.pages import hash_pages
from ckptfs.store.sessions import is_dead
from ckptfs.store.store import open_store
from ckptfs.store.superblock import parse_format
from tests.store_kit import JOB, MIB, PAGE, UNIT, draft, load, noise, save

PLACES = st.lists(
    st.one_of(
        st.just(0),
        st.integers(1, 40),
        st.builds(
            lambda pack, page: pack * PACK_PAGES + page,
            st.integers(0, 3),
            st.integers(65530, 65535),
        ),
    ),
    max_size=60,
)


@given(PLACES)
def test_extents_are_the_places(places):
    array = np.array(places, dtype=np.uint32)
    data = to_extents(array)
    assert from_extents(data, len(places), 4).tolist() == places


@given(st.binary(max_size=64).map(lambda b: b[: len(b) // 8 * 8]), st.integers(0, 200))
def test_hostile_extents_are_corrupt_or_fit(data, pages):
    try:
        places = from_extents(data, pages, 2)
    except Corrupt:
        return
    assert len(places) == pages
    assert (places < 2 * PACK_PAGES).all()


@given(PLACES)
def test_reads_cover_all_places_once(places):
    array = sort_places(np.array(places, dtype=np.uint32))
    runs = split_reads(array)
    assert [p for run in runs for p in run.tolist()] == sorted(set(places) - {0})
    for run in runs:
        assert len({p // PACK_PAGES for p in run.tolist()}) <= 1


def test_the_index_finds_what_was_added():
    index, rng = PageIndex(7), np.random.default_rng(1)
    hashes = rng.integers(0, 2**63, (50_000, 2), dtype=np.uint64)
    places = np.arange(1, 50_001, dtype=np.uint32)
    for at in range(0, 50_000, 256):
        index.add(hashes[at : at + 256], places[at : at + 256])
    known, rows = index.find(hashes)
    assert known.mean() > 0.99
    assert (index.places(rows)[known] == places[known]).all()
    index.close()
    wanted = rows[known].astype(np.uint32)
    pieces = list(index.hash_pieces(wanted))
    assert len(pieces) > 1
    assert b"".join(pieces) == hashes[known].tobytes()
    assert (index.all_places(wanted) == places[known]).all()
    assert len(index) == 50_000


def test_the_index_finds_nothing_else_and_nothing_that_was_not_entered():
    index, rng = PageIndex(7), np.random.default_rng(1)
    hashes = rng.integers(0, 2**63, (5_000, 2), dtype=np.uint64)
    rows = index.load(hashes, np.arange(1, 5_001, dtype=np.uint32))
    assert (index.hashes(rows[7:9]) == hashes[7:9]).all()
    assert not index.find(hashes)[0].any()
    index.enter()
    assert index.find(hashes)[0].mean() > 0.99
    assert not index.find(rng.integers(0, 2**63, (5_000, 2), dtype=np.uint64))[0].any()


def test_the_index_knows_the_zero_page_and_the_first_of_equals():
    index = PageIndex(7)
    hashes = hash_pages(bytes(PAGE) + noise(PAGE) * 2, 7)
    known, rows = index.find(hashes)
    assert known.tolist() == [True, False, False]
    assert rows[0] == 0
    index.add(hashes[1:], np.array([5, 6], dtype=np.uint32))
    assert index.find(hashes)[1].tolist() == [0, 1, 1]
    assert index.places(np.array([0, 1, 2], dtype=np.uint32)).tolist() == [0, 5, 6]


def test_a_pack_proves_its_name():
    footer = Footer(b"s" * 16, 3, 9 * PAGE, (b"r" * 16,))
    name, tail = encode_footer(footer)
    assert len(tail) % PAGE == 0
    size = 9 * PAGE + len(tail)
    at, length, digest, record = decode_trailer(tail[-64:], size)
    assert (at, record) == (9 * PAGE, 0)
    assert decode_footer(tail[:length], digest, name) == footer
    with pytest.raises(Corrupt, match="name"):
        decode_footer(tail[:length], digest, "0" * 40)
    with pytest.raises(Corrupt, match="torn"):
        decode_trailer(tail[:64], size)
    with pytest.raises(Corrupt, match="torn"):
        decode_trailer(b"", 0)


def test_a_head_is_signed():
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    entry = FileEntry(UnitName("JobUnit_1"), "core-1.img", 7, "ab" * 32, "cd" * 20 + ":0")
    head = dataclasses.replace(draft(), files=(entry,), parent=Version(3), note="ä\n", keep=True)
    document = encode_head(head, key)
    assert decode_head(document, key.public_key(), JOB, Version(1)) == head
    for job, version, public in (
        (JobId("b.2"), Version(1), key.public_key()),
        (JOB, Version(2), key.public_key()),
        (JOB, Version(1), other.public_key()),
    ):
        with pytest.raises(Corrupt):
            decode_head(document, public, job, version)


@given(st.binary(max_size=200))
def test_hostile_heads_are_corrupt(document):
    key = Ed25519PrivateKey.generate().public_key()
    for raw in (document, b"ckptfs head 1 " + document):
        with pytest.raises(Corrupt):
            decode_head(raw, key, JOB, Version(1))


GOOD = {"format": 1, "store": "abc", "mandatory": ["heads-ed25519"], "optional": ["x"], "epoch": 4}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"mandatory": ["warp-drive", "heads-ed25519"]}, CannotRun, "warp-drive"),
        ({"format": 2}, CannotRun, "format 2"),
        ({"format": "x"}, Corrupt, "FORMAT"),
        ({"store": None, "mandatory": 3}, Corrupt, "FORMAT"),
    ],
)
def test_formats_that_are_refused(change, error, words):
    assert parse_format(json.dumps(GOOD).encode()) == ("abc", 4)
    with pytest.raises(error, match=words):
        parse_format(json.dumps(GOOD | change).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{", b"\xff"])
def test_format_that_does_not_parse(raw):
    with pytest.raises(Corrupt):
        parse_format(raw)


def test_a_session_of_another_host_is_not_ours_to_end():
    assert not is_dead({"host": "elsewhere", "boot_id": "", "pid": 1, "start": ""})
    assert is_dead({})
    assert is_dead({"host": 1, "boot_id": 2, "pid": [], "start": None}) is False


@given(st.text(max_size=20))
def test_places_are_safe(name):
    try:
        check_place(UNIT, name)
    except InvalidInput:
        return
    assert "\0" not in name
    assert "\n" not in name
    assert not {"..", "."} & set(name.split("/"))
    assert name.count("/") <= 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 300_000), st.binary(max_size=50)),
        st.tuples(st.just("append"), st.integers(1, 3_000_000), st.integers(0, 3)),
        st.tuples(st.just("truncate"), st.integers(0, 300_000), st.just(0)),
    ),
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=3))
def test_a_staged_file_is_like_bytes(tmp_path_factory, versions):
    """Any sequence of operations: what is accepted is kept, what is refused changes nothing."""
    directory = tmp_path_factory.mktemp("model")

    async def main():
        store = open_store(directory / "s", create=True)
        models = []
        for number, steps in enumerate(versions, 1):
            ingest, model = store.begin(JOB, Version(number), expect_bytes=0), bytearray()
            file = ingest.create(UNIT, "f")
            for kind, where, what in steps:
                if kind == "append":
                    where, what = len(model), noise(where, what)
                try:
                    if kind == "truncate":
                        file.truncate(where)
                        model[where:] = bytes(max(0, where - len(model)))
                    elif file.write(where, what):
                        model.extend(bytes(max(0, where - len(model))))
                        model[where : where + len(what)] = what
                except Unsupported:
                    assert len(model) > 4 * MIB
                assert file.size_bytes == len(model)
            await ingest.commit(draft(version=number))
            models.append(bytes(model))
        for number, model in enumerate(models, 1):
            assert await load(store, "f", version=number) == model
        store.close()

    trio.run(main)
    assert check(directory / "s") == []


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 1023), st.integers(1, 200), st.integers(0, 5)), max_size=8
        ),
        min_size=2,
        max_size=5,
    )
)
def test_many_versions_of_a_changing_program(tmp_path_factory, history):
    """Runs of pages are overwritten with zeros, with copies of others, or with new pages."""
    directory = tmp_path_factory.mktemp("history")

    async def main():
        store = open_store(directory / "s", create=True)
        data, kept = noise(4 * MIB + 100), []
        for number, changes in enumerate(history, 1):
            pages = bytearray(data)
            for page, count, seed in changes:
                new = bytes(count * PAGE) if seed == 0 else noise(PAGE, seed) * count
                pages[page * PAGE : page * PAGE + len(new)] = new
            data = bytes(pages)
            await save(store, {"pages-1.img": data}, version=number)
            kept.append(data)
        for number, data in enumerate(kept, 1):
            assert await load(store, "pages-1.img", version=number) == data
        store.close()

    trio.run(main)
    assert check(directory / "s") == []


@pytest.mark.parametrize("place", ["file", "file/store"])
def test_a_store_cannot_be_made_in_a_file(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectory, match="file"):
        open_store(tmp_path / place, create=True)
