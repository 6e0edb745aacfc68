"""An installation whose store is a small ext4 of its own, and how to fill it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .installation import Installation

MIB = 1 << 20
BLOCK = 4096


@contextlib.contextmanager
def on_small_disk(top: Path, mebibytes: int) -> Iterator[Installation]:
    """Make an installation below *top*; take everything away at the end."""
    top.chmod(0o755)
    image = top / "disk.img"
    with image.open("wb") as file:
        file.truncate(mebibytes * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    made = Installation(top)
    made.store.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(made.store)], check=True)
    try:
        made.start()
        yield made
    finally:
        try:
            made.end()
        finally:
            subprocess.run(["umount", "--lazy", str(made.store)], check=True)


def fill(directory: Path) -> Path:
    """Take all that is free in the file system of *directory*; return the file that holds it."""
    path = directory / "somebody-elses-file"
    with path.open("wb") as file:
        for piece in (64 * MIB, MIB, BLOCK):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), piece)
    return path


def remove(filler: Path) -> None:
    """Give the space back; ext4 hands freed blocks out again once its journal has committed."""
    filler.unlink()
    subprocess.run(["sync", "--file-system", str(filler.parent)], check=True)
