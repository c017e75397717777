/*
 * share ID ro|rw PATH [ALIAS...]: a folder of the user's computer at PATH, and at each ALIAS, for as long as the guest runs.
 *
 * A FUSE file system that asks the keeper's server, over connections that the keeper makes to RUN/shares/ID. It stays when they
 * go: containers have it bound, and would never see it again. RUN/shares/ID.mounted appears once it is there. TERM unmounts it.
 * What it says is in provisioning/shares.md; how its parts divide the work, in share.h.
 */
#include "lib.h"
#include "share.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_ALIASES 16

static int loop = -1, signals = -1;
static int door;

void loop_watch(int fd, unsigned events, int add)
{
    struct epoll_event wanted = {.events = events, .data.fd = fd};
    (void)epoll_ctl(loop, add ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &wanted);
}

static void make_folders(char *path, mode_t mode)
{
    for (char *at = path + 1;; at++) {
        char was = *at;
        if (was != '/' && was != '\0')
            continue;
        *at = '\0';
        if (mkdir(path, mode) != 0 && errno != EEXIST)
            die(1, "share: %s: %s", path, strerror(errno));
        *at = was;
        if (was == '\0')
            return;
    }
}

/* Never ended because memory is short: who has the share bound would see ENOTCONN for good. */
static void keep_alive(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!write(fd, "-1000", 5);
        close(fd);
    }
}

static void watch_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0)
        die(1, "share: signals: %s", strerror(errno));
    loop_watch(signals, EPOLLIN, 1);
}

static void check_id(const char *id)
{
    size_t size = strlen(id);
    if (size < 1 || size > 32 || strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789-") != size)
        die(2, "share: not an id: %s", id);
}

static _Noreturn void leave(char **places, int count, const char *mark)
{
    (void)unlink(mark);
    /* Whoever waits for us, a thread of ours too, gets an error: the process could not end before. */
    (void)umount2(places[0], MNT_FORCE | UMOUNT_NOFOLLOW);
    while (count-- > 0)
        (void)umount2(places[count], MNT_DETACH | UMOUNT_NOFOLLOW);
    exit(0);
}

static void mark_mounted(const char *mark)
{
    int fd = open(mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        die(1, "share: %s: %s", mark, strerror(errno));
    close(fd);
}

/* Milliseconds until something is due; -1: nothing is. */
static int time_left(void)
{
    int one = ahead_clock(), two = link_clock();
    return one < 0 || (two >= 0 && two < one) ? two : one;
}

int main(int argc, char **argv)
{
    char folder[256], socket[256], mark[256], mark_name[64];
    if (argc < 4 || argc > 4 + MOST_ALIASES || (strcmp(argv[2], "ro") != 0 && strcmp(argv[2], "rw") != 0))
        die(2, "usage: share ID ro|rw PATH [ALIAS...]");
    check_id(argv[1]);
    for (int i = 3; i < argc; i++)
        if (argv[i][0] != '/' || strlen(argv[i]) >= LONGEST_PATH)
            die(2, "share: not an absolute path: %s", argv[i]);
    loop = epoll_create1(EPOLL_CLOEXEC);
    if (loop < 0)
        die(1, "share: epoll: %s", strerror(errno));
    keep_alive();
    watch_signals();
    path_of(folder, sizeof folder, run_dir(), "shares");
    make_folders(folder, 0700);
    path_of(socket, sizeof socket, folder, argv[1]);
    snprintf(mark_name, sizeof mark_name, "%s.mounted", argv[1]);
    path_of(mark, sizeof mark, folder, mark_name);
    (void)unlink(mark);
    for (int i = 3; i < argc; i++)
        make_folders(argv[i], 0755);
    umask(0);
    int own_root = fuse_mount_at(argv[1], argv[3], strcmp(argv[2], "ro") == 0);
    for (int i = 4; i < argc; i++)
        if (mount(argv[3], argv[i], NULL, MS_BIND, NULL) != 0)
            die(1, "share: bind %s: %s", argv[i], strerror(errno));
    door = link_listen(socket);
    loop_watch(fuse_fd, EPOLLIN, 1);
    notice_start(own_root);
    mark_mounted(mark);
    for (;;) {
        struct epoll_event events[16];
        int count = epoll_wait(loop, events, 16, time_left());
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == signals)
                leave(argv + 3, argc - 3, mark);
            else if (fd == fuse_fd)
                fuse_on_requests();
            else if (fd == door)
                link_on_door();
            else if (fd == notice_fd)
                notice_on_done();
            else
                link_on_data(events[i].events);
        }
        link_flush();
    }
}
