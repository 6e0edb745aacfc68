"""What a user types, and the job that is meant."""

from __future__ import annotations

import pytest

from ckptfs.cli.naming import find_job, match_job
from ckptfs.errors import InvalidInput, NotFound
from tests.fakes_cli import FakeTree

JOBS = ["heat.1", "sqlite.2", "heat.3", "wave.4", "a.5.6", "sqlite.7", "sqlite.8"]
OWN = {"heat.1", "sqlite.2", "sqlite.7", "a.5.6"}
ALIVE = {"heat.3", "sqlite.7", "sqlite.8"}
PREFERENCES = (OWN.__contains__, ALIVE.__contains__)


@pytest.mark.parametrize(
    ("text", "job"),
    [
        ("heat.3", "heat.3"),  # the id, whoever owns it
        ("2", "sqlite.2"),
        ("wave", "wave.4"),
        ("heat", "heat.1"),  # one's own before others'
        ("sqlite", "sqlite.7"),  # and of these the one that lives
        ("a.5", "a.5.6"),  # a name that looks like an id
    ],
)
def test_an_id_a_name_or_a_number_is_enough(text, job):
    assert match_job(text, JOBS, PREFERENCES) == job


def test_an_unclear_name_lists_what_it_may_mean():
    with pytest.raises(InvalidInput, match=r"heat\.2, heat\.10: give the id"):
        match_job("heat", ["heat.10", "heat.2"], PREFERENCES)


def test_a_long_list_is_cut():
    with pytest.raises(InvalidInput, match="and 12 more"):
        match_job("x", [f"x.{n}" for n in range(1, 21)], PREFERENCES)


def test_preferences_are_not_asked_without_need():
    def ask(job: str) -> bool:
        raise AssertionError(job)

    assert match_job("wave", JOBS, (ask,)) == "wave.4"


@pytest.mark.parametrize("text", ["", "nothing", "..", "ctl", "heat.9", "99", "\x1b[31m"])
def test_what_is_no_job_is_not_found(text):
    with pytest.raises(NotFound, match="ckptfs ls"):
        match_job(text, JOBS, PREFERENCES)


def test_jobs_are_found_in_the_tree(tmp_path):
    tree = FakeTree(tmp_path)
    tree.job("heat.1")
    tree.job("a.5.6")
    assert find_job(tree.mount, "heat") == "heat.1"
    assert find_job(tree.mount, "heat.1") == "heat.1"
    assert find_job(tree.mount, "a.5") == "a.5.6"
    tree.job("heat.7", state="done")
    assert find_job(tree.mount, "heat") == "heat.1"
    with pytest.raises(NotFound):
        find_job(tree.mount, "ctl")
