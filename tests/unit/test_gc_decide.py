"""Which versions go: the rules as tables, and what holds for every job."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptfs.gc.decide import (
    Candidate,
    JobFacts,
    Retention,
    charge_of,
    class_of,
    clock_doubt,
    decide,
    is_scarce,
    trash_verdict,
)
from ckptfs.ids import JobId, Version
from ckptfs.model import Initiator, Purpose, SpaceClass

S = 10**9
NOW = 1_000_000 * S
PLAIN = Candidate(Version(1), 0, True, False, False, Purpose.USER, Initiator.USER)
SYSTEM = {"purpose": Purpose.FAULT_TOLERANCE, "initiator": Initiator.SYSTEM}
JOB = JobFacts(JobId("heat.1"), False, Retention())


def going(facts: JobFacts, *changes: dict) -> dict[int, str]:
    """Versions 1, 2, …, one hour apart, the last one an hour old → what goes and why."""
    count = len(changes)
    candidates = [
        replace(PLAIN, version=Version(n), committed_ns=NOW - (count + 1 - n) * 3600 * S, **change)
        for n, change in enumerate(changes, 1)
    ]
    return {int(v.version): v.reason for v in decide(facts, candidates, NOW) if not v.stays}


@pytest.mark.parametrize(
    ("retention", "stays"),
    [
        (Retention(), {1, 2, 3, 4, 5}),
        (Retention(last=2), {4, 5}),
        (Retention(last=1), {5}),
        (Retention(within_s=2 * 3600 + 1), {4, 5}),
        (Retention(within_s=1), {5}),  # the newest always
        (Retention(last=1, within_s=3 * 3600 + 1), {3, 4, 5}),
        (Retention(every_s=10**7), {5}),
    ],
)
def test_retention(retention, stays):
    gone = going(replace(JOB, retention=retention), {}, {}, {}, {}, {})
    assert {1, 2, 3, 4, 5} - gone.keys() == stays
    assert set(gone.values()) <= {"superseded"}


def test_one_of_each_period_stays():
    hours = [Candidate(Version(n), n * 900 * S, *[True, False, False], Purpose.USER, Initiator.USER)
             for n in range(1, 13)]  # fmt: skip
    facts = replace(JOB, retention=Retention(every_s=3600))
    stays = [int(v.version) for v in decide(facts, hours, NOW) if v.stays]
    assert stays == [3, 7, 11, 12]


@pytest.mark.parametrize(
    ("retention", "copied", "goes"),
    [
        (Retention(last=1), "yyyy", {1, 2, 3}),
        (Retention(last=1), "yyyn", {1, 2}),
        (Retention(last=1), "ynnn", set()),
        (Retention(last=1), "nnny", {1, 2, 3}),
        (Retention(last=2), "yyyn", {1}),
        (Retention(last=2), "nnnn", set()),
        (Retention(within_s=1), "ynnn", set()),
        (Retention(within_s=1), "yynn", {1}),
        (Retention(every_s=10**7), "yynn", {1}),
        (Retention(every_s=10**7), "nnny", {1, 2, 3}),
    ],
)
def test_nothing_goes_before_what_replaces_it_has_its_copies(retention, copied, goes):
    versions = [{"copied": letter == "y"} for letter in copied]
    assert going(replace(JOB, retention=retention), *versions).keys() == goes


def test_a_migration_keeps_the_last_version_that_has_its_copies():
    moved = replace(JOB, migrated=frozenset({Version(1)}))
    versions = [{"purpose": Purpose.MIGRATION}, {"copied": False}]
    assert going(moved, *versions) == {}


def test_what_is_never_removed():
    facts = replace(JOB, retention=Retention(last=1), done=True)
    gone = going(facts, {"pinned": True}, {"used": True}, {"restartable": False}, {}, {})
    assert set(gone) == {4}
    damaged_last = going(facts, {}, {"restartable": False}, {"restartable": False})
    assert damaged_last == {}  # the newest restartable one


def test_the_systems_versions_go_when_the_job_is_done():
    assert going(JOB, SYSTEM, SYSTEM) == {}
    done = replace(JOB, done=True)
    assert set(going(done, SYSTEM, {}, SYSTEM)) == {1, 3}
    assert set(going(done, SYSTEM, SYSTEM | {"pinned": True})) == {1}


def test_a_migration_that_succeeded_needs_its_checkpoint_no_more():
    migration = {"purpose": Purpose.MIGRATION}
    moved = replace(JOB, migrated=frozenset({Version(1), Version(3)}))
    assert going(JOB, migration, {}) == {}  # it failed, or goes on
    assert set(going(moved, migration, {})) == {1}
    assert set(going(moved, migration, migration, migration)) == {1}  # 2 failed, 3 is the newest


def test_what_is_within_the_users_space_stays_whatever_the_other_rules_say():
    own, big = {"charged_bytes": 10}, {"charged_bytes": 100}
    kept = replace(JOB, retention=Retention(last=1, user_bytes=30))
    assert set(going(kept, own, own, own, own, own)) == {1, 2}  # the newest three fit
    assert set(going(kept, own, big, own, own)) == {1, 2}  # what is behind the first that does not
    assert set(going(kept, own, SYSTEM, own, own)) == {2}  # the system's are not in that space
    alone = replace(JOB, retention=Retention(user_bytes=5))
    assert going(alone, big, big) == {}  # space alone never has anything go
    assert set(going(replace(kept, done=True), own, SYSTEM, own)) == {2}


def test_who_pays():
    classes = {(p, i): class_of(p, i) for p in Purpose for i in Initiator}
    users = {key for key, found in classes.items() if found is SpaceClass.USER}
    assert users == {(Purpose.USER, Initiator.USER), (Purpose.SUSPEND, Initiator.USER)}
    for key in classes:
        charge = charge_of(*key, logical_bytes=100, copies_wanted=3)
        assert charge == (300 if key in users else 0)


facts_of_jobs = st.builds(
    JobFacts,
    st.just(JobId("heat.1")),
    st.booleans(),
    st.builds(Retention, *[st.integers(0, 5)] * 3, st.integers(0, 30)),
    st.frozensets(st.integers(1, 12).map(Version)),
)
versions_of_jobs = st.lists(
    st.builds(
        Candidate,
        st.integers(1, 12).map(Version),
        st.integers(0, 12 * S),
        *[st.booleans()] * 3,
        st.sampled_from(Purpose),
        st.sampled_from(Initiator),
        st.booleans(),
        st.integers(0, 10),
    ),
    unique_by=lambda candidate: candidate.version,
)


@settings(max_examples=300, deadline=None)
@given(facts_of_jobs, versions_of_jobs, st.integers(0, 20 * S))
@pytest.mark.slow
def test_what_always_holds(facts, candidates, now_ns):
    by_version = {candidate.version: candidate for candidate in candidates}
    verdicts = decide(facts, candidates, now_ns)
    assert [v.version for v in verdicts] == sorted(by_version)
    assert all(v.reason for v in verdicts)
    for verdict in verdicts:
        candidate = by_version[verdict.version]
        if candidate.pinned or candidate.used or not candidate.restartable:
            assert verdict.stays
    good = [c.version for c in candidates if c.restartable]
    safe = [c.version for c in candidates if c.restartable and c.copied]
    if safe and not facts.done:
        assert next(v for v in verdicts if v.version == max(safe)).stays
    if good and not facts.done:
        assert next(v for v in verdicts if v.version == max(good)).stays
    # what is left is decided the same way again: nothing goes piece by piece
    left = [by_version[v.version] for v in verdicts if v.stays]
    assert all(v.stays for v in decide(facts, left, now_ns))


@pytest.mark.parametrize(
    ("expires", "scarce", "emptied", "words"),
    [(101, False, False, ""), (100, False, False, "time"), (101, True, False, "full"),
     (101, False, True, "emptied")],
)  # fmt: skip
def test_the_trash(expires, scarce, emptied, words):
    reason = trash_verdict(expires, 100, scarce=scarce, emptied=emptied)
    assert (words in reason) if words else not reason


def test_a_clock_that_jumps_is_not_believed():
    assert not clock_doubt(1100.0, 200.0, (1000.0, 100.0), 900)
    assert "jumped by 3600 s" in clock_doubt(4700.0, 200.0, (1000.0, 100.0), 0)
    assert "jumped by -3600 s" in clock_doubt(4700.0, 200.0, (8200.0, 100.0), 0)
    assert "behind" in clock_doubt(1000.0, 0.0, (1000.0, 0.0), 5000)
    assert is_scarce(4, 100)
    assert not is_scarce(6, 100)
