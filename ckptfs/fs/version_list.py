"""``<job>/ctl/versions``: every version of a job in one file.

``ckptfs ls -l`` and ``ckptfs plot`` read it: of 10 000 versions three files each took 40 s.
"""

from __future__ import annotations

from ..coordinator.api import Job
from ..errors import NotFound
from ..gc.decide import charge_of, class_of
from ..ids import Version
from ..store.api import Account
from .control import render_nested
from .shows import time_text
from .views import JobView


async def refresh(view: JobView) -> None:
    """Have the figures brought up to date, then render; nothing is read on the way."""
    job, parts = view.job, list[str]()
    async for batch in view.service.listed_versions(view.id):
        rows = {str(version): row for version in batch if (row := _row(view, job, version))}
        parts.append(render_nested(rows))
    view.listing = "".join(parts)


def versions(view: JobView) -> str:
    """One line per version, as of when the file was opened."""
    return view.listing


def _row(view: JobView, job: Job, version: Version) -> dict[str, object]:
    """Return what is known of a version, nothing when it was removed meanwhile."""
    service, store = view.service, view.service.store
    try:
        row: dict[str, object] = {
            "state": service.version_state(view.id, version).partition(" ")[0],
            "replicas": service.replicas(view.id, version),
            "level": job.replication,
            "pinned": int(store.pinned(view.id, version)),
        }
    except NotFound:
        return {}
    account = store.summaries.account(view.id, version)
    if account is not None:
        row |= _figures(job, account)
        alone = store.summaries.alone_bytes(view.id, version)
        if alone is not None:
            row["unique_bytes"] = alone
        if account.note:
            row["note"] = account.note
    return row


def _figures(job: Job, account: Account) -> dict[str, object]:
    """Return what the head says.  Pure."""
    return {
        "committed_at": time_text(account.committed_ns),
        "logical_bytes": account.logical_bytes,
        "stored_bytes": account.stored_bytes,
        "charged_bytes": charge_of(
            account.purpose,
            account.initiator,
            logical_bytes=account.logical_bytes,
            copies_wanted=job.replication,
        ),
        "class": class_of(account.purpose, account.initiator),
        "frozen_usec": account.frozen_usec,
        "files": account.files,
        "purpose": account.purpose,
        "initiator": account.initiator,
        "protocol": account.protocol,
        "keep": int(account.keep),
    }
