"""The rows of the control-file table that are the service's own; see `interface`."""

from __future__ import annotations

from . import service_shows, space, verbs
from .control import ControlFile, table_of
from .views import ServiceView

SERVICE_FILES: dict[str, ControlFile[ServiceView]] = table_of(
    ControlFile(
        "version",
        0o444,
        "The program's version, and the number that is raised when a file or key here changes "
        "meaning.",
        "$ cat ctl/version\nckptfs 0.1.0\nabi 1",
        service_shows.version,
    ),
    ControlFile(
        "health",
        0o444,
        "`ok`, or one sentence per trouble with what to do about it.",
        "$ cat ctl/health\nok",
        service_shows.health,
        pollable=True,
    ),
    ControlFile(
        "checkpointers",
        0o444,
        "Every checkpointer this build knows, whether it works here, and if not, why (blanks "
        "as `_`).",
        "$ cat ctl/checkpointers\n"
        "criu available=1 version=4.2.1 capabilities=file_locks,multithread,sockets",
        service_shows.checkpointers,
    ),
    ControlFile(
        "nodes",
        0o444,
        "The grid nodes: how many job units run there and which checkpointers work.",
        "$ cat ctl/nodes\nn1 state=up units=3 load=0.4 checkpointers=criu",
        service_shows.nodes,
        pollable=True,
    ),
    ControlFile(
        "submit",
        0o666,
        "Write the name of your own file in `ctl/spool/` (JSDL) to start it as a job; the "
        "answer is the job's id.",
        "$ cp heat.jsdl ctl/spool/\n"
        "$ exec 3<>ctl/submit; echo heat.jsdl >&3; read -u3 job; echo $job\n"
        "heat.42",
        service_shows.last_submitted,
        verbs.submit,
        usage="echo NAME > submit: start the JSDL document ctl/spool/NAME as a job",
        is_bare_verb=True,
    ),
    ControlFile(
        "volumes",
        0o644,
        "The local volume and those that take copies; root writes "
        "`add [domain=WORD] [seal=compress|encrypt] DIR`, `NAME drain`, `NAME up` or `NAME rm`.",
        "$ cat ctl/volumes\n"
        "local state=up domain=n1 used_bytes=1073741824 free_bytes=52613349376 verified=100% "
        "directory=/var/lib/ckptfs\n"
        "# echo add domain=rack2 /mnt/copies > ctl/volumes\n"
        "# echo copies drain > ctl/volumes",
        service_shows.volumes,
        verbs.change_volume,
        pollable=True,
    ),
    ControlFile(
        "degraded",
        0o600,
        "`0`, or `1` and why the store takes no more writes, then one line per damaged version; "
        "`0` is accepted once it is mended.",
        "# cat ctl/degraded\n"
        "1 (1 version damaged)\n"
        "heat.42/7 damaged (JobUnit_1/pages-1.img, block 17)",
        service_shows.degraded,
        verbs.clear_degraded,
        pollable=True,
    ),
    ControlFile(
        "scrub",
        0o600,
        "Write `1` to have every version read and proved in the background, those verified "
        "longest ago first, or `stop`.",
        "# echo 1 > ctl/scrub\n# cat ctl/scrub\nrunning 40%",
        service_shows.scrub,
        verbs.scrub,
        pollable=True,
        usage="echo 1 > scrub, or: stop",
    ),
    ControlFile(
        "gc",
        0o600,
        "Write `1` to free what no version needs, `dry` to be answered what that would be and why; "
        "`trash=empty` behind it takes removed versions along. A plan that takes longer than 5 s is"
        " ETIMEDOUT and goes on: ask again when this file has ended saying `planning`.",
        "# echo 1 > ctl/gc\n# cat ctl/gc\nidle (freed 41231 bytes)",
        service_shows.gc,
        verbs.gc,
        pollable=True,
        usage="echo 1 > gc, or: dry, 1 trash=empty",
    ),
    ControlFile(
        "undelete",
        0o666,
        "Your removed jobs (root sees all) that can be brought back: their versions, and when the "
        "first of them goes for good. Write the id of one; its versions come back pinned.",
        "$ rm -r heat.42; cat ctl/undelete\n"
        "heat.42 versions=6,7 until=2026-11-21T11:52:03Z\n"
        "$ echo heat.42 > ctl/undelete",
        service_shows.removed_jobs,
        verbs.undelete_job,
    ),
    ControlFile(
        "space",
        0o444,
        "Who has how much in the store, one line per user and class (users see their own): logical "
        "bytes, what that adds to the store with shared pages counted once, what is charged; last "
        "the store itself, `rest_bytes` being trash, slack and what belongs to no version, "
        "`thinned_bytes` what packs take less since they were written anew without dead pages; "
        "`counting=1` while not all is counted yet.",
        "$ cat ctl/space\n"
        "alice/user versions=3 logical_bytes=3221225472 added_bytes=1181116006 "
        "charged_bytes=3221225472 copies=3 copies_wanted=3 dedup_ratio=2.73\n"
        "store versions=3 logical_bytes=3221225472 stored_bytes=1182264320 rest_bytes=1148314 "
        "thinned_bytes=0 reserved_bytes=0 free_bytes=52613349376 total_bytes=63278391296 "
        "dedup_ratio=2.72 counting=0",
        space.space,
        refresh=space.refresh,
    ),
    ControlFile(
        "quota",
        0o644,
        "What is charged to each user (users see their own) and how much may be; root writes a "
        "user, or `default` for all others but root, and a size (`K` `M` `G` `T` `P`) or `none`.",
        "# echo alice 10G > ctl/quota\n"
        "$ cat ctl/quota\n"
        "alice limit_bytes=10737418240 charged_bytes=3221225472 reserved_bytes=0\n"
        "default limit_bytes=none",
        space.quota,
        space.set_quota,
    ),
    ControlFile(
        "stat",
        0o444,
        "Space, versions and jobs by state now, then what was counted since the service started.",
        "$ grep stored ctl/stat\nstored_bytes 1073741824",
        service_shows.service_stat,
    ),
    ControlFile(
        "events",
        0o444,
        "Counters that only grow: poll it, then compare to see what happened and how often.",
        "$ cat ctl/events\nsubmitted 3",
        service_shows.service_events,
        pollable=True,
    ),
    ControlFile(
        "metrics",
        0o444,
        "The same figures as OpenMetrics text, for a monitoring system to scrape; besides, a row "
        "per volume, and how long jobs stood still.",
        "$ tail -2 ctl/metrics\nckptfs_submitted_total 3\n# EOF",
        service_shows.metrics,
    ),
)
