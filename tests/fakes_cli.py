"""A mount for tests of the commands: a directory tree whose control files follow a script.

`ScriptedFiles` offers the `Files` of `ckptfs.cli.client`: reading is real;
what a write answers and what happens while somebody waits is told by the test.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from pathlib import Path

from ckptfs.cli.client import KernelFiles, Mount, Watch
from ckptfs.errors import Gone

Answer = Callable[[str], str]
Step = Callable[[], None]


class ScriptedWatch:
    """Each wait carries out the next step; a wait too many is a hang, so it fails."""

    def __init__(self, path: Path, steps: list[Step]) -> None:
        self._path = path
        self._steps = steps

    def read(self) -> str:
        try:
            return self._path.read_text()
        except FileNotFoundError as error:
            raise Gone(f"{self._path} has been removed") from error

    def wait(self, timeout_s: float | None) -> None:
        assert self._steps, f"waiting for {self._path.name} for ever"
        self._steps.pop(0)()


class ScriptedFiles(KernelFiles):
    """*answers*: path relative to the mount → what a write there answers or raises."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.answers: dict[str, Answer] = {}
        self.steps: list[Step] = []
        self.written: list[tuple[str, str]] = []

    def write(self, path: Path, text: str) -> str:
        relative = str(path.relative_to(self.root))
        self.written.append((relative, text))
        return self.answers[relative](text) if relative in self.answers else ""

    def remove(self, path: Path) -> None:
        shutil.rmtree(path)  # rmdir of a version works although it is not empty

    def watch(self, path: Path) -> Generator[Watch]:
        yield ScriptedWatch(path, self.steps)


class FakeTree:
    """The files of a mount, and a way to change them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = ScriptedFiles(root)
        self.mount = Mount(root, self.files)
        self.rows: dict[str, dict[int, str]] = {}  # lines of ctl/versions
        self.put("ctl/health", "ok\n")
        self.put("ctl/stat", "versions_unread 0\n")
        self.put("ctl/version", "ckptfs 0.1.0\nabi 1\n")
        (root / "ctl/spool").mkdir()

    def put(self, relative: str, text: str) -> None:
        path = self.root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def job(self, job: str, *, state: str = "running", exit_status: str = "none") -> None:
        for name, text in {
            "state": state,
            "exit_status": exit_status,
            "checkpoint": "none",
            "restart": "none",
            "stat": "saving_done_bytes 0\nsaving_total_bytes 0",
            "kill": "none",
            "versions": "",
        }.items():
            self.put(f"{job}/ctl/{name}", text + "\n" if text else "")

    def version(
        self, job: str, version: int, *, note: str = "", pinned: bool = False, **figures: object
    ) -> None:
        """Add a line to ``ctl/versions``, and a directory; *figures*: other keys of the line."""
        row = {
            "state": "restartable",
            "replicas": 1,
            "level": 2,
            "pinned": int(pinned),
            "committed_at": "2026-11-20T11:52:03Z",
            "logical_bytes": 1048576,
            "unique_bytes": 4096,
            "purpose": "user",
            "class": "user",
            **({"note": note} if note else {}),
            **figures,
        }
        text = " ".join(f"{key}={value}" for key, value in row.items() if value is not None)
        self.rows.setdefault(job, {})[version] = f"{version} {text}\n"
        self.put(f"{job}/ctl/versions", "".join(self.rows[job].values()))
        self.put(f"{job}/{version}/ctl/state", f"{row['state']}\n")

    def later(self, relative: str, text: str) -> None:
        """Have the next wait end with this content."""
        self.files.steps.append(lambda: self.put(relative, text + "\n"))
