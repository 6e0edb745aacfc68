"""The volume for copies: the contract, and what it adds."""

from __future__ import annotations

import json

import pytest

from ckptfs.errors import Busy, CannotRun, Corrupt, Forbidden, NotEmpty, NotFound, TimedOut
from ckptfs.store.copies_plan import Piece
from ckptfs.store.copy_volume import MARKER, CopyVolume
from ckptfs.store.syscalls import Syscalls
from tests.contract.volume_suite import NAME, VolumeSuite
from tests.store_kit import FaultyCalls


class ForgetfulCalls(FaultyCalls):
    """Takes what is written and keeps something else: a disk that lies."""

    kept = b"decument"

    def pwrite(self, fd, data, offset):
        super().pwrite(fd, self.kept if bytes(data) == b"document" else data, offset)


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
        marker.write_text(json.dumps(row | {"format": 3}))
        with pytest.raises(CannotRun, match="format 3"):
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

    def test_a_listing_counts_nothing_torn_and_names_what_does_not_belong(self, volume, tmp_path):
        source = tmp_path / "doc"
        source.write_bytes(b"document")
        volume.receive(source, Piece("manifests", NAME))
        place = volume.directory / "manifests" / NAME[:2]
        (place / f".{NAME}.tmp").touch()
        (place / f"{NAME}.pages").touch()  # empty: a disk lied about a sync
        (place / ("ff" + NAME[2:])).write_text("in the wrong place")
        (volume.directory / "heads" / "notes.txt").touch()
        listing = volume.listing()
        assert listing.held == {Piece("manifests", NAME)}
        assert listing.used_bytes == 8
        assert sorted(path.name for path in listing.torn) == [f".{NAME}.tmp", f"{NAME}.pages"]
        assert listing.strangers == ("heads/notes.txt", f"manifests/00/ff{NAME[2:]}")

    def test_what_was_discarded_or_set_aside_counts_no_more(self, volume, tmp_path):
        source = tmp_path / "doc"
        source.write_bytes(b"document")
        gone, bad = Piece("heads", "heat.42@7"), Piece("manifests", NAME)
        volume.discard(gone)
        for piece in (gone, bad):
            volume.receive(source, piece)
        volume.discard(gone)
        volume.set_aside(bad)
        volume.set_aside(bad)
        assert volume.listing().held == frozenset()
        assert volume.aside() == {bad}
        volume.drop_aside(bad)
        assert volume.aside() == set()

    def test_a_document_gets_its_name_when_it_was_read_back(self, tmp_path):
        calls = ForgetfulCalls()
        made = CopyVolume(tmp_path / "v", calls, "d")
        made.directory.mkdir()
        made.claim("s")
        source = tmp_path / "doc"
        source.write_bytes(b"document")
        calls.log.clear()
        with pytest.raises(Corrupt, match="reads back other bytes"):
            made.receive(source, Piece("tables", NAME))
        assert not any(entry.startswith("rename") for entry in calls.log)
        assert made.listing().held == frozenset()
        assert made.listing().torn == ()

    def test_a_copy_can_be_held_up_and_given_up_at_each_piece(self, volume, tmp_path):
        pack = tmp_path / "pack"
        pack.write_bytes(b"x" * (5 << 20))
        told = []

        def step(size):
            told.append(size)
            if len(told) == 3:
                raise TimedOut("given up")

        with pytest.raises(TimedOut):
            volume.receive(pack, Piece("packs", NAME), step)
        assert told == [1 << 20] * 3
        assert not list(volume.directory.rglob("*.tmp"))
