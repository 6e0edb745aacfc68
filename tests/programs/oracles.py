"""Say what is wrong with the output of a program: lost, doubled, torn or out-of-order steps.  Pure.

Every program here is deterministic, so an oracle is the list of lines that the
program must have written to each of its files; whatever differs is a complaint.
Nothing but the bytes of the files is looked at.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from . import solver

Lines = Iterator[str]


def counter(steps: int) -> Lines:
    return (f"step {n}" for n in range(1, steps + 1))


def forktree(steps: int) -> Lines:
    return (f"step {n} sum {4 * n}" for n in range(1, steps + 1))


def threads(steps: int) -> Lines:
    return (f"step {n + 1} thread {n % 8} own {n // 8 + 1}" for n in range(steps))


def unixsockets(steps: int) -> Lines:
    return (f"step {n} seen {n}" for n in range(1, steps + 1))


def unlinked(steps: int) -> Lines:
    crc = 0
    for n in range(1, steps + 1):
        crc = zlib.crc32(b"record %8d\n" % n, crc)
        yield f"step {n} records {n} crc {crc:08x}"


def locks(steps: int) -> Lines:
    for n in range(1, steps + 1):
        found = "held" if n % 8 else "free"
        yield f"step {n} flock {found} posix {found}"


def timers(steps: int) -> Lines:
    return (f"step {n} queued 3 usr1 1 handled {n}" for n in range(1, steps + 1))


def memory(steps: int, blocks: int = 256) -> Lines:
    links = [hashlib.sha256(b"block %d" % n).digest() for n in range(blocks)]
    chain = b""
    for n in range(1, steps + 1):
        place = n * 7 % blocks
        chain = hashlib.sha256(chain + links[place] + b"%d" % n).digest()
        links[place] = chain
        yield f"step {n} chain {chain.hex()[:16]} blocks 4"
    yield f"whole {blocks}"


def jacobi(steps: int) -> Lines:
    grid, seed, power = solver.start()
    for n in range(1, steps + 1):
        power, text = solver.advance(grid, seed, power)
        yield f"step {n} {text}"


def database(steps: int) -> Lines:
    return (f"step {n} rows {n} sum 10000" for n in range(1, steps + 1))


def redisloop(steps: int) -> Lines:
    return (f"step {n} incr {n} list {n}" for n in range(1, steps + 1))


def pipeline(steps: int) -> Lines:
    return (f"step {n} sum {n * (n + 1) // 2}" for n in range(1, steps + 1))


def eventloop(steps: int) -> Lines:
    digest = ""
    for n in range(1, steps + 1):
        digest = hashlib.sha256(f"{digest}{n}".encode()).hexdigest()
        yield f"step {n} hash {digest[:16]} appended {n}"


def workers(steps: int) -> Lines:
    value = 17
    for n in range(1, steps + 1):
        value = (value * 31 + n) & 0xFFFFFFFF
        yield f"step {n} hash {value:x} worker {(n - 1) % 4} own {(n - 1) // 4 + 1}"


def _numbered(form: str) -> Callable[[int], Lines]:
    return lambda steps: (form.format(n=n, square=n * n) for n in range(1, steps + 1))


# program → file ("" is stdout, which ends with "done STEPS") → the lines it must hold
EXPECTED: Mapping[str, Mapping[str, Callable[[int], Lines]]] = {
    "counter": {"": counter},
    "appender": {
        "": counter,
        "appended.log": _numbered("appended {n}"),
        "written.log": _numbered("written {n} {square}"),
    },
    "forktree": {"": forktree},
    "threads": {"": threads},
    "cthreads": {"": threads},
    "unixsockets": {"": unixsockets},
    "tcpserver": {"": counter},
    "unlinked": {"": unlinked},
    "locks": {"": locks},
    "timers": {"": timers},
    "memory": {"": memory},
    "solver": {"": jacobi},
    "database": {"": database},
    "redis": {"": redisloop},
    "pipeline": {"": pipeline, "produced.log": _numbered("{n}")},
    "node": {"": eventloop, "node.log": _numbered("appended {n}")},
    "java": {"": workers},
}


def complaints(
    program: str, steps: int, files: Mapping[str, bytes], *, finished: bool = True
) -> list[str]:
    """Compare what *program* wrote with what it must have written; empty means all is right.

    *files*: name → content, "" for stdout.  With *finished* false the program
    may be anywhere on its way: a right beginning is enough.
    """
    found: list[str] = []
    for name, expected in EXPECTED[program].items():
        wanted = [*expected(steps), *([f"done {steps}"] if name == "" else [])]
        where = name or "stdout"
        if name not in files:
            found.append(f"{where}: there is no such file")
        else:
            found += [f"{where}: {text}" for text in _differences(wanted, files[name], finished)]
    if program == "database" and "ledger.db" in files:
        found += _ledger_complaints(files["ledger.db"], steps, finished)
    return found


def last_step(content: bytes) -> int:
    """Return the number on the last whole ``step`` line, 0 when there is none."""
    numbers = re.findall(rb"^step (\d+)[^\n]*\n", content, re.MULTILINE)
    return int(numbers[-1]) if numbers else 0


def _differences(wanted: Sequence[str], content: bytes, finished: bool) -> list[str]:
    text = content.decode("utf-8", "backslashreplace")
    lines = text.split("\n")
    torn = lines.pop()
    found = [f"the last line is torn: {torn!r}"] if torn and finished else []
    if torn and not finished and not _begins(wanted, len(lines), torn):
        found.append(f"the last line is torn: {torn!r}")
    if lines == list(wanted if finished else wanted[: len(lines)]):
        return found
    counts, known = Counter(lines), set(wanted)
    found += [f"doubled: {line!r} ({n} times)" for line, n in counts.items() if n > 1]
    found += [f"torn or wrong: {line!r}" for line in counts if line not in known]
    reach = wanted if finished else wanted[: _reach(wanted, counts)]
    found += [f"lost: {line!r}" for line in reach if line not in counts]
    return found or ["lines are out of order"]


def _begins(wanted: Sequence[str], place: int, torn: str) -> bool:
    return place < len(wanted) and wanted[place].startswith(torn)


def _reach(wanted: Sequence[str], counts: Counter[str]) -> int:
    """How far an unfinished output got: behind the last line that is there."""
    return max((n + 1 for n, line in enumerate(wanted) if line in counts), default=0)


def _ledger_complaints(content: bytes, steps: int, finished: bool) -> list[str]:
    connection = sqlite3.connect(":memory:")
    try:
        connection.deserialize(content)
        numbers = [n for (n,) in connection.execute("select number from step order by number")]
        (total,) = connection.execute("select sum(balance) from account").fetchone()
        (check,) = connection.execute("pragma integrity_check").fetchone()
    except sqlite3.DatabaseError as error:
        return [f"ledger.db: {error}"]
    finally:
        connection.close()
    wanted = list(range(1, (steps if finished else len(numbers)) + 1))
    found = [] if numbers == wanted else [f"ledger.db: steps are {numbers}"]
    found += [] if total == 10000 else [f"ledger.db: the money is {total}, not 10000"]
    return found + ([] if check == "ok" else [f"ledger.db: {check}"])
