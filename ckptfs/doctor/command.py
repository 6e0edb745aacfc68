"""`ckptfs doctor`: what this machine lacks, one line per check.  I/O.

Exit code 0 when jobs can be mounted, run and checkpointed here (notes do not count), else that of
CannotRun.  CRIU is tried for real, by a dump and a restore, unless it is left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from ..errors import CannotRun
from .checks import Need
from .criu_trial import forget_trial
from .gate import Finding, examine
from .machine import Machine


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ckptfs doctor` with *argv*; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="ckptfs doctor",
        description="Say what this machine lacks for ckptfs, and how to get it.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per check")
    parser.add_argument("--no-criu", action="store_true", help="leave CRIU out")
    options = parser.parse_args(argv)
    machine = Machine()
    if not options.no_criu:
        forget_trial(machine)
    failed = False
    for finding in examine(machine, but=("criu",) if options.no_criu else ()):
        print(json.dumps(asdict(finding)) if options.json else render(finding), flush=True)
        failed |= bool(finding.sentence) and finding.need is not Need.NOTE
    return CannotRun.exit_code if failed else 0


def render(finding: Finding) -> str:
    """Return the line for people: ``ok name``, or ``MISSING name: sentence``."""
    if not finding.sentence:
        return f"ok       {finding.name}"
    word = "note" if finding.need is Need.NOTE else "MISSING"
    return f"{word:<8} {finding.name}: {finding.sentence}"
