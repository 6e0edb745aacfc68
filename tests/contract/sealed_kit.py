"""What the tests of sealed volumes share: whose they are, and how their files are altered."""

from __future__ import annotations

from ckptfs.store.sealed_volume import SealedVolume


class AlicesVolume(SealedVolume):
    """What is put into it is alice's."""

    def put(self, kind, name, data, owner="alice"):
        super().put(kind, name, data, owner)


def change(path, edit):
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    path.write_bytes(edit(data) or data)


def flip(at):
    def edit(data):
        data[at] ^= 1

    return edit
