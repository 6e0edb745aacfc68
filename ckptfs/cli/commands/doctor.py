"""``ckptfs doctor``: what this machine can do, and how to get what it lacks."""

from __future__ import annotations

import argparse
import importlib

EXAMPLES = """\
sudo ckptfs doctor
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print JSON, a line per check")


def run(args: argparse.Namespace) -> int:
    """Hand over to `ckptfs.doctor`, which starts a CRIU to be sure."""
    return int(importlib.import_module("ckptfs.doctor").main(["--json"] * args.json))
