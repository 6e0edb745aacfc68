"""Inode numbers and lookup counts.  Pure.

A number is 63 bits of a hash of the object's identity: the same after a
remount, without a table on disk.  Two objects known at once never share one:
the later gets the next free number (chance per pair 2**-63).  A node stays
here while the kernel holds lookups on it.
"""

from __future__ import annotations

import hashlib

from ..errors import Gone
from .nodes import ROOT, Node

ROOT_INODE = 1  # FUSE_ROOT_ID


class Inodes:
    """Which node a number stands for, as long as the kernel knows it."""

    def __init__(self) -> None:
        self._nodes: dict[int, Node] = {ROOT_INODE: ROOT}
        self._numbers: dict[Node, int] = {ROOT: ROOT_INODE}
        self._lookups: dict[int, int] = {}

    def number(self, node: Node) -> int:
        """Return the number of *node*, without counting a lookup."""
        known = self._numbers.get(node)
        if known is not None:
            return known
        digest = hashlib.blake2b(node.identity.encode(), digest_size=8).digest()
        number = max(int.from_bytes(digest) >> 1, ROOT_INODE + 1)
        while number in self._nodes:
            number += 1
        return number

    def remember(self, node: Node) -> int:
        """Count one lookup of *node* by the kernel and return its number."""
        number = self.number(node)
        self._nodes[number], self._numbers[node] = node, number
        self._lookups[number] = self._lookups.get(number, 0) + 1
        return number

    def node(self, number: int) -> Node:
        """Return the node behind *number*.  Raises Gone when the kernel never looked it up."""
        try:
            return self._nodes[number]
        except KeyError:
            raise Gone(f"inode {number} is not known") from None

    def forget(self, number: int, count: int) -> None:
        """Take back *count* lookups; the last one drops the node."""
        left = self._lookups.get(number, 0) - count
        if left > 0:
            self._lookups[number] = left
            return
        self._lookups.pop(number, None)
        if number != ROOT_INODE:
            node = self._nodes.pop(number, None)
            if node is not None:
                del self._numbers[node]

    def known(self, node: Node) -> bool:
        """Return whether the kernel may have *node* in a cache."""
        return node in self._numbers

    def __len__(self) -> int:
        return len(self._nodes)
