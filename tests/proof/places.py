"""Where the proof puts its stores: below directories that the tests clear up after dead runs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")  # nothing here needs a disk: the model is one
DISK = Path("/tmp")  # where the jobs' users get through to


def _ours(top: Path) -> Path:
    return top / f"ckptfs-test-{os.getpid()}"  # known to tests/plugins/leftovers.py


def workplace(top: Path = MEMORY) -> Path:
    """Return a new directory that everybody may pass through."""
    _ours(top).mkdir(mode=0o755, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="proof-", dir=_ours(top)))
    place.chmod(0o755)
    return place
