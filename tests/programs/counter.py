"""Count: the smallest program that can lose or double a step.  Arguments: STEPS [DELAY_S]."""

import sys
import time

steps, delay_s = int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.025
for step in range(1, steps + 1):
    print("step", step, flush=True)
    time.sleep(delay_s)
print("done", steps, flush=True)
