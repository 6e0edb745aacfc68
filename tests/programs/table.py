"""The programs in one table: how each is started and what it needs.  Pure.

All programs take the number of steps and the seconds between two; the source is
copied into the directory it runs in, which belongs to the job's owner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PYTHON = "/usr/bin/python3"


@dataclass(frozen=True, slots=True)
class Program:
    """One program: *argv* holds ``{steps}``, ``{delay}`` and perhaps ``{port}``, a free port."""

    name: str  # also of its oracle
    source: str
    argv: tuple[str, ...]
    files: tuple[str, ...] = ()  # of its own, beside stdout
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    rollback: str = "truncate"
    build: tuple[str, ...] = ()  # run once in the directory
    steps: int = 160


def _python(
    name: str, source: str = "", *, files: tuple[str, ...] = (), rollback: str = "truncate"
):
    source = source or f"{name}.py"
    argv = (PYTHON, source, "{steps}", "{delay}")
    return Program(name, source, argv, files=files, rollback=rollback)


PROGRAMS = (
    _python("counter"),
    _python("appender", files=("appended.log", "written.log")),
    _python("forktree"),
    _python("threads"),
    Program(
        "cthreads",
        "threads.c",
        ("./cthreads", "{steps}", "{delay}"),
        build=("cc", "-O1", "-pthread", "threads.c", "-o", "cthreads"),
    ),
    _python("unixsockets"),
    Program("tcpserver", "tcpserver.py", (PYTHON, "tcpserver.py", "{steps}", "{port}", "{delay}")),
    _python("unlinked"),
    _python("locks"),
    _python("timers"),
    _python("memory"),
    _python("solver"),
    _python("database", files=("ledger.db",), rollback="copy"),
    _python("redis", "redisloop.py"),
    Program(
        "pipeline",
        "pipeline.sh",
        ("/bin/sh", "pipeline.sh", "{steps}", "{delay}"),
        ("produced.log",),
    ),
    Program(
        "node",
        "eventloop.js",
        ("/usr/bin/node", "eventloop.js", "{steps}", "{delay}"),
        ("node.log",),
    ),
    Program(
        "java",
        "Workers.java",
        # no shared statistics file: /tmp/hsperfdata_<user>/<pid> is the same name in every unit
        ("/usr/bin/java", "-XX:-UsePerfData", "Workers.java", "{steps}", "{delay}"),
    ),
)
