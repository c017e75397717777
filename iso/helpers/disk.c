/*
 * disk probe DEVICE HOLDS: what is on it, as assignments for a shell. HOLDS is the host's word, since only the host sees what a sparse
 * disk holds without reading it whole: nothing, little (no more than a formatting leaves) or much.
 *     state=blank     HOLDS is "nothing", and the first and the last 4 MiB are zero
 *     state=partial   formatting by us was cut short: nothing of anybody's is on it
 *     state=ours      an ext4 file system with our label and our header behind it; layout=N as the header has it; clean=yes|no
 *                     (no: e2fsck before the mount); grow=yes|no (the device is larger)
 *     state=damaged   our header, and nothing that can be recognized where the file system was
 *     state=foreign   anything else, which is touched in no way; found='an xfs file system'
 *     kib=N           the size that the file system is to have
 * disk begin DEVICE HOLDS: writes and syncs the header "formatting"; refused unless the device is blank or partial.
 * disk end DEVICE LAYOUT: writes and syncs the header "layout N"; refused unless a header of ours is there.
 *
 * The header is in the last 4 KiB: mke2fs clears the first sectors (misc/mke2fs.c, zap_sector) and the kernel writes them again, but
 * the last MiB is outside of the file system. Between begin and end there is nothing of a user's on the disk, so whatever a kill
 * leaves behind may be formatted again; and an ext4 of our label without the header is not ours.
 */
#include "lib.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((off_t)1 << 20)
#define EDGE (4 * MIB)
#define TAIL MIB /* kept free of the file system */
#define HEADER 4096
#define LABEL "wherry-data"
#define GROW_FROM (16 * MIB)

static const char title[] = "wherry data disk, ";
static const char formatting[] = "formatting\n";

struct ext4 {
    off_t size;
    int found, clean, labelled;
};

enum kind { NONE, FORMATTING, LAYOUT, UNKNOWN };

struct header {
    enum kind kind;
    long layout;
};

struct facts {
    const char *state;
    struct header header;
    struct ext4 fs;
    off_t wanted; /* size of the file system */
    char found[160];
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
    found.size = shift <= 6 && blocks < (uint64_t)1 << 46 ? (off_t)(blocks << (10 + shift)) : 0;
    found.clean = number(super + 0x3A, 2) == 1 && (incompat & 0x4) == 0;
    found.labelled = strncmp((const char *)super + 0x78, LABEL, 16) == 0;
    return found;
}

static struct header read_header(int fd, off_t at)
{
    char text[HEADER + 1] = {0};
    struct header header = {NONE, 0};
    read_at(fd, text, HEADER, at);
    if (strncmp(text, title, sizeof title - 1) != 0)
        return header;
    const char *rest = text + sizeof title - 1;
    char end = 0;
    if (strcmp(rest, formatting) == 0)
        header.kind = FORMATTING;
    else if (sscanf(rest, "layout %9ld%c", &header.layout, &end) == 2 && end == '\n')
        header.kind = LAYOUT;
    else
        header.kind = UNKNOWN;
    return header;
}

/* What libblkid sees, "" for nothing; it reads, and mounts nothing. */
static void signature(const char *device, char *found, size_t size)
{
    int ends[2];
    char type[64] = "", table[64] = "", usage[64] = "", line[512];
    if (pipe(ends) != 0)
        die(1, "disk: pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        execlp("blkid", "blkid", "-p", "-o", "export", device, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    FILE *words = child < 0 ? NULL : fdopen(ends[0], "r");
    if (words == NULL)
        die(1, "disk: blkid: %s", strerror(errno));
    while (fgets(line, sizeof line, words) != NULL) {
        (void)sscanf(line, "TYPE=%63[A-Za-z0-9_-]", type);
        (void)sscanf(line, "PTTYPE=%63[A-Za-z0-9_-]", table);
        (void)sscanf(line, "USAGE=%63[a-z]", usage);
    }
    fclose(words);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
    /* util-linux, blkid(8): 2 nothing was found, 8 more than one was. */
    if (code == 8)
        snprintf(found, size, "signatures of several kinds");
    else if (code != 0 && code != 2)
        die(1, "disk: blkid failed with exit code %d", code);
    else if (strcmp(type, "crypto_LUKS") == 0)
        snprintf(found, size, "an encrypted volume (LUKS)");
    else if (strcmp(type, "LVM2_member") == 0)
        snprintf(found, size, "a volume of LVM");
    else if (strcmp(type, "swap") == 0)
        snprintf(found, size, "a swap area");
    else if (strcmp(usage, "filesystem") == 0)
        snprintf(found, size, "%s %s file system", strchr("aeiox", tolower((unsigned char)type[0])) != NULL ? "an" : "a", type);
    else if (type[0] != '\0')
        snprintf(found, size, "a volume of the kind %s", type);
    else if (strcmp(table, "dos") == 0)
        snprintf(found, size, "a partition table (MBR)");
    else if (strcmp(table, "gpt") == 0)
        snprintf(found, size, "a partition table (GPT)");
    else if (table[0] != '\0')
        snprintf(found, size, "a partition table (%s)", table);
    else
        found[0] = '\0';
}

static void read_facts(int fd, off_t size, struct facts *facts)
{
    struct ext4 *fs = &facts->fs;
    facts->wanted = size - TAIL;
    *fs = read_ext4(fd);
    facts->header = read_header(fd, size - HEADER);
    /* The device was made larger: the header is where the end was. */
    if (facts->header.kind == NONE && fs->labelled && fs->size > 0 && fs->size <= size - TAIL)
        facts->header = read_header(fd, fs->size + TAIL - HEADER);
}

static const char *judge(int fd, const char *device, const char *holds, off_t size, struct facts *facts)
{
    struct ext4 *fs = &facts->fs;
    if (facts->header.kind == LAYOUT && fs->labelled)
        return "ours";
    if (facts->header.kind == NONE && !fs->found && strcmp(holds, "nothing") == 0 && all_zero(fd, 0, EDGE) &&
        all_zero(fd, size - EDGE, EDGE))
        return "blank";

    signature(device, facts->found, sizeof facts->found);
    int nobodys = facts->found[0] == '\0' || (fs->labelled && strcmp(facts->found, "an ext4 file system") == 0);
    if (facts->header.kind == LAYOUT && nobodys)
        return "damaged";
    if (facts->header.kind == FORMATTING && nobodys && strcmp(holds, "much") != 0)
        return "partial";
    if (facts->header.kind == UNKNOWN)
        snprintf(facts->found, sizeof facts->found, "a data disk of a newer wherry");
    else if (fs->labelled && fs->size > size - TAIL)
        snprintf(facts->found, sizeof facts->found, "a file system of wherry that is larger than the disk, which was cut short");
    else if (facts->header.kind == FORMATTING && nobodys)
        snprintf(facts->found, sizeof facts->found, "the mark of a formatting and far more data than one leaves");
    else if (facts->found[0] == '\0')
        snprintf(facts->found, sizeof facts->found, "data in which no file system is recognized");
    return "foreign";
}

static void write_header(int fd, off_t size, const char *rest)
{
    char text[HEADER] = {0};
    snprintf(text, sizeof text, "%s%s", title, rest);
    if (pwrite(fd, text, sizeof text, size - HEADER) != HEADER || fsync(fd) != 0)
        die(1, "disk: cannot write the header: %s", strerror(errno));
}

static void print(const struct facts *facts)
{
    printf("state=%s layout=%ld clean=%s grow=%s kib=%lld found='%s'\n", facts->state, facts->header.layout,
           facts->fs.clean ? "yes" : "no", strcmp(facts->state, "ours") == 0 && facts->fs.size + GROW_FROM < facts->wanted ? "yes" : "no",
           (long long)(facts->wanted >> 10), strcmp(facts->state, "foreign") == 0 ? facts->found : "");
}

static void end(int fd, const struct facts *facts, off_t size, const char *layout)
{
    char rest[64], *tail;
    long value = strtol(layout, &tail, 10);
    if (*tail != '\0' || value < 1 || value > 999999999)
        die(2, "disk: a layout is a number, not %s", layout);
    if (facts->header.kind != FORMATTING && facts->header.kind != LAYOUT)
        die(1, "disk: the device has no header of ours");
    snprintf(rest, sizeof rest, "layout %ld\n", value);
    write_header(fd, size, rest);
}

int main(int argc, char **argv)
{
    int probing = argc == 4 && strcmp(argv[1], "probe") == 0, beginning = argc == 4 && strcmp(argv[1], "begin") == 0;
    if (!probing && !beginning && (argc != 4 || strcmp(argv[1], "end") != 0))
        die(2, "usage: disk probe|begin DEVICE nothing|little|much, disk end DEVICE LAYOUT");
    int fd = open(argv[2], (probing ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    if (size < 0)
        die(1, "disk: %s: %s", argv[2], strerror(errno));
    size -= size % MIB;
    if (size < 2 * EDGE)
        die(1, "disk: %s is too small", argv[2]);

    struct facts facts = {0};
    read_facts(fd, size, &facts);
    if (!probing && !beginning) {
        end(fd, &facts, size, argv[3]);
        return 0;
    }
    facts.state = judge(fd, argv[2], argv[3], size, &facts);
    if (probing)
        print(&facts);
    else if (strcmp(facts.state, "blank") == 0 || strcmp(facts.state, "partial") == 0)
        write_header(fd, size, formatting);
    else
        die(1, "disk: %s is not blank", argv[2]);
    return 0;
}
