/*
 * disk probe DEVICE: what is on it, as assignments for a shell:
 *     state=blank     the first and the last 4 MiB are zero
 *     state=partial   formatting by us was cut short: nothing of anybody's is on it
 *     state=ours      an ext4 filesystem with our label; clean=yes|no (no: e2fsck before the mount), grow=yes|no (the device is larger)
 *     state=foreign   anything else, which is touched in no way
 *     kib=N           the size that the filesystem is to have
 * disk begin DEVICE: marks the device as "being formatted by us"; refused unless it is blank or partial.
 * disk end DEVICE: takes the mark off.
 *
 * The mark is in the last sector group, which the filesystem never covers. A kill between begin and end leaves a disk that is neither
 * blank nor a filesystem; the mark says that it is safe to begin again.
 */
#include "lib.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EDGE ((off_t)4 << 20)
#define TAIL ((off_t)1 << 20) /* kept free of the filesystem */
#define MARK_SIZE 4096
#define LABEL "wherry-data"
#define GROW_FROM ((off_t)16 << 20)

static const char mark_text[] = "wherry-data: formatting was begun and not ended\n";

struct ext4 {
    off_t size;
    int found, clean, labelled;
};

static void read_at(int fd, void *buffer, size_t size, off_t at)
{
    char *to = buffer;
    while (size > 0) {
        ssize_t n = pread(fd, to, size, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            die(1, "disk: cannot read at %lld: %s", (long long)at, n < 0 ? strerror(errno) : "end of device");
        to += n;
        at += n;
        size -= (size_t)n;
    }
}

static int all_zero(int fd, off_t from, off_t size)
{
    static char buffer[1 << 18];
    while (size > 0) {
        size_t step = size < (off_t)sizeof buffer ? (size_t)size : sizeof buffer;
        read_at(fd, buffer, step, from);
        if (buffer[0] != 0 || memcmp(buffer, buffer + 1, step - 1) != 0)
            return 0;
        from += (off_t)step;
        size -= (off_t)step;
    }
    return 1;
}

static uint64_t number(const unsigned char *at, int bytes)
{
    uint64_t value = 0;
    while (bytes-- > 0)
        value = value << 8 | at[bytes];
    return value;
}

/* Linux, Documentation/filesystems/ext4/super.rst. */
static struct ext4 read_ext4(int fd)
{
    unsigned char super[1024];
    struct ext4 found = {0, 0, 0, 0};
    read_at(fd, super, sizeof super, 1024);
    if (number(super + 0x38, 2) != 0xEF53)
        return found;
    uint64_t incompat = number(super + 0x60, 4);
    uint64_t blocks = number(super + 0x04, 4) | (incompat & 0x80 ? number(super + 0x150, 4) << 32 : 0);
    uint64_t shift = number(super + 0x18, 4);
    found.found = 1;
    found.size = shift <= 6 ? (off_t)(blocks << (10 + shift)) : 0;
    found.clean = number(super + 0x3A, 2) == 1 && (incompat & 0x4) == 0;
    found.labelled = strncmp((const char *)super + 0x78, LABEL, 16) == 0;
    return found;
}

static const char *state_of(int fd, off_t size, struct ext4 *fs)
{
    char mark[MARK_SIZE];
    read_at(fd, mark, sizeof mark, size - MARK_SIZE);
    if (memcmp(mark, mark_text, sizeof mark_text) == 0)
        return "partial";
    *fs = read_ext4(fd);
    if (fs->found)
        return fs->labelled ? "ours" : "foreign";
    return all_zero(fd, 0, EDGE) && all_zero(fd, size - EDGE, EDGE) ? "blank" : "foreign";
}

static void write_mark(int fd, off_t size, const char *text, size_t length)
{
    char mark[MARK_SIZE] = {0};
    memcpy(mark, text, length);
    if (pwrite(fd, mark, sizeof mark, size - MARK_SIZE) != MARK_SIZE || fsync(fd) != 0)
        die(1, "disk: cannot write the mark: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    if (argc != 3)
        die(2, "usage: disk probe|begin|end DEVICE");
    int writing = strcmp(argv[1], "probe") != 0;
    int fd = open(argv[2], (writing ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    if (size < 0)
        die(1, "disk: %s: %s", argv[2], strerror(errno));
    if (size < 2 * EDGE)
        die(1, "disk: %s is too small", argv[2]);

    struct ext4 fs = {0, 0, 0, 0};
    const char *state = state_of(fd, size, &fs);
    off_t wanted = size - TAIL;
    if (strcmp(argv[1], "probe") == 0) {
        printf("state=%s clean=%s grow=%s kib=%lld\n", state, fs.clean ? "yes" : "no",
               fs.labelled && fs.size + GROW_FROM < wanted ? "yes" : "no", (long long)(wanted >> 10));
    } else if (strcmp(argv[1], "begin") == 0) {
        if (strcmp(state, "blank") != 0 && strcmp(state, "partial") != 0)
            die(1, "disk: %s is not blank", argv[2]);
        write_mark(fd, size, mark_text, sizeof mark_text);
    } else if (strcmp(argv[1], "end") == 0) {
        write_mark(fd, size, "", 0);
    } else {
        die(2, "usage: disk probe|begin|end DEVICE");
    }
    return 0;
}
