"""Draw what tools/bench compare measured: python3 plot.py OUTPUT.png < RESULT.json.

Run with the system's Python, whose matplotlib tools/setup --bench installs.
"""

# matplotlib is the system's, without types:
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import json
import statistics
import sys
from typing import Any

PANELS = (
    ("still_s", "stood still, s (median of later versions)"),
    ("safe_s", "until safe on disk, s (median of later versions)"),
    ("stored_bytes", "stored by all versions, MB"),
    ("cpu_s", "CPU, s (median of later versions)"),
)


def height(key: str, side: dict[str, Any]) -> float:
    """Return the bar of one tool in the panel *key*."""
    values: list[float] = side[key]
    if key == "stored_bytes":
        return values[-1] / 1e6
    return statistics.median(values[1:] or values) if values else 0.0


def main() -> None:
    """Draw a panel per quantity, a group per program, a bar per tool."""
    try:
        import matplotlib as mpl
    except ImportError:
        sys.exit("bench: matplotlib missing: run tools/setup --bench")
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    record = json.load(sys.stdin)
    programs: dict[str, Any] = record["programs"]
    tools = list(next(iter(programs.values())))
    figure, axes = plt.subplots(2, 2, figsize=(13, 8))
    for (key, title), axis in zip(PANELS, axes.flat, strict=True):
        for place, tool in enumerate(tools):
            at = [group + place / (len(tools) + 1) for group in range(len(programs))]
            axis.bar(
                at,
                [height(key, sides[tool]) for sides in programs.values()],
                width=1 / (len(tools) + 1),
                label=tool,
            )
        axis.set_title(title)
        axis.set_xticks([group + 0.4 for group in range(len(programs))], list(programs))
    axes[0][0].legend()
    figure.suptitle(f"{record['mib']} MiB jobs, {record['versions']} versions")
    figure.tight_layout()
    figure.savefig(sys.argv[1], dpi=100)


if __name__ == "__main__":
    main()
