"""The tour's program: heat spreads along a rod, one printed line per time step.

The state is in memory only, so a line can be right only when every step before it was done once.
``heat.py STEPS PAUSE_S``: without a pause it computes what an undisturbed run prints.
"""

import sys
import time

CELLS = 2000
steps, pause_s = int(sys.argv[1]), float(sys.argv[2])
rod = [0.0] * CELLS
rod[CELLS // 2] = 1e6  # one hot cell in the middle

for step in range(1, steps + 1):
    rod = [
        here + 0.25 * (left - 2 * here + right)
        for left, here, right in zip([0.0, *rod], rod, [*rod[1:], 0.0], strict=False)
    ]
    print(f"step {step} value {rod[CELLS // 2 + 3]:.9f}", flush=True)
    time.sleep(pause_s)
