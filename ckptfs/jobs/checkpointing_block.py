"""The JobCheckpointing block of a JSDL document → `model.Policy`.  Pure.

As printed in S4 (un-namespaced) and in our namespace, which adds Rollback and
Retention.  Elements that are known but not served yet are refused by name; all
others are refused as unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from lxml import etree

from ..errors import InvalidInput, OutOfRange, Unsupported
from ..model import Initiator, Policy, Protocol
from .xml import Element

KEEP_LAST_MAX: Final = 1_000_000
REPLICATION_MAX: Final = 16
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
    initiator, protocol, rollback = Initiator.USER, Protocol.COORDINATED, "truncate"
    keep_last, replication, requires = 0, 1, list[str]()
    for path, text in kept.items():
        if path.startswith("JobCheckpointerMatching/"):
            requires.extend(_requirement(path, text))
            continue
        reader = _READERS.get(path)
        if reader is None:
            raise Unsupported(f"the element JobCheckpointing/{path} is not served")
        value = reader(path, text)
        match path:
            case "Initiator":
                initiator = INITIATORS[text]
            case "ProtocolManagement/Name":
                protocol = PROTOCOLS[text]
            case "Rollback":
                rollback = text
            case "Retention/KeepLast":
                keep_last = value
            case "FileManagement/ReplicationLevel":
                replication = value
            case _:
                pass
    policy = Policy(initiator, protocol, keep_last, rollback, tuple(requires), replication)
    return policy, kept


def _flatten(block: Element) -> dict[str, str]:
    """Return path → text of every leaf; each may be given once, two levels deep."""
    kept: dict[str, str] = {}
    namespace = etree.QName(block).namespace
    for child in block:
        for leaf in list(child) or [child]:
            names = (
                [etree.QName(leaf)] if leaf is child else [etree.QName(child), etree.QName(leaf)]
            )
            path = "/".join(name.localname for name in names)
            if any(name.namespace != namespace for name in names) or len(leaf):
                raise Unsupported(f"the element JobCheckpointing/{path} is not served")
            if path in kept:
                raise InvalidInput(f"JobCheckpointing/{path} is given twice")
            kept[path] = (leaf.text or "").strip()
    return kept


def _requirement(path: str, text: str) -> list[str]:
    name = path.partition("/")[2]
    wanted = _YES_NO.get(text.lower())
    if wanted is None:
        raise InvalidInput(f"{name} is Yes or No, not {text!a}")
    if wanted and name not in CAPABILITIES:
        raise Unsupported(f"no checkpointer here promises {name}")
    return [CAPABILITIES[name]] if wanted else []


def _choice(choices: Mapping[str, object] | frozenset[str]) -> Callable[[str, str], int]:
    def read(path: str, text: str) -> int:
        if text not in choices:
            raise InvalidInput(f"{path} is one of {', '.join(sorted(choices))}, not {text!a}")
        return 0

    return read


def _protocol(path: str, text: str) -> int:
    _choice(PROTOCOLS)(path, text)
    if PROTOCOLS[text] is Protocol.INDEPENDENT:
        raise Unsupported(f"{path} {text} is not served yet: use CoordinatedCheckpointing")
    return 0


def _number(low: int, high: int) -> Callable[[str, str], int]:
    def read(path: str, text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text):
            raise InvalidInput(f"{path} is a number, not {text!a}")
        if not low <= int(text) <= high:
            raise OutOfRange(f"{path} is {low} to {high}, not {text}")
        return int(text)

    return read


def _replication(path: str, text: str) -> int:
    return _number(1, REPLICATION_MAX)(path, text)  # the service knows how many can be


def _not_yet(path: str, text: str) -> int:
    raise Unsupported(f"JobCheckpointing/{path} ({text[:40]!a}) is not served yet: leave it out")


_READERS: Final[Mapping[str, Callable[[str, str], int]]] = {
    "Initiator": _choice(INITIATORS),
    "ProtocolManagement/Name": _protocol,
    "ProtocolManagement/Parameter": _not_yet,  # the interval of periodic checkpoints
    "FileManagement/ReplicationLevel": _replication,
    "FileManagement/UserSpace": _not_yet,
    "FileManagement/DiskSpace": _not_yet,
    "Rollback": _choice(frozenset({"copy", "truncate"})),
    "Retention/KeepLast": _number(0, KEEP_LAST_MAX),
    "Retention/KeepWithin": _not_yet,
    "Retention/KeepUserBytes": _not_yet,
}
