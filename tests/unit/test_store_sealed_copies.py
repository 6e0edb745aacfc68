"""A store with a sealed volume: copied, counted, read from, mended; with and without keys."""

from __future__ import annotations

import base64
import logging
import time

import pytest

from ckptfs.errors import Busy, Corrupt, Exists, InvalidInput
from ckptfs.gc.sweep import Sweep
from ckptfs.ids import Version
from ckptfs.store import key_wrapping
from ckptfs.store.copies_plan import Piece
from ckptfs.store.keyring import KeyRing
from ckptfs.store.store import open_store
from ckptfs.store.syscalls import Syscalls
from tests.store_kit import JOB, MIB, dirtied, load, noise, save

pytestmark = pytest.mark.slow  # much hashing: left out of the fast part

DATA = noise(MIB) + b"".join(n.to_bytes(8, "big") * 512 for n in range(256))  # half compresses
ONE = Version(1)


async def no_pace(_):
    return None


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.setattr(key_wrapping, "SCRYPT_LOG2N", 4)
    (tmp_path / "b").mkdir()
    return tmp_path


@pytest.fixture
def store(places):
    opened = open_store(places / "store", create=True)
    yield opened
    opened.close()


@pytest.fixture
def keys(store, places):
    ring = KeyRing(places / "store", Syscalls())
    wrapper = [lambda key: key_wrapping.wrap_for_passphrase(key, "correct horse battery")]
    ring.create("alice", wrapper, replacing=False)
    return ring


def objects(directory):
    kinds = ("packs", "manifests", "heads")
    return sorted(p for kind in kinds for p in (directory / kind).rglob("*") if p.is_file())


def packs(directory):
    return sorted(directory.glob("packs/[0-9a-f][0-9a-f]/*"))


def row_of(store):
    (row,) = store.copies.rows()
    return row


async def copied(store, places, seal):
    await save(store, {"a": DATA})
    await store.copies.add(str(places / "b"), "", seal)
    await store.copies.round({JOB: 2}, no_pace)


@pytest.mark.parametrize("seal", ["compress", "encrypt"])
async def test_a_sealed_copy_counts_and_takes_less_room(store, keys, places, seal):
    await copied(store, places, seal)
    assert store.copies.count(JOB, ONE) == 2
    row = row_of(store)
    assert (row.state, row.seal) == ("up", seal)
    stored = sum(path.stat().st_size for path in objects(places / "b"))
    assert row.used_bytes == stored
    assert row.plain_bytes > 1.5 * stored
    for path in objects(places / "b"):
        assert path.read_bytes().startswith(b"CKPTWRAP")
        hidden = not any(part in path.read_bytes() for part in (DATA[:64], b"alice", b"JobUnit"))
        assert hidden or seal == "compress"
    await save(store, {"a": dirtied(DATA, 5, 1)}, version=2)
    await store.copies.round({JOB: 2}, no_pace)
    assert store.copies.count(JOB, Version(2)) == 2


async def test_no_key_gets_into_a_log_or_out_of_the_store(store, keys, places, caplog):
    caplog.set_level(logging.DEBUG)
    await copied(store, places, "encrypt")
    packs(places / "store")[0].unlink()
    await load(store, "a")
    await store.copies.round({JOB: 2}, no_pace)
    key = keys.sealing("alice")[1]
    secret = bytes.fromhex((places / "store/keys/wrapping.key").read_text())
    for hidden in (key, secret):
        forms = hidden, hidden.hex().encode(), base64.b64encode(hidden)
        written = [path.read_bytes() for path in (places / "b").rglob("*") if path.is_file()]
        assert not any(form in data for form in forms for data in written)
        assert not any(form.decode("latin-1") in caplog.text for form in forms)
    assert "mended" in caplog.text


@pytest.mark.parametrize("seal", ["compress", "encrypt"])
@pytest.mark.parametrize("how", ["flipped", "missing"])
async def test_a_reader_gets_good_bytes_and_the_store_is_mended(store, keys, places, seal, how):
    await copied(store, places, seal)
    (pack,) = packs(places / "store")
    good = pack.read_bytes()
    if how == "missing":
        pack.unlink()
    else:
        pack.chmod(0o600)
        pack.write_bytes(good[:5000] + bytes([good[5000] ^ 1]) + good[5001:])
    store._packs.clear()
    assert await load(store, "a") == DATA
    assert not store.damage(JOB, ONE)
    await store.copies.round({JOB: 2}, no_pace)
    assert pack.read_bytes() == good
    assert store.copies.mended() == 1


@pytest.mark.wrong_store("a pack is gone; the next round brings it")
async def test_the_service_finds_it_sealed_again(store, keys, places):
    await copied(store, places, "encrypt")
    store.close()
    again = open_store(places / "store", create=False)
    try:
        await again.copies.round({JOB: 2}, no_pace)
        assert (row_of(again).state, row_of(again).seal) == ("up", "encrypt")
        assert row_of(again).plain_bytes > row_of(again).used_bytes
        assert again.copies.count(JOB, ONE) == 2
        packs(places / "store")[0].unlink()
        assert await load(again, "a") == DATA
    finally:
        again.close()


async def test_without_a_key_nothing_leaves_and_it_is_said(store, places):
    await copied(store, places, "encrypt")
    assert objects(places / "b") == []
    assert store.copies.count(JOB, ONE) == 1
    (sentence,) = store.copies.locked
    assert sentence.startswith("copies cannot be encrypted: user alice has no key: sudo ckptfs ")
    assert row_of(store).state == "up"
    assert await load(store, "a") == DATA
    KeyRing(places / "store", Syscalls()).create(
        "alice",
        [lambda key: key_wrapping.wrap_for_passphrase(key, "correct horse battery")],
        replacing=False,
    )
    await store.copies.round({JOB: 2}, no_pace)
    assert store.copies.count(JOB, ONE) == 2
    assert not store.copies.locked


async def test_who_has_no_key_gets_plain_copies_where_there_is_a_plain_volume(store, places):
    (places / "c").mkdir()
    await save(store, {"a": DATA})
    await store.copies.add(str(places / "b"), "", "encrypt")
    await store.copies.add(str(places / "c"))
    await store.copies.round({JOB: 2}, no_pace)
    assert store.copies.count(JOB, ONE) == 2
    assert not store.copies.locked  # nothing is wanting
    assert objects(places / "b") == []
    await store.copies.round({JOB: 3}, no_pace)
    assert store.copies.count(JOB, ONE) == 2
    assert len(store.copies.locked) == 1


@pytest.mark.wrong_store("a pack is gone, and the key of its copy")
async def test_with_the_key_lost_the_store_itself_is_untouched(store, keys, places):
    await copied(store, places, "encrypt")
    for path in (places / "store/keys/owners").iterdir():
        path.unlink()
    before = objects(places / "b")
    packs(places / "store")[0].unlink()
    store._packs.clear()
    with pytest.raises(Corrupt):
        await load(store, "a")
    await store.copies.round({JOB: 2}, no_pace)
    assert objects(places / "b") == before  # nothing is thrown away for want of a key
    encrypting, mending = sorted(store.copies.locked)
    assert encrypting.startswith("copies cannot be encrypted: user alice has no key")
    assert mending.startswith("damage cannot be mended from volume b: key ")
    assert mending.endswith("is not here; see: ckptfs key import")
    volume = store.copies._volumes["b"].volume
    for piece in volume.listing().held:
        volume.prove(piece)
    assert row_of(store).state == "up"
    (wrapped,) = (places / "b/keys").iterdir()

    def opened(document):
        return key_wrapping.unwrap_with_passphrase(
            document.wraps[0], document.key_id, "correct horse battery"
        )

    keys.take_in(wrapped.read_bytes(), opened)  # it comes back from beside the copies
    assert await load(store, "a") == DATA


def lose_keys(places):
    away = places / "away"
    (places / "store/keys/owners").rename(away)
    return lambda: away.rename(places / "store/keys/owners")


async def test_copies_nobody_needs_go_without_a_key(store, keys, places):
    await copied(store, places, "encrypt")
    await save(store, {"a": noise(MIB, 9)}, version=2)
    await store.copies.round({JOB: 2}, no_pace)
    assert len(objects(places / "b")) == 8
    lose_keys(places)
    store.remove(JOB, ONE, trash_s=0)
    sweep = Sweep(
        store.garbage,
        wall_s=time.time,
        uptime_s=time.monotonic,
        is_scarce=lambda: False,
        copies=store.copies,
        grace_s=0.0,
    )
    report = await sweep.run(asked=True, empty_trash=False, tell=lambda *_: None)
    assert (report.doubts, report.copies) == ({}, 4)
    assert len(objects(places / "b")) == 4
    await store.copies.round({JOB: 2}, no_pace)
    assert store.copies.count(JOB, Version(2)) == 2


async def test_the_scrub_finds_rotten_copies_without_a_key(store, keys, places):
    await copied(store, places, "encrypt")
    found = objects(places / "b")
    give_back = lose_keys(places)

    async def scrub(since_ns):
        return await store.copies.scrub("b", no_pace, since_ns=since_ns, clock_ns=lambda: 10**18)

    assert await scrub(10**18) == (4, 0)
    for path in found:
        if path.suffix != ".pages":
            path.chmod(0o600)
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
    assert await scrub(10**18 + 1) == (4, 3)
    await store.copies.round({JOB: 2}, no_pace)
    assert store.copies.count(JOB, ONE) == 1
    give_back()
    await store.copies.round({JOB: 2}, no_pace)
    assert store.copies.count(JOB, ONE) == 2
    assert await scrub(10**18 + 2) == (4, 0)


@pytest.mark.wrong_store("a pack is gone, and its copy is not it")
async def test_swapped_copies_mend_nothing(store, keys, places):
    await copied(store, places, "encrypt")
    await save(store, {"a": noise(2 * MIB, 7)}, version=2)
    await store.copies.round({JOB: 2}, no_pace)
    here, there = packs(places / "b"), packs(places / "store")
    first, second = here[0].read_bytes(), here[1].read_bytes()
    for path, data in ((here[0], second), (here[1], first)):
        path.chmod(0o600)
        path.write_bytes(data)
    there[0].unlink()
    store._packs.clear()
    gone = (
        1
        if there[0].name
        in store._versions.load_manifest(
            store.head(JOB, ONE).files[0].manifest.partition(":")[0]
        ).packs
        else 2
    )
    with pytest.raises(Corrupt):
        await load(store, "a", version=gone)
    with pytest.raises(Corrupt, match="renamed"):
        store.copies._volumes["b"].volume.prove(Piece("packs", here[0].name))


async def test_how_copies_are_kept_does_not_change(store, keys, places):
    with pytest.raises(InvalidInput, match="plain, compress, encrypt"):
        await store.copies.add(str(places / "b"), "", "rot13")
    await store.copies.add(str(places / "b"), "", "encrypt")
    with pytest.raises(Exists, match="an encrypted volume stays one"):
        await store.copies.add(str(places / "b"))
    store.copies.set_draining("b", True)
    await store.copies.round({}, no_pace)
    await store.copies.remove("b", {})
    with pytest.raises(Busy, match="kept encrypt, not plain; an encrypted volume stays one"):
        await store.copies.add(str(places / "b"))
    await store.copies.add(str(places / "b"), "", "encrypt")
