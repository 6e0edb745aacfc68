"""The programs that are measured.  Each is its own clock.

A thread notes every gap of more than 20 ms between two of its own 1 ms ticks,
so all sides are measured by the same yardstick, from outside of all of them.
The last two arguments of each are MiB and the file for the gaps.
"""

from __future__ import annotations

from pathlib import Path

CLOCK = """
import os, sys, threading, time
mib, gaps = int(sys.argv[1]), open(sys.argv[2], "a", buffering=1)
def tick():
    last = time.monotonic()
    while True:
        time.sleep(0.001)
        now = time.monotonic()
        if now - last > 0.02:
            gaps.write(f"{now - last:.6f}\\n")
        last = now
def ready():
    gaps.write("ready\\n")
    threading.Thread(target=tick, daemon=True).start()
"""

# Random bytes: nothing to deduplicate in a first version, the worst case for ckptfs.
SCATTERED = """
import numpy
pages = numpy.frombuffer(bytearray(os.urandom(mib << 20)), dtype=numpy.uint64).reshape(-1, 512)
draw = numpy.random.default_rng(1)
ready()
while True:
    pages[draw.integers(len(pages), size=len(pages) // 200), 0] += 1
    time.sleep(0.05)
"""

CONTIGUOUS = """
import numpy
field = numpy.frombuffer(bytearray(os.urandom(mib << 20)), dtype=numpy.uint64)
at, width = 0, len(field) // 200
ready()
while True:
    field[at : at + width] += 1
    at = (at + width) % (len(field) - width)
    time.sleep(0.05)
"""

REDIS = """
import random, socket, subprocess, tempfile
where = os.path.join(tempfile.mkdtemp(dir=os.path.dirname(sys.argv[2])), "s")
server = subprocess.Popen(
    ["redis-server", "--port", "0", "--unixsocket", where, "--save", "", "--appendonly", "no",
     "--dir", os.path.dirname(where)], stdout=subprocess.DEVNULL)
while not os.path.exists(where):
    time.sleep(0.05)
client = socket.socket(socket.AF_UNIX)
client.connect(where)
def put(keys):
    for key in keys:
        value = os.urandom(4096)
        words = (b"SET", b"%08d" % key, value)
        parts = [b"$%d\\r\\n%b\\r\\n" % (len(word), word) for word in words]
        client.sendall(b"*3\\r\\n" + b"".join(parts))
        got = b""
        while not got.endswith(b"\\r\\n"):
            got += client.recv(64)
count = mib << 8
put(range(count))
ready()
while True:
    put(random.randrange(count) for _ in range(count // 200))
    time.sleep(0.05)
"""

SQLITE = """
import random, sqlite3
db = sqlite3.connect(":memory:")
db.execute("create table t (id integer primary key, body blob)")
count = mib << 8
db.executemany("insert into t values (?, ?)", ((n, os.urandom(3900)) for n in range(count)))
db.commit()
ready()
while True:
    db.executemany("update t set body = ? where id = ?",
        [(os.urandom(3900), random.randrange(count)) for _ in range(count // 200)])
    db.commit()
    time.sleep(0.05)
"""

FORKED = """
common = bytearray(os.urandom(mib << 19))
children = 4
for child in range(children):
    if os.fork() == 0:
        own, page = bytearray(os.urandom((mib << 19) // children)), 0
        count = len(own) >> 12
        while True:
            for _ in range(count // 100):
                page = (page * 1103515245 + 12345) % count
                own[page << 12] ^= 1
            time.sleep(0.05)
time.sleep(2)
ready()
while True:
    time.sleep(1)
"""

PROGRAMS = {
    "scattered": SCATTERED,
    "contiguous": CONTIGUOUS,
    "redis": REDIS,
    "sqlite": SQLITE,
    "forked": FORKED,
}


def write_program(base: Path, name: str, mib: int) -> list[str | Path]:
    """Write the program *name* below *base*; return its command, without the file for the gaps."""
    script = base / f"{name}.py"
    script.write_text(CLOCK + PROGRAMS[name])
    return ["/usr/bin/python3", script, str(mib)]
