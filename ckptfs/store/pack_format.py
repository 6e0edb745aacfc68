"""How a pack looks: header page, pages, footer, trailer.  Pure.

    0            header page: magic, format, the session that wrote it
    4096 * n     page n, n from 1
    data_end     footer: one 16-byte checksum per 1 MiB region of [0, data_end)
                 record, when the pack is sparse: see `sparse_format`
    end - 64     trailer: magic, footer position and length, BLAKE3 of the footer, length of record

The id of a pack is the BLAKE3 of its footer, so a pack proves its own name and
the checksums prove the pages.  A file without a valid trailer is torn.

A *sparse* pack has lost its dead pages to the collector: the others lie where they lay, between
them is nothing.  Its footer, and with it its name, are those of the whole pack; the record says
which pages are there and what the regions hold now, and takes the place of the checksums.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import blake3

from ..errors import Corrupt
from .index import PACK_PAGES
from .pages import PAGE
from .sparse_format import RECORD_MAX, Pages, decode_record, encode_record

REGION = 1 << 20
HEADER_MAGIC = b"CKPTPACK"
FOOTER_MAGIC = b"CKPTFOOT"
TRAILER_MAGIC = b"CKPTSEAL"
_HEADER = struct.Struct("<8sI16s")
# magic, format, session, number in session, data end, regions
_FOOTER = struct.Struct("<8sI16sQQI")
_TRAILER = struct.Struct("<8sQQ32sI4x")
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
    regions: tuple[bytes, ...]  # 16 bytes each, of what the file holds: dead pages are zeros
    # one flag per page, header included; None: all of them
    present: Pages | None = field(default=None, compare=False)

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
    trailer = _TRAILER.pack(TRAILER_MAGIC, footer.data_end, len(body), digest, 0)
    size = -(-(len(body) + len(trailer)) // PAGE) * PAGE
    return digest[:ID_SIZE].hex(), body.ljust(size - len(trailer), b"\0") + trailer


class Trailer(NamedTuple):
    """Where the footer is."""

    at: int  # offset of the footer, bytes
    length: int  # of the footer, bytes
    digest: bytes  # BLAKE3 of the footer
    record: int  # bytes of the record behind it, 0 when the pack is whole


def sparse_tail(body: bytes, footer: Footer, present: Pages, regions: tuple[bytes, ...]) -> bytes:
    """Return all that goes behind the pages of a sparse pack.

    *body*: the footer as it lies in the whole pack; *regions*: the checksums as they are now.
    """
    digest = blake3.blake3(body).digest()
    record = encode_record(digest, present, regions)
    trailer = _TRAILER.pack(TRAILER_MAGIC, footer.data_end, len(body), digest, len(record))
    size = -(-(len(body) + len(record) + len(trailer)) // PAGE) * PAGE
    return (body + record).ljust(size - len(trailer), b"\0") + trailer


def decode_trailer(trailer: bytes, file_size: int) -> Trailer:
    """Return where the footer is, from the last 64 bytes.  Raises Corrupt: torn."""
    if len(trailer) != TRAILER_SIZE:
        raise Corrupt("the pack is torn: shorter than its trailer")
    magic, at, length, digest, record = _TRAILER.unpack(trailer)
    fits = at >= PAGE and at % PAGE == 0 and at + length + record + TRAILER_SIZE <= file_size
    if magic != TRAILER_MAGIC or not fits or length > FOOTER_MAX or record > RECORD_MAX:
        raise Corrupt("the pack is torn: it has no trailer")
    return Trailer(at, length, digest, record)


def decode_footer(body: bytes, digest: bytes, pack_id: str, record: bytes = b"") -> Footer:
    """Return the footer in *body*, proved against digest and the pack's name.

    *record*: what makes the pack a sparse one, empty when it is whole.  Raises Corrupt.
    """
    if blake3.blake3(body).digest() != digest or digest[:ID_SIZE].hex() != pack_id:
        raise Corrupt(f"the footer of pack {pack_id} does not match its name")
    magic, version, session, number, data_end, count = _FOOTER.unpack_from(body)
    regions = tuple(body[at : at + 16] for at in range(_FOOTER.size, _FOOTER.size + 16 * count, 16))
    if magic != FOOTER_MAGIC or version != FORMAT or data_end > PACK_PAGES * PAGE:
        raise Corrupt(f"pack {pack_id} has an unknown format")
    present = None
    if record:
        present, regions = decode_record(record, digest, data_end // PAGE, len(regions))
    return Footer(session, number, data_end, regions, present)


def read_footer(read: Callable[[int, int], bytes], size: int, pack_id: str) -> Footer:
    """Return the proved footer of a pack of *size* bytes; *read*: offset, size → bytes.

    Raises Corrupt (torn, or not what its name says), and what *read* raises.
    """
    return read_tail(read, size, pack_id)[1]


def read_tail(read: Callable[[int, int], bytes], size: int, pack_id: str) -> tuple[bytes, Footer]:
    """Return (the footer's bytes, the footer), as `read_footer`."""
    tail = read(max(0, size - TRAILER_SIZE), min(size, TRAILER_SIZE))
    trailer = decode_trailer(tail, size)
    both = read(trailer.at, trailer.length + trailer.record)
    body, record = both[: trailer.length], both[trailer.length :]
    return body, decode_footer(body, trailer.digest, pack_id, record)
