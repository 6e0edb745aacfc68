"""Records of `model` and `node.api` as plain JSON values and back.  Pure.

Used between the agent and its supervisors (JSON lines) and in the files of a
unit's run directory.  Text keeps undecodable bytes as lone surrogates.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ..errors import Corrupt
from ..ids import UnitName
from ..model import Initiator, JobSpec, OpenFile, Owner, Policy, Protocol, UnitFacts
from .api import Exit, Prepared, Process

Json = Any  # what json.loads returns


def encode_line(message: Mapping[str, Json]) -> bytes:
    """Return one message as a line of JSON."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def decode_line(line: bytes) -> dict[str, Json]:
    """Return the message in one line.  Raises Corrupt."""
    try:
        message = json.loads(line)
    except ValueError as bad:
        raise Corrupt(f"not a message: {bad}") from None
    if not isinstance(message, dict):
        raise Corrupt("not a message: no object")
    return cast("dict[str, Json]", message)


def to_json(record: Any) -> dict[str, Json]:  # noqa: ANN401 - any of the dataclasses below
    """Return a record as a dict of JSON values."""
    return _plain(dataclasses.asdict(record))


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return {key: _plain(item) for key, item in items}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast("Sequence[Any]", value)]
    return value


def spec_from(data: Mapping[str, Json]) -> JobSpec:
    """Return the JobSpec that `to_json` made *data* of."""
    owner: dict[str, Json] = {**data["owner"], "groups": tuple(data["owner"]["groups"])}
    policy: dict[str, Json] = {
        **data["policy"],
        "initiator": Initiator(data["policy"]["initiator"]),
        "protocol": Protocol(data["policy"]["protocol"]),
        "requires": tuple(data["policy"]["requires"]),
    }
    changes = {"argv": tuple(data["argv"]), "owner": Owner(**owner), "policy": Policy(**policy)}
    spec: dict[str, Json] = {**data, **changes}
    return JobSpec(**spec)


def open_file_from(data: Mapping[str, Json]) -> OpenFile:
    """Return the OpenFile that `to_json` made *data* of."""
    return OpenFile(**data)


def facts_from(data: Mapping[str, Json]) -> UnitFacts:
    """Return the UnitFacts that `to_json` made *data* of."""
    return UnitFacts(
        unit=UnitName(data["unit"]),
        node=data["node"],
        translib=data["translib"],
        facts=dict(data["facts"]),
        pids=tuple(data["pids"]),
        uids=tuple(data["uids"]),
        files=tuple(open_file_from(item) for item in data["files"]),
    )


def prepared_from(data: Mapping[str, Json]) -> Prepared:
    """Return the Prepared that `to_json` made *data* of."""
    return Prepared(
        tuple(data["blockers"]),
        facts_from(data["facts"]),
        data["image_bytes"],
        data.get("streams", ""),  # a supervisor of before an upgrade says nothing of it
    )


def process_from(data: Mapping[str, Json]) -> Process:
    """Return the Process that `to_json` made *data* of."""
    return Process(**data)


def exit_from(data: Mapping[str, Json]) -> Exit:
    """Return the Exit that `to_json` made *data* of."""
    return Exit(code=data["code"], signal=data["signal"], reason=data.get("reason", ""))


def exit_from_status(status: int) -> Exit:
    """Return the Exit for a raw wait(2) status."""
    signal = status & 0x7F
    return Exit(code=-1, signal=signal) if signal else Exit(code=status >> 8 & 0xFF)
