"""What the agent tells a supervisor to start: the launch record in the run directory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..ids import JobId, UnitName
from ..model import JobSpec
from .records import Json, spec_from, to_json
from .rundir import LogView, UnitPaths, make_directory

# The argument of a supervisor that is not told yet; long enough for the run directory to be written
# over it (ps, /proc/PID/cmdline).
SPARE = f"--spare{' ' * 120}"


@dataclass(frozen=True, slots=True)
class Launch:
    """The launch record, as the agent wrote it."""

    job: JobId
    unit: UnitName
    node: str
    translib: str
    fresh: bool  # start the program; else wait for a rebuild
    spec: JobSpec
    cgroup: Path
    paths: UnitPaths
    hidden: tuple[str, ...]
    logs: LogView

    @property
    def store_id(self) -> str:
        """The store that the unit's job is in."""
        return self.cgroup.parent.name


def load_launch(path: Path) -> Launch:
    """Read the launch record."""
    data: dict[str, Json] = json.loads(path.read_bytes())
    places = {name: Path(value) for name, value in data["paths"].items()}
    return Launch(
        job=JobId(data["job"]),
        unit=UnitName(data["unit"]),
        node=data["node"],
        translib=data["translib"],
        fresh=data["fresh"],
        spec=spec_from(data["spec"]),
        cgroup=Path(data["cgroup"]),
        paths=UnitPaths(**places),
        hidden=tuple(data["hidden"]),
        logs=LogView(**{name: Path(value) for name, value in data["logs"].items()}),
    )


def store_launch(launch: Launch) -> None:
    """Write the launch record, readable by root alone: it holds the job's environment."""
    make_directory(launch.paths.run, 0o700)
    data = {
        **to_json(launch),
        "cgroup": str(launch.cgroup),
        "paths": {name: str(value) for name, value in to_json(launch.paths).items()},
        "logs": {name: str(value) for name, value in to_json(launch.logs).items()},
    }
    launch.paths.launch.touch(mode=0o600)
    launch.paths.launch.write_text(json.dumps(data))
