"""The oracles over the programs: right output passes, each kind of damage is noticed."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

import pytest

from tests.programs.oracles import EXPECTED, complaints, last_step
from tests.programs.table import PROGRAMS

STEPS = 24
NAMES = [program.name for program in PROGRAMS]


def right_files(name: str, reach: int | None = None) -> dict[str, bytes]:
    """What *name* writes in STEPS steps, or the first *reach* lines of each file."""
    found: dict[str, bytes] = {}
    for file, expected in EXPECTED[name].items():
        lines = [*expected(STEPS), *([f"done {STEPS}"] if file == "" else [])][:reach]
        found[file] = "".join(f"{line}\n" for line in lines).encode()
    return found


def ledger(numbers: list[int], balance: int = 1000) -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table account (id integer primary key, balance integer)")
    connection.execute("create table step (number integer primary key, value text)")
    connection.executemany("insert into account values (?, ?)", [(n, balance) for n in range(10)])
    connection.executemany("insert into step values (?, '')", [(n,) for n in numbers])
    connection.commit()
    content = bytes(connection.serialize())
    connection.close()
    return content


def edited(files: Mapping[str, bytes], file: str, lines: list[bytes]) -> dict[str, bytes]:
    return {**files, file: b"".join(lines)}


def every_file() -> list[tuple[str, str]]:
    return [(name, file) for name in NAMES for file in EXPECTED[name]]


def test_table_and_oracles_name_the_same_programs():
    assert sorted(NAMES) == sorted(EXPECTED)
    for program in PROGRAMS:
        assert set(EXPECTED[program.name]) <= {"", *program.files}


@pytest.mark.parametrize("name", NAMES)
def test_right_output_passes(name):
    assert complaints(name, STEPS, right_files(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_right_beginning_passes_only_as_a_beginning(name):
    files = right_files(name, reach=10)
    assert complaints(name, STEPS, files, finished=False) == []
    assert any("lost" in text for text in complaints(name, STEPS, files))


@pytest.mark.parametrize(("name", "file"), every_file())
@pytest.mark.parametrize("finished", [True, False])
def test_damage_is_noticed(name, file, finished):
    files = right_files(name)
    lines = files[file].splitlines(keepends=True)

    def found(changed: list[bytes]) -> str:
        return "\n".join(complaints(name, STEPS, edited(files, file, changed), finished=finished))

    assert "lost" in found(lines[:7] + lines[8:])
    assert "doubled" in found(lines[:8] + lines[6:])
    assert "torn" in found([*lines[:7], lines[7][:-2] + b"\n", *lines[8:]])
    assert "torn" in found([*lines[:7], lines[7][:1] + lines[8], *lines[9:]])
    assert "order" in found([*lines[:6], lines[7], lines[6], *lines[8:]])
    assert "torn" in found([*lines[:-1], b"\0" * 20])
    assert "wrong" in found([*lines, b"done 9999\n"])


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_end_or_file_is_noticed(name):
    files = right_files(name)
    without_end = {**files, "": files[""].removesuffix(f"done {STEPS}\n".encode())}
    assert complaints(name, STEPS, without_end) == [f"stdout: lost: 'done {STEPS}'"]
    assert complaints(name, STEPS, {}) != []
    assert "torn" in complaints(name, STEPS, {**files, "": files[""][:-1]})[0]


def test_ledger_must_hold_the_printed_steps_and_the_money():
    files = right_files("database")

    def found(content: bytes) -> list[str]:
        return complaints("database", STEPS, {**files, "ledger.db": content})

    assert found(ledger(list(range(1, STEPS + 1)))) == []
    assert "steps are" in found(ledger(list(range(1, STEPS))))[0]
    assert "steps are" in found(ledger([*range(1, STEPS - 1), STEPS, STEPS + 1]))[0]
    assert "money" in found(ledger(list(range(1, STEPS + 1)), balance=999))[0]
    assert "ledger.db" in found(b"no database at all" * 100)[0]


def test_last_step_counts_whole_lines_only():
    assert last_step(b"") == 0
    assert last_step(b"step 1 x\nstep 2 y\nstep 3") == 2
    assert last_step(b"step 7 sum 3\ndone 7\n") == 7
