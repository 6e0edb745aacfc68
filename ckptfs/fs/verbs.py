"""What a write to a control file asks of the service: parse, ask, answer in one line."""

from __future__ import annotations

from typing import Final

from ..coordinator.api import RestartRequest
from ..errors import Busy, InvalidInput, TryAgain
from ..ids import Version, parse_job_id
from ..model import Caller, Protocol
from .control import expect_one, parse_choice, parse_count
from .documents import render_jobinfo
from .requests import (
    parse_checkpoint,
    parse_gc,
    parse_replication,
    parse_restart,
    parse_retention,
    parse_signal,
    parse_volume,
    restart_of,
)
from .views import JobView, ServiceView, VersionView

FETCH_LOOKS: Final = 20  # with the pause below 5 s; the mount gives a write 10
FETCH_LOOK_S: Final = 0.25

# the service


async def submit(view: ServiceView, text: str, caller: Caller) -> str:
    """Submit the caller's own file in ``spool/``; answer: the job's id."""
    job = await view.service.submit(caller, view.around.spool.document(text, caller))
    view.around.recollection.submitted[caller.uid] = job
    return job


async def clear_degraded(view: ServiceView, text: str, caller: Caller) -> str:
    """Accept 0; a store that is degraded stays so until it has been repaired."""
    if text != "0":
        raise InvalidInput(f"write 0, not {text!r}")
    reason = view.service.store.degraded()
    if reason:
        raise Busy(f"the store is still damaged: {reason}")
    if damaged := view.service.damaged_versions():
        job, version = damaged[0]
        raise Busy(f"version {version} of {job} is still damaged: verify or remove it")
    return "0"


async def gc(view: ServiceView, text: str, caller: Caller) -> str:
    """Begin a collection; dry: answer what one would do, one line per version."""
    dry, empty_trash = parse_gc(text)
    return await view.service.request_gc(caller, dry=dry, empty_trash=empty_trash)


async def undelete_job(view: ServiceView, text: str, caller: Caller) -> str:
    """Bring a removed job back; answer: its id."""
    job = parse_job_id(text)
    view.service.undelete_job(job, caller)
    return job


async def scrub(view: ServiceView, text: str, caller: Caller) -> str:
    """Begin a scrub (1) or stop the one that runs."""
    view.service.request_scrub(caller, on=parse_choice(text, {"1": True, "stop": False}))
    return text


async def change_volume(view: ServiceView, text: str, caller: Caller) -> str:
    """Add a volume, drain it, use it again, or let it go; answer: its name."""
    request = parse_volume(text)
    return await view.service.request_volume(
        caller, request.verb, request.name, request.domain, request.seal
    )


# jobs


async def checkpoint(view: JobView, text: str, caller: Caller) -> str:
    """Start a checkpoint; answer: the version."""
    request = parse_checkpoint(text)
    return str(await view.service.request_checkpoint(view.job.id, caller, request))


async def restart(view: JobView, text: str, caller: Caller) -> str:
    """Start a restart; answer: the version, or the id of the clone."""
    return await view.service.request_restart(view.job.id, caller, parse_restart(text))


async def suspend(view: JobView, text: str, caller: Caller) -> str:
    """Checkpoint, then kill; answer: the version."""
    expect_one(text)
    answer = str(await view.service.request_suspend(view.job.id, caller))
    view.around.recollection.requests[view.id, "suspend"] = text
    return answer


async def resume(view: JobView, text: str, caller: Caller) -> str:
    """Restart the newest version of a suspended job; answer: the version."""
    expect_one(text)
    answer = str(await view.service.request_resume(view.job.id, caller))
    view.around.recollection.requests[view.id, "resume"] = text
    return answer


async def kill(view: JobView, text: str, caller: Caller) -> str:
    """Kill every process of the job."""
    expect_one(text)
    await view.service.request_kill(view.job.id, caller)
    view.around.recollection.requests[view.id, "kill"] = text
    return text


async def signal(view: JobView, text: str, caller: Caller) -> str:
    """Send a signal to processes of the job."""
    await view.service.request_signal(view.job.id, caller, parse_signal(text))
    view.around.recollection.requests[view.id, "signal"] = text
    return text


async def set_protocol(view: JobView, text: str, caller: Caller) -> str:
    """Choose how the units are checkpointed together."""
    choice = parse_choice(text, {str(word): word for word in Protocol})
    view.service.set_protocol(view.job.id, caller, choice)
    return text


async def undelete(view: JobView, text: str, caller: Caller) -> str:
    """Bring a removed version back; answer: the version.

    What of it is being fetched back from a volume is waited for, a moment.
    """
    number = parse_count(text, low=1, high=10**9 - 1)
    for _ in range(FETCH_LOOKS):
        try:
            view.service.undelete(view.job.id, Version(number), caller)
        except TryAgain:
            await view.around.pause(FETCH_LOOK_S)
        else:
            return text
    view.service.undelete(view.job.id, Version(number), caller)
    return text


async def set_retention(view: JobView, text: str, caller: Caller) -> str:
    """Choose how many versions are kept."""
    view.service.set_retention(view.job.id, caller, *parse_retention(text))
    return text


async def set_replication(view: JobView, text: str, caller: Caller) -> str:
    """Choose in how many failure domains versions are kept."""
    level, least = parse_replication(text)
    view.service.set_replication(view.job.id, caller, level, least)
    return text


async def refresh_blockers(view: JobView) -> None:
    """Ask the nodes what would make a checkpoint fail now."""
    await view.service.refresh_blockers(view.job.id)


async def refresh_processes(view: JobView) -> None:
    """Ask the nodes for the job's processes."""
    view.processes = await view.service.processes(view.job.id)


def jobinfo(view: JobView) -> str:
    """Render ``jobinfo.xml`` with the processes found at open."""
    now_ns = view.around.clock_ns()
    return render_jobinfo(view.job, view.processes, view.service.node_name(), now_ns)


# versions


async def restart_version(view: VersionView, text: str, caller: Caller) -> str:
    """Restart this version; answer: the version, or the id of the clone."""
    first, *words = text.split()
    expect_one(first)
    view.check()
    request: RestartRequest = restart_of(view.version, words)
    return await view.service.request_restart(view.id, caller, request)


async def set_pin(view: VersionView, text: str, caller: Caller) -> str:
    """Pin (1) or unpin (0): a pinned version is never removed."""
    wanted = bool(parse_count(text, low=0, high=1))
    view.check()
    view.service.pin(view.id, view.version, caller, wanted)
    return text


async def verify(view: VersionView, text: str, caller: Caller) -> str:
    """Start reading and hashing everything of this version."""
    expect_one(text)
    view.check()
    view.service.request_verify(view.id, view.version, caller)
    return text
