"""``ckptfs key`` on a real store's directory."""

from __future__ import annotations

import json

import pytest

from ckptfs.cli import secret_input
from ckptfs.cli.main import main
from ckptfs.store import key_wrapping
from ckptfs.store.keyring import KeyRing
from ckptfs.store.superblock import create_store
from ckptfs.store.syscalls import Syscalls
from tests.unit.test_store_keys import MAKERS, certificate, pem_of

PHRASE = "correct horse battery"


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(key_wrapping, "SCRYPT_LOG2N", 4)
    create_store(tmp_path / "store", Syscalls())
    return tmp_path / "store"


@pytest.fixture
def phrase(tmp_path):
    path = tmp_path / "phrase"
    path.write_text(f"{PHRASE}\nnot this\n")
    return str(path)


@pytest.fixture
def person(tmp_path):
    """A certificate and its private key, as files."""
    import datetime

    private = MAKERS["x25519"]()
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    (tmp_path / "alice.pem").write_bytes(certificate(private, start=now - day, end=now + day))
    (tmp_path / "alice.private.pem").write_bytes(pem_of(private))
    return tmp_path / "alice.pem", tmp_path / "alice.private.pem"


def key(capsys, *words, store):
    code = main(["key", *map(str, words), "--store", str(store)])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_key_is_made_shown_and_taken_to_another_store(store, phrase, person, tmp_path, capsys):
    public, private = person
    code, out, _ = key(capsys, "create", "alice", "--certificate", public, store=store)
    assert code == 0
    key_id = out.strip()
    assert KeyRing(store, Syscalls()).sealing("alice")[0] == key_id
    assert key(capsys, "wrap", "alice", "--passphrase-file", phrase, store=store)[0] == 0
    _, out, _ = key(capsys, store=store)
    assert out.splitlines()[1].split()[:4] == [key_id, "alice", "in", "use"]
    shown = key(capsys, "show", "alice", store=store)[1].splitlines()
    assert shown[0].startswith(f"{key_id} in use, of alice, 2")
    assert shown[1].startswith("    opened by certificate CN=alice (")
    assert shown[2] == "    opened by passphrase"
    code, document, _ = key(capsys, "export", "alice", store=store)
    assert code == 0
    kinds = [wrap["kind"] for wrap in json.loads(document)["wraps"]]
    assert kinds == ["certificate", "passphrase"]
    file = tmp_path / "alice.key.json"
    file.write_text(document)
    for number, opening in enumerate(
        (["--private-key", private], ["--passphrase-file", phrase]), start=1
    ):
        other = tmp_path / f"other{number}"
        create_store(other, Syscalls())
        code, out, _ = key(capsys, "import", file, *opening, store=other)
        assert (code, out) == (0, f"{key_id} of alice, in use\n")
        mine, theirs = (KeyRing(place, Syscalls()) for place in (store, other))
        assert mine.open(key_id) == theirs.open(key_id)


def test_another_key_is_made_only_when_asked_for(store, phrase, capsys):
    words = ("create", "alice", "--passphrase-file", phrase)
    first = key(capsys, *words, store=store)[1].strip()
    code, _, err = key(capsys, *words, store=store)
    assert code != 0
    assert first in err
    second = key(capsys, *words, "--replace", store=store)[1].strip()
    _, out, _ = key(capsys, "ls", "alice", store=store)
    assert [line.split()[0] for line in out.splitlines()[1:]] == [second, first]
    assert "old" in out.splitlines()[2]
    assert key(capsys, "show", first, store=store)[0] == 0


def test_a_person_is_asked_twice_for_a_new_passphrase(store, capsys, monkeypatch):
    monkeypatch.setattr(secret_input.sys, "stdin", type("Tty", (), {"isatty": lambda _: True})())
    answers = iter([PHRASE, "something else"])
    monkeypatch.setattr(secret_input.getpass, "getpass", lambda _: next(answers))
    code, _, err = key(capsys, "create", "bob", "--passphrase", store=store)
    assert (code, "the two differ" in err) == (2, True)
    assert KeyRing(store, Syscalls()).documents() == []
    answers = iter([PHRASE, PHRASE])
    assert key(capsys, "create", "bob", "--passphrase", store=store)[0] == 0
    assert KeyRing(store, Syscalls()).documents()[0].owner == "bob"


def test_refusals_are_sentences(store, phrase, person, tmp_path, capsys):
    public, private = person
    wrong = tmp_path / "wrong"
    wrong.write_text("another passphrase\n")
    (tmp_path / "short").write_text("short\n")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "big").write_bytes(bytes(1 << 17))
    assert key(capsys, "create", "alice", "--passphrase-file", phrase, store=store)[0] == 0
    (tmp_path / "doc").write_text(key(capsys, "export", "alice", store=store)[1])
    doc = tmp_path / "doc"
    for words, code, sentence in (
        (("explode",), 2, "expected ls, show"),
        (("create",), 2, "needs a name"),
        (("create", "bob"), 2, "say who may open"),
        (("create", "bob", "--certificate", private), 2, "not an X.509 certificate"),
        (("create", "bob", "--certificate", tmp_path / "none"), 3, "there is no"),
        (("create", "bob", "--passphrase-file", tmp_path / "short"), 2, "at least 12"),
        (("create", "bob", "--passphrase-file", tmp_path / "empty"), 2, "empty"),
        (("create", "bob", "--passphrase-file", tmp_path / "big"), 2, "too big"),
        (("create", "b\nob", "--passphrase-file", phrase), 2, "user's name"),
        (("wrap", "bob", "--passphrase-file", phrase), 3, "bob has no key"),
        (("show", "bob"), 3, "bob has no key"),
        (("import", doc), 2, "say what opens"),
        (("import", doc, "--passphrase-file", wrong), 6, "not the passphrase"),
        (("import", doc, "--private-key", private), 6, "not wrapped for this"),
        (("import", public, "--passphrase-file", phrase), 10, "not the document"),
    ):
        got, out, err = key(capsys, *words, store=store)
        assert (got, out) == (code, ""), err
        assert sentence in err
        assert PHRASE not in err
    assert len(KeyRing(store, Syscalls()).documents()) == 1
