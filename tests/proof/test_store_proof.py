"""The proof in short: every path with crashes and faults.  At length: tools/torture."""

from __future__ import annotations

import pytest

from . import crashes
from .calls import ProofCalls, strangers
from .crashes import explore
from .faults import strike
from .scenarios import SCENARIOS

FAULTS = 20  # of each path, drawn by chance with a fixed seed
WORKS = 0.3  # of the cases use the store on; the others look at everything


def test_the_model_knows_every_call_of_the_thin_layer():
    assert strangers() == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
async def test_power_lost_anywhere(name, tried):
    throws = 0 if SCENARIOS[name].scale > 1 else 1  # of each die; large files take their time
    tried["states of the disk after lost power"] += await explore(name, throws=throws, works=WORKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_call_that_fails(name, tried):
    tried["failed system calls"] += await strike(name, most=FAULTS, works=WORKS)


class ForgetsDirectories(ProofCalls):
    """A disk that does not keep what was renamed: fsync of a directory is never recorded."""

    def fsync_directory(self, path):
        super().fsync_directory(path)
        self.log = [op for op in self.log if op[0] != "sync_directory"]


class ForgetsBytes(ProofCalls):
    """A disk that does not keep what was written: fsync of a file is never recorded."""

    def _sync(self, call, fd, sync):
        super()._sync(call, fd, sync)
        self.log.pop()


@pytest.mark.parametrize("kind", [ForgetsDirectories, ForgetsBytes])
async def test_a_store_that_forgets_to_sync_is_found_out(kind, monkeypatch):
    """What the store would be if it left out one kind of sync must not pass."""
    monkeypatch.setattr(crashes, "ProofCalls", kind)
    with pytest.raises(AssertionError, match="power lost after"):
        await explore("commit the next")
