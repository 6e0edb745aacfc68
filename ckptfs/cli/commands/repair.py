"""``ckptfs repair``: mend a store whose service is down."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from ...errors import Busy, Corrupt
from ..progress import shown_share
from ..tables import printable
from .check import add_store_option, store_of

EXAMPLES = """\
sudo ckptfs umount && sudo ckptfs repair
sudo ckptfs repair --rebuild-catalog
sudo ckptfs repair --discard --store /srv/ckptfs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_store_option(parser)
    parser.add_argument(
        "--rebuild-catalog",
        action="store_true",
        help="make the catalog again, also when nothing seems wrong with it",
    )
    parser.add_argument(
        "--discard",
        action="store_true",
        help="move damaged versions that are not pinned to the trash, give up what is lost",
    )
    parser.add_argument(
        "--volume", default="", metavar="NAME", help="of the copies read only those on this volume"
    )


def run(args: argparse.Namespace) -> int:
    """Repair; print what was mended and what is lost."""
    store = store_of(args)
    upkeep: Any = importlib.import_module("ckptfs.upkeep.repair")
    try:
        with shown_share("repair") as progress:
            outcome = upkeep.repair(
                store,
                rebuild_catalog=args.rebuild_catalog,
                discard=args.discard,
                volume=args.volume,
                progress=progress,
            )
    except Busy as error:
        raise Busy(f"{error}: unmount it first; the jobs go on") from error
    for sentence in outcome.fixed:
        print(printable(f"mended: {sentence}"))
    for sentence in outcome.lost:
        print(printable(f"lost: {sentence}"))
    if outcome.lost:
        raise Corrupt(f"{store}: not everything could be mended; what is lost is named above")
    print(f"{store}: whole")
    return 0
