/* Preloaded into CRIU by tools/install-criu: lets it read another user's limits.
 *
 * A dump reads the resource limits of every task with prlimit(2).  The kernel wants
 * CAP_SYS_RESOURCE for that when the task is another user's, and root in a container or in a
 * small virtual machine often lacks it.  The same numbers stand in /proc/PID/limits, which
 * anybody may read.  (Running CRIU with the task's own real uid instead worked until libnftables
 * began to end every process whose real and effective uid differ, with exit status 111.)
 *
 * Only a refused read is answered here; whatever the kernel grants or sets goes through it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static long (*next_syscall)(long, ...);

__attribute__((constructor)) static void find_next(void)
{
    next_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
}

static const char *const row[RLIM_NLIMITS] = {
    [RLIMIT_CPU] = "Max cpu time",
    [RLIMIT_FSIZE] = "Max file size",
    [RLIMIT_DATA] = "Max data size",
    [RLIMIT_STACK] = "Max stack size",
    [RLIMIT_CORE] = "Max core file size",
    [RLIMIT_RSS] = "Max resident set",
    [RLIMIT_NPROC] = "Max processes",
    [RLIMIT_NOFILE] = "Max open files",
    [RLIMIT_MEMLOCK] = "Max locked memory",
    [RLIMIT_AS] = "Max address space",
    [RLIMIT_LOCKS] = "Max file locks",
    [RLIMIT_SIGPENDING] = "Max pending signals",
    [RLIMIT_MSGQUEUE] = "Max msgqueue size",
    [RLIMIT_NICE] = "Max nice priority",
    [RLIMIT_RTPRIO] = "Max realtime priority",
    [RLIMIT_RTTIME] = "Max realtime timeout",
};

/* "123" or "unlimited" as a limit; returns 0 when it is neither. */
static int parse_limit(const char *word, rlim64_t *limit)
{
    char *end;

    if (!strcmp(word, "unlimited")) {
        *limit = RLIM64_INFINITY;
        return 1;
    }
    errno = 0;
    *limit = strtoull(word, &end, 10);
    return end != word && !*end && !errno;
}

/* Fill *limits from /proc/PID/limits; returns 0 when it cannot. */
static int read_limits(pid_t pid, unsigned int resource, struct rlimit64 *limits)
{
    char path[64], line[256], soft[32], hard[32];
    int found = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/limits", (int)pid);
    file = fopen(path, "re");
    if (!file)
        return 0;
    while (!found && fgets(line, sizeof line, file)) {
        size_t length = strlen(row[resource]);
        if (strncmp(line, row[resource], length) || line[length] != ' ')
            continue;
        found = sscanf(line + length, "%31s %31s", soft, hard) == 2 &&
                parse_limit(soft, &limits->rlim_cur) && parse_limit(hard, &limits->rlim_max);
    }
    fclose(file);
    return found;
}

/* prlimit(2), answered from /proc when it was a read that the kernel refuses. */
static long prlimit_or_read(pid_t pid, unsigned int resource, const struct rlimit64 *to,
                            struct rlimit64 *from)
{
    long done = next_syscall(SYS_prlimit64, pid, resource, to, from);

    if (done == 0 || errno != EPERM || to || !from || pid <= 0)
        return done;
    if (resource < RLIM_NLIMITS && read_limits(pid, resource, from))
        return 0;
    errno = EPERM;
    return -1;
}

/* CRIU 4 calls syscall(SYS_prlimit64, ...), not prlimit(): this stands in front of the C library's.
 * Six arguments are always handed on, as the C library's own does. */
long syscall(long number, ...)
{
    long arg[6];
    va_list list;

    va_start(list, number);
    for (int i = 0; i < 6; i++)
        arg[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_prlimit64)
        return prlimit_or_read((pid_t)arg[0], (unsigned int)arg[1], (const void *)arg[2],
                               (void *)arg[3]);
    return next_syscall(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}
