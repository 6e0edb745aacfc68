"""A job description as a JSDL 1.0 document.  Pure.

The other direction is `jobs.jsdl`.  The elements and their order are those of
JSDL 1.0 (GFD.136 §5, §8.1: POSIXApplication); what JSDL does not know sits in
a ``JobCheckpointing`` element of our own namespace, at the one place where the
schema lets a foreign element stand: last in ``JobDescription``.

Text is carried as it is, blanks and line ends included.  XML 1.0 has no way
to write most control characters, so a text that holds one is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..errors import InvalidInput

JSDL = "http://schemas.ggf.org/jsdl/2005/11/jsdl"
POSIX = "http://schemas.ggf.org/jsdl/2005/11/jsdl-posix"
CHECKPOINTING = "urn:ckptfs:jsdl:1"

# rlimit (lower case, without RLIM) → element.  The dictionary's order is the schema's.
LIMIT_ELEMENTS: Mapping[str, str] = {
    "fsize": "FileSizeLimit",
    "core": "CoreDumpLimit",
    "data": "DataSegmentLimit",
    "memlock": "LockedMemoryLimit",
    "rss": "MemoryLimit",
    "nofile": "OpenDescriptorsLimit",
    "stack": "StackSizeLimit",
    "cpu": "CPUTimeLimit",
    "nproc": "ProcessCountLimit",
    "as": "VirtualMemoryLimit",
}

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# \r, and \n and \t in attributes, would be read back as blanks if they stood there bare.
_ESCAPES = {ord(c): f"&#{ord(c)};" for c in "\r"} | {
    ord("&"): "&amp;",
    ord("<"): "&lt;",
    ord(">"): "&gt;",
    ord('"'): "&quot;",
}
_ATTRIBUTE_ESCAPES = _ESCAPES | {ord(c): f"&#{ord(c)};" for c in "\n\t"}


@dataclass(frozen=True, slots=True)
class JobDescription:
    """What a user says about a job.  Empty texts and zeros leave the element out.

    *argv* is the program and its arguments; *limits* maps rlimit names
    (``nofile``) to values; *wall_time_s* in seconds; *rollback* is ``copy`` or
    ``truncate``; *user* a login name or a number.
    """

    name: str
    argv: tuple[str, ...]
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    user: str = ""
    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    wall_time_s: int = 0
    rollback: str = ""
    keep_last: int = 0
    keep_within_s: int = 0
    keep_every_s: int = 0
    space_bytes: int = 0  # that the user provides for versions
    copies: int = 0  # failure domains that each version is kept in; 0: not said
    min_copies: int = 0  # without which a checkpoint is not complete; 0: not said


def can_be_carried(text: str) -> bool:
    """Return whether XML can hold *text*: no control character, no byte that is not UTF-8."""
    return _NOT_XML.search(text) is None


def render_jsdl(job: JobDescription) -> str:
    """Return *job* as a JSDL document.

    Raises InvalidInput (EINVAL) when a text holds what XML cannot carry, when
    a limit has no JSDL element, or when there is no program.
    """
    if not job.argv or not job.argv[0]:
        raise InvalidInput("there is no program to run")
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<jsdl:JobDefinition xmlns:jsdl="{JSDL}" xmlns:posix="{POSIX}">',
        "  <jsdl:JobDescription>",
        "    <jsdl:JobIdentification>",
        f"      <jsdl:JobName>{_escape('the name', job.name)}</jsdl:JobName>",
        "    </jsdl:JobIdentification>",
        "    <jsdl:Application>",
        "      <posix:POSIXApplication>",
        *(f"        {line}" for line in _posix_elements(job)),
        "      </posix:POSIXApplication>",
        "    </jsdl:Application>",
        *(f"    {line}" for line in _checkpointing(job)),
        "  </jsdl:JobDescription>",
        "</jsdl:JobDefinition>",
    ]
    return "\n".join(lines) + "\n"


def _posix_elements(job: JobDescription) -> Iterator[str]:
    """Yield the children of POSIXApplication in the schema's order."""
    yield _posix("Executable", job.argv[0])
    for argument in job.argv[1:]:
        yield _posix("Argument", argument)
    for element, text in (
        ("Input", job.stdin),
        ("Output", job.stdout),
        ("Error", job.stderr),
        ("WorkingDirectory", job.cwd),
    ):
        if text:
            yield _posix(element, text)
    for name, value in job.env.items():
        label = _escape("the name of a variable", name, _ATTRIBUTE_ESCAPES)
        text = _escape(f"variable {name}", value)
        yield f'<posix:Environment name="{label}">{text}</posix:Environment>'
    yield from _limits(job)
    if job.user:
        yield _posix("UserName", job.user)


def _limits(job: JobDescription) -> Iterator[str]:
    """Yield the limit elements in the schema's order."""
    unknown = sorted(set(job.limits) - set(LIMIT_ELEMENTS))
    if unknown:
        known = ", ".join(LIMIT_ELEMENTS)
        raise InvalidInput(f"no limit is called {unknown[0]!r}; there are {known}")
    if job.wall_time_s:
        yield _posix("WallTimeLimit", str(job.wall_time_s))
    for name, element in LIMIT_ELEMENTS.items():
        if name in job.limits:
            yield _posix(element, str(job.limits[name]))


def _checkpointing(job: JobDescription) -> Iterator[str]:
    """Yield the lines of our own block; none when the job asks for nothing special."""
    lines: list[str] = []
    files = ""
    if job.space_bytes:
        files = f"<ckpt:UserSpace><ckpt:Bytes>{job.space_bytes}</ckpt:Bytes></ckpt:UserSpace>"
    levels = {"ReplicationLevel": job.copies, "MinimumLevel": job.min_copies}
    files += "".join(f"<ckpt:{name}>{n}</ckpt:{name}>" for name, n in levels.items() if n)
    if files:
        lines.append(f"<ckpt:FileManagement>{files}</ckpt:FileManagement>")
    if job.rollback:
        lines.append(f"<ckpt:Rollback>{_escape('rollback', job.rollback)}</ckpt:Rollback>")
    rules = {"Last": job.keep_last, "Within": job.keep_within_s, "Every": job.keep_every_s}
    keep = "".join(f"<ckpt:Keep{rule}>{n}</ckpt:Keep{rule}>" for rule, n in rules.items() if n)
    if keep:
        lines.append(f"<ckpt:Retention>{keep}</ckpt:Retention>")
    if not lines:
        return
    yield f'<ckpt:JobCheckpointing xmlns:ckpt="{CHECKPOINTING}">'
    yield from (f"  {line}" for line in lines)
    yield "</ckpt:JobCheckpointing>"


def _posix(element: str, text: str) -> str:
    """Return one child of POSIXApplication."""
    return f"<posix:{element}>{_escape(element, text)}</posix:{element}>"


def _escape(what: str, text: str, escapes: Mapping[int, str] = _ESCAPES) -> str:
    """Return *text* for use in the document; *what* names it in a refusal."""
    bad = _NOT_XML.search(text)
    if bad:
        raise InvalidInput(f"{what} holds {bad.group()!a}, which a job description cannot carry")
    return text.translate(escapes)
