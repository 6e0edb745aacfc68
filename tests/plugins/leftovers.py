"""Keeps the machine clean: every run has one directory, and leaves no mount, process or cgroup.

All temporary directories of a run lie below /tmp/ckptfs-test-<pid>.  When a run ends, mounts,
processes and jobs that carry this name are removed and the run fails, naming them: a test has
not cleaned up.  When a run starts, those of runs that are dead are removed, and said.  A run that
is going on at the same time is left alone.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ckptfs.doctor.machine import Machine

_NAME = re.compile(r"ckptfs-test-(\d+)(?!\d)")
_TOP = Path("/tmp")
# A file system in memory: the fast tests write hundreds of stores, and their fsyncs were a third of
# the time (20 s against 13 s).  What a disk does to a store is tested by the others.
_QUICK_TOP = Path("/dev/shm")
_RUN = Path("/run/ckptfs")  # <store id>/<unit>/launch.json
_END_S = 10.0  # an unmount that cannot end must not hang the run
_FOUND = pytest.StashKey[list[str]]()


def _mounts() -> list[tuple[str, str]]:
    """Return (name, mount point) of all mounts, the newest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [(line.split()[4], line.split()[4]) for line in reversed(lines)]


def _processes() -> list[tuple[str, str]]:
    """Return (command line, pid) of all processes but us and our parents."""
    ours, pid = set(), os.getpid()
    while pid > 1:
        ours.add(pid)
        pid = int(re.search(r"^PPid:\s*(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1])
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(entry.name) not in ours:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                found.append((words.replace("\0", " "), entry.name))
    return found


def _stores() -> list[tuple[str, str]]:
    """Return (what a supervisor was told, store id) of all stores that have units running."""
    found = []
    for order in _RUN.glob("*/*/launch.json"):
        with suppress(OSError):
            found.append((order.read_text(errors="replace"), order.parent.parent.name))
    return found


def _end_process(pid: str) -> None:
    os.kill(int(pid), signal.SIGKILL)


def _unmount(path: str) -> None:
    subprocess.run(["umount", "--lazy", path], check=False, timeout=_END_S, capture_output=True)


def _end_store(store: str) -> None:
    """End the supervisors of a store and its jobs; remove their cgroups and directories."""
    for words, pid in _processes():
        if f"{_RUN}/{store}/" in words:
            with suppress(OSError):
                _end_process(pid)
    top = Machine().cgroup2()
    for cgroup in sorted((top / "ckptfs" / store).glob("**/"), reverse=True) if top else ():
        with suppress(OSError):
            _end_cgroup(cgroup)
    shutil.rmtree(_RUN / store, ignore_errors=True)


def _end_cgroup(cgroup: Path) -> None:
    (cgroup / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + _END_S
    while "populated 1" in (cgroup / "cgroup.events").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    cgroup.rmdir()


# what may be left behind, in the order in which it goes
_KINDS = (
    ("process", _processes, _end_process),
    ("store", _stores, _end_store),
    ("mount", _mounts, _unmount),
)


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def sweep(ours: int | None) -> list[str]:
    """Remove what the run *ours*, or when None what every dead run, has left; name each thing."""
    found: list[str] = []
    for kind, everything, end in _KINDS:
        for name, handle in everything():
            match = _NAME.search(name)
            if match is None:
                continue
            run = int(match[1])
            if run == ours or (ours is None and not _alive(run)):
                found.append(f"{kind} {handle}: {name.strip()[:200]}")
                with suppress(OSError, subprocess.TimeoutExpired):
                    end(handle)
    return found


def _remove_directories(ours: int | None) -> None:
    for path in (*_TOP.glob("ckptfs-test-*"), *_QUICK_TOP.glob("ckptfs-test-*")):
        match = _NAME.fullmatch(path.name)
        if match and (int(match[1]) == ours or (ours is None and not _alive(int(match[1])))):
            shutil.rmtree(path, ignore_errors=True)


def clear(ours: int | None) -> list[str]:
    """Remove everything that the run *ours*, or when None every dead run, has left; name it."""
    found = sweep(ours)
    _remove_directories(ours)
    return found


def _takes_direct_io(directory):
    """Whether packs can be written there: tmpfs takes O_DIRECT from Linux 6.6 on."""
    path = directory / f"ckptfs-test-{os.getpid()}"
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_DIRECT, 0o600))
    except OSError:
        return False
    finally:
        path.unlink(missing_ok=True)
    return True


def pytest_configure(config):
    config.stash[_FOUND] = []
    if config.option.basetemp is None:
        top = _QUICK_TOP if config.getoption("--fast") and _takes_direct_io(_QUICK_TOP) else _TOP
        config.option.basetemp = str(top / f"ckptfs-test-{os.getpid()}")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session):
    stale = sweep(None)
    _remove_directories(None)
    if stale:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        reporter.write_line(f"removed what a dead run had left: {'; '.join(stale)}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    found = sweep(os.getpid())
    session.config.stash[_FOUND] = found
    if found and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    _remove_directories(os.getpid())


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[_FOUND]:
        terminalreporter.section("left behind by the tests, now removed")
        for line in config.stash[_FOUND]:
            terminalreporter.line(line)


@pytest.fixture(autouse=True, scope="session")
def _passable_top(tmp_path_factory):
    """Let the jobs' users through to what a test opens for them."""
    tmp_path_factory.getbasetemp().chmod(0o711)


@pytest.fixture
def open_tmp_path(tmp_path):
    """Return a fresh directory that every user may use, for jobs that run as their owner."""
    tmp_path.chmod(0o1777)
    return tmp_path
