"""Data keys of sealed copies, wrapped for whoever may open them.  Pure.

A data key is 32 random bytes; its id is derived from it, so a key proves its own id.  A *wrap* is
the key encrypted for one opener:

store         AES-256-GCM under ``keys/wrapping.key`` of the store; never leaves it
passphrase    AES-256-GCM under scrypt of a passphrase (128 MiB and some 0.4 s per guess)
certificate   RSA-OAEP with SHA-256; X25519 and the NIST curves: a fresh key pair, HKDF of what the
              two share, AES-256-GCM
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import os
import unicodedata
from collections.abc import Mapping

from cryptography import x509
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ..errors import Corrupt, InvalidInput, NotAuthenticated, Unsupported

KEY_SIZE = 32
ID_SIZE = 16
SALT_SIZE = 16
SCRYPT_LOG2N, SCRYPT_R, SCRYPT_P = 17, 8, 1
SCRYPT_LOG2N_MAX = 20  # a document that asks for more memory than 1 GiB is refused
PASSPHRASE_MIN = 12  # characters
RSA_MIN = 2048  # bits
NONCE_SIZE = 12
STORE, PASSPHRASE, CERTIFICATE = "store", "passphrase", "certificate"

Wrap = Mapping[str, str]  # "kind", and what its kind needs; bytes in base64
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | x25519.X25519PublicKey


def new_key() -> bytes:
    """Return a data key."""
    return os.urandom(KEY_SIZE)


def id_of(key: bytes) -> str:
    """Return the id of a data key, 32 hex digits; tells nothing about it."""
    return HKDF(SHA256(), length=ID_SIZE, salt=None, info=b"ckptfs key id 1").derive(key).hex()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(wrap: Wrap, name: str) -> bytes:
    try:
        return base64.b64decode(wrap[name], validate=True)
    except (KeyError, binascii.Error, ValueError):
        raise Corrupt(f"a wrapped key has no good {name}") from None


def _bound(key_id: str, kind: str) -> bytes:
    return f"ckptfs wrapped key 1 {kind} {key_id}".encode()


def _lock(secret: bytes, key: bytes, kind: str) -> dict[str, str]:
    nonce = os.urandom(NONCE_SIZE)
    sealed = AESGCM(secret).encrypt(nonce, key, _bound(id_of(key), kind))
    return {"kind": kind, "nonce": _text(nonce), "sealed": _text(sealed)}


def _unlock(secret: bytes, wrap: Wrap, key_id: str, refusal: str) -> bytes:
    try:
        key = AESGCM(secret).decrypt(
            _bytes(wrap, "nonce"), _bytes(wrap, "sealed"), _bound(key_id, wrap["kind"])
        )
    except (InvalidTag, ValueError):
        raise NotAuthenticated(refusal) from None
    return prove(key, key_id)


def prove(key: bytes, key_id: str) -> bytes:
    """Return *key* when it is the one of that id.  Raises Corrupt."""
    if len(key) != KEY_SIZE or id_of(key) != key_id:
        raise Corrupt(f"what is wrapped as key {key_id} is another key")
    return key


# -- for the store itself ------------------------------------------------------------


def wrap_for_store(key: bytes, secret: bytes) -> Wrap:
    """Wrap for a store; *secret*: 32 bytes that only it has."""
    return _lock(secret, key, STORE)


def unwrap_from_store(wrap: Wrap, key_id: str, secret: bytes) -> bytes:
    """Return the data key.  Raises NotAuthenticated (wrapped for another store), Corrupt."""
    return _unlock(secret, wrap, key_id, f"key {key_id} is wrapped for another store")


# -- for a passphrase ----------------------------------------------------------------


def wrap_for_passphrase(key: bytes, passphrase: str, *, log2n: int = 0) -> Wrap:
    """Wrap for a passphrase; *log2n*: the effort of scrypt, 0: the usual one.

    Raises InvalidInput when it is too short.
    """
    log2n = log2n or SCRYPT_LOG2N
    if len(passphrase) < PASSPHRASE_MIN:
        raise InvalidInput(f"a passphrase has at least {PASSPHRASE_MIN} characters")
    salt = os.urandom(SALT_SIZE)
    wrap = _lock(_stretch(passphrase, salt, log2n), key, PASSPHRASE)
    return {**wrap, "salt": _text(salt), "log2n": str(log2n)}


def unwrap_with_passphrase(wrap: Wrap, key_id: str, passphrase: str) -> bytes:
    """Return the data key.  Raises NotAuthenticated (another passphrase), Corrupt."""
    log2n = wrap.get("log2n", "")
    if not log2n.isdecimal() or not 1 <= int(log2n) <= SCRYPT_LOG2N_MAX:
        raise Corrupt("a wrapped key asks for an unreasonable effort")
    secret = _stretch(passphrase, _bytes(wrap, "salt"), int(log2n))
    return _unlock(secret, wrap, key_id, "this is not the passphrase of that key")


def _stretch(passphrase: str, salt: bytes, log2n: int) -> bytes:
    text = unicodedata.normalize("NFC", passphrase).encode()
    return Scrypt(salt=salt, length=32, n=1 << log2n, r=SCRYPT_R, p=SCRYPT_P).derive(text)


# -- for a certificate ---------------------------------------------------------------


def wrap_for_certificate(key: bytes, pem: bytes, now: datetime.datetime) -> Wrap:
    """Wrap for whoever has the private key of an X.509 certificate in PEM.

    Raises InvalidInput (no certificate, not valid at *now*), Unsupported (a key that cannot
    decrypt, or is too short).
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        public = certificate.public_key()
        subject = certificate.subject.rfc4514_string()
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidInput("this is not an X.509 certificate in PEM form") from None
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise InvalidInput("the certificate is not valid now")
    if not isinstance(public, PublicKey):
        raise Unsupported(
            "the key of this certificate cannot decrypt; RSA, X25519 and the NIST curves can"
        )
    words = {"spki": _spki(public), "subject": subject}
    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size < RSA_MIN:
            raise Unsupported(f"an RSA key of {public.key_size} bits is too short")
        sealed = public.encrypt(key, _oaep(id_of(key)))
        return {"kind": CERTIFICATE, "scheme": "rsa-oaep", "sealed": _text(sealed), **words}
    own, shared = _share(public)
    wrap = _lock(_agree(shared, own, words["spki"]), key, CERTIFICATE)
    return {**wrap, "scheme": "ecdh", "ephemeral": _text(own), **words}


def load_private_key(pem: bytes, password: bytes | None) -> PrivateKey:
    """Return the private key in *pem*.

    Raises NotAuthenticated (encrypted, and *password* is none or not the one), InvalidInput,
    Unsupported (a key that cannot decrypt).
    """
    try:
        private = serialization.load_pem_private_key(pem, password)
    except TypeError:
        raise NotAuthenticated("the private key needs its password, or has none") from None
    except (ValueError, UnsupportedAlgorithm):
        if b"ENCRYPTED" in pem:
            raise NotAuthenticated("this is not the password of the private key") from None
        raise InvalidInput("this is not a private key in PEM form") from None
    if not isinstance(private, PrivateKey):
        raise Unsupported("this private key cannot decrypt")
    return private


def is_for(wrap: Wrap, private: PrivateKey) -> bool:
    """Whether *private* opens a wrap."""
    return wrap["kind"] == CERTIFICATE and wrap.get("spki") == _spki(private.public_key())


def unwrap_with_private_key(wrap: Wrap, key_id: str, private: PrivateKey) -> bytes:
    """Return the data key.  Raises NotAuthenticated (made for another key), Corrupt."""
    refusal = "this is not the private key of that certificate"
    if not is_for(wrap, private):
        raise NotAuthenticated(refusal)
    if isinstance(private, rsa.RSAPrivateKey):
        try:
            return prove(private.decrypt(_bytes(wrap, "sealed"), _oaep(key_id)), key_id)
        except ValueError:
            raise NotAuthenticated(refusal) from None
    other = _bytes(wrap, "ephemeral")
    try:
        shared = _exchange(private, other)
    except (ValueError, UnsupportedAlgorithm):
        raise Corrupt("a wrapped key has no good ephemeral") from None
    return _unlock(_agree(shared, other, wrap["spki"]), wrap, key_id, refusal)


def _oaep(key_id: str) -> padding.OAEP:
    label = _bound(key_id, CERTIFICATE)
    return padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=label)


def _spki(public: PublicKey) -> str:
    return hashlib.sha256(_der(public)).hexdigest()


def _der(public: PublicKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return public.public_bytes(serialization.Encoding.DER, form)


def _share(public: ec.EllipticCurvePublicKey | x25519.X25519PublicKey) -> tuple[bytes, bytes]:
    """Return (our fresh public key in DER, what it shares with *public*)."""
    if isinstance(public, x25519.X25519PublicKey):
        private = x25519.X25519PrivateKey.generate()
        return _der(private.public_key()), private.exchange(public)
    drawn = ec.generate_private_key(public.curve)
    return _der(drawn.public_key()), drawn.exchange(ec.ECDH(), public)


def _exchange(
    private: ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey, other_der: bytes
) -> bytes:
    """Return what *private* shares with a public key.  Raises ValueError."""
    other = serialization.load_der_public_key(other_der)
    if isinstance(private, x25519.X25519PrivateKey):
        if not isinstance(other, x25519.X25519PublicKey):
            raise ValueError("another kind of key")
        return private.exchange(other)
    if not isinstance(other, ec.EllipticCurvePublicKey):
        raise ValueError("another kind of key")
    return private.exchange(ec.ECDH(), other)


def _agree(shared: bytes, ephemeral: bytes, spki: str) -> bytes:
    """Return the key that encrypts a wrap: used once, as the fresh key pair is."""
    info = b"ckptfs key agreement 1\0" + ephemeral + spki.encode("ascii")
    return HKDF(SHA256(), length=32, salt=None, info=info).derive(shared)
