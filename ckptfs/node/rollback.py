"""``rollback=copy``: small files saved whole with the image, and their content put back in place.

For files that a program changes in the middle, such as a sqlite database,
cutting them to their old size is not enough.  Beside the copies,
``files/siblings.json`` lists the names ``<file>-…`` (journals) that existed at
the checkpoint: a newer one would be applied to the old content, so a restart
moves it aside.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointerFailed, Corrupt, Forbidden, NotAuthenticated, NotFound
from ..model import OpenFile
from .credentials import Rights
from .outputs import (
    copy_range,
    free_name,
    give_to,
    open_existing,
    reserve,
    same_content,
    sync_directory_of,
)
from .tails import drop_tail, note_fork, whole_file

COPY_MAX = 64 << 20  # bytes; larger files are cut, not copied
_FOLDER = "files"
_SIBLINGS = "siblings.json"


def save(
    files: Sequence[OpenFile], directory_fd: int, rights: Rights
) -> dict[tuple[int, int], str]:
    """Save each file of at most `COPY_MAX` bytes; return (device, inode) → name below ``files/``.

    Raises CheckpointerFailed when a file cannot be read.
    """
    small = [item for item in files if item.size_bytes <= COPY_MAX]
    if not small:
        return {}
    os.mkdir(_FOLDER, 0o700, dir_fd=directory_fd)
    names: dict[tuple[int, int], str] = {}
    siblings: dict[str, list[str]] = {}
    for number, item in enumerate(small, 1):
        # Numbers, because a job chose the real names.
        name = str(number)
        _save_one(item, name, directory_fd, rights)
        names[item.device, item.inode] = name
        siblings[name] = _siblings(item.path)
    _write(directory_fd, _SIBLINGS, json.dumps(siblings).encode("ascii"))
    return names


def _create(directory_fd: int, name: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.open(f"{_FOLDER}/{name}", flags, 0o600, dir_fd=directory_fd)


def _write(directory_fd: int, name: str, data: bytes) -> None:
    target = _create(directory_fd, name)
    try:
        os.write(target, data)
    finally:
        os.close(target)


def _save_one(item: OpenFile, name: str, directory_fd: int, rights: Rights) -> None:
    try:
        with rights.on(item.path):
            source = open_existing(item.path, os.O_RDONLY)
    except OSError as bad:
        raise CheckpointerFailed(
            f"{item.path} cannot be saved with the image: {bad.strerror}"
        ) from None
    try:
        there = os.fstat(source)
        if (there.st_dev, there.st_ino) != (item.device, item.inode):
            raise CheckpointerFailed(f"{item.path} is not the file that the job has open")
        target = _create(directory_fd, name)
        try:
            copy_range(source, target, 0, item.size_bytes)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _siblings(path: str) -> list[str]:
    place = Path(path)
    try:
        return sorted(
            name for name in os.listdir(place.parent) if name.startswith(place.name + "-")
        )
    except OSError:
        return []


# -- at a restart --------------------------------------------------------------------------------


@dataclass(slots=True)
class Copies:
    """The copies of one image, open; opened with root's rights before the owner's are taken on."""

    fds: dict[str, int]
    siblings: Mapping[str, list[str]]

    def close(self) -> None:
        """Close them."""
        for fd in self.fds.values():
            os.close(fd)


def open_copies(files: Sequence[OpenFile], directory_fd: int) -> Copies:
    """Open the copy of each file.  Raises Corrupt when one is missing or of another size."""
    copies = Copies({}, {})
    try:
        if files:
            copies.siblings = _load_siblings(directory_fd)
        for item in files:
            if not item.copy.isdigit():
                raise Corrupt(f"the image names a copy {item.copy!r} that ckptfs did not make")
            copies.fds[item.copy] = _open_copy(directory_fd, item.copy)
            if os.fstat(copies.fds[item.copy]).st_size != item.size_bytes:
                raise Corrupt(
                    f"the copy of {item.path} in the image has another size than recorded"
                )
    except OSError as bad:
        copies.close()
        raise Corrupt(f"a copy of a file is missing in the image: {bad.strerror}") from None
    except Corrupt:
        copies.close()
        raise
    return copies


class CopyBack:
    """A file that gets the content of its copy; what it holds is kept beside it whole."""

    def __init__(self, item: OpenFile, copies: Copies, suffix: str) -> None:
        self.item = item
        self._copies, self._suffix = copies, suffix
        self._fd = -1
        self._present = 0  # bytes
        self._is_new = False  # the file was gone
        self._is_same = False  # nothing to do
        self._kept: list[str] = []

    def check(self) -> None:
        """Check that the file, if there is one, can be written in place.

        Raises Forbidden, NotFound, NotAuthenticated.
        """
        path = Path(self.item.path)
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise Forbidden(f"a file that the job had open for writing was replaced: {path}")
        if not path.parent.is_dir():
            raise NotFound(f"the directory of a file that the job had open is gone: {path}")
        try:
            self._fd = open_existing(self.item.path, os.O_RDWR)
        except FileNotFoundError:
            return
        except OSError:
            raise NotAuthenticated(
                f"the job's owner may not write the file any more: {path}"
            ) from None
        self._present = os.fstat(self._fd).st_size
        self._is_same = same_content(self._fd, self._copies.fds[self.item.copy])

    def is_needed(self) -> bool:
        """Say so always: names beside the file may have to go as well."""
        return True

    def keep(self) -> None:
        """Keep the present content beside the file, durably; make a file that is gone again."""
        if self._fd < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self.item.path, flags, self.item.mode)
            self._is_new = True
            os.fchmod(self._fd, self.item.mode)
            give_to(self._fd, self.item.uid, self.item.gid)
        elif not self._is_same:
            name, beside = free_name(Path(self.item.path), self._suffix, self.item.mode)
            self._kept.append(name)
            try:
                give_to(beside, self.item.uid, self.item.gid)
                copy_range(self._fd, beside, 0, self._present)
                note_fork(name, beside, whole_file(self._fd).mark_at(0))
                os.fsync(beside)
            finally:
                os.close(beside)
        reserve(self._fd, self._present, self.item.size_bytes)
        sync_directory_of(self.item.path)

    def undo(self) -> None:
        """Drop what was made."""
        for name in self._kept:
            drop_tail(name)
        self._kept.clear()
        if self._is_new:
            Path(self.item.path).unlink(missing_ok=True)
        elif self._fd >= 0 and self._present < self.item.size_bytes:
            os.ftruncate(self._fd, self._present)

    def act(self) -> list[str]:
        """Move newer journals aside, then give the file the content of its copy, in place."""
        siblings = self._copies.siblings.get(self.item.copy, [])
        moved = _move_siblings(self.item.path, siblings, self._suffix)
        if not self._is_same:
            source = self._copies.fds[self.item.copy]
            copy_range(source, self._fd, 0, self.item.size_bytes)
            os.ftruncate(self._fd, self.item.size_bytes)
            os.fsync(self._fd)
        return moved + self._kept

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)


def _open_copy(directory_fd: int, name: str) -> int:
    return os.open(
        f"{_FOLDER}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd
    )


def _load_siblings(directory_fd: int) -> Mapping[str, list[str]]:
    fd = _open_copy(directory_fd, _SIBLINGS)
    try:
        return json.loads(os.read(fd, 64 << 20))
    except ValueError as bad:
        raise Corrupt(f"{_FOLDER}/{_SIBLINGS} does not parse: {bad}") from None
    finally:
        os.close(fd)


def _move_siblings(path: str, then: Sequence[str], suffix: str) -> list[str]:
    kept: list[str] = []
    for name in _siblings(path):
        if name in then or ".after-" in name or f".{suffix}" in name:
            continue
        old = Path(path).parent / name
        new, fd = free_name(old, suffix, 0o600)
        os.close(fd)
        old.rename(new)
        kept.append(new)
    return kept
