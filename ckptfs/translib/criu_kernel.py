"""CRIU's cache of what the kernel can do, ``/run/criu.kdat``, made before it is needed.

A machine whose root lacks CAP_SYS_RESOURCE dumps with the real uid of the job
(`criu_words.as_owner`), and libnftables 1.1 ends any process whose real and
effective uid differ (exit 111), which CRIU's look at the kernel runs into.
With the cache there is no look.  CRIU writes it itself where /run is a tmpfs;
saves 25 ms a run anyway.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from .command import run_command

CACHE = Path("/run/criu.kdat")
_WARM = Path(__file__).parent / "warm_cache.sh"


def is_fresh(cache: Path = CACHE) -> bool:
    """Whether there is a cache, and it was written since this boot."""
    try:
        written = cache.stat().st_mtime
    except OSError:
        return False
    return written > time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


async def make_cache(criu: Sequence[str], work_dir: Path) -> None:
    """Make the cache unless it is there.  Failing to is no error: the dump says what is wrong."""
    if is_fresh():
        return
    temporary = CACHE.with_name(f"criu.kdat.{os.getpid()}")
    fd = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        status = await run_command(
            ("unshare", "-m", "--propagation", "private", "/bin/sh", str(_WARM), str(fd), *criu),
            output=work_dir / "criu-check.out",
            pass_fds=(fd,),
        )
        if status == 0 and os.fstat(fd).st_size:
            temporary.rename(CACHE)
    finally:
        os.close(fd)
        temporary.unlink(missing_ok=True)
