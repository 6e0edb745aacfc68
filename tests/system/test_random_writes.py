"""Control files fed ten thousand random writes: never a crash, a hang, or a bug in the log."""

from __future__ import annotations

import errno
import itertools
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.programs.oracles import last_step
from tests.programs.table import PYTHON

from .installation import OWNER, acting_as, eventually

pytestmark = [pytest.mark.fuse, pytest.mark.criu, pytest.mark.slow]

EXAMPLES, WRITES = 100, 100
ANSWER_S = 12.0  # a command has 10 s
# of docs/control-files.md; EIO is not among them: nothing here is damaged, and a bug is a bug
DOCUMENTED = {
    *(errno.EINVAL, errno.ERANGE, errno.E2BIG, errno.ENOENT, errno.ESRCH, errno.EBUSY),
    *(errno.EAGAIN, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM),
}
# these would end the job that the others are tried on; they get everything but their one command
ENDS_THE_JOB = {"kill", "suspend", "signal"}
WORDS = (
    *("1", "0", "-1", "latest", "as=clone", "stopped=yes", "keep=yes", "note=", "keep_last", "15"),
    *("KILL", "only=", "except=", "master", "coordinated", "[coordinated]", "999999999999", "1e9"),
    *("JobUnit_1=", "n1", "../x", "/etc/passwd", "\u0000", "\u202e", "%s%n", "$(id)", "`id`", ";"),
)
PIECES = st.one_of(st.sampled_from(WORDS), st.text(max_size=20))
TEXTS = st.one_of(
    st.lists(PIECES, max_size=6).map(" ".join).map(lambda text: text.encode("utf-8", "replace")),
    st.binary(min_size=1, max_size=200),
    st.integers(4090, 5000).map(lambda size: b"1" * size),
)


@pytest.fixture(scope="module")
def controls(installation):
    """Descriptors of all control files that can be written, of a running job and the service."""
    program = "import time\nfor n in range(10**6): print('step', n, flush=True); time.sleep(0.02)"
    job = installation.run(PYTHON, "-c", program, name="fed")
    eventually(lambda: last_step(job.output()) >= 1, "the first step")
    version = job.checkpoint()
    places = (job.path / "ctl", job.path / str(version) / "ctl", installation.mount / "ctl")
    with acting_as(OWNER):
        paths = [path for place in places for path in sorted(place.iterdir()) if path.is_file()]
        mine = [path for path in paths if os.access(path, os.W_OK, effective_ids=True)]
        opened = [(path.name, os.open(path, os.O_RDWR)) for path in mine]
    assert len(opened) > 10
    yield opened
    for _, descriptor in opened:
        os.close(descriptor)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(texts=st.lists(TEXTS, min_size=WRITES, max_size=WRITES))
def feed(controls: list[tuple[str, int]], texts: list[bytes]) -> None:
    for (name, descriptor), text in zip(itertools.cycle(controls), texts, strict=False):
        if name in ENDS_THE_JOB and text.strip() in {b"1", b"15", b"KILL"}:
            continue
        begun = time.monotonic()
        try:
            os.pwrite(descriptor, text, 0)
        except OSError as error:
            if error.errno not in DOCUMENTED:
                raise AssertionError((name, text)) from error
        assert time.monotonic() - begun < ANSWER_S, (name, text)
        os.pread(descriptor, 5000, 0)


def test_ten_thousand_random_writes(installation, controls):
    feed(controls)
    assert "Traceback" not in installation.log()
    assert installation.daemon is not None
    assert installation.daemon.poll() is None
    assert (installation.mount / "ctl/health").read_text() == "ok\n"
