"""Whether this machine is what a JSDL ``Resources`` element asks for.  Pure.

Source: GFD.136 §6.4.  What cannot be compared is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from lxml import etree

from ..errors import InvalidInput, Unsupported
from .jsdl_render import JSDL
from .xml import Element

# JSDL's word → what uname prints
ARCHITECTURES: Final[Mapping[str, frozenset[str]]] = {
    "x86_64": frozenset({"x86_64", "amd64"}),
    "x86_32": frozenset({"i386", "i486", "i586", "i686"}),
    "arm": frozenset({"aarch64", "armv7l", "armv6l"}),
    "powerpc": frozenset({"ppc", "ppc64", "ppc64le"}),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """What a job may ask of the one node there is."""

    names: frozenset[str]
    architecture: str  # as uname prints it
    cpu_count: int
    memory_bytes: int


def check_resources(node: Element, machine: Machine) -> None:
    """Raise Unsupported (EOPNOTSUPP) naming the first demand this machine does not meet."""
    for child in node:
        name = etree.QName(child)
        check = _CHECKS.get(name.localname) if name.namespace == JSDL else None
        if check is None:
            raise Unsupported(f"the element Resources/{name.localname} is not served")
        texts = [
            text.strip() for text in child.itertext() if isinstance(text, str) and text.strip()
        ]
        if len(texts) > 1000:
            raise InvalidInput(f"Resources/{name.localname} is too long")
        sentence = check(child, texts, machine)
        if sentence:
            raise Unsupported(f"Resources/{name.localname}: {sentence}")


def _hosts(_node: object, texts: list[str], machine: Machine) -> str:
    if machine.names & set(texts):
        return ""
    return f"this machine is {min(machine.names)}, not {', '.join(texts)[:200]!a}"


def _exclusive(_node: object, texts: list[str], _machine: Machine) -> str:
    return "" if texts in ([], ["false"], ["0"]) else "exclusive execution is not served"


def _system(_node: object, texts: list[str], _machine: Machine) -> str:
    return "" if texts[:1] in ([], ["LINUX"]) else f"this machine runs LINUX, not {texts[0][:40]!a}"


def _architecture(_node: object, texts: list[str], machine: Machine) -> str:
    wanted = texts[0] if texts else ""
    if machine.architecture in ARCHITECTURES.get(wanted, frozenset()):
        return ""
    return f"this machine is {machine.architecture}, not {wanted[:40]!a}"


def _range(have: Callable[[Machine], int], unit: str) -> Callable[..., str]:
    def check(node: Element, _texts: list[str], machine: Machine) -> str:
        least = min((low for low in _lower_bounds(node)), default=0.0)
        there = have(machine)
        return "" if least <= there else f"{least:g}{unit} are asked for, {there}{unit} are here"

    return check


def _lower_bounds(node: Element) -> list[float]:
    """Return what each alternative of a range value asks for at least (GFD.136 §5.2.5)."""
    bounds: list[float] = []
    for leaf in node.iter():
        if leaf is node or len(leaf):
            continue
        if etree.QName(leaf).localname in ("Exact", "LowerBound", "LowerBoundedRange"):
            bounds.append(_number(leaf.text or ""))
    return bounds


def _number(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,9})?(e[0-9]{1,2})?", text.strip()):
        raise InvalidInput(f"a resource is a number, not {text[:40]!a}")
    return float(text)


_CPUS: Final = _range(lambda machine: machine.cpu_count, " CPUs")
_MEMORY: Final = _range(lambda machine: machine.memory_bytes, " bytes of memory")
_CHECKS: Final[Mapping[str, Callable[..., str]]] = {
    "CandidateHosts": _hosts,
    "ExclusiveExecution": _exclusive,
    "OperatingSystem": _system,
    "CPUArchitecture": _architecture,
    "IndividualCPUCount": _CPUS,
    "TotalCPUCount": _CPUS,
    "IndividualPhysicalMemory": _MEMORY,
    "TotalPhysicalMemory": _MEMORY,
    "TotalResourceCount": _range(lambda _machine: 1, " nodes"),
}
