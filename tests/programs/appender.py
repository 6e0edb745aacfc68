"""Write two files of its own beside stdout: one opened for append, one opened 'w' and kept open.

CRIU notes no size for an append-only file and refuses another one that has
grown: both must be put back at a restart.  Arguments: STEPS [DELAY_S].
"""

import sys
import time

steps, delay_s = int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.025
with open("appended.log", "a") as appended, open("written.log", "w") as written:
    for step in range(1, steps + 1):
        appended.write(f"appended {step}\n")
        appended.flush()
        written.write(f"written {step} {step * step}\n")
        written.flush()
        print("step", step, flush=True)
        time.sleep(delay_s)
print("done", steps, flush=True)
