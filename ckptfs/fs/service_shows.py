"""The texts that the service's control files print.  Pure: records in, text out."""

from __future__ import annotations

from .. import __version__
from ..errors import CkptfsError
from ..model import JobState
from .control import render_flat, render_list, render_nested
from .metrics import render_metrics
from .shows import NS, time_text
from .space import ratio
from .views import ServiceView

LEVELS = frozenset({"jobs", "operations", *(f"jobs_{state}" for state in JobState)})
ABI = 1  # raised when a key or a file is renamed or taken away


def version(view: ServiceView) -> str:
    """``ckptfs 0.1.0``, ``abi 1``."""
    return render_flat({"ckptfs": __version__, "abi": ABI})


def health(view: ServiceView) -> str:
    """``ok``, or one sentence per trouble."""
    return render_list(view.service.health()) or "ok\n"


def checkpointers(view: ServiceView) -> str:
    """One line per translib; a reason where it does not work."""
    rows: dict[str, dict[str, object]] = {}
    for name, found in sorted(view.service.checkpointers().items()):
        rows[name] = {
            "available": int(found.available),
            "version": found.version or "none",
            "capabilities": ",".join(sorted(found.capabilities)),
        }
        if found.reason:
            rows[name]["reason"] = found.reason
    return render_nested(rows)


def nodes(view: ServiceView) -> str:
    """The one node there is."""
    service = view.service
    units = (unit for job in service.jobs() for unit in service.job(job).units.values())
    name = service.node_name()
    working = [key for key, found in sorted(service.checkpointers().items()) if found.available]
    facts = {
        "state": "up",
        "units": sum(unit.node == name and unit.pid > 0 for unit in units),
        "load": f"{view.around.load():.1f}",
        "checkpointers": ",".join(working),
    }
    return render_nested({name: facts})


def last_submitted(view: ServiceView) -> str:
    """The id the reader's user submitted last."""
    return f"{view.around.recollection.submitted.get(view.uid, 'none')}\n"


def volumes(view: ServiceView) -> str:
    """The local volume, *verified*: versions read back whole; then those that take copies."""
    service, store = view.service, view.service.store
    usage = service.usage()
    pairs = [(job, v) for job in service.jobs() for v in service.job(job).versions]
    verified = sum(store.verified_ns(job, v) > 0 for job, v in pairs)
    facts: dict[str, object] = {
        "state": "readonly" if store.degraded() else "up",
        "domain": service.node_name(),
        "used_bytes": usage.stored_bytes,
        "free_bytes": usage.free_bytes,
        "verified": f"{100 * verified // len(pairs) if pairs else 100}%",
        "directory": service.store_directory(),
    }
    rows: dict[str, dict[str, object]] = {"local": facts}
    for row in service.volumes():
        rows[row.name] = {
            "state": row.state,
            "domain": row.domain,
            "used_bytes": row.used_bytes,
            "free_bytes": row.free_bytes,
            "directory": row.directory,
        }
        if row.seal != "plain":
            ratio = row.plain_bytes / row.used_bytes if row.used_bytes else 1.0
            rows[row.name] |= {"seal": row.seal, "ratio": f"{ratio:.2f}"}
        if row.reason:
            rows[row.name]["reason"] = row.reason
    return render_nested(rows)


def removed_jobs(view: ServiceView) -> str:
    """One line per removed job of the reader's (root: of anybody's) that can be brought back."""
    try:
        found = view.service.removed_jobs()
    except CkptfsError:
        found = ()  # a stranger lies in the trash: ctl/health names it
    rows: dict[str, dict[str, object]] = {
        row.job: {
            "versions": ",".join(str(number) for number in row.versions),
            "until": time_text(row.until_s * NS),
        }
        for row in found
        if view.uid in (0, row.uid)
    }
    return render_nested(rows)


def degraded(view: ServiceView) -> str:
    """``0``, or ``1 (why)``, then one line per version that is damaged."""
    reason = view.service.store.degraded()
    damaged = view.service.damaged_versions()
    lines = [f"{job}/{number} {view.service.version_state(job, number)}" for job, number in damaged]
    count = f"{len(damaged)} version{'s' * (len(damaged) > 1)} damaged" if damaged else ""
    why = "; ".join(filter(None, [" ".join(reason.split()), count]))
    return render_list([f"1 ({why})" if why else "0", *lines])


def gc(view: ServiceView) -> str:
    """``running 3/12``, ``idle (freed 41231 bytes)``."""
    return render_list([view.service.gc_text()])


def scrub(view: ServiceView) -> str:
    """``running 40%``, ``idle (last 2026-…, 0 errors)``."""
    return render_list([view.service.scrub_text()])


def levels(view: ServiceView) -> dict[str, int]:
    """The figures that go up and down: space, versions, jobs by state, operations under way."""
    usage = view.service.usage()
    space = {
        "total_bytes": usage.total_bytes,
        "free_bytes": usage.free_bytes,
        "reserved_bytes": usage.reserved_bytes,
        "stored_bytes": usage.stored_bytes,
        "logical_bytes": usage.logical_bytes,
        "versions": usage.versions,
        "packs": usage.packs,
        "counting": int(usage.is_counting),
        "versions_unread": view.service.store.summaries.unread(),
        "charged_bytes": sum(map(view.service.charges.of_job, view.service.jobs())),
    }
    counters = view.service.counters()
    service = {name: value for name, value in counters.items() if name in LEVELS}
    return (
        space
        | service
        | {"versions_damaged": len(view.service.damaged_versions())}
        | dict(view.service.levels())
    )


def growing(view: ServiceView) -> dict[str, int]:
    """The figures that only grow while the service runs."""
    counters = view.service.counters()
    return {name: value for name, value in counters.items() if name not in LEVELS}


def service_stat(view: ServiceView) -> str:
    """Space and jobs now, then everything counted since the service started."""
    return render_flat(levels(view) | growing(view))


def service_events(view: ServiceView) -> str:
    """Counters alone: they only grow, so a reader that slept can see how much it missed."""
    return render_flat(growing(view))


def metrics(view: ServiceView) -> str:
    """OpenMetrics 1.0 text."""
    service = view.service
    usage = service.usage()
    gauges = levels(view) | {"dedup_ratio": float(ratio(usage.logical_bytes, usage.stored_bytes))}
    return render_metrics(gauges, growing(view), service.volumes(), service.stop_times())
