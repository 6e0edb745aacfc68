"""The tools that people would otherwise use, each over the images of the same plain dump."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .machine import Cost, disk_bytes, measure


@dataclass(frozen=True)
class Keeper:
    """One way to keep a directory of images.  *keep* is given the version's number."""

    name: str
    keep: Callable[[int], list[Cost]]
    stored_bytes: Callable[[], int]


def _sync_files(directory: Path) -> Cost:
    return measure("sync", *(path for path in sorted(directory.rglob("*")) if path.is_file()))


def _tar(images: Path, base: Path) -> Keeper:
    kept = base / "tar"
    kept.mkdir()

    def keep(version: int) -> list[Cost]:
        archive = kept / f"{version}.tar.zst"
        pack = measure("tar", "-I", "zstd -1 -q", "-C", images, "-cf", archive, ".")
        return [pack, measure("sync", archive)]

    return Keeper("criu + tar | zstd -1", keep, lambda: disk_bytes(kept))


def make_restic(images: Path, base: Path) -> Keeper:
    """Return restic alone, with an empty repository below *base*."""
    kept = base / "restic"
    env = {**os.environ, "RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": str(base / "restic-cache")}
    measure("restic", "-r", kept, "init", "-q", env=env)

    def keep(_version: int) -> list[Cost]:
        save = measure("restic", "-r", kept, "backup", "-q", images, env=env)
        return [save, _sync_files(kept)]

    return Keeper("criu + restic", keep, lambda: disk_bytes(kept))


def _borg(images: Path, base: Path) -> Keeper:
    kept = base / "borg"
    env = {**os.environ, "BORG_BASE_DIR": str(base / "borg-home")}
    env["BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK"] = "yes"
    measure("borg", "init", "-e", "none", kept, env=env)

    def keep(version: int) -> list[Cost]:
        save = measure("borg", "create", f"{kept}::v{version}", images, env=env)
        return [save, _sync_files(kept)]

    return Keeper("criu + borg", keep, lambda: disk_bytes(kept))


def _synced(images: Path) -> Keeper:
    sizes: list[int] = []

    def keep(_version: int) -> list[Cost]:
        sizes.append(disk_bytes(images))
        return [_sync_files(images)]

    return Keeper("criu + sync", keep, lambda: sum(sizes))


def make_keepers(images: Path, base: Path) -> list[Keeper]:
    """Return the peers, each with an empty archive of its own below *base*."""
    return [_synced(images), _tar(images, base), make_restic(images, base), _borg(images, base)]
