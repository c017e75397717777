#include "lib.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

const char *run_dir(void)
{
    const char *dir = getenv("WHERRY_RUN");
    return dir != NULL && *dir != '\0' ? dir : "/run/wherry";
}

char *path_of(char *buffer, size_t size, const char *dir, const char *name)
{
    int length = snprintf(buffer, size, "%s/%s", dir, name);
    if (length < 0 || (size_t)length >= size)
        die(1, "path too long: %s/%s", dir, name);
    return buffer;
}

int write_all(int fd, const void *data, size_t size)
{
    const char *at = data;
    while (size > 0) {
        ssize_t n = write(fd, at, size);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return -1;
        }
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

void pause_ms(long milliseconds)
{
    struct timespec left = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

void die(int code, const char *format, ...)
{
    va_list args;
    fputs("wherry: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(code);
}

void console_line(const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line - 1, format, args);
    va_end(args);
    if (length < 0)
        return;
    if ((size_t)length > sizeof line - 2)
        length = sizeof line - 2;
    for (int i = 0; i < length; i++)
        if (line[i] < ' ' || line[i] > '~')
            line[i] = ' ';
    line[length++] = '\n';
    const char *name = getenv("WHERRY_CONSOLE");
    int fd = open(name != NULL ? name : "/dev/console", O_WRONLY | O_APPEND | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)write_all(fd, line, (size_t)length);
    close(fd);
}

void stage(const char *name)
{
    char dir[PATH_MAX], mark[PATH_MAX];
    path_of(dir, sizeof dir, run_dir(), "stage");
    (void)mkdir(dir, 0755);
    int fd = open(path_of(mark, sizeof mark, dir, name), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0)
        return;
    close(fd);
    struct timespec up;
    clock_gettime(CLOCK_BOOTTIME, &up);
    console_line("wherry-stage %s %lld.%02ld", name, (long long)up.tv_sec, up.tv_nsec / 10000000L);
}

/* Watches the directory of PATH, or the nearest one above that exists. */
static void watch_above(int fd, const char *path)
{
    char dir[PATH_MAX];
    if (strlen(path) >= sizeof dir)
        die(1, "path too long: %s", path);
    strcpy(dir, path);
    for (;;) {
        char *slash = strrchr(dir, '/');
        if (slash == NULL)
            strcpy(dir, ".");
        else if (slash == dir)
            dir[1] = '\0';
        else
            *slash = '\0';
        if (inotify_add_watch(fd, dir, IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_ONLYDIR) >= 0)
            return;
        if (slash == NULL || slash == dir)
            die(1, "cannot watch %s: %s", path, strerror(errno));
    }
}

void wait_for_path(const char *path)
{
    while (access(path, F_OK) != 0) {
        int fd = inotify_init1(IN_CLOEXEC);
        if (fd < 0)
            die(1, "inotify: %s", strerror(errno));
        watch_above(fd, path);
        /* Created between the look and the watch? Only a watch that was there first may sleep. */
        while (access(path, F_OK) != 0) {
            char events[4096];
            struct pollfd ready = {fd, POLLIN, 0};
            /* The time limit is for a mount over a watched directory, which inotify does not see. */
            if (poll(&ready, 1, 1000) <= 0)
                break;
            if (read(fd, events, sizeof events) < 0 && errno != EINTR)
                break;
            /* A directory on the way may have come: watch again, nearer. */
            watch_above(fd, path);
        }
        close(fd);
    }
}
