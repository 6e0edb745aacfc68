"""Versions go in and come out byte for byte, share pages, and show what they hold."""

from __future__ import annotations

import hashlib
import subprocess

import blake3
import pytest
import trio

from ckptfs.errors import (
    Busy,
    Exists,
    Forbidden,
    Gone,
    InvalidInput,
    NotEmpty,
    NotFound,
    Unsupported,
)
from ckptfs.ids import JobId, UnitName, Version
from ckptfs.store.check import check
from ckptfs.store.pipeline import IN_FLIGHT_MAX
from ckptfs.store.store import open_store
from tests.store_kit import JOB, MIB, PAGE, UNIT, dirtied, draft, load, noise, save, write_file


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path / "store", create=True, clock=lambda: 1_000_000_007)
    yield store
    store.close()
    assert check(tmp_path / "store") == []


SIZES = (0, 1, PAGE - 1, PAGE, PAGE + 1, MIB - 1, MIB, MIB + 1, 4 * MIB, 4 * MIB + 1, 6 * MIB + 77)


def test_every_size_round_trips(store):
    files = {f"f{size}": noise(size, size) for size in SIZES}

    async def main():
        head = await save(store, files, piece=100_003)
        assert [entry.size_bytes for entry in head.files] == [
            len(files[e.name]) for e in head.files
        ]
        for entry in head.files:
            assert await load(store, entry.name) == files[entry.name]
            assert entry.blake3 == blake3.blake3(files[entry.name]).hexdigest()
        return head

    head = trio.run(main)
    assert head == store.head(JOB, Version(1))
    assert head.logical_bytes == sum(SIZES)
    assert head.parent is None


# whole pages beside blocks, as CRIU writes; odd sizes; so small that they are gathered
@pytest.mark.parametrize("piece", [37 * PAGE, MIB - PAGE, 3 * MIB + PAGE, 300_001, 5 * PAGE])
def test_pieces_of_any_size_make_the_same_version(store, piece):
    data = noise(7 * MIB + 5)

    async def main():
        whole = await save(store, {"pages-1.img": data})
        again = await save(store, {"pages-1.img": data}, version=2, piece=piece)
        assert again.files[0].blake3 == whole.files[0].blake3
        assert again.stored_bytes < MIB // 16  # every page was found
        assert await load(store, "pages-1.img", version=2) == data

    trio.run(main)


def test_versions_survive_reopening(tmp_path):
    data = noise(5 * MIB)

    async def write():
        store = open_store(tmp_path / "s", create=True)
        await save(store, {"pages-1.img": data})
        store.pin(JOB, Version(1), True)
        head = store.head(JOB, Version(1))
        store.close()
        return head

    async def read(head):
        store = open_store(tmp_path / "s", create=False)
        assert store.jobs() == [JOB]
        assert store.versions(JOB) == (1,)
        assert store.head(JOB, Version(1)) == head
        assert store.pinned(JOB, Version(1))
        assert await load(store, "pages-1.img") == data
        store.close()

    trio.run(read, trio.run(write))
    assert check(tmp_path / "s") == []


def test_unchanged_pages_are_stored_once(store):
    first = noise(8 * MIB)
    second = dirtied(first, 200, seed=1)

    async def main():
        one = await save(store, {"pages-1.img": first})
        two = await save(store, {"pages-1.img": second}, version=2)
        assert await load(store, "pages-1.img", version=1) == first
        assert await load(store, "pages-1.img", version=2) == second
        return one, two

    one, two = trio.run(main)
    assert one.stored_bytes > 8 * MIB
    assert 200 * PAGE < two.stored_bytes < 200 * PAGE * 1.3
    assert two.parent == 1


def test_shifted_pages_are_found(store):
    first = noise(6 * MIB)
    second = noise(17 * PAGE, seed=9) + first

    async def main():
        await save(store, {"pages-1.img": first})
        head = await save(store, {"pages-1.img": second}, version=2)
        assert await load(store, "pages-1.img", version=2) == second
        return head

    assert trio.run(main).stored_bytes < 400_000


def test_equal_pages_within_a_version_are_stored_once(store):
    page, other = noise(MIB), noise(PAGE, seed=3)
    files = {
        "pages-1.img": page + other * 64,
        "pages-2.img": other * 32 + page,
        "x": bytes(9 * MIB),
    }

    async def main():
        head = await save(store, files)
        for name, data in files.items():
            assert await load(store, name) == data
        return head

    assert trio.run(main).stored_bytes < MIB + 30 * PAGE


def test_a_clone_shares_the_pages_of_its_family(store):
    data = noise(3 * MIB)

    async def main():
        await save(store, {"pages-1.img": data})
        head = await save(store, {"pages-1.img": data}, job=JobId("clone.2"), family=(JOB,))
        assert await load(store, "pages-1.img", job=JobId("clone.2")) == data
        stranger = await save(store, {"pages-1.img": data}, job=JobId("other.3"))
        return head, stranger

    head, stranger = trio.run(main)
    assert head.stored_bytes < 100_000
    assert head.parent is None  # not a version of this job
    assert stranger.stored_bytes > 3 * MIB  # no dedup between jobs: no side channel


@pytest.mark.slow
def test_several_units_and_the_job_document(store):
    async def main():
        ingest = store.begin(JOB, Version(1), expect_bytes=30 * MIB)
        units = [UnitName(f"JobUnit_{n}") for n in (1, 2, 3)]
        async with trio.open_nursery() as nursery:
            for n, unit in enumerate(units):
                nursery.start_soon(write_file, ingest, unit, "pages-1.img", noise(9 * MIB, n))
        ingest.create(UnitName(""), "job.cpx").write(0, b"<cpx/>")
        ingest.create(units[0], "files/1").write(0, b"tail")
        assert ingest.progress_bytes() == 27 * MIB + 10
        head = await ingest.commit(draft())
        assert {(e.unit, e.name) for e in head.files} == {
            *((unit, "pages-1.img") for unit in units),
            ("", "job.cpx"),
            (units[0], "files/1"),
        }
        for n, unit in enumerate(units):
            reader = store.open(JOB, Version(1), unit, "pages-1.img")
            assert await reader.read(0, 9 * MIB) == noise(9 * MIB, n)
            assert await reader.read(9 * MIB - 3, 100) == noise(9 * MIB, n)[-3:]
            assert await reader.read(9 * MIB, 1) == b""
            reader.close()

    trio.run(main)


def test_a_version_is_not_seen_before_its_commit(store):
    async def main():
        ingest = store.begin(JOB, Version(1), expect_bytes=0)
        ingest.create(UNIT, "core-1.img").write(0, b"x")
        assert store.jobs() == []
        with pytest.raises(NotFound):
            store.head(JOB, Version(1))
        with pytest.raises(Exists):
            store.begin(JOB, Version(1), expect_bytes=0)
        await ingest.commit(draft())
        assert store.versions(JOB) == (1,)
        with pytest.raises(Exists):
            store.begin(JOB, Version(1), expect_bytes=0)
        with pytest.raises(Forbidden):
            ingest.create(UNIT, "core-2.img")
        await ingest.abort()  # harmless now
        assert await load(store, "core-1.img") == b"x"

    trio.run(main)


def test_abort_leaves_nothing(store, tmp_path):
    async def main():
        ingest = store.begin(JOB, Version(1), expect_bytes=20 * MIB)
        file = ingest.create(UNIT, "pages-1.img")
        for n in range(20):
            file.write(n * MIB, noise(MIB, n))
        await ingest.abort()
        await ingest.abort()
        with pytest.raises(Gone):
            file.write(20 * MIB, b"x")
        with pytest.raises(Gone):
            await ingest.commit(draft())

    trio.run(main)
    left = [p for p in (tmp_path / "store").rglob("*") if p.is_file()]
    assert {p.relative_to(tmp_path / "store").parts[0] for p in left} == {"FORMAT", "keys"}
    assert store.usage().reserved_bytes == 0


def test_small_files_may_be_written_in_any_order(store):
    async def main():
        ingest = store.begin(JOB, Version(1), expect_bytes=0)
        file = ingest.create(UNIT, "a.img")
        file.write(10, b"world")
        file.write(0, b"hello")
        assert await file.read(0, 100) == b"hello\0\0\0\0\0world"
        file.truncate(12)
        file.truncate(14)
        assert file.size_bytes == 14
        ingest.rename(UNIT, "a.img", "b.img")
        ingest.create(UNIT, "gone").write(0, b"x")
        ingest.unlink(UNIT, "gone")
        with pytest.raises(NotFound):
            ingest.unlink(UNIT, "gone")
        await ingest.commit(draft())
        assert await load(store, "b.img") == b"hello\0\0\0\0\0wo\0\0"
        assert [e.name for e in store.head(JOB, Version(1)).files] == ["b.img"]

    trio.run(main)


def test_a_large_file_is_only_appended_to(store):
    async def main():
        ingest = store.begin(JOB, Version(1), expect_bytes=0)
        file = ingest.create(UNIT, "pages-1.img")
        for n in range(5):
            file.write(n * MIB, noise(MIB, n))
        for refused in (lambda: file.write(0, b"x"), lambda: file.truncate(7)):
            with pytest.raises(Unsupported, match=r"pages-1.img is .*large"):
                refused()
        with pytest.raises(Unsupported):
            await file.read(0, 1)
        file.truncate(0)  # O_TRUNC: from the start again
        file.write(0, b"short")
        await ingest.commit(draft())
        assert await load(store, "pages-1.img") == b"short"

    trio.run(main)


def test_a_large_file_that_is_begun_again_holds_nothing_of_before(store):
    again = noise(6 * MIB, 7)

    async def main():
        ingest = store.begin(JOB, Version(1), expect_bytes=0)
        file = ingest.create(UNIT, "pages-1.img")
        for n in range(7):  # some of it is queued still, some of it in work
            file.write(n * MIB, noise(MIB, n))
        file.truncate(0)
        for at in range(0, len(again), MIB):
            file.write(at, again[at : at + MIB])
        head = await ingest.commit(draft())
        assert head.logical_bytes == len(again)
        assert await load(store, "pages-1.img") == again

    trio.run(main)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "files/", "files/a/b", "a\n", "x" * 256, "a\0"]
)
def test_names_that_are_refused(store, name):
    async def main():
        ingest = store.begin(JOB, Version(1), expect_bytes=0)
        with pytest.raises(InvalidInput):
            ingest.create(UNIT, name)
        with pytest.raises(InvalidInput):
            ingest.create(UnitName(""), "stray")
        await ingest.abort()

    trio.run(main)


def test_sums_are_what_sha256sum_accepts(store, tmp_path):
    files = {"pages-1.img": noise(3 * MIB + 5), "core-1.img": b"abc", "empty": b""}

    async def main():
        await save(store, files)
        size = store.sums_size(JOB, Version(1))
        text = await store.sums(JOB, Version(1))
        assert len(text) == size
        assert await store.sums(JOB, Version(1)) == text
        return text

    text = trio.run(main)
    place = tmp_path / "out" / UNIT
    place.mkdir(parents=True)
    for name, data in files.items():
        (place / name).write_bytes(data)
        assert hashlib.sha256(data).hexdigest().encode() in text
    done = subprocess.run(
        ["sha256sum", "-c", "--strict"],
        input=text,
        cwd=place.parent,
        check=True,
        capture_output=True,
    )
    assert done.stdout.count(b": OK") == 3
    assert (tmp_path / "store/heads" / JOB / "1.sums").read_bytes().endswith(b"\n" + text)


def test_verify_tells_progress_and_when(store):
    async def main():
        await save(store, {"pages-1.img": noise(3 * MIB)})
        assert store.verified_ns(JOB, Version(1)) == 0
        assert store.verify_progress(JOB, Version(1)) is None
        assert await store.verify(JOB, Version(1)) == []
        assert store.verified_ns(JOB, Version(1)) == 1_000_000_007
        with pytest.raises(NotFound):
            await store.verify(JOB, Version(2))

    trio.run(main)


def test_pins_and_removal(store, tmp_path):
    async def main():
        await save(store, {"core-1.img": b"one"})
        await save(store, {"core-1.img": b"two"}, version=2)
        store.pin(JOB, Version(1), True)
        store.pin(JOB, Version(1), True)
        with pytest.raises(Busy, match="pinned"):
            store.remove(JOB, Version(1))
        store.pin(JOB, Version(1), False)
        reader = store.open(JOB, Version(1), UNIT, "core-1.img")
        with pytest.raises(Busy, match="read"):
            store.remove(JOB, Version(1))
        reader.close()
        reader.close()
        store.remove(JOB, Version(1))
        assert store.versions(JOB) == (2,)
        with pytest.raises(NotFound):
            store.remove(JOB, Version(1))
        assert await load(store, "core-1.img", version=2) == b"two"
        store.remove(JOB, Version(2))
        assert store.jobs() == []

    trio.run(main)
    assert len(list((tmp_path / "store/trash").glob("*/solver.1@*"))) == 2


def test_unique_bytes_and_usage(store):
    first = noise(8 * MIB)
    second = dirtied(first, 100, seed=1)

    async def main():
        await save(store, {"pages-1.img": first})
        assert store.unique_bytes(JOB, Version(1)) > 8 * MIB
        await save(store, {"pages-1.img": second}, version=2)
        await save(store, {"pages-1.img": second}, version=3)
        pages = [store.unique_bytes(JOB, Version(n)) // PAGE for n in (1, 2, 3)]
        assert 100 <= pages[0] <= 120  # the old content of the changed pages, and the documents
        assert pages[1] < 20
        assert pages[2] < 20
        usage = store.usage()
        assert (usage.versions, usage.logical_bytes) == (3, 24 * MIB)
        assert usage.packs == 2
        assert 8 * MIB < usage.stored_bytes < 10 * MIB
        store.remove(JOB, Version(3))
        assert store.unique_bytes(JOB, Version(2)) >= 100 * PAGE

    trio.run(main)


@pytest.mark.slow
def test_back_pressure_is_bounded(store):
    async def main():
        ingest = store.begin(JOB, Version(1), expect_bytes=0)
        file = ingest.create(UNIT, "pages-1.img")
        piece, most = noise(MIB), 0
        for n in range(200):
            await file.wait_writable()
            file.write(n * MIB, piece)
            most = max(most, ingest.flow.in_flight)
        await ingest.commit(draft())
        assert most <= IN_FLIGHT_MAX + MIB
        assert await load(store, "pages-1.img") == piece * 200

    trio.run(main)


@pytest.mark.slow
def test_a_pack_is_rolled_when_full(tmp_path):
    store = open_store(tmp_path / "store", create=True, pack_pages=2048)

    async def main():
        data = noise(20 * MIB)
        await save(store, {"pages-1.img": data})
        changed = dirtied(data, 60, seed=2)
        await save(store, {"pages-1.img": changed}, version=2)
        assert await load(store, "pages-1.img") == data
        assert await load(store, "pages-1.img", version=2) == changed
        assert store.usage().packs == 4

    try:
        trio.run(main)
    finally:
        store.close()
    assert check(tmp_path / "store") == []


def test_one_store_one_daemon(tmp_path):
    store = open_store(tmp_path / "s", create=True)
    with pytest.raises(Busy):
        open_store(tmp_path / "s", create=True)
    store.close()
    store.close()
    open_store(tmp_path / "s", create=False).close()
    with pytest.raises(NotFound):
        open_store(tmp_path / "nothing", create=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("x")
    with pytest.raises(NotEmpty):
        open_store(tmp_path / "full", create=True)
