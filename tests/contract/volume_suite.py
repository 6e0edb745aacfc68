"""What every volume must do.  Subclass it and give a `volume` fixture."""

from __future__ import annotations

import pytest

from ckptfs.errors import NotFound

NAME, OTHER = "0" * 40, "0f" + "1" * 38
KINDS = ("packs", "manifests", "tables")


class VolumeSuite:
    @pytest.mark.parametrize("kind", KINDS)
    def test_what_was_put_is_there(self, volume, kind):
        assert not volume.has(kind, NAME)
        volume.put(kind, NAME, b"bytes")
        volume.put(kind, NAME, b"bytes")  # may be repeated
        volume.put(kind, OTHER, b"")
        assert volume.has(kind, NAME)
        assert volume.get(kind, NAME, 100) == b"bytes"
        assert volume.get(kind, NAME, 2) == b"by"
        assert volume.size(kind, NAME) == 5
        assert volume.size(kind, OTHER) == 0
        assert sorted(volume.names(kind)) == [NAME, OTHER]

    @pytest.mark.parametrize("kind", KINDS)
    def test_kinds_do_not_mix(self, volume, kind):
        volume.put(kind, NAME, b"bytes")
        for other in set(KINDS) - {kind}:
            assert not volume.has(other, NAME)
            assert list(volume.names(other)) == []

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_was_deleted_is_gone(self, volume, kind):
        volume.put(kind, NAME, b"bytes")
        volume.delete(kind, NAME)
        volume.delete(kind, NAME)
        assert not volume.has(kind, NAME)
        assert list(volume.names(kind)) == []
        with pytest.raises(NotFound):
            volume.get(kind, NAME, 1)
        with pytest.raises(NotFound):
            volume.size(kind, NAME)

    @pytest.mark.parametrize("name", ["", "x" * 40, "../" + "0" * 37, "0" * 39, "0" * 41, "A" * 40])
    def test_bad_names_are_refused(self, volume, name):
        for use in (
            lambda: volume.put("packs", name, b""),
            lambda: volume.get("packs", name, 1),
            lambda: volume.has("packs", name),
            lambda: volume.size("packs", name),
            lambda: volume.delete("packs", name),
        ):
            with pytest.raises(NotFound):
                use()

    def test_space_and_domain(self, volume):
        free, total = volume.free_and_total()
        assert 0 <= free <= total
        assert volume.domain
