"""Eight threads take turns under a mutex and a condition.  Arguments: STEPS [DELAY_S].

Each thread keeps its own count; line: ``step N thread T own COUNT``.
"""

import sys
import threading
import time

THREADS = 8
turn = threading.Condition()
state = {"step": 0}


def work(mine: int, steps: int, delay_s: float) -> None:
    own = 0
    while True:
        with turn:
            turn.wait_for(lambda: state["step"] >= steps or state["step"] % THREADS == mine)
            if state["step"] >= steps:
                return
            own += 1
            state["step"] += 1
            print("step", state["step"], "thread", mine, "own", own, flush=True)
            time.sleep(delay_s)
            turn.notify_all()


def main(steps: int, delay_s: float) -> None:
    threads = [threading.Thread(target=work, args=(n, steps, delay_s)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("done", steps, flush=True)


main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.025)
