"""Commands written to control files → request records.  Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from ..coordinator.api import RETENTION_MAX, CheckpointRequest, RestartRequest, SignalRequest
from ..errors import InvalidInput, NotFound, OutOfRange
from ..ids import UnitName, Version, parse_unit_name, parse_version
from ..model import Initiator, Purpose
from .control import parse_choice, parse_count, parse_keys

NOTE_MAX = 256  # characters
SIGNAL_MAX = 64  # highest signal number of Linux
PIDS_MAX = 1024  # in one only= or except=
REPLICATION_MAX = 16
YES_NO = {"yes": True, "no": False}
SIGNALS = {member.name.removeprefix("SIG"): int(member) for member in signal.Signals}


def parse_checkpoint(text: str) -> CheckpointRequest:
    """Parse ``1`` or ``keep=yes incremental=yes note=word initiator=system``.

    ``incremental`` asks for what every version is.  Raises InvalidInput, OutOfRange.
    """
    if text == "1":
        return CheckpointRequest()
    keys = parse_keys(text.split(), ("keep", "incremental", "note", "initiator"))
    parse_choice(keys.get("incremental", "no"), YES_NO)
    note = keys.get("note", "")
    if len(note) > NOTE_MAX:
        raise OutOfRange(f"a note has at most {NOTE_MAX} characters")
    initiator = parse_choice(keys.get("initiator", "user"), {str(word): word for word in Initiator})
    is_systems = initiator is Initiator.SYSTEM
    return CheckpointRequest(
        purpose=Purpose.FAULT_TOLERANCE if is_systems else Purpose.USER,
        initiator=initiator,
        keep=parse_choice(keys.get("keep", "no"), YES_NO),
        note=note,
    )


def parse_restart(text: str) -> RestartRequest:
    """Parse ``7``, ``latest``, ``7 as=clone``, ``7 stopped=yes lazy=yes``, ``7 JobUnit_2=n3``.

    Raises InvalidInput (EINVAL) for what does not parse, NotFound (ENOENT)
    for a version number that cannot exist.
    """
    first, *words = text.split()
    version = None if first == "latest" else _version(first)
    return restart_of(version, words)


def restart_of(version: Version | None, words: list[str]) -> RestartRequest:
    """Return the request for *version* with the options in *words*.  Raises InvalidInput."""
    placement = {
        _unit(word): word.partition("=")[2] for word in words if word.startswith("JobUnit_")
    }
    if not all(placement.values()):
        raise InvalidInput("a unit needs the name of a node: JobUnit_1=<node>")
    rest = [word for word in words if not word.startswith("JobUnit_")]
    if len(placement) + len(rest) != len(words):
        raise InvalidInput("a unit is named twice")
    keys = parse_keys(rest, ("as", "stopped", "lazy"))
    return RestartRequest(
        version=version,
        as_clone=parse_choice(keys.get("as", "job"), {"clone": True, "job": False}),
        stopped=parse_choice(keys.get("stopped", "no"), YES_NO),
        lazy=parse_choice(keys.get("lazy", "no"), YES_NO),
        placement=placement,
    )


def _version(word: str) -> Version:
    if not (word.isascii() and word.isdigit()):
        raise InvalidInput(f"expected a version number or latest, not {word!r}")
    return parse_version(word)


def _unit(word: str) -> UnitName:
    try:
        return parse_unit_name(word.partition("=")[0])
    except NotFound as error:
        raise InvalidInput(str(error)) from None


def parse_signal(text: str) -> SignalRequest:
    """Parse ``15``, ``TERM``, ``15 only=4711,4712``, ``15 except=…``, ``15 master``.

    Raises InvalidInput, OutOfRange (ERANGE) for a number that is no signal.
    """
    first, *words = text.split()
    name = first.removeprefix("SIG")
    number = SIGNALS[name] if name in SIGNALS else parse_count(first, low=1, high=SIGNAL_MAX)
    if words == ["master"]:
        return SignalRequest(number, master=True)
    if len(words) > 1:
        raise InvalidInput("only one of only=, except= and master")
    keys = parse_keys(words, ("only", "except"))
    return SignalRequest(
        number, only=_pids(keys.get("only", "")), others=_pids(keys.get("except", ""))
    )


def _pids(text: str) -> tuple[int, ...]:
    if not text:
        return ()
    words = text.split(",")
    if len(words) > PIDS_MAX:
        raise OutOfRange(f"at most {PIDS_MAX} processes can be named")
    return tuple(parse_count(word, low=1, high=2**22) for word in words)


def parse_gc(text: str) -> tuple[bool, bool]:
    """Parse ``1`` or ``dry``, then ``trash=empty``; return (dry, trash).  Raises InvalidInput."""
    first, *words = text.split()
    keys = parse_keys(words, ("trash",))
    is_dry = parse_choice(first, {"1": False, "dry": True})
    return is_dry, parse_choice(keys.get("trash", "keep"), {"keep": False, "empty": True})


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """What ``ctl/volumes`` takes."""

    verb: str  # add, drain, up, rm
    name: str  # add: the directory
    domain: str = ""
    seal: str = "plain"


def parse_volume(text: str) -> VolumeRequest:
    """Parse ``add [domain=WORD] [seal=WORD] DIR`` or ``NAME drain|up|rm``.  Raises InvalidInput."""
    first, _, rest = text.partition(" ")
    if first == "add":
        words = {"domain": "", "seal": "plain"}
        while (key := rest.partition("=")[0]) in words:
            words[key], _, rest = rest.partition("=")[2].partition(" ")
        if not rest.strip():
            raise InvalidInput("add needs a directory: add [domain=WORD] [seal=WORD] DIR")
        return VolumeRequest("add", rest.strip(), **words)
    verbs = {verb: verb for verb in ("drain", "up", "rm")}
    return VolumeRequest(parse_choice(rest.strip(), verbs), first)


def parse_replication(text: str) -> tuple[int, int | None]:
    """Parse ``2`` or ``3 min=2``; return (level, least).  Raises InvalidInput, OutOfRange."""
    first, *words = text.split()
    keys = parse_keys(words, ("min",))
    least = parse_count(keys["min"], low=1, high=REPLICATION_MAX) if "min" in keys else None
    return parse_count(first, low=1, high=REPLICATION_MAX), least


def parse_retention(text: str) -> tuple[str, int]:
    """Parse ``keep_last 5``, ``keep_within_s 86400``.  Raises InvalidInput, OutOfRange."""
    words = text.split()
    if len(words) != 2 or words[0] not in RETENTION_MAX:
        raise InvalidInput(f"write {', '.join(RETENTION_MAX)} and a number, not {text!r}")
    return words[0], parse_count(words[1], low=0, high=RETENTION_MAX[words[0]])
