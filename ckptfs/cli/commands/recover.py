"""``ckptfs recover``: a store from a volume of copies, where the store itself is lost."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from ...errors import Corrupt
from ..progress import shown_share
from ..secret_input import add_passphrase_options
from ..tables import printable
from .key import read_opening

EXAMPLES = """\
sudo ckptfs recover /mnt/copies --store /srv/new
sudo ckptfs recover /mnt/copies --store /srv/new --private-key alice.private.pem
sudo ckptfs recover /mnt/copies --store /srv/new --passphrase
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("volume", metavar="DIR", help="the volume with the copies; read only")
    parser.add_argument(
        "--store", metavar="DIR", required=True, help="an empty directory, or one recovered before"
    )
    parser.add_argument("--private-key", metavar="PEM", help="what opens the keys of the copies")
    add_passphrase_options(parser)


def run(args: argparse.Namespace) -> int:
    """Recover; print what was, and what was not."""
    upkeep: Any = importlib.import_module("ckptfs.upkeep.recover")
    opening = read_opening(importlib.import_module("ckptfs.upkeep.keys"), args)
    volume, store = Path(args.volume).absolute(), Path(args.store).absolute()
    with shown_share("recover") as progress:
        outcome = upkeep.recover(volume, store, opening, progress=progress)
    for sentence in outcome.keys:
        print(printable(f"took in key {sentence}"))
    for sentence in outcome.lost:
        print(printable(f"not recovered: {sentence}"))
    print(f"{store}: {outcome.versions} version{'s' * (outcome.versions != 1)} recovered")
    if not outcome.is_proved:
        print("these copies were not encrypted, so nothing but the directory says who wrote them")
    if outcome.lost:
        raise Corrupt("not everything was recovered; what was not is named above")
    return 0
