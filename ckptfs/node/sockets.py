"""Which sockets there are, and who is at the other end: sock_diag(7) and /proc/net."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_DUMP_REQUEST = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_ALL_STATES = 0xFFFFFFFF
_SHOW_NAME_AND_PEER = 1 | 4
_ATTRIBUTE_NAME = 0
_ATTRIBUTE_PEER = 2
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBHIIIII")
_MESSAGE = struct.Struct("=BBBBIII")
_ATTRIBUTE = struct.Struct("=HH")
_TCP_STATES_ALONE = {"07", "0A"}  # CLOSE, LISTEN: no other end


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """One unix socket; *peer* is the inode of the other end, 0 when there is none (yet)."""

    inode: int
    peer: int
    name: str


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """One TCP connection; addresses as /proc/net/tcp writes them."""

    inode: int  # 0: not accepted yet, or on its way out
    local: str
    remote: str


def parse_unix(data: bytes) -> Iterator[UnixSocket]:
    """Yield the sockets in one datagram of answers to a unix_diag request.  Pure."""
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if kind not in {_NLMSG_DONE, _NLMSG_ERROR}:
            yield _parse_unix_message(data[at + _HEADER.size : at + size])
        at += max(size + 3 & ~3, _HEADER.size)


def _parse_unix_message(data: bytes) -> UnixSocket:
    inode, peer, name = _MESSAGE.unpack_from(data)[4], 0, ""
    at = _MESSAGE.size
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        value = data[at + _ATTRIBUTE.size : at + size]
        if kind == _ATTRIBUTE_PEER:
            (peer,) = struct.unpack_from("=I", value)
        elif kind == _ATTRIBUTE_NAME:
            name = value.rstrip(b"\0").replace(b"\0", b"@").decode(errors="replace")
        at += max(size + 3 & ~3, _ATTRIBUTE.size)
    return UnixSocket(inode, peer, name)


def _is_last(data: bytes) -> bool:
    return len(data) < _HEADER.size or _HEADER.unpack_from(data)[1] in {_NLMSG_DONE, _NLMSG_ERROR}


def read_unix_sockets() -> dict[int, UnixSocket]:
    """Return all unix sockets of the caller's network namespace by inode.  Raises OSError."""
    request = _REQUEST.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, 0, _SHOW_NAME_AND_PEER, 0, 0)
    header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _DUMP_REQUEST, 1, 0)
    found: dict[int, UnixSocket] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(5)
        netlink.send(header + request)
        while not _is_last(data := netlink.recv(1 << 17)):
            found.update((item.inode, item) for item in parse_unix(data))
    return found


def parse_tcp(text: str) -> Iterator[TcpSocket]:
    """Yield the sockets with another end in the text of /proc/net/tcp or tcp6.  Pure."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] not in _TCP_STATES_ALONE:
            yield TcpSocket(int(fields[9]), fields[1], fields[2])


def read_tcp_sockets(pid: int) -> tuple[TcpSocket, ...]:
    """Return the TCP connections in the network namespace of a process."""
    found: list[TcpSocket] = []
    for name in ("tcp", "tcp6"):
        try:
            found += parse_tcp(Path(f"/proc/{pid}/net/{name}").read_text())
        except OSError:
            continue  # no IPv6, or the process is gone
    return tuple(found)


def render_address(text: str) -> str:
    """Return ``0100007F:1F90`` as ``127.0.0.1:8080``; words of IPv6 likewise.  Pure."""
    address, _, port = text.partition(":")
    words = bytes.fromhex(address)
    ordered = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    family = socket.AF_INET if len(ordered) == 4 else socket.AF_INET6
    shown = socket.inet_ntop(family, ordered)
    return f"{shown}:{int(port, 16)}" if len(ordered) == 4 else f"[{shown}]:{int(port, 16)}"


def canonical(text: str) -> str:
    """Return an address with IPv4-in-IPv6 written as IPv4, for comparing.  Pure."""
    prefix = "0000000000000000FFFF0000"
    return text.removeprefix(prefix) if text.startswith(prefix) else text
