"""Try a CRIU for real: dump, kill and restore a process that listens on a socket.  I/O.

`criu check` is not enough: CRIU 4.1.1 says "Looks good" on Linux 6.18 and then cannot dump any
inet socket (SO_PASSCRED answers EOPNOTSUPP there).  So a victim is started the way jobs are: as
another user than root, in PID, mount and IPC namespaces of its own, with CRIU inside the same
namespaces.  It answers a number that lives in its memory only; the restored one must answer the
same.

Standard library only, and no import from ckptfs: the set-up runs this file before anything is
installed.  ``python3 smoke.py CRIU`` prints one JSON object and ends 0 or 1.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

VICTIM_UID = 65534  # "nobody" on Debian and Ubuntu; owns nothing
STEP_TIMEOUT_S = 20.0  # one dump takes 0.1 s; a hanging CRIU must not hang the set-up
GONE_TIMEOUT_S = 1.0  # CRIU ends the victim before it ends itself
OUTER_TIMEOUT_S = 60.0
# Error lines that tell no reason: always there without CAP_SYS_RESOURCE, or sums of earlier ones
_SAYS_NOTHING = re.compile(r"RLIMIT_NOFILE|FAILED|failed with -1|Unable to open fd=")
_VICTIM = """
import socket, sys
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", 0)); s.listen(4)
print(s.getsockname()[1], flush=True)
while True:
    c, _ = s.accept(); c.sendall(sys.argv[1].encode()); c.close()
"""


@dataclass(frozen=True)
class SmokeResult:
    """How the trial went: *reason* is empty when *works*; times in seconds."""

    works: bool
    reason: str = ""
    dump_s: float = 0.0
    restore_s: float = 0.0


class _Failed(Exception):
    """Ends a trial; stays in this file."""


def try_criu(criu: str) -> SmokeResult:
    """Dump and restore a small process with *criu* (a path), in fresh namespaces.

    Never raises for a bad CRIU: the result says what happened.  Takes about 0.5 s.
    """
    work = Path(tempfile.mkdtemp(prefix="ckptfs-smoke-"))
    argv = [
        *("unshare", "--pid", "--fork", "--kill-child", "--mount", "--ipc"),
        *("--propagation", "slave", "--mount-proc"),
        *(sys.executable, "-I", __file__, "--inside", criu, str(work)),
    ]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=OUTER_TIMEOUT_S)
        if not done.stdout.startswith("{"):
            return SmokeResult(False, f"no verdict: {_last_line(done.stderr)}")
        return SmokeResult(**json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        return SmokeResult(False, f"no verdict within {OUTER_TIMEOUT_S:.0f} s")
    except OSError as e:
        return SmokeResult(False, f"cannot start the trial: {e}")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def reason_in_log(log: str) -> str:
    """Return the last line of a CRIU log that tells the reason of a failure, or ''."""
    lines = [line for line in log.splitlines() if "Error (" in line]
    telling = [line for line in lines if not _SAYS_NOTHING.search(line)]
    return re.sub(r"^.*Error \([^)]*\):\s*", "", telling[-1]) if telling else ""


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1]


def _run(argv: list[str], log: Path) -> float:
    """Run a CRIU command that must succeed; return its seconds."""
    begin = time.monotonic()
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=STEP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise _Failed(f"{log.stem} did not end within {STEP_TIMEOUT_S:.0f} s") from None
    except OSError as e:
        raise _Failed(f"{argv[0]} does not start: {e.strerror}") from None
    if done.returncode != 0:
        text = log.read_text(errors="replace") if log.exists() else ""
        raise _Failed(f"{log.stem} fails: {reason_in_log(text) or _last_line(done.stderr)}")
    return time.monotonic() - begin


def _ask(port: int) -> str:
    """Return what the victim answers on *port*, or '' when nobody listens."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=STEP_TIMEOUT_S) as s:
            return s.recv(100).decode()
    except OSError:
        return ""


def _start_victim(token: str, work: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start the victim; return it and the port it listens on."""
    python = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
    said = work / "port"
    with said.open("wb") as out:
        victim = subprocess.Popen(
            [python, "-I", "-c", _VICTIM, token],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            user=VICTIM_UID,
            group=VICTIM_UID,
            extra_groups=[],
        )
    deadline = time.monotonic() + STEP_TIMEOUT_S
    while not said.read_bytes().endswith(b"\n"):
        if victim.poll() is not None or time.monotonic() > deadline:
            raise _Failed("the process to be dumped does not start")
        time.sleep(0.005)
    return victim, int(said.read_text())


def _inside(criu: str, work: Path) -> SmokeResult:
    """Do the trial; we are PID 1 of fresh namespaces."""
    images, scratch = work / "images", work / "work"
    images.mkdir()
    scratch.mkdir()
    token = secrets.token_hex(8)
    victim, port = _start_victim(token, work)
    if _ask(port) != token:
        raise _Failed("the process to be dumped does not answer")
    places = ["-D", str(images), "-W", str(scratch), "-v2", "--manage-cgroups=ignore"]
    common = ["--no-default-config", *places]
    dump = [criu, "dump", "-t", str(victim.pid), "-o", "dump.log", *common]
    dump_s = _run(dump, scratch / "dump.log")
    try:
        victim.wait(timeout=GONE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise _Failed("dump leaves the process behind") from None
    restore = [criu, "restore", "-d", "-o", "restore.log", *common]
    restore_s = _run(restore, scratch / "restore.log")
    if _ask(port) != token:
        raise _Failed("the restored process does not answer as the dumped one did")
    return SmokeResult(True, "", round(dump_s, 3), round(restore_s, 3))


def main(argv: list[str]) -> int:
    """Run as a program: ``smoke.py CRIU``; 0 = that CRIU works here."""
    if argv[:1] == ["--inside"]:
        try:
            result = _inside(argv[1], Path(argv[2]))
        except _Failed as e:
            result = SmokeResult(False, str(e))
    else:
        result = try_criu(argv[0])
    print(json.dumps(asdict(result)))
    return 0 if result.works else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
