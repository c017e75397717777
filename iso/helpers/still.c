/*
 * still FOLDER SECONDS: the file system in FOLDER stands still, whole on its disk, from the line "still" on until a line or the end comes
 * on stdin, for SECONDS at most; whoever writes meanwhile waits. Then "thawed", or "late" when the time was up.
 *
 * Whatever becomes of who asked, the file system goes on: its end, a signal and the time all lead to the same place.
 */
#include "lib.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int told[2];

static void on_signal(int number)
{
    (void)number;
    if (write(told[1], "", 1) < 0)
        return;
}

int main(int argc, char **argv)
{
    char *end = NULL;
    long seconds = argc == 3 ? strtol(argv[2], &end, 10) : 0;
    if (seconds < 1 || seconds > 60 || *end != '\0')
        die(2, "usage: still FOLDER SECONDS, 60 at most");
    int fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || pipe(told) != 0)
        die(1, "still: %s: %s", argv[1], strerror(errno));
    const int ends[] = {SIGHUP, SIGINT, SIGTERM, SIGPIPE};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        (void)signal(ends[i], on_signal);

    if (ioctl(fd, FIFREEZE, 0) != 0)
        die(1, "still: %s cannot be frozen: %s", argv[1], strerror(errno));
    int asked = write_all(1, "still\n", 6);
    struct pollfd wait[2] = {{0, POLLIN, 0}, {told[0], POLLIN, 0}};
    int came = asked != 0 ? 1 : poll(wait, 2, (int)seconds * 1000);
    if (came < 0 && errno == EINTR)
        came = 1;
    if (ioctl(fd, FITHAW, 0) != 0)
        die(1, "still: %s cannot be thawed: %s", argv[1], strerror(errno));
    (void)write_all(1, came > 0 ? "thawed\n" : "late\n", came > 0 ? 7 : 5);
    return came > 0 ? 0 : 1;
}
