"""What units report, and what they are ordered to do.  Pure."""

from __future__ import annotations

import enum


class Event(enum.StrEnum):
    """A report of one unit, or of the service itself (`machine.SERVICE`)."""

    PREPARED = "prepared"
    STOPPED = "stopped"
    SAVED = "saved"
    COMMITTED = "committed"
    COPIED = "copied"
    RESUMED = "resumed"
    KILLED = "killed"
    VERIFIED = "verified"
    PLACED = "placed"
    REBUILT = "rebuilt"
    PROVED = "proved"
    FAILED = "failed"


class Order(enum.StrEnum):
    """What the driver must have done next."""

    PREPARE = "prepare"
    STOP = "stop"
    CHECKPOINT = "checkpoint"
    COMMIT = "commit"
    AWAIT_COPIES = "await_copies"
    RESUME_CP = "resume_cp"
    KILL = "kill"
    VERIFY = "verify"
    PLACE = "place"
    REBUILD = "rebuild"
    PROVE = "prove"
    RESUME_RST = "resume_rst"
