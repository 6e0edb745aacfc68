"""``ctl/metrics``: OpenMetrics 1.0 text.  Pure: figures in, text out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from ..coordinator.histogram import Histogram
from ..store.copies_api import VolumeStatus

Number = int | float
Sample = tuple[str, Mapping[str, str], Number]  # suffix of the name, labels, value

VOLUME_FIGURES: Mapping[str, Callable[[VolumeStatus], Number]] = {
    "volume_up": lambda row: int(row.state == "up"),
    "volume_used_bytes": lambda row: row.used_bytes,
    "volume_free_bytes": lambda row: row.free_bytes,
    "volume_compression_ratio": lambda row: (
        round(row.plain_bytes / row.used_bytes, 4) if row.plain_bytes and row.used_bytes else 1
    ),
}


def render_metrics(
    gauges: Mapping[str, Number],
    counters: Mapping[str, int],
    volumes: Sequence[VolumeStatus],
    stops: Histogram,
) -> str:
    """Return the whole text: gauges, counters, a row per volume, the times jobs stood still."""
    lines: list[str] = []
    for name, value in gauges.items():
        lines += _family(name, "gauge", [("", {}, value)])
    for name, value in counters.items():
        lines += _family(name, "counter", [("_total", {}, value)])
    for name, figure in VOLUME_FIGURES.items() if volumes else ():
        rows = [("", {"volume": r.name, "domain": r.domain}, figure(r)) for r in volumes]
        lines += _family(name, "gauge", rows)
    lines += _family("stop_seconds", "histogram", list(_buckets(stops)))
    return "\n".join([*lines, "# EOF", ""])


def _buckets(times: Histogram) -> Iterator[Sample]:
    for end_s, count in times.up_to():
        yield "_bucket", {"le": "+Inf" if math.isinf(end_s) else str(end_s)}, count
    yield "_sum", {}, round(times.sum_s, 6)
    yield "_count", {}, sum(times.counts)


def _family(name: str, kind: str, samples: Sequence[Sample]) -> Iterator[str]:
    yield f"# TYPE ckptfs_{name} {kind}"
    for suffix, labels, value in samples:
        words = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
        yield f"ckptfs_{name}{suffix}{f'{{{words}}}' if words else ''} {value}"


def escaped(text: str) -> str:
    r"""Return *text* for a label: backslash, quote and newline behind a backslash."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
