"""A tree of processes (each child forks the next) passing numbers down a chain of pipes.

Every process keeps a count of what it has seen and adds it to the number, so a
number lost, doubled or overtaken anywhere in the chain shows in the sum.
Several numbers are on the way at once.  Arguments: STEPS [DELAY_S].
"""

import os
import struct
import sys
import time

DEPTH = 4
IN_FLIGHT = 5
RECORD = struct.Struct("<QQ")  # step, sum; smaller than PIPE_BUF: written whole


def read_record(descriptor: int) -> tuple[int, int] | None:
    data = b""
    while len(data) < RECORD.size:
        more = os.read(descriptor, RECORD.size - len(data))
        if not more:
            return None
        data += more
    return RECORD.unpack(data)


def stage(depth: int, source: int, sink: int) -> None:
    """Read from *source*, hand on to a child, which hands on ... to *sink*."""
    if depth == 0:
        return relay(source, sink)
    below_read, below_write = os.pipe()
    if os.fork() == 0:
        os.close(below_write)
        os.close(source)
        stage(depth - 1, below_read, sink)
        os._exit(0)
    os.close(below_read)
    os.close(sink)
    relay(source, below_write)
    os.wait()
    return None


def relay(source: int, sink: int) -> None:
    seen = 0
    while (record := read_record(source)) is not None:
        seen += 1
        os.write(sink, RECORD.pack(record[0], record[1] + seen))
    os.close(sink)


def main(steps: int, delay_s: float) -> None:
    down_read, down_write = os.pipe()
    up_read, up_write = os.pipe()
    if os.fork() == 0:
        os.close(down_write)
        os.close(up_read)
        stage(DEPTH - 1, down_read, up_write)
        os._exit(0)
    os.close(down_read)
    os.close(up_write)
    for number in range(1, steps + IN_FLIGHT + 1):
        if number <= steps:
            os.write(down_write, RECORD.pack(number, 0))
        if number > IN_FLIGHT:
            step, total = read_record(up_read) or (0, 0)
            print("step", step, "sum", total, flush=True)
            time.sleep(delay_s)
    os.close(down_write)
    os.wait()
    print("done", steps, flush=True)


main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.025)
