"""How long things took, counted in classes: what ``ctl/metrics`` shows of times.  Pure."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate

# upper ends in seconds; a plain dump of 1 GiB stops a job for 0.3 to 1 s
BOUNDS_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(slots=True)
class Histogram:
    """Counts per class; the last class has no upper end."""

    bounds_s: tuple[float, ...] = BOUNDS_S
    counts: list[int] = field(default_factory=list[int])
    sum_s: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds_s) + 1)

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.sum_s += seconds

    def up_to(self) -> list[tuple[float, int]]:
        """Return (upper end in seconds, how many took that long at most); the last end is inf."""
        ends = (*self.bounds_s, float("inf"))
        return list(zip(ends, accumulate(self.counts), strict=True))
