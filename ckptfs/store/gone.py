"""Versions that went for good while volumes may still hold copies of them: ``gone.json``.

Without it a head on a volume that the store does not know would mean either of two things, that
the version was removed or that the store has lost it; only of the first kind copies are deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from ..errors import NotFound
from ..ids import JobId, Version, parse_job_id
from .copies_plan import Key
from .small_record import decode_small, encode_small
from .syscalls import Syscalls, write_durably

log = logging.getLogger(__name__)
FILE = "gone.json"
FILE_MAX = 64 << 20  # bytes: some two million versions


class Gone:
    """The record, and what it says.  Trio thread only."""

    def __init__(self, directory: Path, calls: Syscalls) -> None:
        self._path, self._calls = directory / FILE, calls
        self.versions = self._read()

    def _read(self) -> frozenset[Key]:
        try:
            return decode_gone(self._calls.read_file(self._path, FILE_MAX))
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError, KeyError, TypeError, NotFound) as error:
            log.warning("%s cannot be read, copies of older versions stay: %s", FILE, error)
            return frozenset()

    def add(self, keys: Iterable[Key]) -> None:
        """Remember versions, durably, before they go.  Raises OSError."""
        self._keep(self.versions | frozenset(keys))

    def forget(self, keys: Iterable[Key]) -> None:
        """Forget versions: no volume holds them any more, or they are back.  Raises OSError."""
        self._keep(self.versions - frozenset(keys))

    def _keep(self, versions: frozenset[Key]) -> None:
        if versions != self.versions:
            write_durably(self._calls, self._path, encode_gone(versions), mode=0o600)
            self.versions = versions


def encode_gone(versions: Iterable[Key]) -> bytes:
    """Return the document."""
    return encode_small({"format": 1, "versions": sorted(versions)})


def decode_gone(document: bytes) -> frozenset[tuple[JobId, Version]]:
    """Return the versions.  Raises ValueError, KeyError, TypeError, NotFound (a bad name)."""
    read = decode_small(document)
    if read["format"] != 1:
        raise ValueError(f"{FILE} has format {read['format']}")
    return frozenset((parse_job_id(str(job)), Version(int(v))) for job, v in read["versions"])
