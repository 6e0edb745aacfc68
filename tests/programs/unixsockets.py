"""Unix sockets between the processes of the unit: a stream to a bound path, datagrams back.

Numbers go out over the stream and come back as datagrams; several are queued
in the sockets at any time.  Arguments: STEPS [DELAY_S].
"""

import os
import socket
import struct
import sys
import time

IN_FLIGHT = 5
RECORD = struct.Struct("<QQ")
STREAM, DATAGRAM = "stream.sock", "datagram.sock"


def receive(stream: socket.socket) -> bytes:
    data = b""
    while len(data) < RECORD.size:
        more = stream.recv(RECORD.size - len(data))
        if not more:
            return b""
        data += more
    return data


def child(listener: socket.socket, path: str) -> None:
    stream, _ = listener.accept()
    listener.close()
    back = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    back.connect(path)
    seen = 0
    while data := receive(stream):
        seen += 1
        step, _ = RECORD.unpack(data)
        back.send(RECORD.pack(step, seen))
    os._exit(0)


def main(steps: int, delay_s: float) -> None:
    directory = os.getcwd()
    for name in (STREAM, DATAGRAM):
        if os.path.lexists(name):
            os.unlink(name)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(os.path.join(directory, STREAM))
    listener.listen()
    answers = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    answers.bind(os.path.join(directory, DATAGRAM))
    if os.fork() == 0:
        answers.close()
        child(listener, os.path.join(directory, DATAGRAM))
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.connect(os.path.join(directory, STREAM))
    for number in range(1, steps + IN_FLIGHT + 1):
        if number <= steps:
            stream.sendall(RECORD.pack(number, 0))
        if number > IN_FLIGHT:
            step, seen = RECORD.unpack(answers.recv(RECORD.size))
            print("step", step, "seen", seen, flush=True)
            time.sleep(delay_s)
    stream.close()
    os.wait()
    print("done", steps, flush=True)


main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.025)
