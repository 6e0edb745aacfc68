"""Records as JSON and back, the launch record, exits, facts, paths: all without processes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfs.errors import CannotRun, Corrupt, NotFound
from ckptfs.ids import JobId, UnitName
from ckptfs.model import JobSpec, OpenFile, Owner, Policy, UnitFacts
from ckptfs.node import facts, records
from ckptfs.node.api import Exit, Prepared, Process
from ckptfs.node.cgroup import find_mount
from ckptfs.node.isolation import decode_failure, error_named
from ckptfs.node.launch import encode_failure, program_environment
from ckptfs.node.orders import Launch, load_launch, store_launch
from ckptfs.node.procfs import parse_maps, parse_status
from ckptfs.node.rundir import LogView, NodePaths, load_exit, remove_empty, store_exit, unit_paths
from ckptfs.translib.api import Availability
from ckptfs.translib.registry import make_translib

JOB, UNIT = JobId("heat.42"), UnitName("JobUnit_1")
SPEC = JobSpec(
    "heat",
    ("a", "b\udcff"),
    "/",
    {"K": "v"},
    Owner(5, 6, (7, 8), "u"),
    policy=Policy(requires=("x",)),
)
FILE = OpenFile("/a\nb", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, "1")
FACTS = UnitFacts(UNIT, "n1", "criu", {"kernel": "6.18"}, (1000,), (5,), (FILE,))


def through_json(record):
    line = records.encode_line(records.to_json(record))
    assert line.count(b"\n") == 1
    return records.decode_line(line)


@pytest.mark.parametrize(
    ("record", "back"),
    [
        (SPEC, records.spec_from),
        (FILE, records.open_file_from),
        (FACTS, records.facts_from),
        (Prepared(("no",), FACTS, 5), records.prepared_from),
        (Process(1, 2, 0.5, 0.25, "S", "x"), records.process_from),
        (Exit(-1, 9), records.exit_from),
    ],
)
def test_there_and_back(record, back):
    assert back(through_json(record)) == record


@given(st.binary(max_size=100))
def test_any_line_is_a_message_or_corrupt(data):
    try:
        assert isinstance(records.decode_line(data), dict)
    except Corrupt:
        return


@pytest.mark.parametrize(
    ("status", "ended"), [(0, Exit(0)), (3 << 8, Exit(3)), (9, Exit(-1, 9)), (0x8B, Exit(-1, 11))]
)
def test_exit_from_status(status, ended):
    assert records.exit_from_status(status) == ended


def test_launch_record(tmp_path):
    paths = unit_paths(
        NodePaths("s", tmp_path / "run", tmp_path / "jobs", tmp_path / "logs"), JOB, UNIT
    )
    logs = LogView(tmp_path / "logs/heat.2", tmp_path / "logs/heat.1")
    launch = Launch(JOB, UNIT, "n1", "criu", True, SPEC, Path("/sys/x"), paths, ("/ckpt",), logs)
    store_launch(launch)
    assert load_launch(paths.launch) == launch
    assert paths.launch.stat().st_mode & 0o777 == 0o600
    assert paths.run.stat().st_mode & 0o777 == 0o700


def test_socket_path_is_short_whatever_the_name(tmp_path):
    paths = NodePaths("f" * 32, Path("/run/ckptfs") / ("f" * 32), tmp_path, tmp_path)
    socket = unit_paths(
        paths, JobId("n" * 64 + ".123456789012345678"), UnitName("JobUnit_999999")
    ).socket
    assert len(str(socket)) <= 107


def test_exit_is_stored_durably_and_torn_files_are_none(tmp_path):
    paths = unit_paths(NodePaths("s", tmp_path / "r", tmp_path / "j", tmp_path / "l"), JOB, UNIT)
    assert load_exit(paths) is None
    store_exit(paths, Exit(3))
    assert load_exit(paths) == Exit(3)
    whole = paths.exit.read_bytes()
    for size in range(len(whole)):
        paths.exit.write_bytes(whole[:size])
        assert load_exit(paths) is None


def test_failures_keep_class_and_sentence():
    back = decode_failure(encode_failure(NotFound("gone")))
    assert isinstance(back, NotFound)
    assert str(back) == "gone"
    assert isinstance(decode_failure(encode_failure(OSError(5, "I/O"))), CannotRun)
    assert isinstance(error_named("os", "x"), CannotRun)
    assert isinstance(error_named("CkptfsErrorX", "x"), CannotRun)


def test_environment_is_minimal_and_the_jobs_own_wins():
    found = program_environment(
        dataclasses.replace(SPEC, env={"PATH": "/x", "A": "1"}), "heat.42", "JobUnit_1"
    )
    assert found["PATH"] == "/x"
    assert found["CKPTFS_JOB"] == "heat.42"
    assert set(found) == {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "CKPTFS_JOB",
        "CKPTFS_UNIT",
        "A",
    }


@pytest.mark.parametrize(
    ("line", "mount"),
    [
        ("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "/sys/fs/cgroup"),
        (
            "41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 none rw",
            "/sys/fs/cgroup/unified",
        ),
        ("37 31 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer", None),
        ("37 31 0:34 / /a\\040b rw - cgroup2 x rw", "/a b"),
    ],
)
def test_cgroup_mount(line, mount):
    assert find_mount("22 27 0:21 / /proc rw - proc proc rw\n" + line) == (
        Path(mount) if mount else None
    )


STATUS = """Name:\ta (b)
State:\tS (sleeping)
Pid:\t51
PPid:\t50
TracerPid:\t0
Uid:\t7\t7\t7\t7
NSpid:\t51\t1000
VmSwap:\t 4 kB
RssAnon:\t 8 kB
RssShmem:\t 4 kB
"""


def test_parse_status():
    found = parse_status(STATUS)
    assert (found.pid, found.inner_pid, found.parent, found.name) == (51, 1000, 50, "a (b)")
    assert found.memory_bytes == 16384
    for cut in range(0, len(STATUS) - 60, 7):
        with pytest.raises(ValueError, match=r"status without|invalid literal"):
            parse_status(STATUS[:cut])


def test_parse_maps():
    text = "7f-80 rw-s 00000000 00:01 99 /tmp/a b\n80-81 r--p 00000000 00:00 0 \n"
    first, second = parse_maps(text)
    assert (first.permissions, first.inode, first.path) == ("rw-s", 99, "/tmp/a b")
    assert second.path == ""


# -- facts ---------------------------------------------------------------------------------------

HERE = {"kernel": "6.18.2", "architecture": "x86_64", "cpu_flags": "avx sse", "boot_id": "b"}
THERE = {"criu": Availability(True, "4.2.1", frozenset())}
IMAGE = {**HERE, "criu_version": "4.2.1"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"cpu_flags": "sse"}, ""),
        ({"kernel": "6.12.1"}, ""),
        ({"kernel": "6.18.99"}, ""),
        ({"architecture": "aarch64"}, "aarch64"),
        ({"cpu_flags": "avx avx512f sse"}, "avx512f"),
        ({"criu_version": "4.3"}, "4.3"),
        ({"kernel": "6.19"}, "older"),
    ],
)
def test_compare(changes, words):
    image = dataclasses.replace(FACTS, facts={**IMAGE, **changes})
    found = facts.compare(image, HERE, THERE)
    assert words in found
    assert bool(found) is bool(words)


def test_compare_needs_the_translib():
    image = dataclasses.replace(FACTS, facts=IMAGE)
    assert "not installed" in facts.compare(image, HERE, {})
    off = {"criu": Availability(False, "", frozenset(), "too old")}
    assert "too old" in facts.compare(image, HERE, off)


def test_unknown_translib():
    with pytest.raises(NotFound, match="blcr"):
        make_translib("blcr")


def test_facts_of_this_node_are_text():
    found = facts.node_facts()
    assert json.loads(json.dumps(found)) == found
    assert facts.compare(dataclasses.replace(FACTS, facts={**found}), found, THERE) == ""


def test_only_empty_run_directories_go(tmp_path):
    (tmp_path / "gone").mkdir()
    (tmp_path / "working" / "1.1").mkdir(parents=True)
    (tmp_path / "criu-works").write_text("6.18")
    remove_empty(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"working", "criu-works"}
    assert (tmp_path / "working" / "1.1").is_dir()
    remove_empty(tmp_path / "not there")
