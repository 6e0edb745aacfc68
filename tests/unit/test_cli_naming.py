"""What a user types, and the job that is meant."""

from __future__ import annotations

import pytest

from ckptfs.cli.naming import find_job, match_job
from ckptfs.errors import InvalidInput, NotFound
from tests.fakes_cli import FakeTree

JOBS = [("heat.1", True), ("sqlite.2", True), ("heat.3", False), ("wave.4", False), ("a.5.6", True)]


@pytest.mark.parametrize(
    ("text", "job"),
    [
        ("heat.3", "heat.3"),  # the id, whoever owns it
        ("sqlite", "sqlite.2"),
        ("2", "sqlite.2"),
        ("heat", "heat.1"),  # one's own before others'
        ("wave", "wave.4"),
        ("a.5", "a.5.6"),  # a name that looks like an id
    ],
)
def test_an_id_a_unique_name_or_a_number_is_enough(text, job):
    assert match_job(text, JOBS) == job


def test_an_unclear_name_lists_what_it_may_mean():
    jobs = [("heat.2", True), ("heat.10", True)]
    with pytest.raises(InvalidInput, match=r"heat\.2, heat\.10: give the id"):
        match_job("heat", jobs)


def test_a_long_list_is_cut():
    with pytest.raises(InvalidInput, match="and 12 more"):
        match_job("heat", [(f"heat.{n}", True) for n in range(1, 21)])


@pytest.mark.parametrize("text", ["", "nothing", "..", "ctl", "heat.9", "99", "\x1b[31m"])
def test_what_is_no_job_is_not_found(text):
    with pytest.raises(NotFound, match="ckptfs ls"):
        match_job(text, JOBS)


def test_jobs_are_found_in_the_tree(tmp_path):
    tree = FakeTree(tmp_path)
    tree.job("heat.1")
    tree.job("a.5.6")
    assert find_job(tree.mount, "heat") == "heat.1"
    assert find_job(tree.mount, "heat.1") == "heat.1"
    assert find_job(tree.mount, "a.5") == "a.5.6"
    with pytest.raises(NotFound):
        find_job(tree.mount, "ctl")
