"""What is durable of a job, and its JSON.  Pure.

``jobs/<id>/job.json`` is the truth about a job; the catalog is an index that
can be deleted.  A document that does not parse raises Corrupt: a job is never
guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from ..errors import Corrupt, InvalidInput, NotFound
from ..ids import JobId, UnitName, parse_job_id, parse_unit_name
from ..model import Initiator, JobSpec, JobState, Owner, Policy, Protocol

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job as it must survive a power failure."""

    id: JobId
    spec: JobSpec
    created_ns: int
    started_ns: int  # of this incarnation: start or last restart
    state: JobState  # a state that a restart of the daemon can find: never checkpointing
    reason: str
    units: Mapping[UnitName, str]  # unit → node
    highest_version: int
    keep_last: int
    protocol: Protocol
    exit_code: int | None  # None: has not ended
    exit_signal: int
    clone_of: JobId | None
    stdout: str
    stderr: str
    keep_within_s: int = 0
    keep_every_s: int = 0
    keep_user_bytes: int = 0
    logs_shown_as: JobId | None = None  # a clone: whose log paths its images name
    events: Mapping[str, int] = field(default_factory=dict[str, int])  # counters, by name
    stat: Mapping[str, int] = field(default_factory=dict[str, int])  # of the last operations
    replication: int = 1  # copies in as many failure domains
    min_level: int = 1  # of them before a checkpoint is called complete
    reached: int = 0  # newest version known to have had so many, 0: none


def render_record(record: JobRecord) -> bytes:
    """Return the JSON text, ASCII only (odd bytes of paths as surrogate escapes)."""
    fields = asdict(record)
    fields["format"] = FORMAT
    fields["spec"].pop("jsdl")  # kept beside, as the user wrote it
    return (json.dumps(fields, indent=1, sort_keys=True) + "\n").encode("ascii")


def parse_record(document: bytes, jsdl: str) -> JobRecord:
    """Return the record in *document*.  Raises Corrupt (EIO)."""
    try:
        fields = json.loads(document)
        if fields.pop("format") != FORMAT:
            raise Corrupt("a job record of another format; upgrade ckptfs")
        return _record(fields, jsdl)
    except (ValueError, KeyError, TypeError, AttributeError, InvalidInput, NotFound) as error:
        raise Corrupt(f"a job record does not parse: {error}") from error


def _record(fields: dict[str, Any], jsdl: str) -> JobRecord:
    fields["id"] = parse_job_id(fields["id"])
    for name in ("clone_of", "logs_shown_as"):
        fields[name] = parse_job_id(fields[name]) if fields.get(name) else None
    fields["state"] = JobState(fields["state"])
    fields["protocol"] = Protocol(fields["protocol"])
    fields["units"] = {parse_unit_name(unit): node for unit, node in fields["units"].items()}
    for name in ("events", "stat"):  # records made before there were any have none
        fields[name] = {str(key): int(value) for key, value in fields.get(name, {}).items()}
    fields["reached"] = int(fields.get("reached", 0))
    fields["spec"] = _spec(fields["spec"], jsdl)
    return JobRecord(**fields)


def _spec(fields: dict[str, Any], jsdl: str) -> JobSpec:
    owner, policy = fields["owner"], fields["policy"]
    fields["owner"] = Owner(owner["uid"], owner["gid"], tuple(owner["groups"]), owner["user"])
    fields["policy"] = Policy(
        initiator=Initiator(policy["initiator"]),
        protocol=Protocol(policy["protocol"]),
        keep_last=policy["keep_last"],
        rollback=policy["rollback"],
        requires=tuple(policy["requires"]),
        replication=int(policy.get("replication", 1)),
        min_level=int(policy.get("min_level", 1)),
        keep_within_s=int(policy.get("keep_within_s", 0)),
        keep_every_s=int(policy.get("keep_every_s", 0)),
        keep_user_bytes=int(policy.get("keep_user_bytes", 0)),
        space_path=str(policy.get("space_path", "")),
    )
    fields["argv"] = tuple(fields["argv"])
    return JobSpec(**fields, jsdl=jsdl)
