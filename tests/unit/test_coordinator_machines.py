"""Every (phase, event) pair of both tables, and the walks that matter."""

from __future__ import annotations

import pytest

from ckptfs.coordinator.checkpoint import (
    CHECKPOINT,
    SUSPENSION,
    CheckpointPhase,
    checkpoint_machine,
)
from ckptfs.coordinator.events import Event, Order
from ckptfs.coordinator.machine import SERVICE, BarrierMachine
from ckptfs.coordinator.restart import RESTART, RestartPhase, restart_machine
from ckptfs.errors import Busy
from ckptfs.ids import unit_name

ONE, TWO = unit_name(1), unit_name(2)
BOTH = frozenset({ONE, TWO})
TABLES = [(CHECKPOINT, CheckpointPhase), (SUSPENSION, CheckpointPhase), (RESTART, RestartPhase)]


def at(table, phase):
    return BarrierMachine(table, BOTH, phase, Order.PREPARE)


@pytest.mark.parametrize(
    ("table", "phase", "event"),
    [(table, phase, event) for table, phases in TABLES for phase in phases for event in Event],
)
def test_every_pair_is_legal_or_changes_nothing(table, phase, event):
    machine = at(table, phase)
    row = table.get(phase)
    reporter = SERVICE if row and row.central else ONE
    before = (machine.phase, machine.order, machine.reason, set(machine.lost))
    if row is not None and event in (row.awaited, Event.FAILED):
        machine.handle(reporter, event, "why")
        return
    with pytest.raises(Busy):
        machine.handle(reporter, event)
    assert (machine.phase, machine.order, machine.reason, machine.lost) == before


@pytest.mark.parametrize(("table", "phases"), TABLES)
def test_every_phase_of_a_table_is_reached(table, phases):
    following = {row.following for row in table.values()} | {row.failed for row in table.values()}
    start = next(iter(table))
    assert set(table) - {start} <= following
    assert {phase for phase in following if phase is not None} <= set(phases)


def test_a_barrier_waits_for_all_and_repeats_do_not_count():
    machine = checkpoint_machine(BOTH)
    assert machine.handle(ONE, Event.PREPARED) is None
    assert machine.handle(ONE, Event.PREPARED) is None
    assert machine.handle(TWO, Event.PREPARED) is Order.STOP
    assert machine.phase is CheckpointPhase.STOPPING


def test_the_whole_walk_of_a_checkpoint():
    machine = checkpoint_machine(BOTH)
    orders = []
    for event in (Event.PREPARED, Event.STOPPED, Event.SAVED):
        machine.handle(ONE, event)
        orders.append(machine.handle(TWO, event))
    machine.handle(ONE, Event.RESUMED)
    orders.append(machine.handle(TWO, Event.RESUMED))
    orders.append(machine.handle(SERVICE, Event.COMMITTED))
    assert orders == [Order.STOP, Order.CHECKPOINT, Order.RESUME_CP, Order.COMMIT, None]
    assert (machine.phase, machine.is_ended) == (CheckpointPhase.COMPLETE, True)


def test_a_unit_that_does_not_answer_the_thaw_is_lost_and_its_image_is_not():
    machine = at(CHECKPOINT, CheckpointPhase.RESUMING)
    assert machine.handle(ONE, Event.FAILED, "does not answer") is None
    assert machine.handle(TWO, Event.RESUMED) is Order.COMMIT
    assert (machine.lost, machine.reason) == ({ONE}, "")


def test_a_suspension_kills_instead_of_resuming():
    machine = checkpoint_machine(frozenset({ONE}), end=True)
    for event in (Event.PREPARED, Event.STOPPED, Event.SAVED):
        machine.handle(ONE, event)
    assert machine.handle(SERVICE, Event.COMMITTED) is Order.AWAIT_COPIES
    assert machine.handle(SERVICE, Event.COPIED) is Order.KILL
    machine.handle(ONE, Event.KILLED)
    assert machine.phase is CheckpointPhase.COMPLETE


def test_a_suspension_without_copies_enough_resumes_all():
    machine = at(SUSPENSION, CheckpointPhase.COPYING)
    assert machine.handle(SERVICE, Event.FAILED, "copies are missing") is Order.RESUME_CP
    assert (machine.phase, machine.reason) == (CheckpointPhase.ABORTING, "copies are missing")
    assert at(SUSPENSION, CheckpointPhase.COPYING).abandon("interrupted") is Order.RESUME_CP


@pytest.mark.parametrize("steps", [1, 2])
def test_a_failure_before_the_commit_resumes_all(steps):
    machine = checkpoint_machine(BOTH)
    for event in (Event.PREPARED, Event.STOPPED)[:steps]:
        machine.handle(ONE, event)
        machine.handle(TWO, event)
    assert machine.handle(TWO, Event.FAILED, "fd 7") is Order.RESUME_CP
    assert machine.reason == "JobUnit_2: fd 7"
    machine.handle(ONE, Event.RESUMED)
    machine.handle(TWO, Event.FAILED, "does not answer")
    assert (machine.phase, machine.lost) == (CheckpointPhase.FAILED, {TWO})
    assert machine.reason == "JobUnit_2: fd 7"


def test_a_failed_prepare_has_nothing_to_resume():
    machine = checkpoint_machine(BOTH)
    assert machine.handle(ONE, Event.FAILED) is None
    assert machine.phase is CheckpointPhase.FAILED


def test_a_failed_commit_resumes_all():
    machine = at(CHECKPOINT, CheckpointPhase.COMMITTING)
    assert machine.handle(SERVICE, Event.FAILED, "no space is left") is Order.RESUME_CP
    assert (machine.phase, machine.reason) == (CheckpointPhase.ABORTING, "no space is left")
    with pytest.raises(Busy):
        at(CHECKPOINT, CheckpointPhase.COMMITTING).handle(ONE, Event.COMMITTED)


@pytest.mark.parametrize(
    ("phase", "order", "after"),
    [
        (CheckpointPhase.STOPPING, Order.RESUME_CP, CheckpointPhase.ABORTING),
        (CheckpointPhase.SAVING, Order.RESUME_CP, CheckpointPhase.ABORTING),
        (CheckpointPhase.COMMITTING, Order.RESUME_CP, CheckpointPhase.ABORTING),
        (CheckpointPhase.RESUMING, Order.PREPARE, CheckpointPhase.RESUMING),  # the order in force
        (CheckpointPhase.COMPLETE, None, CheckpointPhase.COMPLETE),
    ],
)
def test_given_up(phase, order, after):
    machine = at(CHECKPOINT, phase)
    assert machine.abandon("interrupted") is order
    assert machine.phase is after


def test_a_restart_holds_all_at_one_barrier():
    machine = restart_machine(BOTH)
    assert machine.order is Order.PLACE
    assert machine.handle(SERVICE, Event.PLACED) is Order.VERIFY
    assert machine.handle(SERVICE, Event.VERIFIED) is Order.REBUILD
    assert machine.handle(TWO, Event.REBUILT) is None
    assert machine.handle(ONE, Event.REBUILT) is Order.PROVE
    assert machine.handle(SERVICE, Event.PROVED) is Order.RESUME_RST
    machine.handle(ONE, Event.RESUMED)
    machine.handle(TWO, Event.RESUMED)
    assert machine.phase is RestartPhase.RUNNING


@pytest.mark.parametrize("phase", [RestartPhase.REBUILDING, RestartPhase.RESUMING])
def test_a_failed_restart_is_undone(phase):
    machine = at(RESTART, phase)
    assert machine.handle(ONE, Event.FAILED, "a file is gone") is Order.KILL
    machine.handle(ONE, Event.KILLED)
    machine.handle(TWO, Event.KILLED)
    assert (machine.phase, machine.reason) == (RestartPhase.FAILED, "JobUnit_1: a file is gone")


def test_a_restart_refused_by_the_proof_is_undone():
    machine = at(RESTART, RestartPhase.PROVING)
    assert machine.handle(SERVICE, Event.FAILED, "JobUnit_1/pages-1.img, block 17") is Order.KILL
    assert machine.reason == "JobUnit_1/pages-1.img, block 17"
    assert machine.reporters == BOTH


def test_a_restart_refused_by_verification_has_nothing_to_undo():
    machine = restart_machine(BOTH)
    machine.handle(SERVICE, Event.PLACED)
    assert machine.handle(SERVICE, Event.FAILED, "JobUnit_1/pages-1.img, block 17") is None
    assert machine.reason == "JobUnit_1/pages-1.img, block 17"
    assert machine.phase is RestartPhase.FAILED
