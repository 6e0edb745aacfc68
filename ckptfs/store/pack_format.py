"""How a pack looks: header page, pages, footer, trailer.  Pure.

    0            header page: magic, format, the session that wrote it
    4096 * n     page n, n from 1
    data_end     footer: one 16-byte checksum per 1 MiB region of [0, data_end)
    end - 64     trailer: magic, footer position and length, BLAKE3 of the footer

The id of a pack is the BLAKE3 of its footer, so a pack proves its own name and
the checksums prove the pages.  A file without a valid trailer is torn.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import blake3

from ..errors import Corrupt
from .index import PACK_PAGES
from .pages import PAGE

REGION = 1 << 20
HEADER_MAGIC = b"CKPTPACK"
FOOTER_MAGIC = b"CKPTFOOT"
TRAILER_MAGIC = b"CKPTSEAL"
_HEADER = struct.Struct("<8sI16s")
# magic, format, session, number in session, data end, regions
_FOOTER = struct.Struct("<8sI16sQQI")
_TRAILER = struct.Struct("<8sQQ32s8x")
TRAILER_SIZE = _TRAILER.size  # 64
FORMAT = 1
ID_SIZE = 20  # bytes of BLAKE3 that name a pack; 40 hex digits
FOOTER_MAX = 64 << 10  # 256 regions take 4 KiB


@dataclass(frozen=True, slots=True)
class Footer:
    """What a sealed pack says about itself."""

    session: bytes  # 16 bytes
    number: int  # of the pack within its session
    data_end: int  # bytes; a multiple of the page size
    regions: tuple[bytes, ...]  # 16 bytes each

    @property
    def page_end(self) -> int:
        """One more than the highest page number."""
        return self.data_end // PAGE


def encode_header(session: bytes) -> bytes:
    """Return the header page of a pack."""
    return _HEADER.pack(HEADER_MAGIC, FORMAT, session).ljust(PAGE, b"\0")


def encode_footer(footer: Footer) -> tuple[str, bytes]:
    """Return (pack id, all that goes behind the pages), whole pages of it for O_DIRECT."""
    head = _FOOTER.pack(
        FOOTER_MAGIC, FORMAT, footer.session, footer.number, footer.data_end, len(footer.regions)
    )
    body = head + b"".join(footer.regions)
    digest = blake3.blake3(body).digest()
    trailer = _TRAILER.pack(TRAILER_MAGIC, footer.data_end, len(body), digest)
    size = -(-(len(body) + len(trailer)) // PAGE) * PAGE
    return digest[:ID_SIZE].hex(), body.ljust(size - len(trailer), b"\0") + trailer


def decode_trailer(trailer: bytes, file_size: int) -> tuple[int, int, bytes]:
    """Return (footer position, length, BLAKE3) from the last 64 bytes.  Raises Corrupt: torn."""
    if len(trailer) != TRAILER_SIZE:
        raise Corrupt("the pack is torn: shorter than its trailer")
    magic, at, length, digest = _TRAILER.unpack(trailer)
    fits = at >= PAGE and at % PAGE == 0 and at + length + TRAILER_SIZE <= file_size
    if magic != TRAILER_MAGIC or not fits or length > FOOTER_MAX:
        raise Corrupt("the pack is torn: it has no trailer")
    return at, length, digest


def decode_footer(body: bytes, digest: bytes, pack_id: str) -> Footer:
    """Return the footer in *body*, proved against digest and the pack's name.  Raises Corrupt."""
    if blake3.blake3(body).digest() != digest or digest[:ID_SIZE].hex() != pack_id:
        raise Corrupt(f"the footer of pack {pack_id} does not match its name")
    magic, version, session, number, data_end, count = _FOOTER.unpack_from(body)
    regions = tuple(body[at : at + 16] for at in range(_FOOTER.size, _FOOTER.size + 16 * count, 16))
    if magic != FOOTER_MAGIC or version != FORMAT or data_end > PACK_PAGES * PAGE:
        raise Corrupt(f"pack {pack_id} has an unknown format")
    return Footer(session, number, data_end, regions)
