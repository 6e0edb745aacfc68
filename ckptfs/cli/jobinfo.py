"""``jobinfo.xml`` as records, and as the text of xps (XtreemOS D3.3.6, tables 1 and 3).  Pure."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from ..errors import Corrupt
from .tables import printable

# What Table 3 shows; the document may know more (wallTime, say).
SHOWN = frozenset({"jobId", "status", "submitTime", "resourceID", "PID", "userTime", "systemTime"})
# ANSI colours (ECMA-48 SGR) of a job's status word; others stay plain
STATUS_COLOURS = {
    "running": 32,
    "checkpointing": 36,
    "restarting": 36,
    "suspended": 33,
    "failed": 31,
}
DURATIONS = frozenset({"userTime", "systemTime"})
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?\Z")


@dataclass(frozen=True, slots=True)
class Metric:
    """One name and value; *timestamp* in milliseconds since the epoch."""

    name: str
    kind: str
    value: str
    timestamp: int


@dataclass(frozen=True, slots=True)
class JobInfo:
    """One ``jobInfo`` element, metrics in the document's order."""

    job: str
    metrics: tuple[Metric, ...]


def parse_jobinfo(document: str) -> list[JobInfo]:
    """Return the jobs of a ``jobInfoList``.  Raises Corrupt when it is none."""
    import xml.etree.ElementTree as ElementTree  # 10 ms that only xps and ps need

    if "<!" in document.replace("<!--", ""):
        raise Corrupt("jobinfo.xml declares a document type, which the service never writes")
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError as error:
        raise Corrupt(f"jobinfo.xml does not parse: {error}") from error
    jobs: list[JobInfo] = []
    for element in root.iter("jobInfo"):
        metrics: list[Metric] = []
        for metric in element.iter("metric"):
            value = metric.find("value")
            stamp = "" if value is None else value.get("timestamp", "")
            metrics.append(
                Metric(
                    metric.findtext("name", "").strip(),
                    metric.findtext("type", "").strip(),
                    "" if value is None else (value.text or "").strip(),
                    int(stamp) if stamp.isdigit() else 0,
                )
            )
        jobs.append(JobInfo(element.get("jobID", ""), tuple(metrics)))
    return jobs


def duration_text(seconds: float) -> str:
    """Return a CPU time as Table 3 prints it, ``mm:ss.cc``; minutes go on past 60."""
    hundredths = round(seconds * 100)
    return f"{hundredths // 6000:02}:{hundredths // 100 % 60:02}.{hundredths % 100:02}"


def xps_text(info: JobInfo, now_ms: int, *, ansi: bool = False) -> str:
    """Return one job as Table 3 prints it; *now_ms* stands in where no metric has a time."""
    stamp = max((metric.timestamp for metric in info.metrics), default=0) or now_ms
    job = printable(info.job)
    lines = [f"{job} @ {stamp} :", f"  jobId = {job}"]
    lines += (
        f"  {printable(metric.name)} = {_value_text(metric, ansi=ansi)}"
        for metric in info.metrics
        if metric.name in SHOWN and metric.name != "jobId"
    )
    return "\n".join(lines)


def date_text(time_ms: int) -> str:
    """Return milliseconds since the epoch as Table 3 prints them, which is date(1)'s way."""
    return time.strftime("%a %b %d %H:%M:%S %Z %Y", time.localtime(time_ms / 1000))


def _value_text(metric: Metric, *, ansi: bool) -> str:
    if metric.name in DURATIONS and _SECONDS.match(metric.value):
        return duration_text(float(metric.value))
    if metric.kind == "time" and metric.value.isdigit():
        return date_text(int(metric.value))
    value = printable(metric.value)
    colour = STATUS_COLOURS.get(value.partition(" ")[0]) if metric.name == "status" else None
    return f"\x1b[{colour}m{value}\x1b[0m" if ansi and colour else value


def cpu_text(info: JobInfo) -> str:
    """Return the CPU time of all processes together, user and system, as `duration_text`."""
    return duration_text(
        sum(_seconds(metric.value) for metric in info.metrics if metric.name in DURATIONS)
    )


def _seconds(text: str) -> float:
    """Return a duration written as seconds or as ``mm:ss.cc``; 0 for anything else."""
    minutes, _, seconds = text.rpartition(":")
    if not _SECONDS.match(seconds) or not (minutes or "0").isdigit():
        return 0.0
    return int(minutes or "0") * 60 + float(seconds)
