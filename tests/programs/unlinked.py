"""Keep all its work in a temporary file that has no name any more, and read it back each step.

Line: ``step N records COUNT crc HEX`` over the whole file.  Arguments: STEPS [DELAY_S].
"""

import os
import sys
import time
import zlib

steps, delay_s = int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.025
with open("scratch.tmp", "w+b") as nameless:
    os.unlink("scratch.tmp")
    for step in range(1, steps + 1):
        nameless.write(b"record %8d\n" % step)
        nameless.seek(0)
        content = nameless.read()
        count, crc = content.count(b"\n"), zlib.crc32(content)
        print("step", step, "records", count, "crc", f"{crc:08x}", flush=True)
        time.sleep(delay_s)
print("done", steps, flush=True)
