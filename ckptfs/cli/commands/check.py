"""``ckptfs check``: prove that every version of a store is whole."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable
from pathlib import Path

from ...errors import Corrupt, NotAuthenticated, NotFound
from ..progress import shown_share
from ..tables import printable
from .mount import DEFAULT_STORE

EXAMPLES = """\
sudo ckptfs check
sudo ckptfs check --store /srv/ckptfs
sudo ckptfs check --volume disk2
"""
CheckAll = Callable[[Path, Callable[[float], None], str], tuple[list[str], list[str]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_store_option(parser)
    parser.add_argument(
        "--volume", default="", metavar="NAME", help="check the copies on this volume alone"
    )


def add_store_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--store``."""
    parser.add_argument(
        "--store", default=DEFAULT_STORE, metavar="DIR", help="default: %(default)s"
    )


def store_of(args: argparse.Namespace) -> Path:
    """Return the directory of the store.  Raises NotFound, NotAuthenticated."""
    store = Path(args.store).absolute()
    if not any((store / name).exists() for name in ("FORMAT", "heads")):
        raise NotFound(f"there is no store at {store}; say where it is with --store")
    if not os.access(store, os.R_OK | os.X_OK):
        raise NotAuthenticated(f"{store} is root's: use sudo")
    return store


def run(args: argparse.Namespace) -> int:
    """Read and hash everything; print one sentence per damage."""
    store = store_of(args)
    check_all: CheckAll = importlib.import_module("ckptfs.upkeep.check").check_all
    with shown_share("check") as progress:
        found, notes = check_all(store, progress, args.volume)
    for sentence in found:
        print(printable(sentence))
    for sentence in notes:
        print(printable(f"no damage: {sentence}"))
    if found:
        raise Corrupt(
            f"{store}: {len(found)} thing{'s' * (len(found) > 1)} wrong, named above; "
            "see: ckptfs repair --help"
        )
    what = f"{store}, volume {args.volume}" if args.volume else str(store)
    print(f"{what}: whole")
    return 0
