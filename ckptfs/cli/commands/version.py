"""``ckptfs version``: the versions of the commands and of the mounted service."""

from __future__ import annotations

import argparse

from ... import __version__
from ...errors import CkptfsError
from ..entry import add_mount_option, mount_of

EXAMPLES = """\
ckptfs version
"""

add_arguments = add_mount_option


def run(args: argparse.Namespace) -> int:
    """Print the versions; a service that is not mounted is no failure."""
    print(f"ckptfs {__version__}")
    try:
        service = mount_of(args)
    except CkptfsError:
        return 0
    print(f"service at {service.root}: {', '.join(service.read('ctl/version').splitlines())}")
    return 0
