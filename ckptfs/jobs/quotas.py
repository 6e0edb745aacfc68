"""Quotas: how many bytes each user may have charged, and the document that keeps them.  Pure.

``jobs/quotas.json``; a limit of 0 is none.  The default is everybody's but root's who has no
limit of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from ..errors import Corrupt
from .accounts import ID_MAX
from .sizes import SIZE_MAX

NAME: Final = "quotas.json"
FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Quotas:
    """Limits in bytes, by uid."""

    default: int = 0
    limits: Mapping[int, int] = field(default_factory=dict[int, int])

    def limit_of(self, uid: int) -> int:
        """Return how much may be charged to *uid*, 0 when nothing limits it."""
        return self.limits.get(uid, self.default if uid else 0)

    def with_limit(self, uid: int | None, limit: int | None) -> Quotas:
        """Return the quotas with another limit; *uid* None: the default; *limit* None: take away.

        A limit of 0 for a user lifts the default for that user.
        """
        if uid is None:
            return replace(self, default=limit or 0)
        others = {key: value for key, value in self.limits.items() if key != uid}
        return replace(self, limits=others if limit is None else others | {uid: limit})


def encode_quotas(quotas: Quotas) -> bytes:
    """Return the document."""
    limits = {str(uid): limit for uid, limit in sorted(quotas.limits.items())}
    document = {"format": FORMAT, "default": quotas.default, "limits": limits}
    return json.dumps(document, indent=1).encode() + b"\n"


def decode_quotas(document: bytes) -> Quotas:
    """Return the quotas; none for an empty document.  Raises Corrupt."""
    if not document:
        return Quotas()
    try:
        read = cast("dict[str, Any]", json.loads(document))
        if read["format"] != FORMAT:
            raise Corrupt(f"{NAME} has format {read['format']}; upgrade ckptfs")
        limits = {int(uid): int(limit) for uid, limit in read["limits"].items()}
        numbers = [int(read["default"]), *limits.values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(f"{NAME} does not parse: set the quotas again") from error
    if not all(0 <= n <= SIZE_MAX for n in numbers) or not all(0 <= u <= ID_MAX for u in limits):
        raise Corrupt(f"{NAME} holds numbers that no quota can have: set the quotas again")
    return Quotas(numbers[0], limits)
