"""JSDL 1.0 with the JobCheckpointing block → what is to be run.  Pure; the text is hostile.

Every element is either understood, kept without meaning to us (descriptions,
annotations), or refused by its name: nothing that a user asks for is dropped
silently.  No DTD, no entities, no network, bounded size (`jobs.xml`).
Source: GFD.136 §5, §6, §8.1; the block as XtreemOS printed it, with and without a
namespace.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final, NoReturn

from lxml import etree

from ..errors import InvalidInput, Unsupported
from ..ids import parse_job_name
from ..model import Policy
from .checkpointing_block import parse_block
from .jsdl_render import CHECKPOINTING, JSDL, LIMIT_ELEMENTS, POSIX, JobDescription
from .resources import Machine, check_resources
from .xml import Element, find_control, parse_xml, printable

ARGUMENTS_MAX: Final = 1 << 17  # bytes of one argument or variable: MAX_ARG_STRLEN of Linux
LIMIT_MAX: Final = (1 << 63) - 1
_BLANK: Final = " \t\r\n"
_NAMESPACES: Final[Mapping[str, str]] = {JSDL: "jsdl", POSIX: "posix", CHECKPOINTING: "ckpt"}

KEPT: Final = frozenset(
    {"Description", "JobAnnotation", "JobProject", "ApplicationName", "ApplicationVersion"}
)
_LIMITS: Final = {element: name for name, element in LIMIT_ELEMENTS.items()}
_PATHS: Final = {"Input": "stdin", "Output": "stdout", "Error": "stderr"}


@dataclass(frozen=True, slots=True)
class Submission:
    """A document that was understood; paths are absolute or "" where the user left them out."""

    description: JobDescription
    group: str
    policy: Policy
    kept: Mapping[str, str]  # every element of the JobCheckpointing block, path → text


@dataclass(slots=True)
class _Draft:
    """What has been read so far."""

    name: str = ""
    texts: dict[str, str] = field(default_factory=dict[str, str])
    arguments: list[str] = field(default_factory=list[str])
    env: dict[str, str] = field(default_factory=dict[str, str])
    limits: dict[str, int] = field(default_factory=dict[str, int])
    policy: Policy = field(default_factory=Policy)
    kept: dict[str, str] = field(default_factory=dict[str, str])
    blocks: int = 0


def parse_jsdl(document: bytes, machine: Machine) -> Submission:
    """Return what *document* asks for.

    Raises TooBig (EFBIG), InvalidInput (EINVAL) when it is no JSDL or holds
    bad text, Unsupported (EOPNOTSUPP) naming the element that is not served.
    """
    root = parse_xml(document)
    if root.tag != f"{{{JSDL}}}JobDefinition":
        raise InvalidInput(f"the document is no JSDL: it begins with {_label(root)}")
    draft = _Draft()
    descriptions = [child for child in root if child.tag == f"{{{JSDL}}}JobDescription"]
    if len(descriptions) != 1:
        raise InvalidInput("a JobDefinition holds exactly one JobDescription")
    for child in root:
        if child is not descriptions[0]:
            _foreign(child, draft)
    for child in descriptions[0]:
        _description(child, draft, machine)
    return _finish(draft)


def _description(node: Element, draft: _Draft, machine: Machine) -> None:
    match _local(node, JSDL):
        case "JobIdentification":
            for child in node:
                _identification(child, draft)
        case "Application":
            for child in node:
                _application(child, draft)
        case "Resources":
            check_resources(node, machine)
        case "DataStaging":
            raise Unsupported("DataStaging is not served yet: name files that exist here")
        case _:
            _foreign(node, draft)


def _identification(node: Element, draft: _Draft) -> None:
    if _local(node, JSDL) == "JobName":
        draft.name = _clean(node).strip(_BLANK)
    elif _local(node, JSDL) not in KEPT:
        _refuse(node)


def _application(node: Element, draft: _Draft) -> None:
    if _local(node, POSIX) == "POSIXApplication":
        for child in node:
            _posix(child, draft)
    elif _local(node, JSDL) not in KEPT:
        _refuse(node)


def _posix(node: Element, draft: _Draft) -> None:
    element = _local(node, POSIX)
    if element in _LIMITS or element == "WallTimeLimit":
        draft.limits[_LIMITS.get(element, "")] = _limit(element, _clean(node))
        return
    reader = _POSIX.get(element)
    if reader is None:
        _refuse(node)
    reader(node, draft)


def _argument(node: Element, draft: _Draft) -> None:
    draft.arguments.append(_sized("an Argument", _text(node)))


def _variable(node: Element, draft: _Draft) -> None:
    name = str(node.get("name", ""))
    if not name or "=" in name or find_control(name):
        raise InvalidInput(f"{printable(name)!r} cannot be the name of a variable")
    draft.env[name] = _sized(f"variable {name}", _text(node))


def _single(node: Element, draft: _Draft) -> None:
    element = _local(node, POSIX)
    if element in draft.texts:
        raise InvalidInput(f"{element} is given twice")
    text = _clean(node)
    if not text:
        raise InvalidInput(f"{element} is empty")
    draft.texts[element] = text


_POSIX: Final[Mapping[str, Callable[[Element, _Draft], None]]] = {
    "Argument": _argument,
    "Environment": _variable,
    "Executable": _single,
    "Input": _single,
    "Output": _single,
    "Error": _single,
    "WorkingDirectory": _single,
    "UserName": _single,
    "GroupName": _single,
}


def _foreign(node: Element, draft: _Draft) -> None:
    """Take the JobCheckpointing block; refuse every other element by its name."""
    if node.tag not in ("JobCheckpointing", f"{{{CHECKPOINTING}}}JobCheckpointing"):
        _refuse(node)
    draft.blocks += 1
    if draft.blocks > 1:
        raise InvalidInput("JobCheckpointing is given twice")
    draft.policy, draft.kept = parse_block(node)


def _finish(draft: _Draft) -> Submission:
    program = draft.texts.get("Executable", "")
    if not program:
        raise InvalidInput("the document names no Executable")
    cwd = draft.texts.get("WorkingDirectory", "")
    if cwd and not cwd.startswith("/"):
        raise InvalidInput(f"WorkingDirectory is an absolute path, not {cwd!r}")
    paths = {field: draft.texts.get(element, "") for element, field in _PATHS.items()}
    name = parse_job_name(draft.name or PurePosixPath(program).name)
    wall_time_s = draft.limits.pop("", 0)
    description = JobDescription(
        name=name,
        argv=(program, *draft.arguments),
        cwd=cwd,
        env=dict(draft.env),
        user=draft.texts.get("UserName", ""),
        limits=dict(draft.limits),
        wall_time_s=wall_time_s,
        rollback=draft.policy.rollback,
        keep_last=draft.policy.keep_last,
        keep_within_s=draft.policy.keep_within_s,
        keep_every_s=draft.policy.keep_every_s,
        space_bytes=draft.policy.keep_user_bytes,
        copies=_said(draft.policy.replication),
        min_copies=_said(draft.policy.min_level),
        **paths,
    )
    return Submission(description, draft.texts.get("GroupName", ""), draft.policy, draft.kept)


def _said(level: int) -> int:
    return level if level > 1 else 0  # 1 is what a job has that says nothing


def _limit(element: str, text: str) -> int:
    """JSDL limits are xsd:nonNegativeInteger; some writers print them as 1024.0."""
    match = re.fullmatch(r"([0-9]{1,19})(\.0+)?", text)
    if not match or int(match[1]) > LIMIT_MAX:
        raise InvalidInput(f"{element} is a number from 0 to {LIMIT_MAX}, not {text!r}")
    return int(match[1])


def _text(node: Element) -> str:
    """Return the text exactly as written; an element inside it is refused."""
    if len(node):
        raise InvalidInput(f"{_label(node)} holds text only, not {_label(node[0])}")
    return node.text or ""


def _clean(node: Element) -> str:
    """Return the text of a name or path: blanks at the ends dropped, no control characters."""
    text = _text(node).strip(_BLANK)
    bad = find_control(text)
    if bad:
        raise InvalidInput(f"{_label(node)} holds the control character {bad!a}")
    return text


def _sized(what: str, text: str) -> str:
    if len(text.encode()) >= ARGUMENTS_MAX:
        raise InvalidInput(f"{what} has more than {ARGUMENTS_MAX - 1} bytes")
    return text


def _local(node: Element, namespace: str) -> str:
    """Return the local name when *node* is of *namespace*, else ""."""
    prefix = f"{{{namespace}}}"
    tag = str(node.tag)
    return tag[len(prefix) :] if tag.startswith(prefix) else ""


def _label(node: Element) -> str:
    name = etree.QName(node)
    prefix = _NAMESPACES.get(name.namespace or "", "")
    if prefix:
        return name.localname
    return f"{name.localname} of {printable(name.namespace)}" if name.namespace else name.localname


def _refuse(node: Element) -> NoReturn:
    raise Unsupported(f"the element {_label(node)} is not served")
