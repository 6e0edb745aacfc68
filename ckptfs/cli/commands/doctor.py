"""``ckptfs doctor``: what this machine can do, and how to get what it lacks."""

from __future__ import annotations

import argparse
import importlib

EXAMPLES = """\
sudo ckptfs doctor
sudo ckptfs doctor --json
sudo ckptfs doctor --no-criu
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print JSON, a line per check")
    parser.add_argument("--no-criu", action="store_true", help="do not try CRIU")


def run(args: argparse.Namespace) -> int:
    """Hand over to `ckptfs.doctor`, which starts a CRIU to be sure."""
    options = ["--json"] * args.json + ["--no-criu"] * args.no_criu
    return int(importlib.import_module("ckptfs.doctor").main(options))
