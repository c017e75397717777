/*
 * button [DIRECTORY [COMMAND]]: runs the shutdown when the power key is pressed, on any input device, also on one that comes later.
 * On amd64 the key is the ACPI power button's, on arm64 (no ACPI without firmware) the virtio keyboard's.
 */
#include "lib.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/input.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#define MAX_DEVICES 32

static struct pollfd watched[1 + MAX_DEVICES];
static char names[1 + MAX_DEVICES][NAME_MAX + 1];
static nfds_t count;

static void open_device(const char *dir, const char *name)
{
    char path[PATH_MAX];
    if (strncmp(name, "event", 5) != 0 || count > MAX_DEVICES)
        return;
    for (nfds_t i = 1; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return;
    int fd = open(path_of(path, sizeof path, dir, name), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return;
    watched[count] = (struct pollfd){fd, POLLIN, 0};
    snprintf(names[count], sizeof names[count], "%s", name);
    count++;
}

static void open_all(const char *dir)
{
    DIR *list = opendir(dir);
    if (list == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(list)) != NULL;)
        open_device(dir, entry->d_name);
    closedir(list);
}

static void close_device(nfds_t i)
{
    close(watched[i].fd);
    count--;
    watched[i] = watched[count];
    memmove(names[i], names[count], sizeof names[i]);
}

/* 1: the key went down. 0: something else. -1: the device is gone. */
static int read_device(int fd)
{
    struct input_event events[64];
    ssize_t n = read(fd, events, sizeof events);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    if (n == 0)
        return -1;
    for (size_t i = 0; i < (size_t)n / sizeof *events; i++)
        if (events[i].type == EV_KEY && events[i].value == 1 && events[i].code == KEY_POWER)
            return 1;
    return 0;
}

static void press(const char *command)
{
    pid_t child = fork();
    if (child != 0)
        return;
    (void)signal(SIGCHLD, SIG_DFL); /* a shell that inherits "ignored" cannot wait */
    execl(command, command, (char *)NULL);
    die(127, "%s: %s", command, strerror(errno));
}

int main(int argc, char **argv)
{
    const char *dir = argc > 1 ? argv[1] : "/dev/input";
    const char *command = argc > 2 ? argv[2] : "/usr/lib/wherry/shutdown";

    (void)signal(SIGCHLD, SIG_IGN); /* no child to wait for: the shutdown script takes only the first press */
    wait_for_path(dir);
    watched[0] = (struct pollfd){inotify_init1(IN_CLOEXEC | IN_NONBLOCK), POLLIN, 0};
    if (watched[0].fd < 0 || inotify_add_watch(watched[0].fd, dir, IN_CREATE | IN_ATTRIB) < 0)
        die(1, "button: cannot watch %s: %s", dir, strerror(errno));
    count = 1;
    open_all(dir);

    for (;;) {
        if (poll(watched, count, -1) < 0)
            continue;
        for (nfds_t i = count - 1; i > 0; i--) {
            int found = watched[i].revents == 0 ? 0 : read_device(watched[i].fd);
            if (found > 0)
                press(command);
            else if (found < 0)
                close_device(i);
        }
        if (watched[0].revents != 0) {
            char events[4096];
            while (read(watched[0].fd, events, sizeof events) > 0)
                ;
            open_all(dir);
        }
    }
}
