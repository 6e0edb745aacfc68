"""Small pure rules: retention, cloning, lifecycle, the exit of a job, requests and their words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfs.coordinator.supervision import exit_of_job
from ckptfs.errors import Busy, Unsupported
from ckptfs.gc.decide import Candidate, JobFacts, Retention, decide
from ckptfs.ids import JobId, unit_name
from ckptfs.jobs.lifecycle import ALIVE, ALLOWED, refusal
from ckptfs.model import Initiator, JobState, Purpose
from ckptfs.node.api import Exit

VERSIONS = st.sets(st.integers(1, 40)).map(sorted)


def superseded(versions, keep_last, *, damaged, pinned, used):
    candidates = [
        Candidate(v, v, v not in damaged, v in pinned, v in used, Purpose.USER, Initiator.USER)
        for v in versions
    ]
    facts = JobFacts(JobId("heat.1"), False, Retention(last=keep_last))
    return [v.version for v in decide(facts, candidates, 0) if not v.stays]


@given(VERSIONS, st.integers(0, 10), st.sets(st.integers(1, 40)), st.sets(st.integers(1, 40)))
def test_retention_keeps_what_it_must(versions, keep_last, damaged, pinned):
    going = superseded(versions, keep_last, damaged=damaged, pinned=pinned, used=())
    left = [version for version in versions if version not in going]
    good = [version for version in versions if version not in damaged]
    assert not set(going) & pinned
    assert not set(going) & damaged
    if good:
        assert good[-1] in left
    if keep_last:
        unpinned = [version for version in left if version in good and version not in pinned]
        assert len(unpinned) <= keep_last
        assert set(good[-keep_last:]) <= set(left)
    else:
        assert going == []


def test_a_version_in_use_stays():
    assert superseded([1, 2, 3], 1, damaged=(), pinned=(), used={1}) == [2]


@pytest.mark.parametrize(
    ("exits", "expected"),
    [
        ({1: Exit(0)}, "0"),
        ({1: Exit(0), 2: Exit(3)}, "3"),
        ({1: Exit(0), 2: Exit(-1, 9)}, "signal 9"),
        ({1: None, 2: Exit(0)}, "0"),
        ({1: None}, "None"),
    ],
)
def test_the_exit_of_a_job(exits, expected):
    named = {unit_name(index): ended for index, ended in exits.items()}
    assert str(exit_of_job(named)) == expected


@pytest.mark.parametrize("verb", ALLOWED)
@pytest.mark.parametrize("state", JobState)
def test_every_verb_in_every_state(verb, state):
    refused = refusal(verb, JobId("heat.1"), state)
    if state in ALLOWED[verb]:
        assert refused is None
    else:
        assert isinstance(refused, Busy if state in ALIVE else Unsupported)
        assert "heat.1" in str(refused)
