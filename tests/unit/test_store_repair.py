"""`ckptfs repair` and what `ckptfs check` sees: mended without loss, or named and left alone."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import pytest
import trio

from ckptfs.catalog.connection import Connection
from ckptfs.cli.main import main as ckptfs
from ckptfs.errors import NotFound
from ckptfs.ids import Version
from ckptfs.jobs.directory import JobsDirectory
from ckptfs.store.check import check, leftovers
from ckptfs.store.store import open_store
from ckptfs.store.verification import encode_sums
from ckptfs.upkeep.check import check_all
from ckptfs.upkeep.repair import Outcome, repair
from tests.store_kit import JOB, MIB, PAGE, dirtied, load, noise, save

from .test_catalog_records import RECORD

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part

FIRST = {"pages-1.img": noise(3 * MIB), "core-1.img": b"core" * 10, "job": b""}
SECOND = FIRST | {"pages-1.img": dirtied(FIRST["pages-1.img"], 40, seed=4)}


def no_progress(_: float) -> None:
    pass


@pytest.fixture
def store(tmp_path) -> Path:
    directory = tmp_path / "store"

    async def main():
        opened = open_store(directory, create=True)
        await save(opened, FIRST, version=1)
        await save(opened, SECOND, version=2)
        opened.close()

    trio.run(main)
    return directory


def mend(store: Path, *, rebuild_catalog=False, discard=False, calls=None) -> Outcome:
    return repair(
        store, rebuild_catalog=rebuild_catalog, discard=discard, progress=no_progress, calls=calls
    )


def flip(path: Path, offset: int) -> None:
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)
    path.chmod(0o400)


def tables(store: Path) -> list[Path]:
    return sorted(store.glob("manifests/??/*.pages"))


def pack_of_first(store: Path) -> Path:
    return max(store.glob("packs/??/*"), key=lambda path: path.stat().st_size)


def read(store: Path, version: int) -> bytes:
    async def main() -> bytes:
        opened = open_store(store, create=False)
        try:
            return await load(opened, "pages-1.img", version=version)
        finally:
            opened.close()

    return trio.run(main)


def test_nothing_is_mended_in_a_whole_store(store):
    assert mend(store) == Outcome()
    assert check(store) == []
    assert mend(store) == Outcome()


def test_leftovers_page_tables_and_modes_are_mended(store):
    (store / "heads" / JOB / ".3.tmp").write_bytes(b"half a head")
    (store / "packs/open/0123456789abcdef0123456789abcdef.0").write_bytes(b"x")
    first, second = tables(store)
    before = first.read_bytes()
    first.unlink()
    flip(second, 100)
    pack_of_first(store).chmod(0o644)
    (store / "trash").rmdir()
    assert check(store) != []
    outcome = mend(store)
    assert outcome.lost == []
    assert len(outcome.fixed) == 6, outcome.fixed
    assert first.read_bytes() == before
    assert check(store) == []
    assert mend(store) == Outcome()
    assert read(store, 2) == SECOND["pages-1.img"]


@pytest.mark.wrong_store("a damaged pack stays")
def test_a_damaged_version_is_named_and_stays_until_it_is_discarded(store):
    flip(pack_of_first(store), PAGE + 2 * MIB)
    outcome = mend(store)
    assert any("damaged: nothing new will rely on it" in sentence for sentence in outcome.fixed)
    assert all("is damaged: JobUnit_1/pages-1.img" in sentence for sentence in outcome.lost)
    opened = open_store(store, create=False)
    assert opened.damage(JOB, Version(1))  # known to the service, without another look
    opened.pin(JOB, Version(2), on=True)
    opened.close()
    outcome = mend(store, discard=True)
    assert [sentence.rpartition("; ")[2] for sentence in outcome.lost] == [
        "moved to the trash",
        "pinned, so it stays",
    ]
    assert not (store / "heads" / JOB / "1").exists()
    assert (store / "heads" / JOB / "2").exists()
    assert len(list(store.glob(f"trash/*/{JOB}@1"))) == 1


@pytest.mark.wrong_store("a head is altered")
def test_an_altered_head_is_damage_not_garbage(store):
    flip(store / "heads" / JOB / "1", 200)
    outcome = mend(store)
    assert len(outcome.lost) == 1
    assert "signature" in outcome.lost[0]
    assert (store / "heads" / JOB / "1").exists()
    assert read(store, 2) == SECOND["pages-1.img"]


def test_what_was_damaged_and_is_whole_again_is_no_longer_noted(store):
    pack = pack_of_first(store)
    flip(pack, PAGE + 2 * MIB)
    mend(store)
    flip(pack, PAGE + 2 * MIB)
    outcome = mend(store)
    assert outcome.lost == []
    assert any("is whole" in sentence for sentence in outcome.fixed)
    assert check(store) == []


# -- the catalog -------------------------------------------------------------


@pytest.fixture
def served(store) -> Path:
    """A store with a job's record and a catalog, as a service leaves it."""
    record = dataclasses.replace(RECORD, id=JOB, highest_version=2)
    JobsDirectory(store / "jobs", store / "logs").create(record)
    assert mend(store).fixed != []
    assert check_all(store, no_progress) == ([], [])
    return store


def test_a_deleted_catalog_is_made_again(served):
    (served / "catalog.db").unlink()
    assert any("missing" in sentence for sentence in check_all(served, no_progress)[0])
    assert mend(served).fixed[-1] == "made the catalog again: 1 jobs"
    assert check_all(served, no_progress) == ([], [])
    opened = Connection(served / "catalog.db")
    assert opened.was_rebuilt  # what was under way is not known: the service must look
    opened.close()


def test_a_torn_or_foreign_catalog_is_put_aside(served):
    for content in (b"", b"not a database at all" * 300):
        (served / "catalog.db").write_bytes(content)
        assert check_all(served, no_progress)[0] != []
        assert mend(served).lost == []
        assert (served / "catalog.db.old").read_bytes() == content
        assert check_all(served, no_progress) == ([], [])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("DELETE FROM versions WHERE version = 2", f"lacks version 2 of {JOB}"),
        ("DELETE FROM versions; DELETE FROM jobs", f"lacks job {JOB}"),
        (
            "INSERT INTO jobs SELECT 'gone.7', 7, uid, user, state, reason, created_ns,"
            " highest_version, clone_of FROM jobs",
            "names job gone.7, which is gone",
        ),
    ],
)
def test_a_catalog_that_says_something_else_is_found_out(served, change, sentence):
    with sqlite3.connect(served / "catalog.db") as raw:
        raw.executescript(change)
    raw.close()
    assert any(sentence in found for found in check_all(served, no_progress)[0])
    assert mend(served).lost == []
    assert check_all(served, no_progress) == ([], [])


@pytest.mark.wrong_store("a record does not parse")
def test_a_record_that_cannot_be_read_is_told_of_and_kept(served):
    path = served / "jobs" / JOB / "job.json"
    path.write_bytes(b"{")
    outcome = mend(served)
    assert "can still be restarted" in outcome.lost[0]
    assert path.read_bytes() == b"{"


# -- check, and the commands -------------------------------------------------


def test_what_belongs_to_no_version_is_no_damage(store):
    assert leftovers(store) == []
    opened = open_store(store, create=False)
    opened.remove(JOB, Version(2))
    opened.close()
    assert leftovers(store) == []  # it can still be brought back
    next(store.glob("trash/*/*")).unlink()
    assert [sentence.split()[:2] for sentence in leftovers(store)] == [
        ["1", "packs"],
        ["1", "manifests"],
        ["1", "tables"],
    ]
    assert check(store) == []


def remove_everything(store: Path) -> None:
    """What a service may do meanwhile: heads to the trash, then what only they needed."""
    for path in [*store.glob("heads/*/*"), *store.glob("packs/??/*"), *tables(store)]:
        path.unlink(missing_ok=True)


def test_what_is_removed_during_a_check_is_no_damage(store):
    for step in range(5):
        steps = iter(range(9))

        def progress(_: float, steps=steps, at=step) -> None:
            if next(steps) == at:
                remove_everything(store)

        assert check(store, progress) == []


def test_what_is_removed_during_a_scrub_is_no_damage(store):
    async def main() -> None:
        opened = open_store(store, create=False)

        async def pace(_: int) -> None:
            for version in opened.versions(JOB):
                opened.remove(JOB, version)
            remove_everything(store)
            await trio.lowlevel.checkpoint()

        with pytest.raises(NotFound):
            await opened.verify(JOB, Version(7), pace=pace)
        assert await opened.verify(JOB, Version(1), pace=pace) == []
        assert opened.damage(JOB, Version(1)) == []
        opened.close()

    trio.run(main)


@pytest.mark.wrong_store("kept sums are of other bytes")
def test_sums_of_other_bytes_are_found(store):
    async def main():
        opened = open_store(store, create=False)
        await opened.sums(JOB, Version(1))
        opened.close()

    trio.run(main)
    assert check(store) == []
    kept = store / "heads" / JOB / "1.sums"
    before = kept.read_bytes()
    flip(kept, 80)
    assert "SHA256SUMS is damaged" in check(store)[0]

    async def again():
        opened = open_store(store, create=False)
        assert await opened.sums(JOB, Version(1)) == before.partition(b"\n")[2]
        opened.close()

    trio.run(again)  # never what was damaged
    assert check(store) == []
    other = before.partition(b"\n")[2].replace(b"0", b"1")
    kept.chmod(0o600)
    kept.write_bytes(encode_sums(other))
    assert check(store) == [f"{JOB} version 1: SHA256SUMS is not of its bytes"]


def test_a_repair_forgets_damaged_sums(store):
    kept = store / "heads" / JOB / "1.sums"
    kept.write_bytes(b"torn")
    assert any("will be computed again" in sentence for sentence in mend(store).fixed)
    assert not kept.exists()


@pytest.mark.wrong_store("a damaged pack stays")
def test_the_commands_say_what_they_did(served, capsys):
    where = ["--store", str(served)]
    assert ckptfs(["check", *where]) == 0
    assert capsys.readouterr().out == f"{served}: whole\n"
    assert ckptfs(["repair", "--rebuild-catalog", *where]) == 0
    assert "mended: made the catalog again: 1 jobs" in capsys.readouterr().out
    flip(pack_of_first(served), PAGE + 2 * MIB)
    assert ckptfs(["repair", *where]) == 10
    assert "lost: version 1 of" in capsys.readouterr().out
    assert ckptfs(["check", *where]) == 10
    opened = open_store(served, create=False)
    assert ckptfs(["repair", *where]) == 4
    opened.close()
    assert "unmount it first" in capsys.readouterr().err
    assert ckptfs(["repair", "--store", str(served / "nothing")]) == 3
