"""The order of the primitives: every pair, as a table that was written by hand."""

from __future__ import annotations

import itertools

import pytest

from ckptfs.errors import Busy
from ckptfs.translib.order import Order, Phase, Primitive, next_step

P, C = Phase, Primitive
LEGAL = {
    (P.RUNNING, C.PREPARE): P.PREPARED,
    (P.RESUMED, C.PREPARE): P.PREPARED,
    (P.RESTARTED, C.PREPARE): P.PREPARED,
    (P.PREPARED, C.PREPARE): P.PREPARED,
    (P.PREPARED, C.STOP): P.STOPPED,
    (P.STOPPED, C.STOP): P.STOPPED,
    (P.STOPPED, C.CHECKPOINT): P.STOPPED,
    (P.STOPPED, C.RESUME_CP): P.RESUMED,
    (P.PREPARED, C.RESUME_CP): P.RESUMED,
    (P.RESUMED, C.RESUME_CP): P.RESUMED,
    (P.EMPTY, C.REBUILD): P.REBUILT,
    (P.REBUILT, C.REBUILD): P.REBUILT,
    (P.REBUILT, C.RESUME_RST): P.RESTARTED,
    (P.RESTARTED, C.RESUME_RST): P.RESTARTED,
}


@pytest.mark.parametrize(("phase", "primitive"), list(itertools.product(P, C)))
def test_every_pair(phase, primitive):
    expected = LEGAL.get((phase, primitive))
    if expected is None:
        with pytest.raises(Busy, match=primitive.value):
            next_step(phase, primitive)
    else:
        assert next_step(phase, primitive).after is expected


def test_a_failed_primitive_moves_nothing():
    order = Order(P.PREPARED)
    order.end(order.begin(C.STOP), done=False)
    assert order.phase is P.PREPARED


def test_one_at_a_time():
    order = Order(P.STOPPED)
    step = order.begin(C.CHECKPOINT)
    with pytest.raises(Busy, match="under way"):
        order.begin(C.RESUME_CP)
    order.end(step, done=True)
    assert order.begin(C.RESUME_CP).act
