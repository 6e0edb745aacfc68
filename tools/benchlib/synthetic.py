"""A large store made quickly: synthetic.py DIRECTORY VERSIONS PACKS EXTENTS DEAD.

Heads, manifests, the job's record and the packs of no version are real.  The packs that
versions refer to are one real sealed pack under many names: opening a store, listing versions,
marking and planning read their names alone.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ckptfs.ids import JobId, UnitName, Version, unit_name
from ckptfs.jobs.directory import JobsDirectory
from ckptfs.jobs.record import JobRecord
from ckptfs.model import (
    FileEntry,
    Head,
    Initiator,
    JobSpec,
    JobState,
    Owner,
    Protocol,
    Purpose,
)
from ckptfs.store import layout
from ckptfs.store.heads import encode_head
from ckptfs.store.index import PACK_PAGES
from ckptfs.store.manifest import encode_manifest
from ckptfs.store.pack_format import Footer, encode_footer, encode_header
from ckptfs.store.pages import PAGE, region_checksum
from ckptfs.store.stream import StoredFile
from ckptfs.store.superblock import create_store, open_superblock
from ckptfs.store.syscalls import Syscalls

JOB = JobId("scale.1")
UNIT = unit_name(1)
LINKS_MAX = 60_000  # names of one file; ext4 allows 65 000
SMALL_FILES = 20  # beside the pages; criu writes about that many for one process
START_NS = 1_700_000_000 * 10**9
MINUTE_NS = 60 * 10**9


@dataclass(frozen=True)
class Size:
    """How much there is.  *extents*: of all versions together; *dead*: packs of no version."""

    versions: int
    packs: int
    extents: int
    dead: int


def build(directory: Path, size: Size) -> None:
    """Make the store: one ended job with all versions."""
    calls = Syscalls()
    create_store(directory, calls)
    for place in ("packs", "manifests"):
        for fan in range(256):
            (directory / place / f"{fan:02x}").mkdir(mode=0o700)
    (directory / layout.HEADS / JOB).mkdir(mode=0o700)
    owner = Owner(0, 0, (), "root")
    record = JobRecord(
        id=JOB,
        spec=JobSpec("scale", ("true",), "/", {}, owner),
        created_ns=START_NS,
        started_ns=START_NS,
        state=JobState.FAILED,
        reason="ended",
        units={UNIT: "localhost"},
        highest_version=size.versions,
        keep_last=0,
        protocol=Protocol.COORDINATED,
        exit_code=1,
        exit_signal=0,
        clone_of=None,
        stdout="",
        stderr="",
    )
    JobsDirectory(directory / "jobs", directory / "logs").create(record)
    block = open_superblock(directory, calls, lock=False)
    names = _live_packs(directory, size.packs)
    per_version = max(1, size.packs // size.versions)
    files = _files(size.extents // size.versions, 2 * per_version)
    before: list[str] = []
    for number in range(1, size.versions + 1):
        own = [next(names) for _ in range(per_version)]
        manifest = _keep_manifest(directory, files, own + before)
        before = own
        head = _head(number, owner, files, manifest)
        (directory / layout.head_path(JOB, Version(number))).write_bytes(
            encode_head(head, block.signing_key)
        )
    for number in range(size.dead):
        _real_pack(directory, number)


def _live_packs(directory: Path, count: int) -> Iterator[str]:
    """Yield names, each of which is there as a file."""
    source = _real_pack(directory, 0)
    for at in range(1, count + 1):
        if at % LINKS_MAX == 0:
            source = _real_pack(directory, at)
        name = secrets.token_hex(20)
        os.link(source, directory / layout.object_path("packs", name))
        yield name


def _real_pack(directory: Path, number: int) -> Path:
    page = encode_header(secrets.token_bytes(16))
    footer = Footer(secrets.token_bytes(16), number, PAGE, (region_checksum(page),))
    name, tail = encode_footer(footer)
    path = directory / layout.object_path("packs", name)
    path.write_bytes(page + tail)
    path.chmod(0o400)
    return path


def _files(extents: int, packs: int) -> list[StoredFile]:
    """Return one file of that many extents over all *packs*, and the small ones beside it."""
    each = min(max(1, extents // packs), PACK_PAGES // 2)
    pages = np.arange(1, 2 * each, 2, dtype=np.uint32)  # every other page: no run is longer
    places = (np.arange(packs, dtype=np.uint32)[:, None] * np.uint32(PACK_PAGES) + pages).reshape(
        -1
    )
    whole = bytes(32)
    hashes = np.zeros((len(places), 2), dtype=np.uint64).data.cast("B")
    size_bytes = len(places) * PAGE
    digests = bytes(32 * -(-size_bytes // (1 << 20)))
    large = StoredFile(
        UNIT, "pages-1.img", size_bytes, whole, digests, lambda: iter([hashes]), places
    )
    small_hash, nowhere = memoryview(bytes(16)), np.zeros(1, dtype=np.uint32)
    return [
        large,
        *(
            StoredFile(
                UNIT, f"core-{n}.img", 700, whole, bytes(32), lambda: iter([small_hash]), nowhere
            )
            for n in range(SMALL_FILES)
        ),
    ]


def _keep_manifest(directory: Path, files: list[StoredFile], packs: list[str]) -> str:
    wanted = int(max(file.places.max() for file in files)) // PACK_PAGES + 1
    known = packs + packs[: wanted - len(packs)]  # the first version has no packs before it
    manifest_id, body, table = encode_manifest(files, dict(enumerate(known)))
    path = directory / layout.object_path("manifests", manifest_id)
    path.write_bytes(body)
    with (directory / layout.object_path("tables", manifest_id)).open("wb") as beside:
        beside.truncate(sum(map(len, table())))  # of nothing but holes; nobody here reads it
    return manifest_id


def _head(number: int, owner: Owner, files: list[StoredFile], manifest: str) -> Head:
    entries = tuple(
        FileEntry(
            UnitName(file.unit),
            file.name,
            file.size_bytes,
            file.whole.hex(),
            f"{manifest}:{index}",
        )
        for index, file in enumerate(files)
    )
    return Head(
        JOB,
        Version(number),
        owner,
        START_NS + number * MINUTE_NS,
        Purpose.USER,
        Initiator.USER,
        Protocol.COORDINATED,
        entries,
        sum(file.size_bytes for file in files),
        0,
        0,
    )


if __name__ == "__main__":
    build(Path(sys.argv[1]), Size(*map(int, sys.argv[2:6])))
