"""The machine's clock, set for one process: a library that is loaded before libc's answers who asks for the time."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

/* Seconds that somebody set it ahead; read anew each time. */
static long ahead(void)
{
    long seconds = 0;
    FILE *file = fopen(getenv("CLOCK_AHEAD"), "re");
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1)
            seconds = 0;
        fclose(file);
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += ahead();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact))
        return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (out)
        *out = exact.tv_sec;
    return exact.tv_sec;
}
"""


class MachineClock:
    """What a process that runs with `environ` takes for the machine's clock.

    :param folder: for the library and its setting
    """

    def __init__(self, folder: Path) -> None:
        library = folder / "clock.so"
        self._setting = folder / "ahead"
        self._setting.write_text("0")
        source = folder / "clock.c"
        source.write_text(SOURCE)
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True, timeout=60)
        self.environ = {"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(self._setting)}

    def set_ahead(self, seconds: int) -> None:
        """Set it so far ahead of the true time; negative for behind."""
        new = self._setting.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._setting)
