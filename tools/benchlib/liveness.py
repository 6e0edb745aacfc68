"""How much of each pack of a store is alive, as JSON: liveness.py STORE.

A page is alive when a manifest names it that a head names.  For tools/bench slack.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from ckptfs.store.counting import taken_bytes
from ckptfs.store.pages import PAGE, U32
from ckptfs.store.superblock import open_superblock
from ckptfs.store.syscalls import Syscalls
from ckptfs.store.versions import Versions, pages_by_pack
from ckptfs.store.volume import LocalVolume


def live_bytes(store: Path) -> list[tuple[int, int, int]]:
    """Return (bytes if it were whole, bytes on the disk, bytes alive) of every sealed pack."""
    calls = Syscalls()
    block = open_superblock(store, calls, lock=False)
    volume = LocalVolume(block.directory, calls)
    versions = Versions(block, volume, calls)
    alive: dict[str, list[U32]] = defaultdict(list)
    for job, version in sorted(versions.keys()):
        manifest = versions.manifest(versions.head(job, version))
        for pack, pages in pages_by_pack(manifest).items() if manifest else ():
            alive[pack].append(pages)
    return [
        (
            volume.size("packs", pack),
            taken_bytes(os.stat(volume.path("packs", pack))),
            PAGE * len(np.unique(np.concatenate(alive[pack]))) if pack in alive else 0,
        )
        for pack in volume.names("packs")
    ]


if __name__ == "__main__":
    print(json.dumps(live_bytes(Path(sys.argv[1]))))
