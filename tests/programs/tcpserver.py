"""A listening TCP server with a client of its own, connected over loopback, inside the unit.

The client process asks for the next number over its one long connection; the
server prints the step.  Anybody else who connects is told how far it is and is
hung up on.  Arguments: STEPS PORT [DELAY_S].
"""

import contextlib
import os
import select
import socket
import sys
import time


def client(port: int, steps: int, delay_s: float) -> None:
    with socket.create_connection(("127.0.0.1", port)) as stream, stream.makefile("rwb") as lines:
        for number in range(1, steps + 1):
            lines.write(b"next %d\n" % number)
            lines.flush()
            if lines.readline() != b"step %d\n" % number:
                os._exit(3)
            time.sleep(delay_s)
    os._exit(0)


def serve(listener: socket.socket, steps: int) -> int:
    """Answer until the own client has hung up; return its last step."""
    waiting: dict[int, socket.socket] = {listener.fileno(): listener}
    step = 0
    while step < steps or len(waiting) > 1:
        readable, _, _ = select.select(list(waiting.values()), [], [])
        for ready in readable:
            if ready is listener:
                stream, _ = listener.accept()
                waiting[stream.fileno()] = stream
                continue
            line = ready.recv(100)
            if line.startswith(b"next "):
                step += 1
                if line != b"next %d\n" % step:
                    print("torn", line, flush=True)
                print("step", step, flush=True)
                ready.sendall(b"step %d\n" % step)
                continue
            with contextlib.suppress(OSError):
                if line.startswith(b"where"):
                    ready.sendall(b"at %d\n" % step)
            del waiting[ready.fileno()]
            ready.close()
    return step


def main(steps: int, port: int, delay_s: float) -> None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    if os.fork() == 0:
        listener.close()
        client(port, steps, delay_s)
    step = serve(listener, steps)
    _, status = os.wait()
    print("done", step if status == 0 else f"client {status}", flush=True)


main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.025)
