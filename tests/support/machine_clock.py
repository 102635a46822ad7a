"""Set the machine's clock for one process, through a library that is loaded before libc."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = r"""
/* No header, no library: a compiler is all that a fresh machine has. */
struct timespec { long seconds, nanoseconds; };
struct timeval { long seconds, microseconds; };

extern char *getenv(const char *);
extern int open(const char *, int, ...);
extern long read(int, void *, unsigned long);
extern int close(int);
extern long strtol(const char *, char **, int);
extern long syscall(long, ...);

#if defined(__x86_64__)
enum { CLOCK_GETTIME = 228 };
#elif defined(__aarch64__)
enum { CLOCK_GETTIME = 113 };
#endif
enum { REALTIME = 0, REALTIME_COARSE = 5, CLOSE_ON_EXEC = 02000000 };

/* Seconds that somebody set it ahead; read anew each time. */
static long ahead(void)
{
    char text[32];
    long length;
    int file = open(getenv("CLOCK_AHEAD"), CLOSE_ON_EXEC);
    if (file < 0)
        return 0;
    length = read(file, text, sizeof(text) - 1);
    close(file);
    text[length > 0 ? length : 0] = 0;
    return strtol(text, (char **)0, 10);
}

int clock_gettime(int clock, struct timespec *now)
{
    long failed = syscall(CLOCK_GETTIME, clock, now);
    if (!failed && (clock == REALTIME || clock == REALTIME_COARSE))
        now->seconds += ahead();
    return (int)failed;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec exact;
    (void)zone;
    if (clock_gettime(REALTIME, &exact))
        return -1;
    now->seconds = exact.seconds;
    now->microseconds = exact.nanoseconds / 1000;
    return 0;
}

long time(long *out)
{
    struct timespec exact;
    clock_gettime(REALTIME, &exact);
    if (out)
        *out = exact.seconds;
    return exact.seconds;
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
        command = ["gcc", "-shared", "-fPIC", "-O2", "-nostdlib", "-fno-builtin", "-o", library, source]
        subprocess.run(command, check=True, timeout=60)
        self.environ = {"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(self._setting)}

    def set_ahead(self, seconds: int) -> None:
        """Set it so far ahead of the true time; negative for behind."""
        new = self._setting.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._setting)
