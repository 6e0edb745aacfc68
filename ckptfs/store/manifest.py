"""Manifests: where every byte of a version's files is, and what it must hash to.  Pure.

One manifest holds all files of one version, so that the hundred small images
of a process tree do not cost a hundred synced files.  It is complete: no
version needs the manifest of another.  Its id is the BLAKE3 of its bytes.

    "ckptfs manifest 1\\n"   u32 length   JSON: packs, files, table   then per file:
    32 bytes BLAKE3 per block; 8 bytes per extent (u32 pages, u32 first place)

A place is pack number * 65536 + page number, place 0 a run of zero pages.  The
page table, 16 bytes per page, all files in the same order, is an object beside
it, proved by the digest in the manifest.  ``FileEntry.manifest`` is
``<id>:<index>``.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import blake3
import numpy as np

from ..errors import Corrupt
from .dedup import Known, KnownFile
from .index import PACK_PAGES, PACKS_MAX
from .pack_format import ID_SIZE
from .pages import DIGEST_SIZE, HASH_SIZE, U32, block_count, page_count
from .sparse_format import Pages
from .stream import StoredFile

MAGIC = b"ckptfs manifest 1\n"
MANIFEST_MAX = 1 << 30  # bytes: 128 M extents
NO_HOLES: Mapping[int, Pages] = {}
PART = 1 << 16  # pages worked on at once where temporary arrays would add up
_LENGTH = struct.Struct("<I")
_EXTENT = np.dtype([("pages", "<u4"), ("place", "<u4")])


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file: its digests, and one place per page."""

    unit: str
    name: str
    size_bytes: int
    blake3: bytes
    digests: bytes  # 32 bytes per block
    places: U32

    def digest(self, block: int) -> bytes:
        """Return the BLAKE3 of a block."""
        return self.digests[block * DIGEST_SIZE : (block + 1) * DIGEST_SIZE]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed manifest."""

    manifest_id: str
    packs: tuple[str, ...]
    files: tuple[ManifestFile, ...]
    table_digest: str


def to_extents(places: U32) -> bytes:
    """Return the runs in *places*, 8 bytes each: ascending places, or zeros."""
    if not len(places):
        return b""
    zero = places == 0
    goes_on = np.diff(places) == 1  # without a sign: 0 after the highest place looks like one more
    goes_on &= ~zero[1:] & ~zero[:-1]
    goes_on |= zero[1:] & zero[:-1]
    starts = np.concatenate(([0], np.flatnonzero(~goes_on) + 1))
    extents = np.empty(len(starts), dtype=_EXTENT)
    extents["pages"] = np.diff(np.append(starts, len(places)))
    extents["place"] = places[starts]
    return extents.tobytes()


def from_extents(data: bytes, pages: int, packs: int) -> U32:
    """Return one place per page.  Raises Corrupt unless the runs fit *pages* and *packs*."""
    extents = np.frombuffer(data, dtype=_EXTENT)
    counts = extents["pages"].astype(np.int64)
    if counts.sum() != pages or (counts == 0).any():
        raise Corrupt("a manifest's extents do not add up")
    firsts = extents["place"].astype(np.int64)
    stored = firsts != 0
    lasts = firsts + counts - 1
    if (firsts[stored] // PACK_PAGES != lasts[stored] // PACK_PAGES).any() or (
        stored.any() and lasts[stored].max() >= packs * PACK_PAGES
    ):
        raise Corrupt("a manifest's extents point outside its packs")
    # From page to page: 1 in a stored run, 0 in a zero one, the jump where one begins; then the
    # sum, modulo 2**32.  One array of 4 bytes a page, where places worked out one by one take 40.
    places = np.repeat(stored.astype(np.uint32), counts)
    ends = np.where(stored, lasts, 0)
    places[np.cumsum(counts) - counts] = (firsts - np.append(0, ends[:-1])).astype(np.uint32)
    return np.cumsum(places, dtype=np.uint32, out=places)


def _renumber(files: Sequence[StoredFile], packs: Mapping[int, str]) -> tuple[list[str], list[U32]]:
    """Return (packs that are referred to, places with the pack numbers in that list)."""
    used = np.zeros(PACKS_MAX, dtype=np.bool_)
    for file in files:
        for part in _parts(file.places):
            used[part[part != 0] // PACK_PAGES] = True
    order: list[int] = np.flatnonzero(used).tolist()
    # added to a place, without a sign: the step from a pack's old number to its new one
    steps = np.zeros(PACKS_MAX, dtype=np.uint32)
    steps[order] = (np.arange(len(order)) - order).astype(np.uint32) * np.uint32(PACK_PAGES)
    return [packs[number] for number in order], [_moved(file.places, steps) for file in files]


def _parts(places: U32) -> list[U32]:
    """Cut *places* so that what is made of a part stays small."""
    return np.split(places, range(PART, len(places), PART))


def _moved(places: U32, steps: U32) -> U32:
    """Return the places with the step of its pack added to each that is not zero."""
    moved = places.copy()
    for part in _parts(moved):
        part += np.where(part == 0, np.uint32(0), steps[part // PACK_PAGES])
    return moved


def encode_manifest(
    files: Sequence[StoredFile], packs: Mapping[int, str]
) -> tuple[str, bytes, Callable[[], Iterator[memoryview]]]:
    """Return (id, manifest, page table) of a version.  *packs*: pack number in places → pack id.

    The table comes in pieces, anew at each call: the whole of it is 4 MiB per GiB.
    """
    names, places = _renumber(files, packs)

    def table() -> Iterator[memoryview]:
        return chain.from_iterable(file.hashes() for file in files)

    rows: list[dict[str, Any]] = []
    sections: list[bytes] = []
    for file, where in zip(files, places, strict=True):
        extents = to_extents(where)
        sections += [file.digests, extents]
        rows.append(
            {
                "unit": file.unit,
                "name": file.name,
                "size": file.size_bytes,
                "blake3": file.whole.hex(),
                "extents": len(extents) // _EXTENT.itemsize,
            }
        )
    document = {"packs": names, "files": rows, "table": _digest_of(table()).hex()}
    head = json.dumps(document, separators=(",", ":")).encode()
    body = b"".join([MAGIC, _LENGTH.pack(len(head)), head, *sections])
    return blake3.blake3(body).digest()[:ID_SIZE].hex(), body, table


def _digest_of(pieces: Iterator[memoryview]) -> bytes:
    hasher = blake3.blake3()
    for piece in pieces:
        hasher.update(piece)
    return hasher.digest()


def with_table(body: bytes, table: bytes) -> tuple[str, bytes]:
    """Return (id, manifest) that is *body*, one that was decoded, but names another page table."""
    start = len(MAGIC) + _LENGTH.size
    (length,) = _LENGTH.unpack_from(body, len(MAGIC))
    document = cast("dict[str, Any]", json.loads(body[start : start + length]))
    document["table"] = blake3.blake3(table).hexdigest()
    head = json.dumps(document, separators=(",", ":")).encode()
    made = b"".join([MAGIC, _LENGTH.pack(len(head)), head, body[start + length :]])
    return blake3.blake3(made).digest()[:ID_SIZE].hex(), made


def decode_manifest(manifest_id: str, body: bytes) -> Manifest:
    """Return the manifest in *body*, proved against its id.  Raises Corrupt."""
    if blake3.blake3(body).digest()[:ID_SIZE].hex() != manifest_id:
        raise Corrupt(f"manifest {manifest_id} does not match its name")
    start = len(MAGIC) + _LENGTH.size
    if not body.startswith(MAGIC):
        raise Corrupt(f"manifest {manifest_id} has an unknown format")
    try:
        (length,) = _LENGTH.unpack_from(body, len(MAGIC))
        document = cast("dict[str, Any]", json.loads(body[start : start + length]))
        packs = tuple(str(name) for name in document["packs"])
        files = _decode_files(document["files"], body, start + length, len(packs))
        return Manifest(manifest_id, packs, files, str(document["table"]))
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise Corrupt(f"manifest {manifest_id} does not parse") from error


def manifest_packs(manifest_id: str, body: bytes) -> tuple[str, ...]:
    """Return the packs that a manifest refers to, proved, without unfolding it.  Raises Corrupt."""
    if blake3.blake3(body).digest()[:ID_SIZE].hex() != manifest_id or not body.startswith(MAGIC):
        raise Corrupt(f"manifest {manifest_id} does not match its name")
    start = len(MAGIC) + _LENGTH.size
    try:
        (length,) = _LENGTH.unpack_from(body, len(MAGIC))
        document = cast("dict[str, Any]", json.loads(body[start : start + length]))
        return tuple(str(name) for name in document["packs"])
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise Corrupt(f"manifest {manifest_id} does not parse") from error


def _decode_files(
    rows: list[dict[str, Any]], body: bytes, at: int, packs: int
) -> tuple[ManifestFile, ...]:
    files: list[ManifestFile] = []
    for row in rows:
        size = int(row["size"])
        digests = body[at : at + block_count(size) * DIGEST_SIZE]
        at += len(digests)
        extents = body[at : at + int(row["extents"]) * _EXTENT.itemsize]
        at += len(extents)
        places = from_extents(extents, page_count(size), packs)
        digest = bytes.fromhex(row["blake3"])
        files.append(
            ManifestFile(str(row["unit"]), str(row["name"]), size, digest, digests, places)
        )
    if at != len(body):
        raise Corrupt("a manifest's sections do not add up")
    return tuple(files)


def make_known(
    manifest: Manifest,
    table: bytes,
    usable: Sequence[bool],
    present: Mapping[int, Pages] = NO_HOLES,
) -> Known:
    """Return what a next version may refer to.  *usable*: one flag per pack of the manifest;
    *present*: of sparse ones, by their number, which pages are there.

    Raises Corrupt when the page table is not the one the manifest names: then
    nothing is known, every page is written again, and that heals.
    """
    if blake3.blake3(table).hexdigest() != manifest.table_digest:
        raise Corrupt(f"the page table of manifest {manifest.manifest_id} is damaged")
    hashes = np.frombuffer(table, dtype="<u8").reshape(-1, HASH_SIZE // 8)
    good = np.array([*usable, True], dtype=np.bool_)
    files: dict[tuple[str, str], KnownFile] = {}
    first = 0
    for file in manifest.files:
        rows = hashes[first : first + len(file.places)]
        first += len(file.places)
        sound = good[file.places // PACK_PAGES] | (file.places == 0)
        for number, pages in present.items():
            here = (file.places // PACK_PAGES == number) & (file.places != 0)
            sound[here] &= pages[file.places[here] % PACK_PAGES]
        if not sound.all():
            rows = rows.copy()
            rows[~sound] = 0  # a hash no page has
        files[file.unit, file.name] = KnownFile(rows, file.places)
    return Known(None, manifest.packs, files)
