"""From CRIU's log to one sentence: which line is the reason, and what it means to a user.  Pure.

The reason is the last ``Error (`` line that is not known to be harmless.
Messages as of CRIU 4.2 (seen, or read in its sources).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_ERROR = re.compile(r"Error \((?P<where>[^)]*)\): (?P<text>.*)")

HARMLESS = (
    re.compile(r"RLIMIT_NOFILE"),  # logged in every run without CAP_SYS_RESOURCE
    re.compile(r"(Dumping|Restoring) FAILED"),  # the last line of any failure, no reason
    re.compile(r"Can't make a freezer state|Unable to (?:set|restore) .*freezer", re.IGNORECASE),
    re.compile(
        r"cg: cgroupd: recv req"
    ),  # CRIU's own helper, when the restore it serves has failed
)

# Consequences: they follow a cause and are reported only when there is nothing better.
_FOLLOWING = re.compile(
    r"Dump files .*failed|Dump core .*failed|Collect fd failed|exited, status=|killed by signal|"
    r"Can't (?:recv|receive) |socket closed|failed with -1|Unable to (?:infect|cure)|ret -?\d+$|"
    r"Failed to (?:restore|open) .*task|Restoring fd|err: ",
    re.IGNORECASE,
)

SENTENCES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), sentence)
    for pattern, sentence in (
        (
            r"dump half of stream unix connection",
            "a process is connected through a unix socket to a process outside the job: "
            "close that connection, or start its other end inside the job",
        ),
        (
            r"External socket is used|ext(?:ernal)?[- ]unix",
            "a unix socket of the job has its other end outside the job: close it first",
        ),
        (
            r"io_uring|anon_inode:\[io_uring\]",
            "a process uses io_uring, which cannot be saved: start it without "
            "(Node.js: -e UV_USE_IO_URING=0)",
        ),
        (r"userfaultfd", "a process uses userfaultfd, which cannot be saved"),
        (
            r"[Cc]onnected TCP socket|tcp-established",
            "a process has an established TCP connection to outside the job: close it first",
        ),
        (
            r"Can't dump ghost file (?P<a>.*) of (?P<b>\d+) size",
            "the unlinked file {a} holds {b} bytes, more than may be saved with the image",
        ),
        (
            r"Can't create link remap for (?P<a>\S+)",
            "the open file {a} was removed while another hard link to it remains: close it first",
        ),
        (
            r"(?:Can't|Couldn't) open (?:file )?(?P<a>/\S+).*(?:No such file|ENOENT)|"
            r"Can't open file (?P<b>\S+) on restore",
            "the file {a}{b}, which the job had open, cannot be opened any more",
        ),
        (
            r"File (?P<a>\S+) has bad size (?P<b>\d+) \(expect (?P<c>\d+)\)",
            "the file {a} is {b} bytes long, {c} when the checkpoint was taken",
        ),
        (
            r"File (?P<a>\S+) has bad mode",
            "the permissions of the file {a} were changed since the checkpoint was taken",
        ),
        (
            r"File (?P<a>\S+) has bad build-ID|bad build-ID.*?(?P<b>/\S+)",
            "the program or library {a}{b} was changed since the checkpoint was taken",
        ),
        (
            r"Can't fork for (?P<a>\d+): File exists|Pid (?P<b>\d+) do not match expected",
            "the process number {a}{b} is taken",
        ),
        (
            r"Can't lookup mount",
            "a process has a file open on a file system that is not mounted in the job",
        ),
        (
            r"Can't connect inet socket back|Can't bind inet socket|Address already in use",
            "a network address that the job used is taken: another program, or the job's earlier "
            "incarnation, still holds it",
        ),
        (r"No space left on device|ENOSPC", "no space is left for the image"),
        (
            r"Transport endpoint is not connected|Software caused connection abort",
            "the file system for the image went away while it was written",
        ),
        (r"[Tt]imeout reached|Timeout", "the checkpointer did not come to an end in time"),
        (
            r"seccomp",
            "a process runs under a seccomp filter that cannot be saved on this kernel",
        ),
        (
            r"(?:nested|Nested) (?P<a>\w+) namespace",
            "a process runs in a {a} namespace of its own, which cannot be saved",
        ),
        (r"SysV ?IPC|IPC namespace", "a process has System V shared memory attached"),
        (
            r"\btty|/pts/|\bpty\b",
            "a process has a terminal open: run it with files or /dev/null instead",
        ),
    )
)


def error_lines(log: str) -> tuple[str, ...]:
    """Return the texts of all ``Error`` lines that are not harmless, in order."""
    found = (match for line in log.splitlines() if (match := _ERROR.search(line)))
    return tuple(
        f"{match['text'].strip()}"
        for match in found
        if not any(pattern.search(match[0]) for pattern in HARMLESS)
    )


def _cause(errors: Sequence[str]) -> str:
    causes = [line for line in errors if not _FOLLOWING.search(line)]
    return (causes or list(errors))[-1]


def translate(line: str) -> str:
    """Return the sentence for one error text, or the text itself when it is not in the table."""
    for pattern, sentence in SENTENCES:
        match = pattern.search(line)
        if match:
            groups = {key: value or "" for key, value in match.groupdict().items()}
            return sentence.format_map(groups)
    return line


def reason(log: str, output: str, status: int) -> str:
    """Return why a CRIU command failed, one sentence.

    *log* is its log file, *output* what it printed, *status* its exit status
    (negative: killed by that signal).
    """
    errors = error_lines(log) or error_lines(output)
    if errors:
        # The cause is looked for among the last lines: earlier ones may belong to a try that CRIU
        # made and got over.
        tail = errors[-6:]
        known = [text for line in reversed(tail) if (text := translate(line)) != line]
        return known[0] if known else _cause(tail)
    if status < 0:
        return f"the checkpointer was killed by signal {-status}"
    last = [line for line in output.splitlines() if line.strip()]
    return (
        last[-1].strip() if last else f"the checkpointer ended with status {status} and no reason"
    )
