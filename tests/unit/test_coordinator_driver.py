"""The driver alone: side by side, deadlines, cancelled, a journal that fails, a bug."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from ckptfs.coordinator.checkpoint import CheckpointPhase, checkpoint_machine
from ckptfs.coordinator.driver import Action, drive
from ckptfs.coordinator.events import Event, Order
from ckptfs.errors import CheckpointerFailed, Degraded
from ckptfs.ids import unit_name

UNITS = frozenset({unit_name(1), unit_name(2)})
REPORTS = {
    Order.STOP: Event.STOPPED,
    Order.CHECKPOINT: Event.SAVED,
    Order.COMMIT: Event.COMMITTED,
    Order.RESUME_CP: Event.RESUMED,
}


class Rehearsal:
    """Each order takes a second; *script*: (order, unit) → seconds or an exception."""

    def __init__(self, script=(), journal_fails_at=None):
        self.script, self.journal_fails_at = dict(script), journal_fails_at
        self.done, self.phases = [], []
        self.machine = checkpoint_machine(UNITS)

    def actions(self):
        return {
            order: Action(
                lambda unit, order=order: self.act(order, unit),
                report,
                10.0,
                shielded=order is Order.COMMIT,
            )
            for order, report in REPORTS.items()
        }

    async def act(self, order, unit):
        todo = self.script.get((order, unit), 1.0)
        if isinstance(todo, Exception):
            raise todo
        await trio.sleep(todo)
        self.done.append((order, unit))

    def journal(self, phase, reason):
        self.phases.append(phase)
        if phase == self.journal_fails_at:
            raise Degraded("the catalog cannot be written")

    def play(self, cancel_after_s=1e6):
        async def main():
            start = trio.current_time()
            order = None
            for unit in sorted(UNITS):
                order = self.machine.handle(unit, Event.PREPARED)
            with trio.CancelScope(relative_deadline=cancel_after_s):
                await drive(self.machine, order, self.actions(), self.journal)
            self.elapsed_s = trio.current_time() - start

        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        return self

    @property
    def resumed(self):
        return {unit for order, unit in self.done if order is Order.RESUME_CP}


def test_units_act_side_by_side():
    played = Rehearsal().play()
    assert played.machine.phase is CheckpointPhase.COMPLETE
    assert played.elapsed_s == pytest.approx(4)
    assert played.phases == ["stopping", "saving", "resuming", "committing", "complete"]


@pytest.mark.parametrize("order", [Order.STOP, Order.CHECKPOINT])
@pytest.mark.parametrize("trouble", [CheckpointerFailed("fd 7"), 3600.0, ValueError("bug")])
def test_one_unit_in_trouble_resumes_all(order, trouble):
    played = Rehearsal({(order, unit_name(2)): trouble}).play()
    assert played.machine.phase is CheckpointPhase.FAILED
    assert played.resumed == UNITS
    assert played.elapsed_s < 30


def test_nobody_finishes_a_large_image_after_a_failure():
    first, second = sorted(UNITS)
    script = {(Order.CHECKPOINT, first): 9.0, (Order.CHECKPOINT, second): CheckpointerFailed("x")}
    played = Rehearsal(script).play()
    assert played.elapsed_s == pytest.approx(2)
    assert (Order.CHECKPOINT, first) not in played.done


@pytest.mark.parametrize("cancel_after_s", [0.5, 1.5, 2.5, 3.5])
def test_cancelled_in_any_phase_resumes_all(cancel_after_s):
    played = Rehearsal().play(cancel_after_s)
    committed = cancel_after_s > 2  # a commit under way is seen through
    assert played.machine.phase is (
        CheckpointPhase.COMPLETE if committed else CheckpointPhase.FAILED
    )
    assert played.resumed == UNITS


@pytest.mark.parametrize("phase", ["stopping", "saving", "committing", "resuming", "aborting"])
def test_a_journal_that_fails_never_leaves_a_unit_stopped(phase):
    script = (
        {(Order.CHECKPOINT, unit_name(1)): CheckpointerFailed("x")} if phase == "aborting" else {}
    )
    played = Rehearsal(script, journal_fails_at=phase).play()
    assert played.machine.is_ended
    assert played.resumed == UNITS


def test_a_unit_that_cannot_be_resumed_is_lost_and_the_others_go_on():
    played = Rehearsal({(Order.RESUME_CP, unit_name(2)): 3600.0}).play()
    assert played.machine.phase is CheckpointPhase.COMPLETE
    assert played.machine.lost == {unit_name(2)}
