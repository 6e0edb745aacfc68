"""An interval timer makes the steps; blocked signals stay queued from one step to the next.

Before each wait it sends itself three real-time signals (queued, all kept) and
SIGUSR1 twice (collapses to one), both blocked; after the tick it counts what is
pending.  SIGUSR2 goes through a handler.  Line: ``step N queued 3 usr1 1 handled N``.
Arguments: STEPS [DELAY_S].
"""

import os
import signal
import sys

QUEUED = 3
handled: list[int] = []


def take(number: int) -> int:
    count = 0
    while signal.sigtimedwait({number}, 0) is not None:
        count += 1
    return count


def main(steps: int, delay_s: float) -> None:
    me = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN, signal.SIGUSR1, signal.SIGALRM})
    signal.signal(signal.SIGUSR2, lambda number, _frame: handled.append(number))
    signal.setitimer(signal.ITIMER_REAL, delay_s, delay_s)
    for step in range(1, steps + 1):
        for number in (*[signal.SIGRTMIN] * QUEUED, signal.SIGUSR1, signal.SIGUSR1):
            os.kill(me, number)
        os.kill(me, signal.SIGUSR2)
        signal.sigwaitinfo({signal.SIGALRM})
        queued, once = take(signal.SIGRTMIN), take(signal.SIGUSR1)
        print("step", step, "queued", queued, "usr1", once, "handled", len(handled), flush=True)
    signal.setitimer(signal.ITIMER_REAL, 0)
    print("done", steps, flush=True)


main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.025)
