"""A store from a volume of copies: all of it, proved, or said what is not."""

from __future__ import annotations

import contextlib
import shutil

import pytest

from ckptfs.cli.main import main
from ckptfs.errors import Busy, CkptfsError, InvalidInput, NotEmpty, NotFound
from ckptfs.ids import JobId, Version
from ckptfs.store import key_wrapping
from ckptfs.store.check import check
from ckptfs.store.keyring import KeyRing
from ckptfs.store.store import open_store
from ckptfs.store.syscalls import Syscalls
from ckptfs.upkeep.keys import Opening
from ckptfs.upkeep.recover import recover
from tests.store_kit import (
    JOB,
    MIB,
    Cut,
    FaultyCalls,
    broken,
    dirtied,
    load,
    noise,
    save,
)

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part

PHRASE = "correct horse battery"
FIRST = noise(2 * MIB + 77)
SECOND = dirtied(FIRST, 9, 1)
LATER = dirtied(SECOND, 3, 2)
OTHER = JobId("other.2")
STEP = 19  # of the calls at which something fails; with 1 it takes 107 s for 286 cases


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(key_wrapping, "SCRYPT_LOG2N", 4)


def silent(_):
    return None


async def no_pace(_):
    return None


async def lost_store(place, seal):
    """Three versions of two jobs and their copies in ``b``; then the store is gone."""
    (place / "b").mkdir(parents=True)
    store = open_store(place / "store", create=True)
    try:
        KeyRing(place / "store", Syscalls()).create(
            "alice", [lambda key: key_wrapping.wrap_for_passphrase(key, PHRASE)], replacing=False
        )
        await save(store, {"a": FIRST, "small": b"x"})
        await save(store, {"a": SECOND, "small": b"x", "empty": b""}, version=2)
        await save(store, {"a": noise(MIB, 5)}, job=OTHER)
        await store.copies.add(str(place / "b"), "", seal)
        await store.copies.round({JOB: 2, OTHER: 2}, no_pace)
        assert store.copies.count(JOB, Version(2)) == 2
    finally:
        store.close()
    shutil.rmtree(place / "store")


@pytest.mark.parametrize("seal", ["plain", "compress", "encrypt"])
async def test_everything_comes_back_from_the_volume_alone(tmp_path, seal):
    await lost_store(tmp_path, seal)
    opening = Opening(passphrase=PHRASE if seal == "encrypt" else "")
    outcome = recover(tmp_path / "b", tmp_path / "new", opening, progress=silent)
    assert (outcome.versions, outcome.lost) == (3, [])
    assert outcome.is_proved == (seal == "encrypt")
    assert check(tmp_path / "new") == []
    store = open_store(tmp_path / "new", create=False)
    try:
        assert await load(store, "a") == FIRST
        assert await load(store, "a", version=2) == SECOND
        assert await load(store, "empty", version=2) == b""
        assert await load(store, "a", job=OTHER) == noise(MIB, 5)
        assert store.head(JOB, Version(1)).owner.user == "alice"
        head = await save(store, {"a": LATER, "small": b"x"}, version=3)
        assert head.stored_bytes < MIB  # the page tables are good: only new pages were written
        assert await load(store, "a", version=3) == LATER
    finally:
        store.close()
    again = recover(tmp_path / "b", tmp_path / "new", opening, progress=silent)
    assert (again.versions, again.lost, again.keys) == (0, [], [])
    assert check(tmp_path / "new") == []


async def test_what_is_locked_or_damaged_is_named_and_the_rest_comes(tmp_path):
    await lost_store(tmp_path, "encrypt")
    new = tmp_path / "new"
    outcome = recover(tmp_path / "b", new, Opening(), progress=silent)
    assert outcome.versions == 0
    assert len(outcome.lost) == 3
    assert all("ckptfs key import" in sentence for sentence in outcome.lost)
    wrong = recover(tmp_path / "b", new, Opening(passphrase="not this one"), progress=silent)
    assert "not the passphrase" in wrong.lost[0]
    assert check(new) == []
    pack = max((tmp_path / "b/packs").glob("??/*"), key=lambda path: path.stat().st_size)
    pack.chmod(0o600)
    data = bytearray(pack.read_bytes())
    data[MIB] ^= 1
    pack.write_bytes(data)
    outcome = recover(tmp_path / "b", new, Opening(passphrase=PHRASE), progress=silent)
    assert outcome.versions == 1
    assert [sentence.partition(":")[0] for sentence in outcome.lost] == [
        f"version 1 of {JOB}",
        f"version 2 of {JOB}",
    ]
    assert check(new) == []
    data[MIB] ^= 1
    pack.write_bytes(data)  # the volume was repaired
    outcome = recover(tmp_path / "b", new, Opening(), progress=silent)
    assert (outcome.versions, outcome.lost) == (2, [])
    assert check(new) == []


@pytest.mark.slow
async def test_an_error_or_a_power_cut_at_any_call_is_made_good_by_doing_it_again(tmp_path):
    await lost_store(tmp_path, "encrypt")
    opening, cases = Opening(passphrase=PHRASE), 0
    for way in ("error", "cut"):
        for number in range(0, 1000, STEP):
            new = tmp_path / "new"
            calls = FaultyCalls()
            if way == "error":
                calls.fail_at = {number: broken()}
            else:
                calls.cut_at = number
            with contextlib.suppress(CkptfsError, Cut):
                recover(tmp_path / "b", new, opening, progress=silent, calls=calls)
            if (new / "FORMAT").exists():
                assert check(new) == []  # what is there is whole
            else:
                shutil.rmtree(new)  # it has not become a store
            recover(tmp_path / "b", new, opening, progress=silent)
            assert check(new) == []
            assert len(list(new.glob("heads/*/*"))) == 3
            shutil.rmtree(new)
            if len(calls.log) <= number:
                break
            cases += 1
    assert cases > 280 // STEP
    print(f"{cases} cases tried")


async def test_stores_are_never_mixed(tmp_path):
    await lost_store(tmp_path, "compress")
    own = open_store(tmp_path / "own", create=True)
    try:
        await save(own, {"a": FIRST})
        with pytest.raises(Busy, match="another ckptfs"):
            recover(tmp_path / "b", tmp_path / "own", Opening(), progress=silent)
    finally:
        own.close()
    with pytest.raises(Busy, match="versions of another store"):
        recover(tmp_path / "b", tmp_path / "own", Opening(), progress=silent)
    recover(tmp_path / "b", tmp_path / "new", Opening(), progress=silent)
    await lost_store(tmp_path / "second", "compress")
    with pytest.raises(Busy, match="versions of another store"):
        recover(tmp_path / "second/b", tmp_path / "new", Opening(), progress=silent)
    for volume, store, error in (
        (tmp_path / "nothing", tmp_path / "n", NotFound),
        (tmp_path / "b", tmp_path / "b/new", InvalidInput),
        (tmp_path / "b", tmp_path, InvalidInput),
        (tmp_path / "b", tmp_path / "second", NotEmpty),
    ):
        with pytest.raises(error):
            recover(volume, store, Opening(), progress=silent)


class Forbidding(Syscalls):
    """A volume that only root may read."""

    def read_file(self, path, limit):
        raise PermissionError(13, "Permission denied", str(path))


async def test_who_may_not_read_the_volume_is_told_so(tmp_path, capsys, monkeypatch):
    await lost_store(tmp_path, "compress")
    monkeypatch.setattr("ckptfs.upkeep.recover.Syscalls", Forbidding)
    assert main(["recover", str(tmp_path / "b"), "--store", str(tmp_path / "new")]) == 6
    assert "VOLUME: permission denied" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


async def test_the_command_says_what_it_did(tmp_path, capsys):
    await lost_store(tmp_path, "encrypt")
    (tmp_path / "phrase").write_text(f"{PHRASE}\n")
    words = ["recover", str(tmp_path / "b"), "--store", str(tmp_path / "new")]
    assert main(words) == 10
    out, err = capsys.readouterr()
    assert out.count("not recovered: ") == 3
    assert "named above" in err
    assert main([*words, "--passphrase-file", str(tmp_path / "phrase")]) == 0
    out, _ = capsys.readouterr()
    assert "took in key" in out
    assert out.endswith("3 versions recovered\n")
