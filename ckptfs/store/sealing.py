"""How an object looks when it is compressed or encrypted for a volume elsewhere.  Pure.

    0         header: magic, format, flags, frame size, plain size, key id, salt, place
    88        frames, each a piece of *frame size* plain bytes: as it is or as one zstd frame,
              then AES-256-GCM with its tag, when the flags say so
    index     4 bytes per frame: twice the stored bytes, one more when compressed
    end - 48  trailer: magic, where the index begins, frames, BLAKE3 of everything before

*place* is a digest of kind and name, so that a renamed object is noticed, and the BLAKE3 is not
keyed: both are checked by whoever has no key.  The key of an object is derived (HKDF-SHA256) from
the owner's data key, the object's random salt and its place, so it is used for this object alone,
and the number of the frame can be the nonce.  Header, number, whether it is the last frame and
whether it is compressed are authenticated with each frame: none can be changed, swapped, dropped
or appended unnoticed, and a range is read without the rest.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..errors import Corrupt, InvalidInput

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC, TRAILER_MAGIC = b"CKPTWRAP", b"CKPTEND\0"
FORMAT = 1
COMPRESSED, ENCRYPTED = 1, 2
FRAME = 1 << 20  # plain bytes: as a region of a pack and a block of a file
TAG = 16
LEVEL = 1  # of zstd; measured: 3 takes 1.6 times as long for 10 % less (153 and 101 MB/s)
MIN_SAVED = 0.05  # below this share compressing does not pay
PROBES, PROBE_SIZE = 16, 64 << 10
KEY_ID_SIZE, SALT_SIZE, PLACE_SIZE = 16, 32, 16
_HEADER = struct.Struct("<8sHHIQ16s32s16s")
HEADER_SIZE = _HEADER.size  # 88
_TRAILER = struct.Struct("<8sQ")
DIGEST_SIZE = 32
TRAILER_SIZE = 8 + 8 + DIGEST_SIZE  # 48
NO_KEY = bytes(KEY_ID_SIZE)

Buffer = bytes | bytearray | memoryview


def place_digest(kind: str, name: str) -> bytes:
    """Return what stands for kind and name of an object in its header."""
    return blake3.blake3(f"{kind}/{name}".encode()).digest(PLACE_SIZE)


@dataclass(frozen=True, slots=True)
class Header:
    """What a sealed object says of itself before its frames."""

    flags: int
    plain_size: int
    key_id: bytes  # NO_KEY when not encrypted
    salt: bytes
    place: bytes
    frame_size: int = FRAME

    @property
    def frames(self) -> int:
        """How many frames there are; an empty object has one, so that it is authenticated too."""
        return max(1, -(-self.plain_size // self.frame_size))

    def frame_length(self, number: int) -> int:
        """Return the plain bytes of a frame."""
        return min(self.frame_size, self.plain_size - number * self.frame_size)

    @property
    def is_encrypted(self) -> bool:
        """Whether a key is needed."""
        return bool(self.flags & ENCRYPTED)


def encode_header(header: Header) -> bytes:
    """Return the first bytes of an object."""
    return _HEADER.pack(
        MAGIC,
        FORMAT,
        header.flags,
        header.frame_size,
        header.plain_size,
        header.key_id,
        header.salt,
        header.place,
    )


def decode_header(data: Buffer, what: str) -> Header:
    """Return the header in the first bytes of an object.  Raises Corrupt naming *what*."""
    if len(data) < HEADER_SIZE:
        raise Corrupt(f"{what} is torn: shorter than its header")
    magic, number, flags, frame_size, size, key_id, salt, place = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise Corrupt(f"{what} is no sealed object")
    if number != FORMAT or flags & ~(COMPRESSED | ENCRYPTED):
        raise Corrupt(f"{what} has an unknown format; upgrade ckptfs")
    if not 0 < frame_size <= FRAME or (key_id == NO_KEY) == bool(flags & ENCRYPTED):
        raise Corrupt(f"{what} has a header that makes no sense")
    return Header(flags, size, key_id, salt, place, frame_size)


def derive(data_key: bytes, header: Header) -> bytes:
    """Return the key of one object, 32 bytes."""
    info = b"ckptfs sealed object 1\0" + header.place
    return HKDF(SHA256(), length=32, salt=header.salt, info=info).derive(data_key)


def worth_compressing(samples: Sequence[Buffer]) -> bool:
    """Whether these samples become smaller by at least MIN_SAVED."""
    total = sum(map(len, samples))
    packed = sum(len(zstd.compress(sample, LEVEL)) for sample in samples)
    return 0 < packed <= total * (1 - MIN_SAVED)


def probe_offsets(size: int) -> list[int]:
    """Return where samples of PROBE_SIZE are taken from an object of *size* bytes."""
    last = max(0, size - PROBE_SIZE)
    count = min(PROBES, 1 + last // PROBE_SIZE)
    return [last * number // max(1, count - 1) for number in range(count)] if size else []


class Frames:
    """Frames of one object, sealed and opened.  Thread safe.

    *data_key* is the owner's, 32 bytes, when the object is encrypted.
    """

    def __init__(self, header: Header, data_key: bytes | None) -> None:
        if header.is_encrypted and data_key is None:
            raise InvalidInput("an encrypted object needs a key")
        self.header = header
        self._bound = encode_header(header)
        self._cipher = (
            AESGCM(derive(data_key, header)) if header.is_encrypted and data_key else None
        )

    def _binding(self, number: int, is_compressed: bool) -> bytes:
        is_last = number == self.header.frames - 1
        return self._bound + struct.pack("<I??", number, is_last, is_compressed)

    def seal(self, number: int, data: Buffer) -> tuple[bytes, int]:
        """Return (stored bytes, index entry) of frame *number*; each number once per object."""
        stored, is_compressed = bytes(data), False
        if self.header.flags & COMPRESSED:
            packed = zstd.compress(data, LEVEL)
            if len(packed) <= len(stored) * (1 - MIN_SAVED):
                stored, is_compressed = packed, True
        if self._cipher is not None:
            binding = self._binding(number, is_compressed)
            stored = self._cipher.encrypt(number.to_bytes(12, "big"), stored, binding)
        return stored, len(stored) << 1 | is_compressed

    def open(self, number: int, stored: Buffer, *, is_compressed: bool) -> bytes:
        """Return the plain bytes of a frame.  Raises Corrupt."""
        plain = bytes(stored)
        if self._cipher is not None:
            try:
                plain = self._cipher.decrypt(
                    number.to_bytes(12, "big"), plain, self._binding(number, is_compressed)
                )
            except InvalidTag:
                raise Corrupt(f"frame {number} was altered, or belongs elsewhere") from None
        length = self.header.frame_length(number)
        if is_compressed:
            plain = _unpack(plain, length, number)
        if len(plain) != length:
            raise Corrupt(f"frame {number} has {len(plain)} bytes, not {length}")
        return plain


def _unpack(data: bytes, length: int, number: int) -> bytes:
    unpacker = zstd.ZstdDecompressor()
    try:
        plain = unpacker.decompress(data, max_length=length + 1)  # no more, whatever it claims
    except zstd.ZstdError as error:
        raise Corrupt(f"frame {number} does not unpack: {error}") from None
    if not unpacker.eof or unpacker.unused_data:
        raise Corrupt(f"frame {number} does not end where it should")
    return plain


def encode_index(entries: Sequence[int]) -> bytes:
    """Return the index: what `Frames.seal` said of each frame."""
    return struct.pack(f"<{len(entries)}I", *entries)


def encode_trailer(index_at: int) -> bytes:
    """Return the trailer without the BLAKE3 that ends it."""
    return _TRAILER.pack(TRAILER_MAGIC, index_at)


def decode_trailer(trailer: Buffer, file_size: int, header: Header, what: str) -> tuple[int, bytes]:
    """Return (where the index begins, BLAKE3) from the last bytes of an object.  Raises Corrupt."""
    if len(trailer) != TRAILER_SIZE:
        raise Corrupt(f"{what} is torn: shorter than its trailer")
    magic, index_at = _TRAILER.unpack_from(trailer)
    index_size = 4 * header.frames
    if magic != TRAILER_MAGIC or index_at + index_size + TRAILER_SIZE != file_size:
        raise Corrupt(f"{what} is torn: it has no trailer")
    return index_at, bytes(trailer[-DIGEST_SIZE:])


def decode_index(data: Buffer, index_at: int, what: str) -> list[tuple[int, int, bool]]:
    """Return (offset, stored bytes, compressed) of each frame.  Raises Corrupt."""
    places: list[tuple[int, int, bool]] = []
    at = HEADER_SIZE
    for (entry,) in struct.iter_unpack("<I", data):
        length = entry >> 1
        places.append((at, length, bool(entry & 1)))
        at += length
        if length > FRAME + TAG:
            raise Corrupt(f"{what} has a frame of {length} bytes")
    if at != index_at:
        raise Corrupt(f"{what} has an index that does not fit its frames")
    return places
