"""Data keys: wrapped for whom, opened by whom, and what stays out of what leaves the store."""

from __future__ import annotations

import contextlib
import datetime
import json
import os

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from ckptfs.errors import (
    Corrupt,
    Exists,
    InvalidInput,
    KeyMissing,
    NotAuthenticated,
    NotFound,
    Unsupported,
)
from ckptfs.store import key_wrapping
from ckptfs.store.key_documents import decode_key, encode_key
from ckptfs.store.key_wrapping import (
    id_of,
    load_private_key,
    new_key,
    unwrap_with_passphrase,
    unwrap_with_private_key,
    wrap_for_certificate,
    wrap_for_passphrase,
)
from ckptfs.store.keyring import KeyRing
from ckptfs.store.syscalls import Syscalls
from tests.store_kit import Cut, FaultyCalls, broken

PHRASE = "correct horse battery"
NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
MAKERS = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "x25519": x25519.X25519PrivateKey.generate,
}


def certificate(private, *, start=NOW - DAY, end=NOW + DAY) -> bytes:
    """A certificate in PEM, signed by somebody else."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(private.public_key()).serial_number(7)
    builder = builder.not_valid_before(start).not_valid_after(end)
    signer = ec.generate_private_key(ec.SECP256R1())
    return builder.sign(signer, SHA256()).public_bytes(serialization.Encoding.PEM)


def pem_of(private, password: bytes | None = None) -> bytes:
    how = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(key_wrapping, "SCRYPT_LOG2N", 4)


@pytest.fixture
def ring(tmp_path):
    (tmp_path / "keys").mkdir()
    return KeyRing(tmp_path, Syscalls())


def by_phrase(key):
    return wrap_for_passphrase(key, PHRASE)


def open_by_phrase(document):
    (wrap,) = [wrap for wrap in document.wraps if wrap["kind"] == "passphrase"]
    return unwrap_with_passphrase(wrap, document.key_id, PHRASE)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_private_key_of_a_certificate_opens(kind):
    key, private = new_key(), MAKERS[kind]()
    wrap = wrap_for_certificate(key, certificate(private), NOW)
    assert wrap["subject"] == "CN=alice"
    loaded = load_private_key(pem_of(private, b"secret"), b"secret")
    assert unwrap_with_private_key(wrap, id_of(key), loaded) == key
    with pytest.raises(NotAuthenticated, match="not the private key"):
        unwrap_with_private_key(wrap, id_of(key), MAKERS[kind]())
    for other in MAKERS.values():  # as if it were for that one
        stranger = other()
        forged = {**wrap, "spki": key_wrapping._spki(stranger.public_key())}
        with pytest.raises((NotAuthenticated, Corrupt)):
            unwrap_with_private_key(forged, id_of(key), stranger)
    with pytest.raises((NotAuthenticated, Corrupt)):
        unwrap_with_private_key(wrap, id_of(new_key()), loaded)


def test_certificates_that_will_not_do(monkeypatch):
    key, private = new_key(), MAKERS["p256"]()
    for pem, error in (
        (b"hello", InvalidInput),
        (pem_of(private), InvalidInput),
        (certificate(private, end=NOW - DAY / 2), InvalidInput),
        (certificate(private, start=NOW + DAY / 2), InvalidInput),
        (certificate(ed25519.Ed25519PrivateKey.generate()), Unsupported),
        (certificate(rsa.generate_private_key(65537, 1024)), Unsupported),
    ):
        with pytest.raises(error):
            wrap_for_certificate(key, pem, NOW)


def test_private_keys_that_will_not_do():
    private = MAKERS["p256"]()
    for pem, password, error in (
        (b"hello", None, InvalidInput),
        (pem_of(private, b"secret"), None, NotAuthenticated),
        (pem_of(private, b"secret"), b"other", NotAuthenticated),
        (pem_of(ed25519.Ed25519PrivateKey.generate()), None, Unsupported),
    ):
        with pytest.raises(error):
            load_private_key(pem, password)


def test_a_passphrase_opens_and_another_does_not():
    key = new_key()
    wrap = wrap_for_passphrase(key, "motörhead forever")
    composed, apart = "mot\u00f6rhead forever", "moto\u0308rhead forever"
    assert unwrap_with_passphrase(wrap, id_of(key), composed) == key
    assert unwrap_with_passphrase(wrap, id_of(key), apart) == key
    with pytest.raises(NotAuthenticated):
        unwrap_with_passphrase(wrap, id_of(key), PHRASE)
    with pytest.raises(InvalidInput, match="12"):
        wrap_for_passphrase(key, "short")
    for hostile in ({"log2n": "40"}, {"log2n": "x"}, {"salt": "!"}, {"sealed": "AAAA"}):
        with pytest.raises((Corrupt, NotAuthenticated)):
            unwrap_with_passphrase({**wrap, **hostile}, id_of(key), composed)


def test_a_store_keeps_keys_and_gives_none_away(ring, tmp_path):
    with pytest.raises(KeyMissing, match="ckptfs key create alice"):
        ring.sealing("alice")
    made = ring.create("alice", [by_phrase], replacing=False)
    key_id, key = ring.sealing("alice")
    assert (key_id, id_of(key)) == (made.key_id, made.key_id)
    outside = encode_key(ring.document(key_id).without_store())
    assert b'"store"' not in outside
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0
            assert key.hex().encode() not in path.read_bytes()
    with pytest.raises(Exists, match="--replace"):
        ring.create("alice", [by_phrase], replacing=False)
    with pytest.raises(InvalidInput):
        ring.create("bob", [], replacing=False)
    newer = ring.create("alice", [by_phrase], replacing=True)
    assert ring.sealing("alice")[0] == newer.key_id
    assert ring.open(key_id) == key  # what was sealed with the old one can be read
    assert [d.key_id for d in ring.documents()] == [newer.key_id, key_id]
    assert ring.find("alice").key_id == newer.key_id
    with pytest.raises(NotFound):
        ring.find("bob")


def test_another_process_is_noticed(ring, tmp_path):
    assert ring.documents() == []
    other = KeyRing(tmp_path, Syscalls())
    made = other.create("alice", [by_phrase], replacing=False)
    assert ring.sealing("alice")[0] == made.key_id
    private = MAKERS["x25519"]()
    ring.add_wrap(made.key_id, lambda key: wrap_for_certificate(key, certificate(private), NOW))
    spki = key_wrapping._spki(private.public_key())[:16]
    assert other.find("alice").openers() == ["passphrase", f"certificate CN=alice ({spki})"]


def test_a_key_goes_to_another_store(ring, tmp_path):
    made = ring.create("alice", [by_phrase], replacing=False)
    (tmp_path / "new/keys").mkdir(parents=True)
    new = KeyRing(tmp_path / "new", Syscalls())
    exported = encode_key(made)
    with pytest.raises(KeyMissing):
        new.open(made.key_id)
    taken = new.take_in(exported, open_by_phrase)
    assert taken.is_active
    assert new.sealing("alice") == ring.sealing("alice")
    new.create("alice", [by_phrase], replacing=True)
    assert not new.take_in(exported, open_by_phrase).is_active
    assert len(new.document(made.key_id).wraps) == 2  # nothing twice


def test_with_the_stores_own_secret_lost_import_opens_again(ring, tmp_path):
    made = ring.create("alice", [by_phrase], replacing=False)
    key = ring.open(made.key_id)
    secret = tmp_path / "keys/wrapping.key"
    for damage in (lambda: secret.write_text("ff"), secret.unlink):
        damage()
        with pytest.raises(KeyMissing, match="ckptfs key import"):
            KeyRing(tmp_path, Syscalls()).open(made.key_id)
    again = KeyRing(tmp_path, Syscalls())
    again.take_in(encode_key(made), open_by_phrase)
    assert again.open(made.key_id) == key


def test_an_error_or_a_power_cut_at_any_call_leaves_a_key_that_opens_or_none(tmp_path):
    cases = 0
    for way in ("error", "cut"):
        for number in range(100):
            place = tmp_path / f"{way}{number}"
            (place / "keys").mkdir(parents=True)
            calls = FaultyCalls()
            if way == "error":
                calls.fail_at = {number: broken()}
            else:
                calls.cut_at = number
            made = None
            with contextlib.suppress(OSError, Cut):
                made = KeyRing(place, calls).create("alice", [by_phrase], replacing=False)
            ring = KeyRing(place, Syscalls())
            assert not ring.troubles()
            found = ring.documents()
            assert made is None or [d.key_id for d in found] == [made.key_id]
            for document in found:
                assert ring.sealing("alice")[1] == open_by_phrase(document)
            if not found:
                ring.create("alice", [by_phrase], replacing=False)
            if len(calls.log) <= number:
                break
            cases += 1
    assert cases > 15
    print(f"{cases} cases tried")


def test_documents_that_are_none(ring, tmp_path):
    made = ring.create("alice", [by_phrase], replacing=False)
    row = json.loads(encode_key(made))
    for bad in (
        b"",
        b"[]",
        b"{}",
        json.dumps(row | {"format": 2}).encode(),
        json.dumps(row | {"key": "../../etc/passwd"}).encode(),
        json.dumps(row | {"owner": "a\nb"}).encode(),
        json.dumps(row | {"wraps": [{"kind": "magic"}]}).encode(),
        json.dumps(row | {"wraps": [7]}).encode(),
    ):
        with pytest.raises(Corrupt):
            decode_key(bad, "it")
    place = tmp_path / "keys/owners"
    (place / f"{'0' * 32}.json").write_text("{")
    (place / f"{'1' * 32}.json").write_bytes(encode_key(made))
    os.utime(place, ns=(1, 1))
    assert [d.key_id for d in ring.documents()] == [made.key_id]
    assert len(ring.troubles()) == 2
