"""`ckptfs check` and `repair` on volumes: every relation of every copy, and no false alarm."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import trio

from ckptfs.cli.main import main as ckptfs
from ckptfs.errors import NotFound
from ckptfs.ids import Version
from ckptfs.jobs.directory import JobsDirectory
from ckptfs.store import key_wrapping
from ckptfs.store.keyring import KeyRing
from ckptfs.store.store import open_store
from ckptfs.store.syscalls import Syscalls
from ckptfs.upkeep.check import check_all
from ckptfs.upkeep.repair import repair
from tests.copies_kit import World, flip, no_pace
from tests.store_kit import JOB, noise, save
from tests.unit.test_catalog_records import RECORD

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part


def no_progress(_: float) -> None:
    pass


def mend(store, **options):
    chosen = {"rebuild_catalog": False, "discard": False} | options
    return repair(store, progress=no_progress, **chosen)


def made(directory, *volumes, level=3) -> World:
    """A store with two versions on volumes, and a job's record."""
    world = World(directory)
    trio.run(world.fill, *volumes)
    world.store.close()
    store = directory / "store"
    record = dataclasses.replace(RECORD, id=JOB, highest_version=2, replication=level)
    JobsDirectory(store / "jobs", store / "logs").create(record)
    mend(store, rebuild_catalog=True)
    return world


def look(directory, volume=""):
    return check_all(directory / "store", no_progress, volume)


def pack(directory, name="b"):
    return min((directory / name / "packs").glob("??/*"))


def test_whole_copies_are_whole_and_read_to_the_last_block(tmp_path):
    made(tmp_path, "b", "c")
    shares: list[float] = []
    assert check_all(tmp_path / "store", shares.append) == ([], [])
    assert shares == sorted(shares)
    assert 0.99 < shares[-1] <= 1
    assert look(tmp_path, "c") == ([], [])
    with pytest.raises(NotFound, match="no volume is called 'd'"):
        look(tmp_path, "d")


@pytest.mark.parametrize("kind", ["packs", "manifests", "tables", "heads"])
@pytest.mark.wrong_store("a copy is damaged")
def test_a_flipped_bit_of_any_kind_is_found_where_it_is(tmp_path, kind):
    made(tmp_path, "b", "c")
    pattern = {
        "packs": "packs/??/*",
        "manifests": "manifests/??/*[0-9a-f]",
        "tables": "manifests/??/*.pages",
        "heads": f"heads/{JOB}/1",
    }[kind]
    path = min(
        path
        for path in (tmp_path / "b").glob(pattern)
        if path.suffix != ".pages" or kind == "tables"
    )
    flip(path)
    wrong, notes = look(tmp_path)
    assert wrong
    assert all(sentence.startswith("volume b: ") for sentence in wrong)
    assert path.stem in wrong[0] or kind == "heads"
    if kind == "tables":
        assert notes == []  # nobody needs it to read
    else:
        assert any("is whole in 2 of the 3 failure domains" in sentence for sentence in notes)
    assert look(tmp_path, "c") == ([], [])


@pytest.mark.parametrize("kind", ["packs", "manifests"])
@pytest.mark.wrong_store("a copy lacks an object")
def test_what_a_head_needs_and_is_not_there_is_named(tmp_path, kind):
    made(tmp_path, "b")
    victim = min(p for p in (tmp_path / "b" / kind).glob("??/*") if p.suffix != ".pages")
    victim.unlink()
    wrong, _ = look(tmp_path)
    (sentence,) = wrong
    assert sentence.startswith("volume b: version ")
    assert sentence.endswith(f"{kind[:-1]} {victim.name} is missing there")


@pytest.mark.wrong_store("its trash was emptied by hand")
def test_what_is_too_much_is_no_damage(tmp_path):
    world = made(tmp_path, "b", level=2)
    (tmp_path / "b" / "packs" / "stray").write_bytes(b"x")
    (tmp_path / "b" / "heads" / JOB / ".1.tmp").write_bytes(b"x")

    async def another():
        world.store = open_store(tmp_path / "store", create=False)
        await save(world.store, {"a": noise(5000, 9)}, version=3)
        await world.round(2)
        world.store.remove(JOB, Version(3))
        world.store.remove(JOB, Version(1), trash_s=0)
        world.store.close()

    trio.run(another)
    wrong, notes = look(tmp_path)
    assert [s for s in wrong if "volume" in s] == []
    assert "volume b: 1 torn files of copies that were cut off" in notes
    assert "volume b: packs/stray does not belong there" in notes
    assert not any("of no version" in sentence for sentence in notes)  # the trash needs them
    shutil.rmtree(tmp_path / "store" / "trash")
    (tmp_path / "store" / "trash").mkdir()
    (tmp_path / "store" / "gone.json").write_text(json.dumps({"format": 1, "versions": [[JOB, 3]]}))
    _, notes = look(tmp_path)
    assert f"volume b: 1 removed versions, which go with a collection: {JOB}/3" in notes
    assert f"volume b: 1 versions that this store neither has nor removed: {JOB}/1" in notes


def test_a_volume_that_cannot_be_read_is_said_and_its_copies_do_not_count(tmp_path):
    made(tmp_path, "b", "c")
    (tmp_path / "b").rename(tmp_path / "away")
    wrong, notes = look(tmp_path)
    assert wrong == []
    assert notes[0] == f"volume b cannot be read: {tmp_path}/b holds no volume"
    assert all(
        s.endswith(
            "2 of the 3 failure domains that it is wanted in; not every volume could be read"
        )
        for s in notes[1:]
    )
    assert len(notes) == 3
    assert look(tmp_path, "b") == ([notes[0]], [])
    other = json.loads((tmp_path / "c" / "VOLUME").read_text())
    (tmp_path / "c" / "VOLUME").write_text(json.dumps(other | {"volume": "0" * 32}))
    assert "holds another volume" in look(tmp_path, "c")[0][0]


@pytest.fixture
def sealed(tmp_path, monkeypatch):
    """A store with an encrypted volume, its key in the store."""
    monkeypatch.setattr(key_wrapping, "SCRYPT_LOG2N", 4)
    (tmp_path / "b").mkdir()

    async def main():
        store = open_store(tmp_path / "store", create=True)
        ring = KeyRing(tmp_path / "store", Syscalls())
        wrap = [lambda key: key_wrapping.wrap_for_passphrase(key, "correct horse battery")]
        ring.create("alice", wrap, replacing=False)
        await store.copies.add(str(tmp_path / "b"), "", "encrypt")
        for version in (1, 2):
            await save(store, {"a": noise(3 << 20, version)}, version=version)
        await store.copies.round({JOB: 2}, no_pace)
        store.close()

    trio.run(main)
    return tmp_path


@pytest.mark.wrong_store("copies are damaged")
def test_sealed_copies_are_read_with_keys_and_proved_without(sealed):
    assert look(sealed) == ([], [])
    (sealed / "store" / "keys" / "wrapping.key").unlink()
    wrong, notes = look(sealed)
    assert wrong == []
    assert any("2 versions are sealed with keys that the store has not" in s for s in notes)
    victim = pack(sealed)
    flip(victim)
    wrong, _ = look(sealed)
    assert f"volume b: pack {victim.name}: " in wrong[0]
    victim.unlink()
    assert any(f"pack {victim.name} is missing there" in s for s in look(sealed)[0])


@pytest.mark.wrong_store("a copy is damaged")
def test_the_command(tmp_path, capsys):
    made(tmp_path, "b")
    where = ["--store", str(tmp_path / "store")]
    assert ckptfs(["check", "--volume", "b", *where]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/store, volume b: whole\n"
    assert ckptfs(["check", "--volume", "d", *where]) == 3
    flip(pack(tmp_path))
    assert ckptfs(["check", *where]) == 10
    assert "no damage: version 1 of" in capsys.readouterr().out


# -- repair ------------------------------------------------------------------


async def copied_anew(world, level=2):
    world.store = open_store(world.directory / "store", create=False)
    await world.round(level)
    world.store.close()


@pytest.mark.parametrize("pattern", ["packs/??/*", "manifests/??/*", f"heads/{JOB}/1"])
def test_a_damaged_copy_is_set_aside_and_made_anew(tmp_path, pattern):
    world = made(tmp_path, "b", level=2)
    victim = min((tmp_path / "b").glob(pattern))
    before = victim.read_bytes()
    flip(victim)
    outcome = mend(tmp_path / "store")
    assert outcome.lost == []
    assert any("set aside, the service copies it anew" in s for s in outcome.fixed)
    assert not victim.exists()
    assert len(list((tmp_path / "b" / "quarantine").iterdir())) == 1
    trio.run(copied_anew, world)
    assert victim.read_bytes() == before
    assert look(tmp_path)[0] == []


@pytest.mark.wrong_store("all copies are damaged")
def test_a_copy_stays_when_the_store_has_no_better_one(tmp_path):
    made(tmp_path, "b", "c")
    victim = pack(tmp_path)
    for name in ("b", "c", "store"):
        flip(tmp_path / name / victim.relative_to(tmp_path / "b"))
    outcome = mend(tmp_path / "store")
    assert any("and so is the store's own" in sentence for sentence in outcome.lost)
    assert victim.exists()
    assert not (tmp_path / "b" / "quarantine").exists()


def test_damage_of_store_and_volume_is_mended_from_the_other_volume(tmp_path):
    world = made(tmp_path, "b", "c")
    victim = pack(tmp_path)
    flip(victim)
    flip(tmp_path / "store" / victim.relative_to(tmp_path / "b"))
    outcome = mend(tmp_path / "store")
    assert outcome.lost == []
    assert any("fetched back from volume c" in sentence for sentence in outcome.fixed)
    trio.run(copied_anew, world, 3)
    assert look(tmp_path) == ([], ["volume b: 1 damaged copies were set aside"])


def test_missing_packs_and_manifests_of_the_store_are_fetched_back(tmp_path):
    made(tmp_path, "b", level=2)
    for path in (tmp_path / "store").glob("packs/[0-9a-f][0-9a-f]/*"):
        path.unlink()
    for path in (tmp_path / "store").glob("manifests/??/*"):
        path.unlink()
    assert look(tmp_path)[0] != []
    assert mend(tmp_path / "store").lost == []
    assert look(tmp_path) == ([], [])


@pytest.mark.wrong_store("copies are damaged")
def test_a_failing_disk_is_left_alone(tmp_path):
    made(tmp_path, "b")
    for path in (tmp_path / "b" / "packs").glob("??/*"):
        flip(path)
    for path in (tmp_path / "b" / "manifests").glob("??/*"):
        flip(path)
    outcome = mend(tmp_path / "store")
    assert outcome.lost == [
        "volume b: 5 damaged copies; its disk may be failing, so the rest was left alone"
    ]
    assert len(list((tmp_path / "b" / "quarantine").iterdir())) == 5


@pytest.mark.wrong_store("copies on the other volume are damaged")
def test_one_volume_alone_is_repaired_when_that_is_asked_for(tmp_path, capsys):
    made(tmp_path, "b", "c")
    for name in ("b", "c"):
        flip(pack(tmp_path, name))
    where = ["--store", str(tmp_path / "store")]
    assert ckptfs(["repair", "--volume", "b", *where]) == 0
    assert "mended: volume b: pack" in capsys.readouterr().out
    assert not (tmp_path / "c" / "quarantine").exists()
    assert ckptfs(["repair", "--volume", "d", *where]) == 3
