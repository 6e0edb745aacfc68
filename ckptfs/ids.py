"""Names of things, and their parsers.  Pure."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import NewType

from .errors import InvalidInput, NotFound

JobId = NewType("JobId", str)  # "<name>.<number>", as the directory in the mount
UnitName = NewType("UnitName", str)  # "JobUnit_<n>", n from 1
Version = NewType("Version", int)  # 1, 2, 3 ... per job, never reused

JOB_NAME_MAX = 64  # characters
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}\Z")
_JOB_ID = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.+-]{0,63})\.([1-9][0-9]{0,17})\Z")
_UNIT = re.compile(r"JobUnit_([1-9][0-9]{0,5})\Z")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}\Z")


def parse_job_name(text: str) -> str:
    """Return *text* if it may name a job: 1 to 64 of ``A-Za-z0-9_.+-``, no leading dot or dash.

    Raises InvalidInput (EINVAL).
    """
    if not _NAME.match(text) or text in {"ctl", "latest"}:
        raise InvalidInput(
            f"a job name is 1 to {JOB_NAME_MAX} letters, digits and _.+- , not {text!r}"
        )
    return text


def make_job_id(name: str, number: int) -> JobId:
    """Return the id of the *number*-th job of this store."""
    return JobId(f"{name}.{number}")


def parse_job_id(text: str) -> JobId:
    """Return *text* as a job id.  Raises NotFound (ENOENT): no such job can exist."""
    if not _JOB_ID.match(text):
        raise NotFound(f"no job is called {text!r}")
    return JobId(text)


def job_number(job: JobId) -> int:
    """Return the number at the end of a job id."""
    return int(job.rpartition(".")[2])


def unit_name(index: int) -> UnitName:
    """Return the name of the *index*-th unit, counted from 1."""
    return UnitName(f"JobUnit_{index}")


def parse_unit_name(text: str) -> UnitName:
    """Return *text* as a unit name.  Raises NotFound (ENOENT)."""
    if not _UNIT.match(text):
        raise NotFound(f"no job unit is called {text!r}")
    return UnitName(text)


def parse_version(text: str) -> Version:
    """Return *text* as a version number.  Raises NotFound (ENOENT)."""
    if not _NUMBER.match(text):
        raise NotFound(f"no version is called {text!r}")
    return Version(int(text))


def is_among(version: Version, ascending: Sequence[Version]) -> bool:
    """Whether *version* is one of *ascending*: jobs with 10 000 versions are looked at often."""
    at = bisect_left(ascending, version)
    return at < len(ascending) and ascending[at] == version
