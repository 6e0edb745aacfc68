"""A redis server and its client in one job, over a unix socket.  Arguments: STEPS [DELAY_S].

The client keeps one connection open: INCR must return the step, and a list
grows by one.  The server keeps nothing on disk (``save ""``): all is in memory.
"""

import os
import socket
import subprocess
import sys
import time

SOCKET = os.path.join(os.getcwd(), "redis.sock")
SERVER = [
    "redis-server", "--port", "0", "--unixsocket", SOCKET, "--save", "", "--appendonly", "no",
    "--daemonize", "no", "--logfile", os.path.join(os.getcwd(), "redis.log"), "--dir", os.getcwd(),
]  # fmt: skip


def connect(server: subprocess.Popen) -> socket.socket:
    while server.poll() is None:
        stream = socket.socket(socket.AF_UNIX)
        try:
            stream.connect(SOCKET)
        except OSError:
            stream.close()
            time.sleep(0.02)
        else:
            return stream
    raise SystemExit(f"redis-server ended: {server.returncode}")


def ask(stream: socket.socket, replies, *words: str) -> str:
    parts = [f"${len(word)}\r\n{word}\r\n" for word in words]
    stream.sendall((f"*{len(words)}\r\n" + "".join(parts)).encode())
    return replies.readline().decode().strip()


def main(steps: int, delay_s: float) -> None:
    server = subprocess.Popen(
        SERVER, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    stream = connect(server)
    replies = stream.makefile("rb")
    for step in range(1, steps + 1):
        count = ask(stream, replies, "INCR", "steps")
        length = ask(stream, replies, "RPUSH", "list", f"item {step}")
        print("step", step, "incr", count.lstrip(":"), "list", length.lstrip(":"), flush=True)
        time.sleep(delay_s)
    stream.sendall(b"*2\r\n$8\r\nSHUTDOWN\r\n$6\r\nNOSAVE\r\n")
    server.wait()
    print("done", steps, flush=True)


main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.025)
