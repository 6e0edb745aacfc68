"""The facts of an image that a restart compares first, and the comparison.  `compare` is pure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..model import LOGS, UnitFacts
from ..translib.api import Availability
from .orders import Launch
from .procfs import Status

STORE = "store"  # the fact: whose default logs they are
_PROCESS_BYTES = 256 << 10  # all images of a process but its pages; measured 40 to 200 KiB


def boot_id() -> str:
    """Return the kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def cpu_flags() -> str:
    """Return the features of the first processor, sorted, space-separated."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return " ".join(sorted(value.split()))
    return ""


def node_facts() -> dict[str, str]:
    """Return what this node is, as far as an image depends on it."""
    name = os.uname()
    return {
        "kernel": name.release,
        "architecture": name.machine,
        "cpu_flags": cpu_flags(),
        "boot_id": boot_id(),
        "cgroup_mode": "v2",
        "namespaces": "pid,mnt,ipc,uts outside the image",
    }


def launch_facts(launch: Launch) -> dict[str, str]:
    """Return where the unit's default logs are as it sees them, and whose they are."""
    return {LOGS: str(launch.logs.shown), STORE: launch.store_id}


def unit_facts(
    launch: Launch, translib: Mapping[str, str], statuses: Sequence[Status]
) -> UnitFacts:
    """Return the facts of a unit from its processes; its files are recorded when it is frozen."""
    return UnitFacts(
        unit=launch.unit,
        node=launch.node,
        translib=launch.translib,
        facts={**node_facts(), **launch_facts(launch), **translib},
        pids=tuple(sorted(status.inner_pid for status in statuses)),
        uids=tuple(sorted({uid for status in statuses for uid in status.uids})),
        files=(),
    )


def estimate_image(statuses: Sequence[Status]) -> int:
    """Return about how many bytes the image will take."""
    return sum(status.memory_bytes + _PROCESS_BYTES for status in statuses)


def _numbers(version: str) -> tuple[int, ...]:
    found: list[int] = []
    for part in version.replace("-", ".").split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)


def compare(
    image: UnitFacts, here: Mapping[str, str], availability: Mapping[str, Availability]
) -> str:
    """Return "" if an image with these facts can be rebuilt *here*, else why not."""
    facts = image.facts
    translib = availability.get(image.translib)
    if translib is None or not translib.available:
        why = translib.reason if translib else "it is not installed"
        return (
            f"the image needs the checkpointer {image.translib}, which cannot be used here: {why}"
        )
    wanted, found = facts.get("architecture", ""), here["architecture"]
    if wanted != found:
        return f"the image is of a {wanted} machine, this one is {found}"
    missing = set(facts.get("cpu_flags", "").split()) - set(here["cpu_flags"].split())
    if missing:
        named = " ".join(sorted(missing)[:8])
        return f"the image may use processor features that are missing here: {named}"
    version = facts.get(f"{image.translib}_version", "")
    if _numbers(version) > _numbers(translib.version):
        return (
            f"the image was written by {image.translib} {version}, here is only {translib.version}"
        )
    kernel = facts.get("kernel", "")
    if _numbers(kernel)[:2] > _numbers(here["kernel"])[:2]:
        return f"the image was taken on Linux {kernel}, here runs the older {here['kernel']}"
    return ""
