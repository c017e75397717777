/*
 * log FILE BYTES COMMAND...: runs COMMAND in its own place (same process id), with a process beside it that writes COMMAND's output
 * to FILE. At BYTES the file becomes FILE.1: there is never more than twice that.
 */
#include "lib.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int open_log(const char *name, off_t *size)
{
    struct stat info;
    int fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    *size = fd >= 0 && fstat(fd, &info) == 0 ? info.st_size : 0;
    return fd;
}

/* A full disk must not stop the engine: what cannot be written is dropped. */
static _Noreturn void keep_log(int input, const char *name, off_t limit)
{
    char old[PATH_MAX], buffer[65536];
    /* No more at once than the file may hold: what a busy computer lets pile up is rotated like everything else. */
    size_t most = limit < (off_t)sizeof buffer ? (size_t)limit : sizeof buffer;
    off_t size;
    if (snprintf(old, sizeof old, "%s.1", name) >= (int)sizeof old)
        _exit(1);
    int fd = open_log(name, &size);
    for (;;) {
        ssize_t n = read(input, buffer, most);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            _exit(0);
        if (size > 0 && size + n > limit) {
            if (fd >= 0)
                close(fd);
            (void)rename(name, old);
            fd = open_log(name, &size);
        }
        if (fd >= 0 && write_all(fd, buffer, (size_t)n) == 0)
            size += n;
    }
}

int main(int argc, char **argv)
{
    int ends[2];
    char *rest;
    if (argc < 4)
        die(2, "usage: log FILE BYTES COMMAND...");
    long limit = strtol(argv[2], &rest, 10);
    if (limit <= 0 || *rest != '\0')
        die(2, "log: not a size: %s", argv[2]);
    if (pipe(ends) != 0)
        die(1, "log: %s", strerror(errno));
    pid_t child = fork();
    if (child < 0)
        die(1, "log: %s", strerror(errno));
    if (child == 0) {
        /* init's child: the command knows nothing of it and would not reap it. */
        pid_t second = fork();
        if (second != 0)
            _exit(second < 0);
        /* It ends when the last writer does, and not before: the last words matter most. */
        (void)signal(SIGTERM, SIG_IGN);
        (void)signal(SIGINT, SIG_IGN);
        (void)signal(SIGHUP, SIG_IGN);
        close(ends[1]);
        close(STDIN_FILENO);
        keep_log(ends[0], argv[1], (off_t)limit);
    }
    (void)waitpid(child, NULL, 0);
    if (dup2(ends[1], STDOUT_FILENO) < 0 || dup2(ends[1], STDERR_FILENO) < 0)
        die(1, "log: %s", strerror(errno));
    close(ends[0]);
    close(ends[1]);
    execvp(argv[3], argv + 3);
    die(errno == ENOENT ? 127 : 126, "%s: %s", argv[3], strerror(errno));
}
