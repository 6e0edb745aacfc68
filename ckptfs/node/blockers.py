"""What would make a checkpoint of a unit fail, found before anything is stopped.  `judge` is pure.

One sentence for each: process (as the job numbers it), descriptor, what it is,
what to do.  Limits are those of CRIU 4.2 run inside the unit's namespaces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from .sockets import TcpSocket, canonical, render_address
from .survey import Handle, Subject, Survey, survey_unit

_HARMLESS_DEVICES = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9)}  # null zero full random urandom
_PTMX = (5, 2)
_PTS_MAJORS = range(136, 144)
_TTY_MAJORS = {3, 4, 5}
_FUSE = (10, 229)
_ANONYMOUS_OK = {
    *("[eventfd]", "[eventpoll]", "[signalfd]", "[timerfd]", "inotify", "[inotify]"),
    *("[fanotify]", "[pidfd]", "bpf-map"),
}
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_URING_ADVICE = "run the program without it (Node.js: -e UV_USE_IO_URING=0)"
_NAMESPACES = ("user", "pid", "mnt", "net", "ipc", "uts")


def _who(subject: Subject) -> str:
    return f"process {subject.status.inner_pid} ({subject.status.name})"


def _where(subject: Subject, handle: Handle) -> str:
    return f"{_who(subject)}, descriptor {handle.descriptor.fd}"


# -- rules for a descriptor ----------------------------------------------------------------------


def _anonymous(survey: Survey, subject: Subject, handle: Handle) -> Iterator[str]:
    target = handle.descriptor.target
    if not target.startswith("anon_inode:"):
        return
    kind = target.removeprefix("anon_inode:")
    if kind == "[io_uring]":
        yield f"{_where(subject, handle)}: io_uring cannot be saved; {_URING_ADVICE}"
    elif kind == "[userfaultfd]":
        yield (
            f"{_where(subject, handle)}: userfaultfd cannot be saved; "
            "run the program without on-demand paging of its memory"
        )
    elif kind not in _ANONYMOUS_OK:
        yield f"{_where(subject, handle)}: {kind.strip('[]')} cannot be saved; close it first"


def _device(survey: Survey, subject: Subject, handle: Handle) -> Iterator[str]:
    device, target = handle.device, handle.descriptor.target
    if device is None or device in _HARMLESS_DEVICES:
        return
    where = _where(subject, handle)
    if device == _FUSE:
        yield f"{where}: /dev/fuse is open; a program that serves a file system cannot be saved"
    elif device == _PTMX or (device[0] in _PTS_MAJORS and _has_master(survey, device)):
        return  # a terminal of the unit's own
    elif device[0] in _TTY_MAJORS or device[0] in _PTS_MAJORS:
        yield f"{where}: the terminal {target} cannot be saved; use files or /dev/null instead"
    else:
        yield f"{where}: the device {target} cannot be saved; close it first"


def _has_master(survey: Survey, pts: tuple[int, int]) -> bool:
    index = (pts[0] - _PTS_MAJORS.start) * 256 + pts[1]
    masters = (
        handle.descriptor.info
        for subject in survey.subjects
        for handle in subject.handles
        if handle.device == _PTMX
    )
    return any(re.search(rf"^tty-index:\s*{index}$", info, re.MULTILINE) for info in masters)


def _pipe(survey: Survey, subject: Subject, handle: Handle) -> Iterator[str]:
    if handle.is_fifo and handle.descriptor.target in survey.outside_pipes:
        yield (
            f"{_where(subject, handle)}: a process outside the job has the other end of "
            f"{handle.descriptor.target}; use files instead"
        )


def _removed_name(survey: Survey, subject: Subject, handle: Handle) -> Iterator[str]:
    target = handle.descriptor.target
    if handle.is_regular and handle.links and target.endswith(" (deleted)"):
        yield (
            f"{_where(subject, handle)}: {target.removesuffix(' (deleted)')} was removed while "
            "another hard link to it remains; close it, or remove the other link"
        )


def _secret_memory(survey: Survey, subject: Subject, handle: Handle) -> Iterator[str]:
    if handle.descriptor.target.startswith("/secretmem"):
        yield f"{_where(subject, handle)}: secret memory cannot be read, hence not saved"


def _unix_socket(survey: Survey, subject: Subject, handle: Handle) -> Iterator[str]:
    match = _SOCKET.match(handle.descriptor.target)
    found = survey.unix.get(int(match[1])) if match else None
    if found is None or not found.peer or found.peer in _inodes(survey):
        return
    other = survey.unix.get(found.peer)
    name = (other.name if other else "") or found.name
    yield (
        f"{_where(subject, handle)}: a unix socket{f' ({name})' if name else ''} is connected to "
        "a process outside the job; close it, or start that process inside the job"
    )


def _tcp_socket(survey: Survey, subject: Subject, handle: Handle) -> Iterator[str]:
    match = _SOCKET.match(handle.descriptor.target)
    if match is None:
        return
    for ours in survey.tcp:
        if ours.inode != int(match[1]):
            continue
        ends = [item for item in survey.tcp if _are_ends(ours, item)]
        if any(item.inode in _inodes(survey) for item in ends):
            continue
        remote = render_address(ours.remote)
        if any(item.inode == 0 for item in ends):
            yield (
                f"{_where(subject, handle)}: the connection to {remote} is just being opened or "
                "closed; try again"
            )
        else:
            yield (
                f"{_where(subject, handle)}: a TCP connection to {remote}, outside the job, cannot "
                "be kept (that needs the capability tcp_established); close it first"
            )


def _are_ends(ours: TcpSocket, other: TcpSocket) -> bool:
    crossed = (canonical(ours.remote), canonical(ours.local))
    return (canonical(other.local), canonical(other.remote)) == crossed


def _inodes(survey: Survey) -> set[int]:
    """Return the inodes of all sockets of the unit."""
    return {
        int(match[1])
        for subject in survey.subjects
        for handle in subject.handles
        if (match := _SOCKET.match(handle.descriptor.target))
    }


# -- rules for a process -------------------------------------------------------------------------


def _traced(survey: Survey, subject: Subject) -> Iterator[str]:
    if subject.status.tracer:
        yield f"{_who(subject)}: a debugger or tracer is attached; detach it first"


def _foreign_uid(survey: Survey, subject: Subject) -> Iterator[str]:
    others = set(subject.status.uids) - {survey.owner_uid}
    if survey.owner_uid and others:
        yield f"{_who(subject)} runs as uid {min(others)}, not as the job's owner; end it first"


def _namespace(survey: Survey, subject: Subject) -> Iterator[str]:
    for kind in _NAMESPACES:
        own, root = subject.namespaces.get(kind), survey.root_namespaces.get(kind)
        if own and root and own != root:
            yield (
                f"{_who(subject)} is in a {kind} namespace of its own, which cannot be saved; "
                "run it without a sandbox or container"
            )
            return  # one sentence: the others follow from the first


def _mappings(survey: Survey, subject: Subject) -> Iterator[str]:
    for mapping in subject.mappings:
        if mapping.path.startswith("/SYSV"):
            yield f"{_who(subject)} has System V shared memory attached, which cannot be saved"
            return
        if mapping.path.startswith("anon_inode:[io_uring]"):
            yield f"{_who(subject)}: io_uring cannot be saved; {_URING_ADVICE}"
            return
        if re.match(r"/dev/(?!shm/|zero|hugepages/)", mapping.path):
            yield f"{_who(subject)} has the device {mapping.path} mapped, which cannot be saved"
            return


def _tree(survey: Survey, subject: Subject) -> Iterator[str]:
    if subject.status.pid in survey.outside_tree:
        yield (
            f"{_who(subject)} is no longer a descendant of the job's first process, so the "
            "checkpointer would not take it; start it without letting its parent end"
        )


HANDLE_RULES: tuple[Callable[[Survey, Subject, Handle], Iterator[str]], ...] = (
    _anonymous,
    _device,
    _pipe,
    _removed_name,
    _secret_memory,
    _unix_socket,
    _tcp_socket,
)
PROCESS_RULES: tuple[Callable[[Survey, Subject], Iterator[str]], ...] = (
    _traced,
    _foreign_uid,
    _namespace,
    _mappings,
    _tree,
)


def judge(survey: Survey) -> tuple[str, ...]:
    """Return one sentence for each blocker, by process and descriptor, none twice.  Pure."""
    found: list[str] = []
    for subject in survey.subjects:
        for rule in PROCESS_RULES:
            found += rule(survey, subject)
        for handle in subject.handles:
            for handle_rule in HANDLE_RULES:
                found += handle_rule(survey, subject, handle)
    found += [
        f"process {pid} of the host descends from the job but has left its cgroup; end it first"
        for pid in sorted(survey.outside_cgroup)
    ]
    return tuple(dict.fromkeys(found))


def find_blockers(cgroup: Path, owner_uid: int) -> tuple[str, ...]:
    """Return what blocks a checkpoint of the unit in *cgroup* right now.  Blocks: use a thread."""
    return judge(survey_unit(cgroup, owner_uid))
