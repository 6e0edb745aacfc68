"""``ctl/space`` and ``ctl/quota``: who pays for what, and how much they may."""

from __future__ import annotations

from ..coordinator.charges import DEFAULT, QuotaRow
from ..errors import InvalidInput
from ..jobs.sizes import parse_size
from ..model import Caller
from .control import render_nested
from .views import ServiceView

ROOT = 0
NO_LIMIT = "none"


async def refresh(view: ServiceView) -> None:
    """Have the sums brought up to date."""
    await view.service.charges.refresh()


def space(view: ServiceView) -> str:
    """One line per user and class, those of the reader alone unless it is root; then the store."""
    all_rows = view.service.charges.rows()
    rows: dict[str, dict[str, object]] = {}
    for row in all_rows:
        if view.uid in (ROOT, row.uid):
            rows[f"{row.user}/{row.space_class}"] = {
                "versions": row.versions,
                "logical_bytes": row.logical_bytes,
                "added_bytes": row.added_bytes,
                "charged_bytes": row.charged_bytes,
                "copies": row.copies,
                "copies_wanted": row.copies_wanted,
                "dedup_ratio": ratio(row.logical_bytes, row.added_bytes),
            }
    usage = view.service.usage()
    added = sum(row.added_bytes for row in all_rows)
    rows["store"] = {
        "versions": usage.versions,
        "logical_bytes": usage.logical_bytes,
        "stored_bytes": usage.stored_bytes,
        "rest_bytes": max(0, usage.stored_bytes - added),
        "thinned_bytes": usage.hollow_bytes,
        "reserved_bytes": usage.reserved_bytes,
        "free_bytes": usage.free_bytes,
        "total_bytes": usage.total_bytes,
        "dedup_ratio": ratio(usage.logical_bytes, usage.stored_bytes),
        "counting": int(usage.is_counting or view.service.charges.is_partial),
    }
    return render_nested(rows)


def ratio(logical_bytes: int, stored_bytes: int) -> str:
    """Return how many times smaller the bytes became, ``1.00`` where there are none."""
    return f"{logical_bytes / stored_bytes if logical_bytes and stored_bytes else 1:.2f}"


def quota(view: ServiceView) -> str:
    """One line per user, the reader's own alone unless it is root; last everybody else's limit."""
    charges = view.service.charges
    rows = {row.user: _figures(row) for row in charges.quotas() if view.uid in (ROOT, row.uid)}
    return render_nested({**rows, DEFAULT: {"limit_bytes": charges.default_limit() or NO_LIMIT}})


def _figures(row: QuotaRow) -> dict[str, object]:
    return {
        "limit_bytes": row.limit_bytes or NO_LIMIT,
        "charged_bytes": row.charged_bytes,
        "reserved_bytes": row.reserved_bytes,
    }


async def set_quota(view: ServiceView, text: str, caller: Caller) -> str:
    """Take ``alice 10G``, ``alice none`` or ``default 10G``; answer: the limit in bytes."""
    user, limit = parse_quota(text)
    view.service.charges.set_limit(caller, user, limit)
    return f"{user} {NO_LIMIT if limit is None else limit}"


def parse_quota(text: str) -> tuple[str, int | None]:
    """Return (user, bytes); None takes the limit away.  Raises InvalidInput, OutOfRange.  Pure."""
    words = text.split()
    if len(words) != 2:
        raise InvalidInput(f"write a user and a size, as alice 10G, not {text!r}")
    if words[1] == NO_LIMIT:
        return words[0], None
    return words[0], parse_size(words[1])
