"""``docs/control-files.md`` out of the table of control files.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .control import WRITE_MAX, ControlFile, T
from .handles import REFRESH_DEADLINE_S, STORE_DEADLINE_S
from .interface import JOB_FILES, SERVICE_FILES, VERSION_FILES
from .spool import FILE_MAX_BYTES, KEEP_S, USER_MAX_BYTES, USER_MAX_FILES

HEAD = f"""# Control files

Generated from `ckptfs/fs/interface.py` by `tools/control-files-doc`; do not edit.

Every control file sits in a directory named `ctl`; `ls ctl` is the manual.

- `cat` of any of them works. A verb prints its last request, and how it is used behind `#`.
- One write is one command of at most {WRITE_MAX} bytes; one newline at the end is ignored, the
  offset too. It succeeds whole or has no effect. Writing the present value changes nothing.
- What can be decided before a process is touched is the errno of the write; what goes wrong
  later is in `state`, with a reason. A command has {STORE_DEADLINE_S:.0f} s, then it is ETIMEDOUT.
- The answer can be read from the same descriptor: a version, an id, or `error` and a sentence.
  `exec 3<>ctl/checkpoint; echo 1 >&3; read -u3 version`. The last failure is in `ctl/error`:
  look there when a shell (`dash`, as `sh` is on Debian) says `I/O error` whatever the errno was.
- A read at offset 0 takes a fresh snapshot; later reads continue it.
- *poll*: `poll(2)` reports POLLPRI once the content has changed since this descriptor last read
  offset 0. Nothing on the mount ever waits in `read` or `write`.
- *asks*: opening the file asks the nodes; it is ETIMEDOUT after {REFRESH_DEADLINE_S:.0f} s.
- Rights are those of whoever opened the descriptor. A file without write bits is EACCES for
  everybody, root too. A descriptor of something that was removed is ENODEV.
"""

SPOOL = f"""### `ctl/spool/`
mode 1777, a directory

Small files on their way to `ctl/submit`: `cp`, `mv`, `rm` and `ls` work as everywhere. A file holds
at most {FILE_MAX_BYTES} bytes (EFBIG), a user at most {USER_MAX_FILES} files and {USER_MAX_BYTES}
bytes (EDQUOT). What has not been changed for {KEEP_S} s is removed.
"""

REMOVAL = """## Removing

`rmdir heat.42/7` removes version 7 although its directory is not empty, and `rm -r heat.42/7` works
too. A version that is pinned, being read or being restarted is EBUSY and stays whole. Inside a
version, `unlink` is accepted only as a step towards that: nothing is removed until the version
itself is, so a file removed by mistake is there again at the next look. `rmdir heat.42` removes an
ended job without versions, `rm -r heat.42` an ended job with all of them. **`rm -r` of a job that
lives ends in EBUSY, but by then it has removed the versions**, as it would empty any directory that
it cannot remove; pin what must stay.
Everything else that would change a version is EPERM.

## Extended attributes

Versions, units and sealed files carry `user.ckptfs.*`, listed by `getfattr -d` and read-only:
`owner` (global user id), `replicas` (verified copies) and `level` (copies wanted), `unique_bytes`
(physical bytes that only this holds; a version's are spread over its files by size),
`charged_bytes` and `class` (`user`: charged to the owner, or `system`), `purpose`, `initiator`,
`verified_at`; files also `blake3` and `sha256`.

## errno

| errno | when |
|---|---|
| EINVAL | does not parse, unknown word or key, empty command, newline inside |
| ERANGE | parses, but the number is outside the documented range |
| E2BIG | more than 4096 bytes in one write |
| ENOENT | the named job, version, unit, node or spool file does not exist |
| ENODEV | what the open descriptor belongs to was removed |
| ESRCH | the process is gone |
| EBUSY | legal later: another operation is under way, or the object is still needed |
| EAGAIN | capacity is missing right now; nothing was done |
| EOPNOTSUPP | never legal for this object: a capability is missing, the job has ended |
| EACCES | mode bits |
| EPERM | a known user without the right; a sealed object |
| EROFS | the store is read-only after damage |
| ENOSPC, EDQUOT | no space in the store, or left to this user |
| ETIMEDOUT | somebody did not answer within the deadline |
| EIO | bytes do not match their hash; the checkpointer failed; a bug (see the service's log) |
"""


def render_manual() -> str:
    """Return the whole page."""
    parts = [
        HEAD,
        *_section("Service: `ctl/`", SERVICE_FILES),
        SPOOL,
        *_section("Job: `<job>/ctl/`", JOB_FILES),
        *_section("Version: `<job>/<version>/ctl/`", VERSION_FILES),
        REMOVAL,
    ]
    return "\n".join(parts)


def _section(title: str, table: Mapping[str, ControlFile[T]]) -> Iterable[str]:
    yield f"## {title}\n"
    for row in table.values():
        yield _row(row)


def _row(row: ControlFile[T]) -> str:
    facts = [f"mode {row.mode:04o}"]
    if row.pollable:
        facts.append("*poll*")
    if row.refresh is not None:
        facts.append("*asks*")
    return f"### `{row.name}`\n{', '.join(facts)}\n\n{row.doc}\n```\n{row.example}\n```\n"
