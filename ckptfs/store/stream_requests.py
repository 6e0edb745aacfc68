"""What a checkpointer says on the socket of ``criu dump --stream``: pure, byte by byte.

For each image, as ``criu-image-streamer`` takes it (CRIU ``images/img-streamer.proto``): the
size of a message as 32 bits, little-endian; the message, whose one field is the name; then one
byte that carries the reading end of a pipe.  Whatever differs is refused.
"""

from __future__ import annotations

import struct

from ..errors import InvalidInput

_SIZE = struct.Struct("<I")
_NAME_FIELD = 0x0A  # field 1, length-delimited
NAME_MAX = 127  # bytes: then the length is one byte; CRIU's names stay below 40
_HEAD = 2  # tag and length


class Requests:
    """Takes the bytes of one connection; the caller reads no more than `wants` at once."""

    def __init__(self) -> None:
        self.wants = _SIZE.size  # bytes until the next step
        self._have = b""
        self._step = 0  # 0 size, 1 message, 2 the byte with the pipe
        self._name = ""

    def take(self, data: bytes, pipes: int) -> str:
        """Take up to `wants` bytes that came with *pipes* descriptors.

        Returns the name once its pipe is there, else "".  Raises InvalidInput.
        """
        if pipes != (1 if self._step == 2 else 0):
            raise _refused(f"{pipes} descriptors where {1 if self._step == 2 else 0} belong")
        self._have += data
        self.wants -= len(data)
        if self.wants:
            return ""
        have, self._have = self._have, b""
        return self._advance(have)

    def end(self) -> InvalidInput | None:
        """Take the end of the connection; return what is wrong in the middle of a request."""
        if self._step or self._have:
            return _refused("it ends in the middle of a request")
        return None

    def _advance(self, have: bytes) -> str:
        if self._step == 0:
            (size,) = _SIZE.unpack(have)
            if not _HEAD < size <= _HEAD + NAME_MAX:
                raise _refused(f"a request of {size} bytes")
            self.wants, self._step = size, 1
            return ""
        if self._step == 1:
            self._name = _name_in(have)
            self.wants, self._step = 1, 2
            return ""
        self.wants, self._step = _SIZE.size, 0
        return self._name


def _name_in(message: bytes) -> str:
    if message[0] != _NAME_FIELD or message[1] != len(message) - _HEAD:
        raise _refused("a request that is not a name")
    try:
        return message[_HEAD:].decode("ascii")
    except UnicodeDecodeError:
        raise _refused("a name that is not ASCII") from None


def _refused(what: str) -> InvalidInput:
    return InvalidInput(f"the checkpointer's stream cannot be understood: {what}")
