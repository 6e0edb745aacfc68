"""``ckptfs df``, ``ckptfs quota``, and the options that say who pays, on a tree of plain files."""

from __future__ import annotations

import json
import re

import pytest

from ckptfs.cli.commands.checkpoint import request_text
from ckptfs.cli.commands.run import describe
from ckptfs.cli.commands.volume import note_of
from ckptfs.cli.main import command_parser, main
from ckptfs.errors import InvalidInput, OutOfRange
from ckptfs.jobs.jsdl import parse_jsdl
from ckptfs.jobs.jsdl_render import render_jsdl
from ckptfs.jobs.resources import Machine
from tests.fakes_cli import FakeTree


@pytest.fixture
def tree(tmp_path, monkeypatch) -> FakeTree:
    root = tmp_path / "mount"
    root.mkdir()
    monkeypatch.setenv("CKPTFS_MOUNT", str(root))
    return FakeTree(root)


def run(capsys, *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    out, err = capsys.readouterr()
    return code, out, err


SPACE = """\
alice/user versions=3 logical_bytes=3221225472 added_bytes=1073741824 charged_bytes=6442450944 \
copies=5 copies_wanted=6 dedup_ratio=3.00
alice/system versions=1 logical_bytes=1024 added_bytes=512 charged_bytes=0 copies=1 \
copies_wanted=2 dedup_ratio=2.00
store versions=4 logical_bytes=3221226496 stored_bytes=1073743872 rest_bytes=1536 \
reserved_bytes=0 free_bytes=1073741824 total_bytes=4294967296 dedup_ratio=3.00
"""
QUOTA = """\
alice limit_bytes=10737418240 charged_bytes=6442450944 reserved_bytes=0
default limit_bytes=none
"""
VOLUMES = """\
local state=up domain=n1 used_bytes=1073743872 free_bytes=1073741824 verified=100%
far state=up domain=rack2 used_bytes=536870912 free_bytes=4096 directory=/mnt/far ratio=2.00
"""


def test_df(tree, capsys):
    for name, text in (("space", SPACE), ("quota", QUOTA), ("volumes", VOLUMES)):
        tree.put(f"ctl/{name}", text)
    code, out, _ = run(capsys, "df")
    assert code == 0
    rows = [re.split(r"  +", line) for line in out.splitlines()]
    assert rows[1] == [
        *["alice", "user", "3", "3.0 GiB", "1.0 GiB", "3.00", "6.0 GiB", "10.0 GiB", "5/6"]
    ]
    assert rows[2] == ["alice", "system", "1", "1.0 KiB", "512 B", "2.00", "-", "-", "1/2"]
    assert "trash and slack 1.5 KiB\n" in out
    assert "1.0 GiB of 4.0 GiB free" in out
    assert "copies on far: 512.0 MiB (compression 2.00), 4.0 KiB free" in out
    tree.put("ctl/space", SPACE.replace("rest_bytes=1536", "rest_bytes=1536 thinned_bytes=2048"))
    assert "trash and slack 1.5 KiB, 2.0 KiB less since packs were thinned" in run(capsys, "df")[1]
    _, out, _ = run(capsys, "df", "--json")
    assert json.loads(out)["space"]["alice/user"]["charged_bytes"] == "6442450944"


def test_quota(tree, capsys, monkeypatch):
    monkeypatch.setattr("ckptfs.cli.commands.quota.mount_of", lambda _: tree.mount)
    tree.put("ctl/quota", QUOTA)
    code, out, _ = run(capsys, "quota")
    assert code == 0
    rows = [re.split(r"  +", line) for line in out.splitlines()]
    assert rows[1:] == [["alice", "10.0 GiB", "6.0 GiB", "0 B"], ["default", "none", "-", "-"]]
    _, out, _ = run(capsys, "quota", "default")
    assert "alice" not in out
    tree.files.answers["ctl/quota"] = lambda _: "alice 5368709120"
    assert run(capsys, "quota", "alice", "5G")[:2] == (0, "alice 5368709120\n")
    assert tree.files.written == [("ctl/quota", "alice 5G")]


def test_what_run_says_of_space_is_what_the_service_reads():
    argv = ["--space", "10G", "--keep-last", "3", "--keep-within", "60", "--keep-every", "7", "sh"]
    description = describe(command_parser("run").parse_args(argv))
    document = render_jsdl(description).encode()
    policy = parse_jsdl(document, Machine(frozenset({"n1"}), "x86_64", 1, 1)).policy
    assert (policy.keep_user_bytes, policy.keep_last) == (10 << 30, 3)
    assert (policy.keep_within_s, policy.keep_every_s) == (60, 7)
    argv = ["--copies", "3", "--min-copies", "2", "sh"]
    document = render_jsdl(describe(command_parser("run").parse_args(argv))).encode()
    policy = parse_jsdl(document, Machine(frozenset({"n1"}), "x86_64", 1, 1)).policy
    assert (policy.replication, policy.min_level, policy.keep_user_bytes) == (3, 2, 0)
    for word, error in (("ten", InvalidInput), ("1025P", OutOfRange)):
        with pytest.raises(error):
            describe(command_parser("run").parse_args(["--space", word, "sh"]))


def test_a_volume_on_the_disk_of_the_store_is_said():
    def device(directory):
        if directory == "/away":
            raise FileNotFoundError(directory)
        return 1 if directory in {"/store", "/copies"} else 2

    text = (
        "local state=up domain=n1 directory=/store\ncopies state=up domain=copies "
        "directory=/copies\nfar state=up domain=rack2 directory=/far\n"
        "further state=up domain=rack2 directory=/further\naway state=up domain=a directory=/away\n"
    )
    said = "copies lies on the same file system as the store: one broken disk takes both"
    assert note_of(text, "copies", device) == said
    assert note_of(text, "further", device) == ""


def test_a_version_in_the_name_of_the_system():
    assert request_text(keep=False, note="", system=True) == "initiator=system"
    assert request_text(keep=True, note="a b", system=True) == (
        "keep=yes initiator=system note=a_b"
    )
