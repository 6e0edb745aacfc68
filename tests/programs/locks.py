"""Hold a flock and a POSIX record lock; a second process of the unit tries to take both each step.

Every eighth step the holder lets go for one try.  Line: ``step N flock held
posix held`` (or ``free``) as the second process found it.  Arguments: STEPS [DELAY_S].
"""

import fcntl
import os
import sys
import time

OPEN_EVERY = 8


def attempt(call, descriptor: int) -> str:
    try:
        call(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return "held"
    call(descriptor, fcntl.LOCK_UN)
    return "free"


def challenger(questions: int, answers: int) -> None:
    flocked, posix = os.open("flock.lock", os.O_RDWR), os.open("posix.lock", os.O_RDWR)
    while os.read(questions, 1):
        found = f"flock {attempt(fcntl.flock, flocked)} posix {attempt(fcntl.lockf, posix)}"
        os.write(answers, found.encode())
    os._exit(0)


def main(steps: int, delay_s: float) -> None:
    flocked = os.open("flock.lock", os.O_RDWR | os.O_CREAT, 0o600)
    posix = os.open("posix.lock", os.O_RDWR | os.O_CREAT, 0o600)
    question_read, question_write = os.pipe()
    answer_read, answer_write = os.pipe()
    if os.fork() == 0:
        for descriptor in (flocked, posix, question_write, answer_read):
            os.close(descriptor)
        challenger(question_read, answer_write)
    os.close(question_read)
    os.close(answer_write)
    for step in range(1, steps + 1):
        order = fcntl.LOCK_UN if step % OPEN_EVERY == 0 else fcntl.LOCK_EX
        fcntl.flock(flocked, order)
        fcntl.lockf(posix, order)
        time.sleep(delay_s)
        os.write(question_write, b"?")
        print("step", step, os.read(answer_read, 100).decode(), flush=True)
    os.close(question_write)
    os.wait()
    print("done", steps, flush=True)


main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.025)
