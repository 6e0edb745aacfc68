"""A mounted fake service, told by the test what happens when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
END_S = 10.0


@dataclass
class Mounted:
    """A server process; *path* is its mount point."""

    path: Path
    process: subprocess.Popen[str]
    log: Path

    def tell(self, *words: str) -> str:
        """Have something happen in the service; return its one-line answer."""
        assert self.process.stdin
        assert self.process.stdout
        print(*words, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def sh(self, script: str, *, uid: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run a bash script in the mount, as another user if asked to."""
        ids = {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}
        return subprocess.run(
            ["bash", "-c", script],
            cwd=self.path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            **ids,
        )

    def out(self, script: str) -> str:
        """Return what a script printed; it must succeed."""
        done = self.sh(script)
        assert done.returncode == 0, done.stderr
        return done.stdout


def start(path: Path, log: Path, *options: str) -> Mounted:
    """Mount on *path* and return when it answers."""
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.mount.server", str(path), *options],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout
    line = process.stdout.readline()
    assert line == "ready\n", log.read_text()
    return Mounted(path, process, log)


def stop(mounted: Mounted) -> None:
    """Unmount by ending the server; it must end by itself."""
    assert mounted.process.stdin
    assert mounted.process.stdout
    mounted.process.stdin.close()
    try:
        assert mounted.process.wait(END_S) == 0, mounted.log.read_text()
    finally:
        if mounted.process.poll() is None:
            mounted.process.send_signal(signal.SIGKILL)
            mounted.process.wait(END_S)
        mounted.process.stdout.close()
        if os.path.ismount(mounted.path):
            subprocess.run(["umount", "-l", str(mounted.path)], check=True)


def serving(top: Path) -> Iterator[Mounted]:
    """Serve one running job of root, heat.42, that has one version."""
    path = top / "mnt"
    path.mkdir()
    for parent in (path, *path.parents[:3]):
        if parent != Path("/tmp"):
            parent.chmod(0o755)  # so that another user gets as far as the mount
    server = start(path, top / "log")
    try:
        server.tell("job", "heat")
        server.tell("version", "heat.42")
        yield server
    finally:
        stop(server)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounted]:
    """A mount of this test's own."""
    yield from serving(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """A mount for tests that leave everything as it was: saves half a second for each."""
    yield from serving(tmp_path_factory.mktemp("shared"))
