"""``jobinfo.xml``: what is known of a job, in the element names of XtreemOS.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from ..coordinator.api import Job
from ..node.api import Process
from .shows import NS

MS_NS = 1_000_000


def clock_text(seconds: float) -> str:
    """Return processor time as ``mm:ss.cc``."""
    hundredths = round(seconds * 100)
    return f"{hundredths // 6000:02d}:{hundredths // 100 % 60:02d}.{hundredths % 100:02d}"


def render_jobinfo(job: Job, processes: Sequence[Process], node: str, now_ns: int) -> str:
    """Return the document: ``jobInfoList/jobInfo@jobID/metric/{name,type,value@timestamp}``.

    *timestamp* is milliseconds since the epoch.  Job metrics come first, then
    four metrics per process, the ``PID`` opening each group.
    """
    submitted_ms = job.created_ns // MS_NS
    now_ms, changed_ms = now_ns // MS_NS, (job.changed_ns or job.created_ns) // MS_NS
    rows = [
        ("jobId", "string", job.id, submitted_ms),
        ("status", "string", str(job.state), changed_ms),
        ("submitTime", "time", str(submitted_ms), submitted_ms),
        ("resourceID", "string", node, submitted_ms),
        ("wallTime", "float", f"{max(0, now_ns - job.created_ns) / NS:.3f}", now_ms),
    ]
    for process in processes:
        rows += [
            ("PID", "int", str(process.pid), now_ms),
            ("userTime", "string", clock_text(process.user_time_s), now_ms),
            ("systemTime", "string", clock_text(process.system_time_s), now_ms),
            ("status", "string", process.state, now_ms),
        ]
    metrics = "".join(_metric(*row) for row in rows)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<jobInfoList>\n <jobInfo jobID={quoteattr(job.id)}>\n{metrics}"
        " </jobInfo>\n</jobInfoList>\n"
    )


def _metric(name: str, kind: str, value: str, timestamp_ms: int) -> str:
    return (
        f"  <metric><name>{name}</name><type>{kind}</type>"
        f'<value timestamp="{timestamp_ms}">{escape(value)}</value></metric>\n'
    )
