#!/bin/sh
# Action script of `criu restore`.  At pre-resume every task is complete and ptrace-stopped at its
# way back to user mode: freeze the unit now, and criu's detach leaves it standing until our thaw.
# criu (our parent) and this script leave the unit's cgroup first, or they would freeze with it.
[ "$CRTOOLS_SCRIPT_ACTION" = pre-resume ] || exit 0
printf 0 > "$CKPTFS_OUTSIDE/cgroup.procs" || exit 1
printf %s "$PPID" > "$CKPTFS_OUTSIDE/cgroup.procs" || exit 1
printf 1 > "$CKPTFS_CGROUP/cgroup.freeze" || exit 1
