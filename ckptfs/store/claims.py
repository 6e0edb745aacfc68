"""Manifests that versions being committed are about to need.

A manifest is named by its content, so a version can come to need one that the
collector is about to set aside.  A commit claims the name before it writes the
manifest; the collector moves one only while nobody can claim it.  Either waits
for one rename(2) at most.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator
from contextlib import contextmanager


class Claims:
    """Session → manifest.  Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: dict[str, str] = {}

    def claim(self, session_id: str, manifest: str) -> None:
        """Keep *manifest* from being set aside until `prune` no longer knows the session."""
        with self._lock:
            self._claims[session_id] = manifest

    def prune(self, running: Collection[str]) -> None:
        """Forget the claims of versions that are over: their heads say what they need."""
        with self._lock:
            self._claims = {key: name for key, name in self._claims.items() if key in running}

    def names(self) -> set[str]:
        """Return every manifest that is claimed."""
        with self._lock:
            return set(self._claims.values())

    @contextmanager
    def held(self, manifest: str) -> Generator[bool]:
        """Say whether *manifest* is claimed; it stays so until the block ends."""
        with self._lock:
            yield manifest in self._claims.values()
