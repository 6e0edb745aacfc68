"""Fixtures of the sealed volumes: keys of two owners, and an encrypted volume."""

from __future__ import annotations

import pytest

from ckptfs.store import key_wrapping
from ckptfs.store.keyring import KeyRing
from ckptfs.store.syscalls import Syscalls
from tests.contract.sealed_kit import AlicesVolume


@pytest.fixture
def keys(tmp_path, monkeypatch):
    monkeypatch.setattr(key_wrapping, "SCRYPT_LOG2N", 4)
    (tmp_path / "store/keys").mkdir(parents=True)
    ring = KeyRing(tmp_path / "store", Syscalls())
    for owner in ("alice", "bob"):
        ring.create(
            owner,
            [lambda key: key_wrapping.wrap_for_passphrase(key, "correct horse battery")],
            replacing=False,
        )
    return ring


@pytest.fixture
def encrypted(tmp_path, keys):
    (tmp_path / "e").mkdir()
    made = AlicesVolume(tmp_path / "e", Syscalls(), "rack2", "encrypt", keys)
    made.claim("a store")
    return made
