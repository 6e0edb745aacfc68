"""256 MiB of memory: each step rewrites a block from a chain of hashes; all are checked at the end.

Line: ``step N chain HEX blocks COUNT`` where COUNT is how many of the sampled
blocks held what they must.  Arguments: STEPS [DELAY_S] [MEBIBYTES].
"""

import hashlib
import sys
import time

BLOCK = 1 << 20
SAMPLES = 4


def content(link: bytes) -> bytes:
    return link * (BLOCK // len(link))


def main(steps: int, delay_s: float, mebibytes: int) -> None:
    links = [hashlib.sha256(b"block %d" % n).digest() for n in range(mebibytes)]
    memory = bytearray(mebibytes * BLOCK)
    for n, link in enumerate(links):
        memory[n * BLOCK : (n + 1) * BLOCK] = content(link)

    def right(n: int) -> bool:
        return memory[n * BLOCK : (n + 1) * BLOCK] == content(links[n])

    chain = b""
    for step in range(1, steps + 1):
        place = step * 7 % mebibytes
        chain = hashlib.sha256(chain + links[place] + b"%d" % step).digest()
        links[place] = chain
        memory[place * BLOCK : (place + 1) * BLOCK] = content(chain)
        good = sum(right((step * 13 + k * 61) % mebibytes) for k in range(SAMPLES))
        print("step", step, "chain", chain.hex()[:16], "blocks", good, flush=True)
        time.sleep(delay_s)
    print("whole", sum(map(right, range(mebibytes))), flush=True)
    print("done", steps, flush=True)


main(
    int(sys.argv[1]),
    float(sys.argv[2]) if len(sys.argv) > 2 else 0.025,
    int(sys.argv[3]) if len(sys.argv) > 3 else 256,
)
