"""Flipped bits, full disks, failing syncs, lost power, killed writers: all or nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio

from ckptfs.errors import CkptfsError, Corrupt, Degraded, NotFound, StoreFull
from ckptfs.ids import Version
from ckptfs.store.check import check
from ckptfs.store.store import open_store
from ckptfs.store.syscalls import Syscalls
from tests.store_kit import (
    JOB,
    MIB,
    PAGE,
    UNIT,
    FaultyCalls,
    broken,
    dirtied,
    load,
    noise,
    save,
)

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part

FIRST = {"pages-1.img": noise(5 * MIB), "core-1.img": b"core" * 10, "job": b""}
SECOND = FIRST | {"pages-1.img": dirtied(FIRST["pages-1.img"], 40, seed=4), "core-1.img": b"c2"}


def make_store(directory: Path, *versions) -> None:
    async def main():
        store = open_store(directory, create=True)
        for number, files in enumerate(versions, 1):
            await save(store, files, version=number)
        store.close()

    trio.run(main)


def flip(path: Path, offset: int) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x10]))
    path.chmod(0o400)


def the(directory: Path, pattern: str) -> Path:
    (path,) = [p for p in directory.glob(pattern) if p.is_file()]
    return path


# -- damage ------------------------------------------------------------------


@pytest.mark.wrong_store("damaged")
def test_a_flipped_byte_in_a_pack_is_never_read(tmp_path):
    make_store(tmp_path, FIRST)
    pack = the(tmp_path, "packs/??/*")
    flip(pack, PAGE + 2 * MIB + 17)

    async def main():
        store = open_store(tmp_path, create=False)
        reader = store.open(JOB, Version(1), UNIT, "pages-1.img")
        with pytest.raises(Corrupt, match=r"JobUnit_1/pages-1.img, block \d"):
            await reader.read(0, 5 * MIB)
        reader.close()
        (damage,) = store.damage(JOB, Version(1))
        block = damage.block
        assert str(damage) == f"JobUnit_1/pages-1.img, block {block}"
        good = store.open(JOB, Version(1), UNIT, "pages-1.img")  # undamaged blocks are read
        for n in set(range(5)) - {block}:
            assert await good.read(n * MIB, MIB) == FIRST["pages-1.img"][n * MIB : (n + 1) * MIB]
        with pytest.raises(Corrupt):
            await good.read(block * MIB, 1)
        good.close()
        assert await load(store, "core-1.img") == FIRST["core-1.img"]
        assert [d.block for d in await store.verify(JOB, Version(1))] == [block]
        assert store.verified_ns(JOB, Version(1)) == 0
        with pytest.raises(Corrupt, match="block"):
            await store.sums(JOB, Version(1))
        # the damaged pack is no hit: the next version is whole
        await save(store, FIRST, version=2)
        assert await load(store, "pages-1.img", version=2) == FIRST["pages-1.img"]
        assert await store.verify(JOB, Version(2)) == []
        store.close()

    trio.run(main)
    assert any("block" in sentence for sentence in check(tmp_path))
    assert (tmp_path / "packs/quarantine" / pack.name).exists()


@pytest.mark.wrong_store("damaged")
def test_quarantine_outlives_the_daemon(tmp_path):
    make_store(tmp_path, FIRST)
    flip(the(tmp_path, "packs/??/*"), 3 * MIB)

    async def find():
        store = open_store(tmp_path, create=False)
        assert await store.verify(JOB, Version(1)) != []
        store.close()

    async def heal():
        store = open_store(tmp_path, create=False)
        head = await save(store, FIRST, version=2)
        assert head.stored_bytes > 5 * MIB
        assert await store.verify(JOB, Version(2)) == []
        store.close()

    trio.run(find)
    trio.run(heal)


@pytest.mark.wrong_store("damaged")
def test_what_a_restart_proves_first_names_every_bad_block_and_shuts_its_pack_away(tmp_path):
    make_store(tmp_path, FIRST)
    pack = the(tmp_path, "packs/??/*")

    async def main():
        store = open_store(tmp_path, create=False)
        assert await store.prove(JOB, Version(1)) == []
        assert store.verified_ns(JOB, Version(1)) == 0  # says nothing of the disk
        for place in (MIB, 4 * MIB):
            flip(pack, PAGE + place + 17)
        found = await store.prove(JOB, Version(1))
        assert [str(damage).partition(",")[0] for damage in found] == ["JobUnit_1/pages-1.img"] * 2
        assert list(store.damage(JOB, Version(1))) == found
        assert store.quarantined() == 1
        assert store.verify_progress(JOB, Version(1)) is None
        with pytest.raises(NotFound):
            await store.prove(JOB, Version(2))
        store.close()
        again = open_store(tmp_path, create=False)
        assert len(again.damage(JOB, Version(1))) == 2
        again.close()

    trio.run(main)


class HeldReads(Syscalls):
    """Reads of packs wait until they are let go; they are counted."""

    def __init__(self):
        super().__init__()
        self.begun, self.go, self.count = threading.Event(), threading.Event(), 0

    def pread_into(self, fd, buffer, offset):
        self.count += 1
        self.begun.set()
        assert self.go.wait(30)
        return super().pread_into(fd, buffer, offset)


def test_a_proof_that_is_cancelled_does_not_read_on_to_the_end(tmp_path):
    make_store(tmp_path, {"pages-1.img": noise(64 * MIB)})
    calls = HeldReads()

    async def main():
        store = open_store(tmp_path, create=False, calls=calls)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.prove, JOB, Version(1))
            await trio.to_thread.run_sync(calls.begun.wait)
            nursery.cancel_scope.cancel()
            calls.go.set()
        assert calls.count < 64
        assert store.verify_progress(JOB, Version(1)) is None
        assert await store.prove(JOB, Version(1)) == []
        assert calls.count >= 64
        store.close()

    trio.run(main)


def test_known_damage_outlives_the_daemon_and_goes_with_the_damage(tmp_path):
    make_store(tmp_path, FIRST)
    pack = the(tmp_path, "packs/??/*")
    flip(pack, 3 * MIB)

    async def find():
        store = open_store(tmp_path, create=False)
        found = await store.verify(JOB, Version(1))
        store.close()
        return found

    found = trio.run(find)
    assert found
    store = open_store(tmp_path, create=False)
    assert list(store.damage(JOB, Version(1))) == list(found)
    store.close()
    (tmp_path / "heads" / JOB / "1.damage").chmod(0o600)
    (tmp_path / "heads" / JOB / "1.damage").write_bytes(b"torn")
    store = open_store(tmp_path, create=False)
    assert store.damage(JOB, Version(1))
    store.close()
    flip(pack, 3 * MIB)  # whole again
    assert trio.run(find) == []
    assert not (tmp_path / "heads" / JOB / "1.damage").exists()
    assert check(tmp_path) == []


@pytest.mark.slow
def test_a_byte_flipped_anywhere_is_noticed(tmp_path):
    """Every 40th byte of small objects, some of the pack: no flip gives other bytes."""
    files = {"a": noise(3 * PAGE + 5), "b": b"x" * 100}
    make_store(tmp_path, files)

    async def read_all():
        try:
            store = open_store(tmp_path, create=False)
        except CkptfsError:
            return
        try:
            for name, data in files.items():
                try:
                    assert await load(store, name) == data
                except CkptfsError:
                    continue
        finally:
            store.close()

    for pattern, step in (
        ("packs/??/*", 509),
        ("manifests/??/*", 40),
        ("heads/*/1", 40),
        ("FORMAT", 9),
    ):
        for path in sorted(p for p in tmp_path.glob(pattern) if p.is_file()):
            for offset in range(0, path.stat().st_size, step):
                flip(path, offset)
                trio.run(read_all)
                if pattern in {"manifests/??/*", "heads/*/1"}:
                    assert check(tmp_path) != [], (path, offset)
                flip(path, offset)
    assert check(tmp_path) == []


@pytest.mark.wrong_store("objects are torn or gone")
@pytest.mark.parametrize("content", [b"", b"torn"])
@pytest.mark.parametrize(
    "pattern", ["packs/??/*", "manifests/??/*", "heads/*/1", "manifests/??/*.pages"]
)
def test_torn_files_do_not_keep_the_store_from_opening(tmp_path, pattern, content):
    make_store(tmp_path, FIRST, SECOND)
    for path in tmp_path.glob(pattern):
        if path.is_file():
            path.chmod(0o600)
            path.write_bytes(content)
    (tmp_path / "sessions/torn").write_bytes(content)
    (tmp_path / "packs/open/torn").write_bytes(content)

    async def main():
        store = open_store(tmp_path, create=False)
        assert store.versions(JOB) == (1, 2)
        store.usage()
        if not pattern.endswith(".pages"):
            with pytest.raises(Corrupt):
                await load(store, "pages-1.img", version=1)
        await save(store, SECOND, version=3)
        assert await load(store, "pages-1.img", version=3) == SECOND["pages-1.img"]
        store.close()

    trio.run(main)
    assert list((tmp_path / "packs/open").iterdir()) == []


@pytest.mark.wrong_store("a forged head")
def test_a_head_moved_or_forged_is_no_head(tmp_path):
    make_store(tmp_path, FIRST)
    head = tmp_path / "heads" / JOB / "1"
    (tmp_path / "heads" / JOB / "2").write_bytes(head.read_bytes())
    (tmp_path / "heads/mallory.9").mkdir()
    (tmp_path / "heads/mallory.9/1").write_bytes(head.read_bytes().replace(b"alice", b"mallo"))
    store = open_store(tmp_path, create=False)
    with pytest.raises(Corrupt, match="moved"):
        store.head(JOB, Version(2))
    with pytest.raises(Corrupt, match="signature"):
        store.head(type(JOB)("mallory.9"), Version(1))
    assert store.head(JOB, Version(1)).owner.user == "alice"
    store.close()


@pytest.mark.wrong_store("a pack is gone")
def test_a_missing_pack_is_said(tmp_path):
    make_store(tmp_path, FIRST)
    the(tmp_path, "packs/??/*").unlink()

    async def main():
        store = open_store(tmp_path, create=False)
        with pytest.raises(Corrupt, match="missing"):
            await load(store, "core-1.img")
        store.close()

    trio.run(main)


# -- full disk, failing disk --------------------------------------------------


def attempt(directory: Path, calls: FaultyCalls) -> CkptfsError | None:
    """Write the second version under *calls*; return what it failed with.  The first stays good."""

    async def main():
        store = open_store(directory, create=False, calls=calls)
        try:
            try:
                await save(store, SECOND, version=2)
            except CkptfsError as error:
                assert store.versions(JOB) == (1,)
                with pytest.raises(NotFound):
                    store.head(JOB, Version(2))
                return error
            else:
                assert await load(store, "pages-1.img", version=2) == SECOND["pages-1.img"]
                return None
            finally:
                assert await load(store, "pages-1.img", version=1) == FIRST["pages-1.img"]
                assert store.usage().reserved_bytes == 0
        finally:
            store.close()

    return trio.run(main)


def whole(directory: Path, failed: bool) -> None:
    assert check(directory) == []
    open_store(directory, create=False).close()
    assert list((directory / "packs/open").iterdir()) == []
    assert list((directory / "sessions").iterdir()) == []
    store = open_store(directory, create=False)
    assert store.versions(JOB) == ((1,) if failed else (1, 2))
    store.close()


def test_a_failed_sync_is_met_with_a_new_file_once(tmp_path):
    make_store(tmp_path, FIRST)
    calls = FaultyCalls()
    failed: list[str] = []

    def once(name, what):
        if name == "fdatasync" and not failed:
            failed.append(what)
            return broken()
        return None

    calls.fail_when = once
    assert attempt(tmp_path, calls) is None
    assert failed
    assert any(".again" in line for line in calls.log)
    whole(tmp_path, failed=False)


def test_a_sync_that_fails_twice_makes_the_store_read_only(tmp_path):
    make_store(tmp_path, FIRST)
    calls = FaultyCalls()
    calls.fail_when = lambda name, what: broken() if name == "fdatasync" else None

    async def main():
        store = open_store(tmp_path, create=False, calls=calls)
        with pytest.raises(Degraded):
            await save(store, SECOND, version=2)
        assert "twice" in store.degraded()
        for refused in (
            lambda: store.begin(JOB, Version(3), expect_bytes=0),
            lambda: store.pin(JOB, Version(1), True),
            lambda: store.remove(JOB, Version(1)),
        ):
            with pytest.raises(Degraded, match="read-only"):
                refused()
        assert await load(store, "pages-1.img") == FIRST["pages-1.img"]
        store.close()

    trio.run(main)
    whole(tmp_path, failed=True)


def test_a_promise_that_cannot_be_kept_is_refused_first(tmp_path):
    store = open_store(tmp_path, create=True)
    usage = store.usage()
    with pytest.raises(StoreFull, match="room for"):
        store.begin(JOB, Version(1), expect_bytes=usage.total_bytes)
    assert list((tmp_path / "sessions").iterdir()) == []
    assert store.usage().reserved_bytes == 0
    store.close()


def write_much(file, count: int) -> None:
    for n in range(count):
        file.write(n * MIB, noise(MIB, n))


def test_promises_of_running_versions_are_kept_apart(tmp_path):
    class Small(FaultyCalls):
        def free_and_total(self, path):
            used = sum(file.stat().st_size for file in (tmp_path / "packs").rglob("*.*"))
            return 100 * MIB - used, 200 * MIB

    async def main():
        store = open_store(tmp_path, create=True, calls=Small())
        one = store.begin(JOB, Version(1), expect_bytes=60 * MIB)
        assert 60 * MIB <= store.usage().reserved_bytes < 62 * MIB
        with pytest.raises(StoreFull):
            store.begin(JOB, Version(2), expect_bytes=60 * MIB)
        file = one.create(UNIT, "pages-1.img")
        with pytest.raises(StoreFull):  # more than was said, and more than there is
            write_much(file, 200)
        await one.abort()
        await store.begin(JOB, Version(2), expect_bytes=60 * MIB).abort()
        store.close()

    trio.run(main)
    assert check(tmp_path) == []


# -- lost power, killed writers -----------------------------------------------


WRITER = """
import sys, trio
from pathlib import Path
from ckptfs.ids import Version
from ckptfs.store.store import open_store
from ckptfs.store.syscalls import Syscalls
from tests.store_kit import JOB, MIB, noise, dirtied, save
store = open_store(Path(sys.argv[1]), create=True)
async def main():
    data = noise(6 * MIB)
    for number in range(max(store.versions(JOB), default=0) + 1, 10_000):
        data = dirtied(data, 30, number)
        await save(store, {"pages-1.img": data, "core-1.img": b"%d" % number}, version=number)
        print(number, flush=True)
trio.run(main)
"""


@pytest.mark.slow
def test_a_writer_killed_again_and_again(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    acknowledged = 0
    for round_number in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path / "s"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            for _ in range(2 + round_number):
                acknowledged = int(writer.stdout.readline())
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            late = writer.stdout.read().split()
            writer.stdout.close()
        acknowledged = int(late[-1]) if late else acknowledged
        store = open_store(tmp_path / "s", create=False)
        numbers = store.versions(JOB)
        assert list(numbers) == list(range(1, len(numbers) + 1))
        assert acknowledged <= numbers[-1] <= acknowledged + 1
        assert list((tmp_path / "s/packs/open").iterdir()) == []
        assert list((tmp_path / "s/sessions").iterdir()) == []
        store.close()
        assert check(tmp_path / "s") == []
