"""The local directory as a volume."""

from __future__ import annotations

import pytest

from ckptfs.store.syscalls import Syscalls
from ckptfs.store.volume import LocalVolume
from tests.contract.volume_suite import VolumeSuite


class TestLocalVolume(VolumeSuite):
    @pytest.fixture
    def volume(self, tmp_path):
        for name in ("packs", "manifests"):
            (tmp_path / name).mkdir()
        return LocalVolume(tmp_path, Syscalls())

    def test_strange_files_are_not_objects(self, volume, tmp_path):
        (tmp_path / "packs/ab").mkdir()
        (tmp_path / "packs/ab/.abc.tmp").write_bytes(b"")
        (tmp_path / "packs/open").mkdir()
        (tmp_path / "packs/open/x.1").write_bytes(b"")
        assert list(volume.names("packs")) == []
