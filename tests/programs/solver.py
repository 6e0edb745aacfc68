"""Jacobi iteration on a square plate and a whole-number matrix product, with numpy.

Line: ``step N crc HEX trace VALUE``: the CRC of the whole grid (sums of four and a product
with 1/4 are the same bits on every machine) and the trace of an integer power
modulo a prime, computed through BLAS.  Arguments: STEPS [DELAY_S].
"""

import sys
import time
import zlib

import numpy

SIDE = 200
MATRIX = 64
PRIME = 10007


def start():
    grid = numpy.zeros((SIDE, SIDE))
    grid[0, :] = 100.0
    seed = numpy.arange(MATRIX * MATRIX, dtype=float).reshape(MATRIX, MATRIX) % 11
    return grid, seed, numpy.eye(MATRIX)


def sweep(grid) -> None:
    above, below, left, right = grid[:-2, 1:-1], grid[2:, 1:-1], grid[1:-1, :-2], grid[1:-1, 2:]
    grid[1:-1, 1:-1] = (above + below + left + right) * 0.25


def advance(grid, seed, power):
    for _ in range(3):
        sweep(grid)
    power = (power @ seed) % PRIME
    return power, f"crc {zlib.crc32(grid.tobytes()):08x} trace {int(power.trace())}"


def main(steps: int, delay_s: float) -> None:
    grid, seed, power = start()
    for step in range(1, steps + 1):
        power, text = advance(grid, seed, power)
        print("step", step, text, flush=True)
        time.sleep(delay_s)
    print("done", steps, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.025)
