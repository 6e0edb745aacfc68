"""``ckptfs check``: prove that every version of a store is whole."""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path

from ...errors import Corrupt, NotAuthenticated, NotFound
from ..tables import printable
from .mount import DEFAULT_STORE

EXAMPLES = """\
sudo ckptfs check
sudo ckptfs check --store /srv/ckptfs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--store", default=DEFAULT_STORE, metavar="DIR", help="default: %(default)s"
    )


def run(args: argparse.Namespace) -> int:
    """Read and hash everything; print one sentence per damage."""
    store = Path(args.store).absolute()
    if not any((store / name).exists() for name in ("FORMAT", "heads")):
        raise NotFound(f"there is no store at {store}; say where it is with --store")
    if not os.access(store, os.R_OK | os.X_OK):
        raise NotAuthenticated(f"{store} is root's: use sudo")
    found: list[str] = importlib.import_module("ckptfs.store.check").check(store)
    for sentence in found:
        print(printable(sentence))
    if found:
        raise Corrupt(f"{store}: {len(found)} thing{'s' * (len(found) > 1)} wrong, named above")
    print(f"{store}: whole")
    return 0
