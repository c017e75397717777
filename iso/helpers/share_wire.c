#include "share.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { ATTR_SIZE = 1, ATTR_UIDGID = 2, ATTR_PERMISSIONS = 4, ATTR_TIMES = 8 };
#define ATTR_EXTENDED 0x80000000u
#define STAT_SIZE 60
#define OMIT 0x3ffffffeu
#define NOW 0x3fffffffu

struct text text_of(const char *string)
{
    return (struct text){string, strlen(string)};
}

int out_room(struct out *out, size_t size)
{
    if (out->failed)
        return 0;
    if (out->room - out->size >= size)
        return 1;
    size_t room = out->room < 4096 ? 4096 : out->room;
    while (room - out->size < size)
        room *= 2;
    unsigned char *data = realloc(out->data, room);
    if (data == NULL) {
        out->failed = 1;
        return 0;
    }
    out->data = data;
    out->room = room;
    return 1;
}

void put_bytes(struct out *out, const void *data, size_t size)
{
    if (size == 0 || !out_room(out, size))
        return;
    memcpy(out->data + out->size, data, size);
    out->size += size;
}

void put_byte(struct out *out, uint8_t value)
{
    put_bytes(out, &value, 1);
}

void put_u32(struct out *out, uint32_t value)
{
    unsigned char bytes[4] = {(unsigned char)(value >> 24), (unsigned char)(value >> 16), (unsigned char)(value >> 8),
                              (unsigned char)value};
    put_bytes(out, bytes, sizeof bytes);
}

void put_u64(struct out *out, uint64_t value)
{
    put_u32(out, (uint32_t)(value >> 32));
    put_u32(out, (uint32_t)value);
}

void put_text(struct out *out, struct text text)
{
    put_u32(out, (uint32_t)text.size);
    put_bytes(out, text.data, text.size);
}

void put_no_attr(struct out *out)
{
    put_u32(out, 0);
}

void put_mode(struct out *out, uint32_t mode)
{
    put_u32(out, ATTR_PERMISSIONS);
    put_u32(out, mode & 07777);
}

static void put_time(struct out *out, int set, int is_now, int64_t seconds, uint32_t nanoseconds)
{
    put_u64(out, (uint64_t)seconds);
    put_u32(out, !set ? OMIT : is_now ? NOW : nanoseconds);
}

void put_change(struct out *out, const struct change *change)
{
    unsigned times = change->valid & (FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW);
    put_u32(out, (change->valid & FATTR_SIZE ? ATTR_SIZE : 0) | (change->valid & (FATTR_UID | FATTR_GID) ? ATTR_UIDGID : 0) |
                     (change->valid & FATTR_MODE ? ATTR_PERMISSIONS : 0) | (times ? ATTR_EXTENDED : 0));
    if (change->valid & FATTR_SIZE)
        put_u64(out, change->size);
    if (change->valid & (FATTR_UID | FATTR_GID)) {
        put_u32(out, change->valid & FATTR_UID ? change->uid : 0xffffffffu);
        put_u32(out, change->valid & FATTR_GID ? change->gid : 0xffffffffu);
    }
    if (change->valid & FATTR_MODE)
        put_u32(out, change->mode & 07777);
    if (!times)
        return;
    put_u32(out, 1);
    put_text(out, text_of("time@wherry"));
    put_u32(out, 24);
    put_time(out, change->valid & (FATTR_ATIME | FATTR_ATIME_NOW), change->valid & FATTR_ATIME_NOW, change->atime, change->atime_ns);
    put_time(out, change->valid & (FATTR_MTIME | FATTR_MTIME_NOW), change->valid & FATTR_MTIME_NOW, change->mtime, change->mtime_ns);
}

static const unsigned char *take(struct in *in, size_t size)
{
    if (in->bad || (size_t)(in->end - in->at) < size) {
        in->bad = 1;
        return NULL;
    }
    in->at += size;
    return in->at - size;
}

uint8_t get_byte(struct in *in)
{
    const unsigned char *at = take(in, 1);
    return at != NULL ? *at : 0;
}

uint32_t get_u32(struct in *in)
{
    const unsigned char *at = take(in, 4);
    return at != NULL ? (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3] : 0;
}

uint64_t get_u64(struct in *in)
{
    uint64_t high = get_u32(in);
    return high << 32 | get_u32(in);
}

struct text get_text(struct in *in, size_t longest)
{
    uint32_t size = get_u32(in);
    if (size > longest)
        in->bad = 1;
    const unsigned char *at = take(in, size);
    return at != NULL ? (struct text){(const char *)at, size} : (struct text){"", 0};
}

static void get_time(struct in *in, int64_t *seconds, uint32_t *nanoseconds)
{
    *seconds = (int64_t)get_u64(in);
    *nanoseconds = get_u32(in);
    if (*nanoseconds >= 1000000000u)
        in->bad = 1;
}

static void get_stat(struct in *in, struct text text, struct attr *attr)
{
    struct in stat = {(const unsigned char *)text.data, (const unsigned char *)text.data + text.size, 0};
    attr->ino = get_u64(&stat);
    attr->nlink = get_u32(&stat);
    attr->watched = (get_u32(&stat) & 1) != 0;
    attr->blocks = get_u64(&stat);
    get_time(&stat, &attr->atime, &attr->atime_ns);
    get_time(&stat, &attr->mtime, &attr->mtime_ns);
    get_time(&stat, &attr->ctime, &attr->ctime_ns);
    if (stat.bad || stat.at != stat.end)
        in->bad = 1;
}

/* The kernel takes only what is a file of some kind. */
static int kind_known(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
        return 1;
    default:
        return 0;
    }
}

void get_attr(struct in *in, struct attr *attr)
{
    memset(attr, 0, sizeof *attr);
    if (get_u32(in) != (ATTR_SIZE | ATTR_UIDGID | ATTR_PERMISSIONS | ATTR_TIMES | ATTR_EXTENDED))
        in->bad = 1;
    attr->size = get_u64(in);
    attr->uid = get_u32(in);
    attr->gid = get_u32(in);
    attr->mode = get_u32(in);
    (void)get_u64(in); /* the times to the second */
    int found = 0;
    for (uint32_t count = get_u32(in); count > 0 && !in->bad; count--) {
        struct text type = get_text(in, LONGEST_PACKET), data = get_text(in, LONGEST_PACKET);
        if (type.size == 11 && memcmp(type.data, "stat@wherry", 11) == 0 && data.size >= STAT_SIZE) {
            get_stat(in, data, attr);
            found = 1;
        }
    }
    if (!found || !kind_known(attr->mode) || attr->mode > 0177777 || attr->size > INT64_MAX)
        in->bad = 1;
}
