"""The texts that control files of jobs and versions print.  Pure: records in, text out."""

from __future__ import annotations

from datetime import UTC, datetime

from ..coordinator.api import Outcome
from ..errors import CkptfsError
from ..ids import Version
from ..model import Protocol
from .control import render_choice, render_flat, render_list, render_nested
from .views import JobView, VersionView

NS = 1_000_000_000


def time_text(time_ns: int) -> str:
    """Return nanoseconds since the epoch as ``2026-11-20T11:52:03Z``."""
    return datetime.fromtimestamp(time_ns // NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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
