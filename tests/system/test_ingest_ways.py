"""Images through pipes, and through the mount where criu cannot stream; the log tells which.

All other system tests go through pipes where this machine has them.
"""

from __future__ import annotations

import re

import pytest

from ckptfs.translib.criu_words import executable, find_criu
from tests.programs.table import PROGRAMS

from .installation import Installation
from .test_programs import go_on, judge, launch

pytestmark = [pytest.mark.fuse, pytest.mark.criu, pytest.mark.slow]

SOME = ("memory",)
# A criu whose --help names no --stream, as an old one's.
WITHOUT_STREAMS = """#!/bin/sh
case "$1" in --help) exit 0;; esac
exec {words} "$@"
"""


@pytest.fixture(scope="module")
def without_streams(tmp_path_factory):
    top = tmp_path_factory.mktemp("mounted")
    top.chmod(0o755)
    binary = find_criu()
    assert binary is not None
    (wrapper := top / "criu").write_text(WITHOUT_STREAMS.format(words=" ".join(executable(binary))))
    wrapper.chmod(0o755)
    made = Installation(top, {"CKPTFS_CRIU": str(wrapper)})
    made.start()
    try:
        yield made
    finally:
        made.end()


def save_and_restart(installation, name):
    program = next(program for program in PROGRAMS if program.name == name)
    job, _ = launch(installation, program)
    go_on(job)
    job.checkpoint()
    go_on(job)
    job.checkpoint()
    go_on(job)
    job.kill()
    job.restart("latest")
    assert job.wait("exit_status", lambda text: text != "none") == "0"
    assert judge(program, job) == []
    return re.findall(
        rf"{re.escape(job.name)}: version \d+ complete, \d+ bytes through ([a-z ()]+),",
        installation.log(),
    )


@pytest.mark.parametrize("name", SOME)
def test_through_the_mount_where_criu_cannot_stream(without_streams, name):
    assert (
        save_and_restart(without_streams, name)
        == ["the mount (the checkpointer cannot stream)"] * 2
    )


def test_through_pipes_where_it_can(installation):
    assert save_and_restart(installation, "unlinked") == ["pipes"] * 2
