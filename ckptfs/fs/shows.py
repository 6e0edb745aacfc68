"""The texts that control files print.  Pure: records in, text out."""

from __future__ import annotations

from datetime import UTC, datetime

from .. import __version__
from ..coordinator.api import Outcome
from ..errors import CkptfsError
from ..ids import Version
from ..model import JobState, Protocol
from .control import render_choice, render_flat, render_list, render_nested
from .metrics import render_metrics
from .space import ratio
from .views import JobView, ServiceView, VersionView

LEVELS = frozenset({"jobs", "operations", *(f"jobs_{state}" for state in JobState)})
ABI = 1  # raised when a key or a file is renamed or taken away
NS = 1_000_000_000


def time_text(time_ns: int) -> str:
    """Return nanoseconds since the epoch as ``2026-11-20T11:52:03Z``."""
    return datetime.fromtimestamp(time_ns // NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# the service


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


# jobs


def outcome(value: Outcome | None) -> str:
    """``7 saving``, ``7 failed (reason)`` or ``none``."""
    return f"{' '.join(str(value).split())}\n" if value is not None else "none\n"


def job_state(view: JobView) -> str:
    """One word, with the reason where it failed."""
    return f"{' '.join(view.job.state_text.split())}\n"


def last_request(view: JobView, name: str) -> str:
    """What was last written to the verb *name*."""
    return f"{view.around.recollection.requests.get((view.job.id, name), 'none')}\n"


def protocol(view: JobView) -> str:
    """Both protocols, the current one in brackets."""
    return render_choice(Protocol, view.job.protocol)


def trashed(view: JobView) -> str:
    """One line per removed version that can be brought back, with when it goes for good."""
    try:
        found = view.service.trashed(view.job.id)
    except CkptfsError:
        found = ()  # a stranger lies in the trash: ctl/health names it
    return render_nested(
        {str(version): {"until": time_text(until_s * NS)} for version, until_s in found}
    )


def replication(view: JobView) -> str:
    """``2``, or ``3 min=2``."""
    least = f" min={view.job.min_level}" if view.job.min_level > 1 else ""
    return f"{view.job.replication}{least}\n"


def retention(view: JobView) -> str:
    """``keep_last 3``, then those of the other rules that are set."""
    job = view.job
    others = {
        "keep_within_s": job.keep_within_s,
        "keep_every_s": job.keep_every_s,
        "keep_user_bytes": job.keep_user_bytes,
    }
    set_ones = {rule: number for rule, number in others.items() if number}
    return render_flat({"keep_last": job.keep_last} | set_ones)


def units(view: JobView) -> str:
    """One line per job unit."""
    return render_nested(
        {
            name: {
                "node": unit.node,
                "pid": unit.pid,
                "translib": unit.translib,
                "state": unit.state,
            }
            for name, unit in view.job.units.items()
        }
    )


def exit_status(view: JobView) -> str:
    """``none``, ``0`` … ``255`` or ``signal 9``."""
    ended = view.job.exit
    return f"{ended if ended is not None else 'none'}\n"


def blockers(view: JobView) -> str:
    """One sentence per thing that would make a checkpoint fail now."""
    return render_list(view.job.blockers)


def job_stat(view: JobView) -> str:
    """Flat figures, with the progress of a save in work."""
    job = view.job
    saving = job.checkpoint if job.checkpoint and job.checkpoint.word == "saving" else None
    progress = {
        "saving_done_bytes": saving.done_bytes if saving else 0,
        "saving_total_bytes": saving.total_bytes if saving else 0,
    }
    charges = {
        "charged_bytes": view.service.charges.of_job(view.id),
        "keep_user_bytes": job.keep_user_bytes,
    }
    return render_flat({**job.stat, **progress, "versions": len(job.versions), **charges})


def job_events(view: JobView) -> str:
    """Flat counters of what happened to the job."""
    return render_flat(view.job.events)


def job_error(view: JobView) -> str:
    """The last failure, of a request refused here or of an operation later: whichever is newer."""
    refused = view.around.recollection.failures.get(view.job.id, "")
    # both begin with the same form of UTC time, so the newer one is the greater text
    return render_list(filter(None, [max(view.job.error, refused)]))


def jsdl(view: JobView) -> str:
    """The document as submitted."""
    text = view.job.spec.jsdl
    return text if not text or text.endswith("\n") else text + "\n"


def stdout(view: JobView) -> str:
    """The path of the file that takes the job's standard output."""
    return render_list([view.job.stdout])


def stderr(view: JobView) -> str:
    """The path of the file that takes the job's standard error."""
    return render_list([view.job.stderr])


# versions


def version_state(view: VersionView) -> str:
    """``restartable`` or ``damaged (file, block)``."""
    view.check()
    return render_list([view.service.version_state(view.id, view.version)])


def version_restart(view: VersionView) -> str:
    """The job's last restart if it was of this version."""
    last = view.check().restart
    return outcome(last if last is not None and last.version == view.version else None)


def pin(view: VersionView) -> str:
    """``0`` or ``1``."""
    view.check()
    return f"{int(view.service.store.pinned(view.id, view.version))}\n"


def verify(view: VersionView) -> str:
    """``never``, ``ok 2026-…``, ``running 40%``, ``damaged (file)``."""
    view.check()
    return render_list([view.service.verify_text(view.id, view.version)])


def version_stat(view: VersionView) -> str:
    """Flat figures of one version; those of the head are absent when it cannot be read."""
    view.check()
    figures: dict[str, object] = {
        "version": view.version,
        "replicas": view.service.replicas(view.id, view.version),
        "level": view.service.job(view.id).replication,
    }
    try:
        head = view.service.head(view.id, Version(view.version))
        space_class, charged_bytes = view.service.charges.of_version(view.id, view.version)
        figures |= {
            "committed_at": time_text(head.committed_ns),
            "logical_bytes": head.logical_bytes,
            "stored_bytes": head.stored_bytes,
            "unique_bytes": view.service.store.unique_bytes(view.id, view.version),
            "charged_bytes": charged_bytes,
            "class": space_class,
            "frozen_usec": head.frozen_usec,
            "files": len(head.files),
            "purpose": head.purpose,
            "initiator": head.initiator,
            "protocol": head.protocol,
            "keep": int(head.keep),
        }
    except CkptfsError:
        return render_flat(figures)
    if head.note:
        figures["note"] = " ".join(head.note.split())
    return render_flat(figures)
