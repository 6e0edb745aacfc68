"""What is known to be wrong, and packs that nothing new may rely on.

What is wrong with a version is kept in a marker beside its head, so that it is
known again after a restart of the service; a verification that finds nothing
takes it away.  A damaged pack stays where it is, because its other blocks are still good; an
empty marker in packs/quarantine keeps it from counting as a hit, so the next
version writes those pages again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from ..ids import JobId, UnitName, Version
from . import layout
from .api import Damage
from .syscalls import Syscalls, write_durably

log = logging.getLogger(__name__)

KEPT_MAX = 1000  # places of one version that are remembered over a restart of the service


def encode_damage(found: Iterable[Damage]) -> bytes:
    """Return the marker that remembers *found*, damage of one version.  Pure."""
    rows = [[damage.unit, damage.name, damage.block, damage.reason] for damage in found]
    return json.dumps(rows[:KEPT_MAX]).encode()


def decode_damage(job: JobId, version: Version, document: bytes) -> list[Damage]:
    """Return what a marker remembers; one that does not parse still says: damaged.  Pure."""
    try:
        rows = cast("list[list[Any]]", json.loads(document))
        return [
            Damage(job, version, UnitName(str(unit)), str(name), int(block), str(reason))
            for unit, name, block, reason in rows
        ]
    except (ValueError, TypeError):
        return [Damage(job, version, UnitName(""), "COMMIT", -1, "damage was found before")]


class DamageBook:
    """Damage that is known, and the quarantine, which is durable."""

    def __init__(self, directory: Path, calls: Syscalls) -> None:
        self._directory, self._calls = directory / layout.QUARANTINE, calls
        self._found: dict[tuple[JobId, Version], dict[tuple[UnitName, str, int], Damage]] = {}
        self.changes = 0  # of what is known to be wrong with versions
        self._suspect = {
            entry.name
            for entry in calls.scan(self._directory)
            if layout.object_name("packs", entry.name)
        }

    def add(self, damage: Damage) -> None:
        """Note damage, once."""
        found = self._found.setdefault((damage.job, damage.version), {})
        found[damage.unit, damage.name, damage.block] = damage
        self.changes += 1

    def recall(self, job: JobId, version: Version, marker: bytes | None) -> None:
        """Note what *marker* remembers."""
        for damage in decode_damage(job, version, marker or b""):
            self.add(damage)

    def of(self, job: JobId, version: Version) -> list[Damage]:
        """Return what is wrong with a version, in the order of its files."""
        return [d for _, d in sorted(self._found.get((job, version), {}).items())]

    def clear(self, job: JobId, version: Version) -> None:
        """Forget what was noted of a version: it has just been verified."""
        if self._found.pop((job, version), None) is not None:
            self.changes += 1

    def quarantine(self, pack_id: str) -> None:
        """Never let this pack count as a hit again.  Thread safe; a full disk does not matter."""
        self._suspect.add(pack_id)
        try:
            write_durably(self._calls, self._directory / pack_id, b"")
        except OSError as error:
            log.warning("pack %s is in quarantine until the service ends: %s", pack_id, error)

    def release(self, pack_id: str) -> None:
        """Forget a pack that no longer exists.  Thread safe.  Raises OSError."""
        if pack_id in self._suspect:
            self._calls.unlink(self._directory / pack_id)
            self._suspect.discard(pack_id)

    def is_sound(self, pack_id: str) -> bool:
        """Whether a pack may count as a hit, as far as is known."""
        return pack_id not in self._suspect

    def quarantined(self) -> frozenset[str]:
        """Return the packs that may not count as hits."""
        return frozenset(self._suspect.copy())

    def count_quarantined(self) -> int:
        """Return how many packs may not count as hits."""
        return len(self._suspect)
