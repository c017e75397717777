/*
 * vitals: what the keeper asks every few seconds, over one SSH channel for as long as the connection lives.
 *
 * A line in, a line out:
 *   t          the time of day, nanoseconds since the epoch
 *   d          the data disk: bytes in all, bytes that can still be written
 *   step NS    move the clock by so many nanoseconds at once: ok, or an error
 *   slew NS    the same little by little (the kernel's 500 ppm, adjtimex(2)): ok, or an error
 */
#include "lib.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <time.h>

static const char *data_disk = "/var/lib/wherry";
#define SECOND 1000000000LL

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static int step(long long by)
{
    long long then = now() + by;
    struct timespec time = {then / SECOND, then % SECOND};
    return clock_settime(CLOCK_REALTIME, &time);
}

static int slew(long long by)
{
    struct timex wanted = {.modes = ADJ_OFFSET_SINGLESHOT, .offset = by / 1000};
    return adjtimex(&wanted) < 0 ? -1 : 0;
}

static void answer(const char *line)
{
    char *end = NULL;
    struct statvfs disk;
    if (strcmp(line, "t\n") == 0) {
        printf("%lld\n", now());
    } else if (strcmp(line, "d\n") == 0) {
        if (statvfs(data_disk, &disk) == 0)
            printf("%llu %llu\n", (unsigned long long)disk.f_blocks * disk.f_frsize,
                   (unsigned long long)disk.f_bavail * disk.f_frsize);
        else
            printf("error %s\n", strerror(errno));
    } else if (strncmp(line, "step ", 5) == 0 || strncmp(line, "slew ", 5) == 0) {
        long long by = strtoll(line + 5, &end, 10);
        if (*end != '\n')
            puts("error no number");
        else if ((line[1] == 't' ? step(by) : slew(by)) != 0)
            printf("error %s\n", strerror(errno));
        else
            puts("ok");
    } else {
        puts("error unknown");
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    char line[64];
    if (argc > 1)
        data_disk = argv[1];
    while (fgets(line, sizeof line, stdin) != NULL)
        answer(line);
    return 0;
}
