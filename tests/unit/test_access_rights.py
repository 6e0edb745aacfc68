"""Who may do what, and which accounts jobs run as."""

from __future__ import annotations

import pytest

from ckptfs.errors import InvalidInput, NotAuthorised, NotFound
from ckptfs.jobs.accounts import home_of, resolve_owner
from ckptfs.model import Caller, Owner
from ckptfs.security.access import (
    VERB_RIGHTS,
    require,
    require_owner_of_image,
    rights_of,
)

ALICE = Owner(1000, 1000, (), "alice")


@pytest.mark.parametrize("verb", [*VERB_RIGHTS, "a verb nobody knows"])
def test_nobody_but_owner_and_root(verb):
    require(Caller(0, 0), ALICE, verb, "heat.1")
    if verb in VERB_RIGHTS:
        require(Caller(1000, 1), ALICE, verb, "heat.1")
    for uid in (1, 999, 1001, 65534):
        with pytest.raises(NotAuthorised, match=r"heat\.1 belongs to alice"):
            require(Caller(uid, 1000, groups=frozenset({0, 1000})), ALICE, verb, "heat.1")


def test_groups_give_no_right():
    assert rights_of(Caller(5, 0, groups=frozenset({0, 1000})), ALICE) == frozenset()


@pytest.mark.parametrize(
    ("caller", "job", "head", "uids", "allowed"),
    [
        (1000, 1000, 1000, {1000}, True),
        (0, 1000, 1000, {1000}, True),
        (1000, 1000, 1000, set(), True),
        (1001, 1000, 1000, {1000}, False),
        (1000, 1000, 1001, {1000}, False),
        (1000, 1001, 1000, {1000}, False),
        (0, 1001, 1000, {1000}, False),
        (1000, 1000, 1000, {1000, 0}, False),
        (0, 1000, 1000, {1001}, False),
        (0, 0, 0, {0, 1000}, True),  # root's job may hold processes of anybody
    ],
)
def test_caller_job_head_and_image_name_one_user(caller, job, head, uids, allowed):
    def check():
        owner, other = Owner(job, 1, (), "j"), Owner(head, 1, (), "h")
        require_owner_of_image(Caller(caller, 1), owner, other, frozenset(uids))

    if allowed:
        check()
    else:
        with pytest.raises(NotAuthorised):
            check()


def test_accounts():
    own = resolve_owner(Caller(4711, 12, groups=frozenset({12, 13})), "", "")
    assert own == Owner(4711, 12, (13,), "uid:4711")
    assert resolve_owner(Caller(4711, 12), "4711", "").uid == 4711
    assert resolve_owner(Caller(4711, 12, groups=frozenset({13})), "", "13").gid == 13
    assert resolve_owner(Caller(0, 0), "4711", "") == Owner(4711, 4711, (), "uid:4711")
    assert resolve_owner(Caller(0, 0), "nobody", "").user == "nobody"
    with pytest.raises(NotAuthorised):
        resolve_owner(Caller(4711, 12), "0", "")
    with pytest.raises(NotAuthorised):
        resolve_owner(Caller(4711, 12), "", "0")
    with pytest.raises(NotFound):
        resolve_owner(Caller(0, 0), "no such user", "")
    with pytest.raises(InvalidInput):
        resolve_owner(Caller(0, 0), "4294967295", "")
    assert home_of(4711) == "/"
