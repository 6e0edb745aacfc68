"""The JobCheckpointing block of a JSDL document → `model.Policy`.  Pure.

As XtreemOS printed it (un-namespaced) and in our namespace, which adds Rollback,
Retention and FileManagement/UserSpace.  Elements that are known but not served
yet are refused by name; all others are refused as unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from lxml import etree

from ..errors import InvalidInput, OutOfRange, Unsupported
from ..model import Initiator, Policy, Protocol
from .sizes import SIZE_MAX
from .xml import Element, find_control, printable

KEEP_LAST_MAX: Final = 1_000_000
KEEP_S_MAX: Final = 10**9  # seconds
REPLICATION_MAX: Final = 16
DEPTH_MAX: Final = 3  # levels of elements
SPACE_BYTES: Final = "FileManagement/UserSpace/Bytes"
Reader = Callable[[str, str], object]
PERIODS: Final = {  # unit → seconds
    "": 1,
    "s": 1,
    "sec": 1,
    "second": 1,
    "min": 60,
    "minute": 60,
    "h": 3600,
    "hour": 3600,
    "d": 86400,
    "day": 86400,
    "week": 604800,
}
INITIATORS: Final = {"User": Initiator.USER, "System": Initiator.SYSTEM}
PROTOCOLS: Final = {
    "CoordinatedCheckpointing": Protocol.COORDINATED,
    "IndependentCheckpointing": Protocol.INDEPENDENT,
}
CAPABILITIES: Final = {  # element of JobCheckpointerMatching → capability word
    "MultiThread": "multithread",
    "MultiProcess": "multiprocess",
    "Sockets": "sockets",
    "TcpEstablished": "tcp_established",
    "FileLocks": "file_locks",
    "UnlinkedFiles": "unlinked_files",
    "LeaveRunning": "leave_running",
    "PidNamespace": "pid_namespace",
    "Incremental": "incremental",
}
_YES_NO: Final = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def parse_block(block: Element) -> tuple[Policy, dict[str, str]]:
    """Return the policy, and every element of the block as path → text.

    Raises InvalidInput (EINVAL), OutOfRange (ERANGE), Unsupported (EOPNOTSUPP).
    """
    kept = _flatten(block)
    fields: dict[str, Any] = {}
    requires: list[str] = []
    for path, text in kept.items():
        if path.startswith("JobCheckpointerMatching/"):
            requires.extend(_requirement(path, text))
            continue
        row = _READERS.get(path)
        if row is None:
            raise Unsupported(f"the element JobCheckpointing/{path} is not served")
        field, read = row
        value = read(path, text)
        if fields.setdefault(field, value) != value:
            raise InvalidInput(f"JobCheckpointing/{path} contradicts what is said elsewhere")
    if "space_path" in fields and SPACE_BYTES not in kept:
        raise InvalidInput("FileManagement/UserSpace says how large it is: Bytes is missing")
    if fields.get("min_level", 1) > fields.get("replication", 1):
        raise OutOfRange("FileManagement/MinimumLevel is above ReplicationLevel")
    return Policy(**fields, requires=tuple(requires)), kept


def _flatten(block: Element) -> dict[str, str]:
    """Return path → text of every leaf; each may be given once."""
    kept: dict[str, str] = {}
    for names, leaf in _leaves(block, ()):
        path = "/".join(names)
        if path in kept:
            raise InvalidInput(f"JobCheckpointing/{path} is given twice")
        kept[path] = (leaf.text or "").strip()
    return kept


def _leaves(node: Element, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Element]]:
    namespace = etree.QName(node).namespace
    for child in node:
        names = (*above, etree.QName(child).localname)
        if etree.QName(child).namespace != namespace or (len(child) and len(names) == DEPTH_MAX):
            raise Unsupported(f"the element JobCheckpointing/{'/'.join(names)} is not served")
        if len(child):
            yield from _leaves(child, names)
        else:
            yield names, child


def _requirement(path: str, text: str) -> list[str]:
    name = path.partition("/")[2]
    wanted = _YES_NO.get(text.lower())
    if wanted is None:
        raise InvalidInput(f"{name} is Yes or No, not {text!a}")
    if wanted and name not in CAPABILITIES:
        raise Unsupported(f"no checkpointer here promises {name}")
    return [CAPABILITIES[name]] if wanted else []


def _choice(choices: Mapping[str, object]) -> Reader:
    def read(path: str, text: str) -> object:
        if text not in choices:
            raise InvalidInput(f"{path} is one of {', '.join(sorted(choices))}, not {text!a}")
        return choices[text]

    return read


def _protocol(path: str, text: str) -> object:
    protocol = _choice(PROTOCOLS)(path, text)
    if protocol is Protocol.INDEPENDENT:
        raise Unsupported(f"{path} {text} is not served yet: use CoordinatedCheckpointing")
    return protocol


def _number(low: int, high: int) -> Reader:
    def read(path: str, text: str) -> object:
        if not re.fullmatch(r"[0-9]{1,19}", text):
            raise InvalidInput(f"{path} is a number, not {text[:40]!a}")
        if not low <= int(text) <= high:
            raise OutOfRange(f"{path} is {low} to {high}, not {text}")
        return int(text)

    return read


def _period(path: str, text: str) -> object:
    """``86400``, ``1hour``, ``7 days``: seconds."""
    match = re.fullmatch(r"([0-9]{1,10}) ?([a-z]*?)s?", text)
    if not match or match[2] not in PERIODS:
        words = ", ".join(word for word in PERIODS if len(word) > 1)
        raise InvalidInput(f"{path} is a number and {words}, not {text[:40]!a}")
    return _number(0, KEEP_S_MAX)(path, str(int(match[1]) * PERIODS[match[2]]))


def _space_path(path: str, text: str) -> object:
    if not text.startswith("/") or find_control(text):
        raise InvalidInput(f"{path} is an absolute path, not {printable(text)!a}")
    return text


def _no_text(path: str, text: str) -> object:
    raise InvalidInput(f"{path} holds Bytes, and if you like Path, not {text[:40]!a}")


def _not_yet(path: str, text: str) -> object:
    raise Unsupported(f"JobCheckpointing/{path} ({text[:40]!a}) is not served yet: leave it out")


# path → field of the policy, and what reads the text
_READERS: Final[Mapping[str, tuple[str, Reader]]] = {
    "Initiator": ("initiator", _choice(INITIATORS)),
    "ProtocolManagement/Name": ("protocol", _protocol),
    "ProtocolManagement/Parameter": ("", _not_yet),  # the interval of periodic checkpoints
    "FileManagement/ReplicationLevel": ("replication", _number(1, REPLICATION_MAX)),
    "FileManagement/MinimumLevel": ("min_level", _number(1, REPLICATION_MAX)),
    "FileManagement/UserSpace": ("", _no_text),
    SPACE_BYTES: ("keep_user_bytes", _number(1, SIZE_MAX)),
    "FileManagement/UserSpace/Path": ("space_path", _space_path),
    "FileManagement/DiskSpace": ("", _not_yet),
    "Rollback": ("rollback", _choice({"copy": "copy", "truncate": "truncate"})),
    "Retention/KeepLast": ("keep_last", _number(0, KEEP_LAST_MAX)),
    "Retention/KeepWithin": ("keep_within_s", _period),
    "Retention/KeepEvery": ("keep_every_s", _period),
    "Retention/KeepUserBytes": ("keep_user_bytes", _number(0, SIZE_MAX)),
}
