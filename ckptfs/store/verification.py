"""Reading everything of a version: SHA256SUMS, verification.  Blocking; runs in worker threads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import blake3

from ..errors import Corrupt
from ..ids import JobId, Version
from ..model import FileEntry, Head
from . import layout
from .api import Damage
from .blocks import BlockLoader
from .manifest import Manifest
from .pages import BLOCK, block_count

SHA256_HEX = 64
NS_DIGITS = 20


def sums_line(digest: str, entry: FileEntry) -> str:
    """Return one line that ``sha256sum -c`` accepts, run in the version's directory.  Pure."""
    return f"{digest}  ./{layout.file_path(entry.unit, entry.name)}\n"


def sums_length(head: Head) -> int:
    """Return the bytes of SHA256SUMS without a digest being known.  Pure."""
    nothing = "0" * SHA256_HEX
    return sum(len(sums_line(nothing, entry).encode()) for entry in head.files)


def encode_sums(text: bytes) -> bytes:
    """Return the marker that keeps SHA256SUMS: its BLAKE3, then the text.  Pure."""
    return blake3.blake3(text).hexdigest().encode() + b"\n" + text


def decode_sums(marker: bytes | None, head: Head) -> bytes | None:
    """Return SHA256SUMS out of a marker, None when it is not what was kept.  Pure."""
    digest, _, text = (marker or b"").partition(b"\n")
    if len(text) != sums_length(head) or digest != blake3.blake3(text).hexdigest().encode():
        return None
    return text


def encode_verified(job: JobId, version: Version, now_ns: int) -> bytes:
    """Return the marker that says when a version was proved, with a checksum.  Pure.

    A flipped digit would put a version off that the scrub should read, or say that it was proved
    in the future; so would the marker of another version.
    """
    return f"{now_ns} {_verified_digest(job, version, now_ns)}\n".encode()


def decode_verified(job: JobId, version: Version, marker: bytes | None) -> int:
    """Return when, in nanoseconds since the epoch; 0, never, where it is not certain.  Pure."""
    text, _, digest = (marker or b"").decode("ascii", "replace").partition(" ")
    if not (text.isascii() and text.isdigit() and len(text) <= NS_DIGITS):
        return 0
    return int(text) if digest == _verified_digest(job, version, int(text)) + "\n" else 0


def _verified_digest(job: JobId, version: Version, now_ns: int) -> str:
    return blake3.blake3(f"{job}@{version} {now_ns}".encode()).hexdigest()[:32]


def make_sums(head: Head, manifest: Manifest | None, loader: BlockLoader) -> bytes:
    """Return SHA256SUMS, out of verified blocks.  Raises Corrupt naming file and block."""
    lines: list[str] = []
    for index, entry in enumerate(head.files):
        assert manifest is not None  # a head with files has one
        digest = hashlib.sha256()
        for block in range(block_count(entry.size_bytes)):
            try:
                digest.update(loader.load(manifest, manifest.files[index], block))
            except Corrupt as error:
                raise Corrupt(
                    f"{layout.file_path(entry.unit, entry.name)}, block {block}: {error}"
                ) from error
        lines.append(sums_line(digest.hexdigest(), entry))
    return "".join(lines).encode()


def find_mismatches(head: Head, manifest: Manifest) -> Iterator[Damage]:
    """Yield where head and manifest do not agree.  Pure."""
    if len(head.files) != len(manifest.files):
        yield Damage(
            head.job, head.version, head.files[0].unit, "", -1, "the manifest holds other files"
        )
        return
    for index, entry in enumerate(head.files):
        file = manifest.files[index]
        same = (
            entry.manifest == f"{manifest.manifest_id}:{index}"
            and entry.size_bytes == file.size_bytes
            and entry.blake3 == file.blake3.hex()
        )
        if not same:
            yield Damage(
                head.job, head.version, entry.unit, entry.name, -1, "head and manifest do not agree"
            )


def verify_files(
    head: Head,
    manifest: Manifest,
    loader: BlockLoader,
    *,
    progress: Callable[[float], None],
    suspect: Callable[[str], None],
    wait: Callable[[int], None],
) -> list[Damage]:
    """Read every block from the disk and prove it; return what is wrong.

    *progress* is told 0..1, *suspect* the packs that fail their own checksums; *wait* returns
    when so many bytes may be read.
    """
    found = list(find_mismatches(head, manifest))
    if found:
        return found
    total = sum(block_count(entry.size_bytes) for entry in head.files) or 1
    done = 0
    for index, entry in enumerate(head.files):
        file = manifest.files[index]
        for block in range(block_count(entry.size_bytes)):
            wait(min(BLOCK, entry.size_bytes - block * BLOCK))
            try:
                loader.load(manifest, file, block, fresh=True)
            except Corrupt as error:
                found.append(
                    Damage(head.job, head.version, entry.unit, entry.name, block, str(error))
                )
                for pack in loader.suspects(manifest, file, block):
                    suspect(pack)
            done += 1
            progress(done / total)
    return found
