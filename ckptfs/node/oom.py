"""Keep the kernel's OOM killer away from a supervisor and from the CRIU that it dumps with.

The unit ends with its supervisor, and a CRIU that is killed while it enters a
process can take that along; both hold little memory, so killing them frees
nothing.  The job's own processes stay as eligible as they were: the program is
started before, and ``enter_cgroup.sh`` puts the value back for those that CRIU
rebuilds (it writes only values other than 0).
"""

from __future__ import annotations

from pathlib import Path

OWN = Path("/proc/self/oom_score_adj")  # proc_pid_oom_score_adj(5): -1000 never to 1000 first
SPARED = -900  # while there is anything else; not -1000, in case it is us who leak


def be_spared(file: Path = OWN) -> bool:
    """Lower this process's score, which its children inherit; return whether it is low now.

    Without CAP_SYS_RESOURCE the kernel refuses (EACCES), and nothing changes.
    """
    if int(file.read_text()) <= SPARED:
        return True
    try:
        file.write_text(str(SPARED))
    except PermissionError:
        return False
    return True
