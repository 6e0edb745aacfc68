"""The rules for blockers over made-up surveys."""

from __future__ import annotations

import dataclasses

import pytest

from ckptfs.node.blockers import judge
from ckptfs.node.procfs import Descriptor, Mapping, Status
from ckptfs.node.sockets import TcpSocket, UnixSocket, canonical, parse_tcp, render_address
from ckptfs.node.survey import Handle, Subject, Survey

STATUS = Status(51, 1000, 50, "job", "S", 0, (7, 7, 7, 7), 0)
NAMESPACES = {"user": "user:[1]", "net": "net:[1]"}


def handle(target: str, fd: int = 3, info: str = "", **what: object) -> Handle:
    return Handle(Descriptor(fd, target, info), **what)


def survey(*handles: Handle, status: Status = STATUS, **what: object) -> Survey:
    subject = Subject(status, handles, (), NAMESPACES)
    return dataclasses.replace(Survey(7, (subject,), NAMESPACES), **what)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (handle("anon_inode:[io_uring]"), "io_uring cannot be saved"),
        (handle("anon_inode:[userfaultfd]"), "userfaultfd"),
        (handle("anon_inode:[perf_event]"), "perf_event cannot be saved"),
        (handle("anon_inode:kvm-vm"), "kvm-vm cannot be saved"),
        (handle("/dev/fuse", device=(10, 229)), "/dev/fuse is open"),
        (handle("/dev/nvidia0", device=(195, 0)), "the device /dev/nvidia0"),
        (handle("/dev/tty", device=(5, 0)), "the terminal /dev/tty"),
        (handle("/dev/pts/3", device=(136, 3)), "the terminal /dev/pts/3"),
        (handle("/a (deleted)", is_regular=True, links=1), "/a was removed"),
        (handle("/secretmem (deleted)", is_regular=True, links=0), "secret memory"),
    ],
)
def test_descriptor_that_blocks(item, words):
    (found,) = judge(survey(item))
    assert found.startswith("process 1000 (job), descriptor 3: ")
    assert words in found


@pytest.mark.parametrize(
    "item",
    [
        handle("anon_inode:[eventpoll]"),
        handle("anon_inode:inotify"),
        handle("/dev/null", device=(1, 3)),
        handle("/dev/urandom", device=(1, 9)),
        handle("/a", is_regular=True),
        handle("/gone (deleted)", is_regular=True, links=0),
        handle("pipe:[5]", is_fifo=True),
        handle("socket:[9]"),
    ],
)
def test_descriptor_that_does_not(item):
    assert judge(survey(item)) == ()


def test_terminal_with_its_master_inside():
    master = handle("/dev/ptmx", 4, "tty-index:\t3\n", device=(5, 2))
    assert judge(survey(master, handle("/dev/pts/3", device=(136, 3)))) == ()
    assert judge(survey(master, handle("/dev/pts/4", device=(136, 4)))) != ()


def test_unix_sockets():
    inside = {1: UnixSocket(1, 2, ""), 2: UnixSocket(2, 1, "")}
    both = (handle("socket:[1]", 3), handle("socket:[2]", 4))
    assert judge(survey(*both, unix=inside)) == ()
    outside = {1: UnixSocket(1, 9, ""), 9: UnixSocket(9, 1, "/run/x.sock")}
    (found,) = judge(survey(handle("socket:[1]"), unix=outside))
    assert "(/run/x.sock) is connected to a process outside the job" in found
    assert judge(survey(handle("socket:[1]"), unix={1: UnixSocket(1, 0, "/l")})) == ()


TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65534        0 10 1 0
   1: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000 65534        0 11 1 0
   2: 0100007F:9C40 0100007F:1F90 01 00000000:00000000 00:00000000 00000000 65534        0 12 1 0
   3: 0100007F:9C41 0202000A:01BB 01 00000000:00000000 00:00000000 00000000 65534        0 13 1 0
   4: 0100007F:9C42 0100007F:1F90 01 00000000:00000000 00:00000000 00000000 65534        0 14 1 0
   5: 0100007F:1F90 0100007F:9C42 01 00000000:00000000 00:00000000 00000000 65534        0 0 1 0
"""


def test_tcp_connections():
    table = tuple(parse_tcp(TCP))
    assert [item.inode for item in table] == [11, 12, 13, 14, 0]
    inside = (handle("socket:[10]", 3), handle("socket:[11]", 4), handle("socket:[12]", 5))
    assert judge(survey(*inside, tcp=table)) == ()
    (found,) = judge(survey(handle("socket:[13]"), tcp=table))
    assert "a TCP connection to 10.0.2.2:443, outside the job" in found
    (found,) = judge(survey(handle("socket:[14]"), tcp=table))
    assert "just being opened or closed; try again" in found


def test_mapped_ipv4_is_ipv4():
    mapped = "0000000000000000FFFF00000100007F:1F90"
    assert canonical(mapped) == "0100007F:1F90"
    assert render_address(mapped) == "[::ffff:127.0.0.1]:8080"
    table = (
        TcpSocket(1, mapped, mapped[:-4] + "9C40"),
        TcpSocket(2, "0100007F:9C40", "0100007F:1F90"),
    )
    assert judge(survey(handle("socket:[1]"), handle("socket:[2]", 4), tcp=table)) == ()


def test_pipe_to_outside():
    item = handle("pipe:[5]", is_fifo=True)
    (found,) = judge(survey(item, outside_pipes=frozenset({"pipe:[5]"})))
    assert "a process outside the job has the other end of pipe:[5]" in found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tracer": 9}, "a debugger or tracer"),
        ({"uids": (7, 0, 0, 0)}, "runs as uid 0"),
    ],
)
def test_process_that_blocks(changes, words):
    (found,) = judge(survey(status=dataclasses.replace(STATUS, **changes)))
    assert words in found


def test_root_may_run_anybody():
    status = dataclasses.replace(STATUS, uids=(0, 7, 0, 0))
    assert judge(survey(status=status, owner_uid=0)) == ()


def test_namespace_mapping_and_tree():
    subject = Subject(
        STATUS, (), (Mapping("rw-s", 1, "/SYSV00000000 (deleted)"),), {"user": "user:[2]"}
    )
    found = judge(
        Survey(
            7, (subject,), NAMESPACES, outside_tree=frozenset({51}), outside_cgroup=frozenset({99})
        )
    )
    assert len(found) == 4
    text = "\n".join(found)
    for words in (
        "user namespace of its own",
        "System V",
        "no longer a descendant",
        "process 99 of",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("path", "blocks"),
    [
        ("/dev/dri/card0", True),
        ("/dev/shm/x", False),
        ("/dev/zero (deleted)", False),
        ("/lib/x.so", False),
        ("anon_inode:[io_uring]", True),
    ],
)
def test_mappings(path, blocks):
    subject = Subject(STATUS, (), (Mapping("rw-s", 1, path),), NAMESPACES)
    assert bool(judge(Survey(7, (subject,), NAMESPACES))) is blocks
