"""What would make a checkpoint of this unit fail right now, found before anything is stopped."""

from __future__ import annotations

from pathlib import Path


def find_blockers(cgroup: Path, holder_pid: int, owner_uid: int) -> tuple[str, ...]:
    """Return one sentence for each blocker."""
    return ()
