"""A disk that loses power: what may be on it after any prefix of recorded system calls.  Pure.

The model knows for each file which bytes were synced, and for each directory which of its entries
were.  What was not synced may be there, be lost, be torn or be zeros, each change by itself.  It
assumes of a file system what all that journal promise: a rename is one change, changes of the same
name happen in their order, and the permissions of a file are there when a later entry of it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

DIRECTORY = -1
SECTOR = 512


@dataclass(frozen=True, slots=True)
class Change:
    """Entries of directories that change together.  *adds*: path → (inode, mode)."""

    adds: tuple[tuple[str, int, int], ...] = ()
    removes: tuple[str, ...] = ()

    @property
    def paths(self) -> set[str]:
        """Every name it touches."""
        return {path for path, _, _ in self.adds} | set(self.removes)

    @property
    def directories(self) -> set[str]:
        """The directories whose fsync makes it durable."""
        return {parent(path) for path in self.paths}


@dataclass(slots=True)
class File:
    """Bytes on the disk, and writes that were not synced."""

    durable: bytes = b""
    pending: tuple[tuple[int, bytes], ...] = ()
    mode: int = 0o600

    def volatile(self) -> bytes:
        """Return the bytes as every process sees them."""
        return overlay(self.durable, self.pending)


Op = tuple[str, tuple[object, ...]]  # as recorded: name of the call, what it says
Image = dict[str, tuple[bytes | None, int]]  # path → bytes, None for a directory; mode


def parent(path: str) -> str:
    """Return the directory of a relative path, "" for the top."""
    return path.rpartition("/")[0]


def overlay(data: bytes, writes: tuple[tuple[int, bytes], ...]) -> bytes:
    """Return *data* after *writes*; what was skipped is zeros."""
    if not writes:
        return data
    changed = bytearray(data)
    for offset, piece in writes:
        changed.extend(bytes(max(0, offset - len(changed))))
        changed[offset : offset + len(piece)] = piece
    return bytes(changed)


@dataclass
class Disk:
    """The state of a disk; `apply` takes one recorded call."""

    files: dict[int, File] = field(default_factory=dict[int, File])
    live: dict[str, int] = field(default_factory=dict[str, int])  # as processes see it
    kept: dict[str, int] = field(default_factory=dict[str, int])  # certainly there after a crash
    pending: list[Change] = field(default_factory=list[Change])

    @classmethod
    def load(cls, top: Path) -> Disk:
        """Return the disk below *top*, all of it synced."""
        disk = cls()
        for path in sorted(top.rglob("*")):
            name = str(path.relative_to(top))
            if path.is_dir():
                disk.live[name] = DIRECTORY
            else:
                disk.live[name] = number = len(disk.files)
                disk.files[number] = File(path.read_bytes(), mode=path.stat().st_mode & 0o777)
        disk.kept = dict(disk.live)
        return disk

    def clone(self) -> Disk:
        """Return a copy that may go its own way."""
        files = {n: File(f.durable, f.pending, f.mode) for n, f in self.files.items()}
        return Disk(files, dict(self.live), dict(self.kept), list(self.pending))

    # -- what happens -----------------------------------------------------------

    def apply(self, op: Op) -> None:
        """Take one recorded call."""
        name, words = op
        getattr(self, f"_{name}")(*words)

    def _create(self, path: str, inode: int, mode: int) -> None:
        self.files[inode] = File(mode=mode)
        self._change(Change(adds=((path, inode, mode),)))

    def _pwrite(self, inode: int, offset: int, data: bytes) -> None:
        file = self.files[inode]
        file.pending = (*file.pending, (offset, data))

    def _sync(self, inode: int) -> None:
        file = self.files[inode]
        file.durable, file.pending = file.volatile(), ()

    def _chmod(self, path: str, mode: int) -> None:
        self.files[self.live[path]].mode = mode

    def _rename(self, old: str, new: str) -> None:
        inode = self.live[old]
        assert inode != DIRECTORY, "the store renames files only"
        self._change(Change(((new, inode, self.files[inode].mode),), (old,)))

    def _unlink(self, path: str) -> None:
        self._change(Change(removes=(path,)))

    def _mkdir(self, path: str) -> None:
        self._change(Change(adds=((path, DIRECTORY, 0o700),)))

    def _rmdir(self, path: str) -> None:
        self._change(Change(removes=(path,)))

    def _spoil(self, path: str, data: bytes | None) -> None:
        """Somebody else has changed or removed a file, for good."""
        inode = self.live[path]
        self.files[inode] = File(data or b"", mode=self.files[inode].mode)
        if data is None:
            self._unlink(path)
        self._sync_directory(parent(path))

    def _sync_directory(self, path: str) -> None:
        wanted = [change for change in self.pending if path in change.directories]
        self.kept, self.pending = self._settled(wanted)

    def _change(self, change: Change) -> None:
        _carry_out(change, self.live)
        self.pending.append(change)

    def _settled(self, wanted: list[Change]) -> tuple[dict[str, int], list[Change]]:
        """Return the entries once *wanted*, and what must come before, are durable; the rest."""
        chosen: set[int] = set()
        names: set[str] = set()
        for number in range(len(self.pending) - 1, -1, -1):
            change = self.pending[number]
            if change in wanted or change.paths & names:
                chosen.add(number)
                names |= change.paths
        kept = dict(self.kept)
        for number in sorted(chosen):
            _carry_out(self.pending[number], kept)
        return kept, [c for number, c in enumerate(self.pending) if number not in chosen]

    # -- what is left -----------------------------------------------------------

    def image(self) -> Image:
        """Return what processes see: the disk after a killed process."""
        return self._image(self.live, lambda file: file.volatile())

    def lost(self, policy: Policy, rng: random.Random) -> Image:
        """Return what may be there after the power was lost."""
        chosen = [change for change in self.pending if policy.entry(rng)]
        entries, _ = self._settled(chosen)
        return self._image(entries, lambda file: policy.content(file, rng))

    def _image(self, entries: dict[str, int], content: Callable[[File], bytes]) -> Image:
        image: Image = {}
        for path, inode in sorted(entries.items()):
            if parent(path) and parent(path) not in image:
                continue  # its directory was lost, and it with it
            if inode == DIRECTORY:
                image[path] = (None, 0o700)
            else:
                file = self.files[inode]
                image[path] = (content(file), file.mode)
        return image


def _carry_out(change: Change, entries: dict[str, int]) -> None:
    for path in change.removes:
        entries.pop(path, None)
    entries.update({path: inode for path, inode, _ in change.adds})


# -- how the power goes ----------------------------------------------------------


@dataclass(frozen=True)
class Policy:
    """What becomes of what was not synced: of each entry, and of the bytes of each file."""

    name: str
    entry: Callable[[random.Random], bool]
    content: Callable[[File, random.Random], bytes]


def _never(_: random.Random) -> bool:
    return False


def _always(_: random.Random) -> bool:
    return True


def _perhaps(rng: random.Random) -> bool:
    return rng.random() < 0.5


def _dropped(file: File, _: random.Random) -> bytes:
    return file.durable


def _all(file: File, _: random.Random) -> bytes:
    return file.volatile()


def _zeros(file: File, _: random.Random) -> bytes:
    """The size is there, the bytes are not: delayed allocation."""
    return file.durable.ljust(len(file.volatile()), b"\0")


def _torn(file: File, rng: random.Random) -> bytes:
    """Some writes, in order, and a part of the next."""
    if not file.pending:
        return file.durable
    whole = rng.randrange(len(file.pending))
    offset, data = file.pending[whole]
    cut = rng.randrange(len(data) + 1) if data else 0
    return overlay(file.durable, (*file.pending[:whole], (offset, data[:cut])))


def _shuffled(file: File, rng: random.Random) -> bytes:
    """Each sector is there or not, in no order."""
    after = file.volatile()
    before = file.durable.ljust(len(after), b"\0")
    parts = (
        (after if rng.random() < 0.5 else before)[at : at + SECTOR]
        for at in range(0, len(after), SECTOR)
    )
    return b"".join(parts) if file.pending else file.durable


POLICIES = (
    Policy("kept", _always, _all),
    Policy("dropped", _never, _dropped),
    Policy("names without bytes", _always, _dropped),
    Policy("names with zeros", _always, _zeros),
    Policy("bytes without names", _never, _all),
)
DICE = (
    Policy("torn", _perhaps, _torn),
    Policy("shuffled", _perhaps, _shuffled),
    Policy("torn, all names", _always, _torn),
)


def states(disk: Disk, rng: random.Random, throws: int) -> Iterator[tuple[str, Image]]:
    """Yield (how, image) for each way in which the power may go now; *throws*: of each die."""
    for policy in POLICIES:
        yield policy.name, disk.lost(policy, rng)
    for policy in DICE:
        for _ in range(throws):
            yield policy.name, disk.lost(policy, rng)


def put_down(image: Image, top: Path) -> None:
    """Make *image* a real directory tree in *top*, which is made."""
    top.mkdir()
    for path, (data, mode) in image.items():  # sorted: directories come before what is in them
        place = top / path
        if data is None:
            place.mkdir(mode=mode)
        else:
            place.write_bytes(data)
            place.chmod(mode)
