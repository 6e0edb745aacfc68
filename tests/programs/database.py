"""SQLite with a database file: each step one transaction that moves money and notes the step.

Default journal mode (a rollback journal beside the file).  Line: ``step N rows COUNT sum TOTAL`` as
the database says after the commit.  Arguments: STEPS [DELAY_S].
"""

import sqlite3
import sys
import time

ACCOUNTS = 10
EACH = 1000


def create(connection: sqlite3.Connection) -> None:
    with connection:
        connection.execute("create table account (id integer primary key, balance integer)")
        connection.execute("create table step (number integer primary key, value text)")
        connection.executemany(
            "insert into account values (?, ?)", [(n, EACH) for n in range(ACCOUNTS)]
        )


def transfer(connection: sqlite3.Connection, step: int) -> None:
    with connection:
        connection.execute("insert into step values (?, ?)", (step, f"value {step}" * 20))
        take, give = step % ACCOUNTS, (step * 3 + 1) % ACCOUNTS
        connection.execute("update account set balance = balance - ? where id = ?", (step, take))
        connection.execute("update account set balance = balance + ? where id = ?", (step, give))


def main(steps: int, delay_s: float) -> None:
    connection = sqlite3.connect("ledger.db")
    create(connection)
    for step in range(1, steps + 1):
        transfer(connection, step)
        (rows,) = connection.execute("select count(*) from step").fetchone()
        (total,) = connection.execute("select sum(balance) from account").fetchone()
        print("step", step, "rows", rows, "sum", total, flush=True)
        time.sleep(delay_s)
    connection.close()
    print("done", steps, flush=True)


main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.025)
