"""The record in a sparse pack: which pages are there, what the regions hold.  Pure.

    magic   one bit per page, page 0 (the header) first   16-byte checksum per region   BLAKE3

It lies behind the footer.  The BLAKE3 is taken over the footer's own and all before it, so a
record proves itself and belongs to one pack alone.  A region's checksum is that of its bytes with
the dead pages as zeros, which is what a file system gives back for a hole.
"""

from __future__ import annotations

import blake3
import numpy as np
import numpy.typing as npt

from ..errors import Corrupt
from .index import PACK_PAGES

MAGIC = b"CKPTHOLE"
DIGEST_SIZE = 32
CHECKSUM_SIZE = 16
REGIONS_MAX = 256  # of a pack, 1 MiB each
RECORD_MAX = len(MAGIC) + PACK_PAGES // 8 + REGIONS_MAX * CHECKSUM_SIZE + DIGEST_SIZE

Pages = npt.NDArray[np.bool_]  # one flag per page number of a pack


def encode_record(footer_digest: bytes, present: Pages, regions: tuple[bytes, ...]) -> bytes:
    """Return the record of a pack whose footer has this BLAKE3."""
    bits = np.packbits(present, bitorder="little").tobytes()
    record = b"".join([MAGIC, bits, *regions])
    return record + blake3.blake3(footer_digest + record).digest()


def decode_record(
    record: bytes, footer_digest: bytes, pages: int, regions: int
) -> tuple[Pages, tuple[bytes, ...]]:
    """Return (which pages are there, checksums of the regions), proved.  Raises Corrupt."""
    first = len(MAGIC)
    end = first + -(-pages // 8)
    size = end + CHECKSUM_SIZE * regions
    is_proved = blake3.blake3(footer_digest + record[:size]).digest() == record[size:]
    if not record.startswith(MAGIC) or not is_proved:
        raise Corrupt("the record of a sparse pack is damaged")
    bits = np.frombuffer(record[first:end], dtype=np.uint8)
    present = np.unpackbits(bits, count=pages, bitorder="little").astype(np.bool_)
    sums = tuple(record[at : at + CHECKSUM_SIZE] for at in range(end, size, CHECKSUM_SIZE))
    return present, sums
