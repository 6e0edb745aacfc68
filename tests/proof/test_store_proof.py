"""The proof in short; at length: tools/torture.

Every path with lost power and failing calls, every kind of object damaged, random histories.
"""

from __future__ import annotations

import pytest

from . import crashes, scenarios_later, scenarios_volumes
from .calls import ProofCalls, strangers
from .crashes import explore
from .damage import try_damage
from .faults import strike
from .full import fill_up
from .index_damage import try_index_damage
from .killed import kill_services
from .killed_users import kill_rebuilds, kill_users
from .machine import MUST, play
from .recoveries import NAMES, explore_recoveries
from .scenarios import SCENARIOS

FAULTS = 16  # of each path, drawn by chance with a fixed seed
DAMAGES = 2  # of each kind of object
SHARE = 0.3  # of the states of paths with volumes, which are many and alike
WORKS = 0.2  # of the cases use the store on; the others look at everything

VOLUMES = {row.name for row in (*scenarios_volumes.ROWS, *scenarios_later.ROWS)}


def test_the_model_knows_every_call_of_the_thin_layer():
    assert strangers() == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
async def test_power_lost_anywhere(name, tried):
    throws = 0 if SCENARIOS[name].shape.scale > 1 else 1  # of each die; large files take their time
    share = SHARE if name in VOLUMES or throws == 0 else 1.0
    count = await explore(name, throws=throws, works=WORKS, share=share)
    tried["states of the disk after lost power"] += count


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES[::2])
async def test_power_lost_again_while_it_recovers(name, tried):
    count = await explore_recoveries(name, first=1, second=5)
    tried["states of the disk after power was lost in a recovery"] += count


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_call_that_fails(name, tried):
    most = FAULTS // 4 if SCENARIOS[name].shape.scale > 1 else FAULTS
    for kind, count in (await strike(name, most=most, works=WORKS)).items():
        tried[f"system calls: {kind}"] += count


@pytest.mark.slow
async def test_every_kind_of_object_damaged(tried):
    tried["damaged objects"] += await try_damage(most=DAMAGES)


@pytest.mark.slow
async def test_the_catalog_damaged(tried):
    tried["damaged objects"] += await try_index_damage(rounds=1)


@pytest.mark.slow
def test_random_histories(tried):
    found = play(examples=32, steps=25)
    assert MUST - found.keys() == set(), "steps that were never taken"
    for name, count in found.items():
        tried[f"steps of random histories: {name}"] += count


@pytest.mark.slow
async def test_a_process_killed_again_and_again(tried):
    for phase, count in (await kill_users(rounds=4)).items():
        tried[f"processes killed: {phase}"] += count
    tried["processes killed: rebuild"] += await kill_rebuilds(rounds=1)


@pytest.mark.slow
@pytest.mark.fuse
@pytest.mark.criu
def test_the_service_killed_again_and_again(tried):
    """Also in system/test_faults.py, at more moments of a checkpoint and a restart."""
    for moment, count in kill_services(rounds=5).items():
        tried[f"services killed under a real job: {moment}"] += count


@pytest.mark.slow
@pytest.mark.root
async def test_a_disk_filled_in_every_phase(tried):
    tried["disks filled to the last block"] += await fill_up()


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


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ForgetsDirectories, ForgetsBytes])
async def test_a_store_that_forgets_to_sync_is_found_out(kind, monkeypatch):
    """What the store would be if it left out one kind of sync must not pass."""
    monkeypatch.setattr(crashes, "ProofCalls", kind)
    with pytest.raises(AssertionError, match="power lost after"):
        await explore("commit the next")
