"""A cgroup that cannot be read or killed at once is not taken for one that has ended."""

from __future__ import annotations

import subprocess

import pytest

from ckptfs.errors import NoSuchProcess, TryAgain
from ckptfs.node.client import connect
from ckptfs.translib import freezer


def test_a_cgroup_that_is_gone_holds_nobody(tmp_path):
    gone = tmp_path / "gone"
    assert freezer.member_pids(gone) == ()
    freezer.kill_members(gone)
    with pytest.raises(NoSuchProcess):
        freezer.read_events(gone)
    with pytest.raises(NoSuchProcess):
        freezer.write_freeze(gone, frozen=False)


def test_one_that_cannot_be_read_may_hold_somebody(tmp_path):
    for name in ("cgroup.procs", "cgroup.events", "cgroup.freeze"):
        (tmp_path / name).mkdir()
    with pytest.raises(IsADirectoryError):
        freezer.member_pids(tmp_path)
    with pytest.raises(IsADirectoryError):
        freezer.read_events(tmp_path)
    with pytest.raises(IsADirectoryError):
        freezer.write_freeze(tmp_path, frozen=False)


def test_without_cgroup_kill_its_processes_are_killed_one_by_one(tmp_path):
    (tmp_path / "cgroup.kill").mkdir()
    with subprocess.Popen(["sleep", "1000"]) as process:
        # 0 is a process of a namespace that we do not see: for kill(2) it is our own group
        (tmp_path / "cgroup.procs").write_text(f"0\n{process.pid}\n")
        freezer.kill_members(tmp_path)
        assert process.wait() == -9
    freezer.kill_members(tmp_path)  # gone by now


async def test_a_supervisor_that_cannot_be_reached_has_not_ended(tmp_path):
    (tmp_path / "file").touch()
    assert await connect(tmp_path / "none", lambda _: None) is None
    assert await connect(tmp_path / "file", lambda _: None) is None  # nobody listens
    with pytest.raises(TryAgain, match="cannot be reached"):
        await connect(tmp_path / "file/socket", lambda _: None)
