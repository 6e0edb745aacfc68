"""Packs of a sealed volume, opened for reading single blocks.

The pages of a block mostly lie side by side, but may be spread: the frames that were opened last
are kept, so each is opened once for a block.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from ..errors import Corrupt
from .blocks import PackFile, PackFiles
from .pack_format import Footer, read_footer
from .pages import PAGE
from .sealed_file import KeyOf, SealedFile, open_sealed
from .syscalls import Syscalls
from .volume import LocalVolume

FRAMES_CACHED = 16  # of 1 MiB each


class FrameCache:
    """Opened frames of a volume's packs.  Thread safe."""

    def __init__(self) -> None:
        self._frames: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._lock = threading.RLock()  # __del__ of a pack may run anywhere

    def get(self, pack: int, file: SealedFile, number: int, *, fresh: bool) -> bytes:
        """Return a frame of the pack with that descriptor.  Raises Corrupt, OSError."""
        with self._lock:
            if not fresh and (frame := self._frames.get((pack, number))) is not None:
                self._frames.move_to_end((pack, number))
                return frame
        frame = file.frame(number, fresh=fresh)
        with self._lock:
            self._frames[pack, number] = frame
            while len(self._frames) > FRAMES_CACHED:
                self._frames.popitem(last=False)
        return frame

    def forget(self, pack: int) -> None:
        """Forget the frames of a pack: its descriptor may soon be another's."""
        with self._lock:
            for key in [key for key in self._frames if key[0] == pack]:
                del self._frames[key]


class SealedPackFile(PackFile):
    """An open sealed pack."""

    def __init__(
        self, calls: Syscalls, fd: int, footer: Footer, file: SealedFile, cache: FrameCache
    ) -> None:
        super().__init__(calls, fd, footer)
        self._file, self._cache = file, cache

    def read_into(self, buffer: memoryview, page: int, *, fresh: bool) -> None:
        """See PackFile."""
        offset, at, size = page * PAGE, 0, self._file.header.frame_size
        try:
            while at < len(buffer):
                number, start = divmod(offset + at, size)
                if number >= self._file.header.frames:
                    raise Corrupt("a pack is shorter than its manifest says")
                frame = self._cache.get(self.fd, self._file, number, fresh=fresh)
                part = frame[start : start + len(buffer) - at]
                if not part:
                    raise Corrupt("a pack is shorter than its manifest says")
                buffer[at : at + len(part)] = part
                at += len(part)
        except OSError as error:
            raise Corrupt(f"a pack cannot be read: {error.strerror}") from error

    def __del__(self) -> None:
        self._cache.forget(self.fd)
        super().__del__()


class SealedPackFiles(PackFiles):
    """See PackFiles.  `get` raises KeyMissing too."""

    def __init__(self, volume: LocalVolume, calls: Syscalls, key_of: KeyOf) -> None:
        super().__init__(volume, calls)
        self._sealed_volume, self._sealed_calls, self._key_of = volume, calls, key_of
        self._frames = FrameCache()

    def open_pack(self, pack_id: str) -> PackFile:
        """See PackFiles.  Raises KeyMissing too."""
        path = self._sealed_volume.path("packs", pack_id)
        try:
            fd, file = open_sealed(self._sealed_calls, path, "packs", pack_id)
        except OSError as error:
            raise Corrupt(f"pack {pack_id} cannot be opened: {error.strerror}") from error
        try:
            return SealedPackFile(
                self._sealed_calls, fd, self._footer(file, pack_id), file, self._frames
            )
        except BaseException:
            self._sealed_calls.close(fd)
            raise

    def _footer(self, file: SealedFile, pack_id: str) -> Footer:
        try:
            file.unlock(self._key_of)
            return read_footer(file.read, file.header.plain_size, pack_id)
        except OSError as error:
            raise Corrupt(f"pack {pack_id} cannot be read: {error.strerror}") from error
