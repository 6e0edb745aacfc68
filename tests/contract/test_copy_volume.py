"""The volume for copies: the contract, and what it adds."""

from __future__ import annotations

import json

import pytest

from ckptfs.errors import Busy, CannotRun, Corrupt, Forbidden, NotEmpty, NotFound
from ckptfs.store.copies_plan import Piece
from ckptfs.store.copy_volume import MARKER, CopyVolume
from ckptfs.store.syscalls import Syscalls
from tests.contract.volume_suite import NAME, VolumeSuite


class TestCopyVolume(VolumeSuite):
    @pytest.fixture
    def volume(self, tmp_path):
        (tmp_path / "v").mkdir()
        made = CopyVolume(tmp_path / "v", Syscalls(), "rack2")
        made.claim("a store")
        return made

    def test_it_is_known_again_and_nobody_elses(self, volume):
        assert volume.claim("a store") == volume.check("a store")
        with pytest.raises(Busy, match="another store"):
            volume.claim("other")

    def test_newer_broken_and_missing_are_told_apart(self, volume):
        marker = volume.directory / MARKER
        row = json.loads(marker.read_text())
        marker.chmod(0o600)
        marker.write_text(json.dumps(row | {"format": 2}))
        with pytest.raises(CannotRun, match="format 2"):
            volume.check("a store")
        marker.write_text("{")
        with pytest.raises(Corrupt):
            volume.check("a store")
        marker.unlink()
        with pytest.raises(NotFound):
            volume.check("a store")

    def test_a_directory_with_other_things_is_left_alone(self, tmp_path):
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(NotEmpty, match="thesis"):
            CopyVolume(tmp_path, Syscalls(), "d").claim("s")
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    def test_a_directory_that_others_write_in_is_refused(self, tmp_path):
        tmp_path.chmod(0o777)
        with pytest.raises(Forbidden, match="chmod go-w"):
            CopyVolume(tmp_path, Syscalls(), "d").claim("s")

    def test_what_does_not_prove_itself_is_not_taken(self, volume, tmp_path):
        source = tmp_path / "torn"
        source.write_bytes(b"no pack")
        with pytest.raises(Corrupt):
            volume.receive(source, Piece("packs", NAME))
        assert volume.listing().held == frozenset()
        assert not list(volume.directory.rglob("*.tmp"))

    def test_a_listing_names_everything(self, volume, tmp_path):
        source = tmp_path / "doc"
        source.write_bytes(b"document")
        pieces = {Piece("manifests", NAME), Piece("tables", NAME), Piece("heads", "heat.42@7")}
        for piece in pieces:
            assert volume.receive(source, piece) == 8
        assert volume.listing().held == pieces
        assert volume.fetch(Piece("heads", "heat.42@7")) == b"document"
