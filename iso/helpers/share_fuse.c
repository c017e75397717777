/* The kernel's side: its requests are read in rounds, given to those who know about them, kept when they have to wait. */
#define _GNU_SOURCE /* statx */
#include "lib.h"
#include "share.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* The last version of which anything is used: what expires names. */
#define SPOKEN_MINOR 38
#define MOST_IN_ROUND 128
#define MESSAGE_ROOM (LONGEST_DATA + 8192u)
#define READ_AHEAD (2u << 20)
#define READ_AHEAD_KB "2048"
#define MOST_BACKGROUND 64

int fuse_fd = -1;

static unsigned char *message_room;
static struct held_list for_link = {NULL, &for_link.first}, for_folder = {NULL, &for_folder.first};
static unsigned folders_renamed; /* under way */
int may_expire; /* the kernel can forget a name without letting go of what is mounted there */

/* ---- answers ---- */

static int send_answer(const struct fuse_in_header *in, int error, const struct iovec *parts, int count)
{
    struct fuse_out_header head = {.len = sizeof head, .error = error, .unique = in->unique};
    struct iovec all[3] = {{&head, sizeof head}, {NULL, 0}, {NULL, 0}};
    for (int i = 0; i < count; i++) {
        all[i + 1] = parts[i];
        head.len += (uint32_t)parts[i].iov_len;
    }
    while (writev(fuse_fd, all, count + 1) < 0) {
        if (errno == EINTR)
            continue;
        int failed = errno;
        /* ENOENT: nobody waits for it any more. Anything else is a mistake of ours, and must not leave a process hanging. */
        if (failed != ENOENT && error == 0 && count > 0)
            (void)send_answer(in, -EIO, NULL, 0);
        return -failed;
    }
    return 0;
}

int answer_error(const struct fuse_in_header *in, int error)
{
    return send_answer(in, error, NULL, 0);
}

int answer_data(const struct fuse_in_header *in, const void *data, size_t size)
{
    struct iovec part = {(void *)(uintptr_t)data, size};
    return send_answer(in, 0, &part, 1);
}

int answer_two(const struct fuse_in_header *in, const void *data, size_t size, const void *more, size_t more_size)
{
    struct iovec parts[2] = {{(void *)(uintptr_t)data, size}, {(void *)(uintptr_t)more, more_size}};
    return send_answer(in, 0, parts, 2);
}

uint64_t set_validity(long long milliseconds, uint32_t *nanoseconds)
{
    *nanoseconds = (uint32_t)(milliseconds % 1000 * 1000000);
    return (uint64_t)(milliseconds / 1000);
}

/* How long what was told then may be believed from now on, in ms. */
long long good_for(const struct attr *attr)
{
    if (attr->at == 0)
        return 0;
    long long left = attr->at + (attr->watched && may_expire ? GOOD_WATCHED_MS : GOOD_MS) - now_ms();
    return left > 0 ? left : 0;
}

void fill_attr(struct fuse_attr *out, struct node *node)
{
    const struct attr *attr = &node->attr;
    node->shown_size = attr->size;
    node->shown_mtime = attr->mtime;
    node->shown_mtime_ns = attr->mtime_ns;
    *out = (struct fuse_attr){
        .ino = attr->ino,
        .size = attr->size,
        .blocks = attr->blocks,
        .atime = (uint64_t)attr->atime,
        .mtime = (uint64_t)attr->mtime,
        .ctime = (uint64_t)attr->ctime,
        .atimensec = attr->atime_ns,
        .mtimensec = attr->mtime_ns,
        .ctimensec = attr->ctime_ns,
        .mode = attr->mode,
        .nlink = attr->nlink,
        .uid = attr->uid,
        .gid = attr->gid,
        .blksize = 65536,
    };
}

void answer_attr(const struct fuse_in_header *in, struct node *node)
{
    struct fuse_attr_out out = {0};
    long long good = good_for(&node->attr);
    node->told_watched = good > GOOD_MS;
    out.attr_valid = set_validity(good, &out.attr_valid_nsec);
    fill_attr(&out.attr, node);
    (void)answer_data(in, &out, sizeof out);
}

void fill_entry(struct fuse_entry_out *out, struct node *node, struct node *parent, struct text bytes)
{
    long long good = good_for(&node->attr);
    struct name *name = name_find(parent, bytes);
    /* What is in a folder that is known whole and watched keeps its name until an event, though not its attributes. */
    long long known = parent->complete_until - now_ms(), named = known > GOOD_MS ? known : good;
    memset(out, 0, sizeof *out);
    out->nodeid = id_of(node);
    out->attr_valid = set_validity(good, &out->attr_valid_nsec);
    out->entry_valid = set_validity(name != NULL ? named : 0, &out->entry_valid_nsec);
    fill_attr(&out->attr, node);
    node->told_watched = good > GOOD_MS;
    if (name != NULL)
        name->told_ms = named;
}

int answer_node(const struct fuse_in_header *in, struct node *node, struct node *parent, struct text name, const struct fuse_open_out *open)
{
    struct fuse_entry_out out;
    fill_entry(&out, node, parent, name);
    node->lookups++;
    int error = open != NULL ? answer_two(in, &out, sizeof out, open, sizeof *open) : answer_data(in, &out, sizeof out);
    if (error != 0)
        node_forget(node, 1); /* the kernel has not heard of it */
    return error;
}

void answer_entry(struct op *op, const struct attr *attr)
{
    struct node *node = node_named(op->node, op_name(op), attr);
    if (node == NULL) {
        (void)answer_error(&op->in, -ENOMEM);
        return;
    }
    (void)attr_take(node, attr, op);
    (void)answer_node(&op->in, node, op->node, op_name(op), NULL);
}

/* ---- requests under way ---- */

struct op *op_new(const struct fuse_in_header *in, struct node *node)
{
    struct op *op = calloc(1, sizeof *op);
    if (op == NULL) {
        (void)answer_error(in, -ENOMEM);
        return NULL;
    }
    op->in = *in;
    op->node = node;
    op->version = changes;
    node_ref(node);
    return op;
}

void op_free(struct op *op)
{
    if (op->handle != NULL)
        handle_unref(op->handle);
    node_unref(op->node);
    if (op->node2 != NULL)
        node_unref(op->node2);
    free(op->data);
    free(op);
}

void op_fail(struct op *op, int error)
{
    (void)answer_error(&op->in, error);
    op_free(op);
}

struct text op_name(const struct op *op)
{
    return (struct text){op->name, op->name_size};
}

struct text op_name2(const struct op *op)
{
    return (struct text){op->name2, op->name2_size};
}

void op_set_name(struct op *op, struct text name)
{
    op->name_size = name.size < LONGEST_NAME ? name.size : LONGEST_NAME;
    memcpy(op->name, name.data, op->name_size);
}

void op_set_name2(struct op *op, struct text name)
{
    op->name2_size = name.size < LONGEST_NAME ? name.size : LONGEST_NAME;
    memcpy(op->name2, name.data, op->name2_size);
}

/* ---- requests that wait ---- */

void hold(struct held_list *list, const struct fuse_in_header *in)
{
    struct held *held = malloc(sizeof *held + in->len);
    if (held == NULL) {
        (void)answer_error(in, -ENOMEM);
        return;
    }
    held->next = NULL;
    held->since = now_ms();
    held->size = in->len;
    memcpy(held->message, in, in->len);
    if (list->first == NULL)
        list->end = &list->first;
    *list->end = held;
    list->end = &held->next;
}

/* What has to wait again goes to the end of a new list. */
void release_all(struct held_list *list)
{
    struct held *held = list->first;
    list->first = NULL;
    while (held != NULL) {
        struct held *next = held->next;
        fuse_dispatch(held->message, held->size);
        free(held);
        held = next;
    }
}

void folder_rename_begins(void)
{
    folders_renamed++;
}

void folder_rename_ends(void)
{
    if (--folders_renamed == 0)
        release_all(&for_folder);
}

int hold_for_folder(const struct fuse_in_header *in)
{
    if (folders_renamed > 0)
        hold(&for_folder, in);
    return folders_renamed > 0;
}

static int is_held(struct held_list *list, uint64_t unique)
{
    for (struct held **at = &list->first; *at != NULL; at = &(*at)->next) {
        struct held *held = *at;
        struct fuse_in_header in;
        memcpy(&in, held->message, sizeof in);
        if (in.unique != unique)
            continue;
        *at = held->next;
        if (*at == NULL)
            list->end = at;
        (void)answer_error(&in, -EINTR);
        free(held);
        return 1;
    }
    return 0;
}

/* One that has not been asked yet need not be; the server finishes the others. */
static void on_interrupt(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_interrupt_in *interrupt = body;
    (void)in;
    (void)size;
    (void)(is_held(&for_link, interrupt->unique) || is_held(&for_folder, interrupt->unique));
}

/* ---- the beginning ---- */

static void on_init(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_init_in *wanted = body;
    const uint32_t low = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS |
                         FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS | FUSE_ASYNC_DIO | FUSE_INIT_EXT;
    uint64_t flags = wanted->flags & low;
    if (wanted->major != FUSE_KERNEL_VERSION || wanted->minor < 31)
        die(1, "share: the kernel speaks FUSE %u.%u, not 7.31 or later", wanted->major, wanted->minor);
    if (flags & FUSE_INIT_EXT && size >= sizeof *wanted)
        flags |= ((uint64_t)wanted->flags2 << 32) & FUSE_HAS_EXPIRE_ONLY;
    may_expire = (flags & FUSE_HAS_EXPIRE_ONLY) != 0;
    struct fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION,
        .minor = SPOKEN_MINOR,
        .max_readahead = READ_AHEAD,
        .flags = (uint32_t)flags,
        .flags2 = (uint32_t)(flags >> 32),
        .max_background = MOST_BACKGROUND,
        .congestion_threshold = MOST_BACKGROUND * 3 / 4,
        .max_write = LONGEST_DATA,
        .time_gran = 1,
        .max_pages = LONGEST_DATA / 4096,
    };
    (void)answer_data(in, &out, sizeof out);
}

static void on_forget(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_forget_in *forget = body;
    (void)size;
    node_forget(node_of(in->nodeid), forget->nlookup);
}

static void on_batch_forget(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_batch_forget_in *batch = body;
    const struct fuse_forget_one *one = (const void *)(batch + 1);
    (void)in;
    for (uint32_t i = 0; i < batch->count && (i + 1) * sizeof *one <= size - sizeof *batch; i++)
        node_forget(node_of(one[i].nodeid), one[i].nlookup);
}

static void on_destroy(const struct fuse_in_header *in, const void *body, size_t size)
{
    (void)body;
    (void)size;
    (void)answer_error(in, 0);
}

/* ---- who knows about what ---- */

enum {
    ASKS = 1, /* the server: waits for a connection */
    NAMES = 2, /* uses paths: waits while a folder gets another one */
    SILENT = 4 /* the kernel wants no answer */
};

struct kind {
    handler *handler;
    size_t size; /* of the structure it begins with */
    unsigned flags;
};

static const struct kind kinds[] = {
    [FUSE_LOOKUP] = {on_lookup, 1, ASKS | NAMES},
    [FUSE_FORGET] = {on_forget, sizeof(struct fuse_forget_in), SILENT},
    [FUSE_GETATTR] = {on_getattr, sizeof(struct fuse_getattr_in), ASKS | NAMES},
    [FUSE_SETATTR] = {on_setattr, sizeof(struct fuse_setattr_in), ASKS | NAMES},
    [FUSE_READLINK] = {on_readlink, 0, ASKS | NAMES},
    [FUSE_SYMLINK] = {on_symlink, 2, ASKS | NAMES},
    [FUSE_MKNOD] = {on_mknod, sizeof(struct fuse_mknod_in) + 1, ASKS | NAMES},
    [FUSE_MKDIR] = {on_mkdir, sizeof(struct fuse_mkdir_in) + 1, ASKS | NAMES},
    [FUSE_UNLINK] = {on_unlink, 1, ASKS | NAMES},
    [FUSE_RMDIR] = {on_rmdir, 1, ASKS | NAMES},
    [FUSE_RENAME] = {on_rename, sizeof(struct fuse_rename_in) + 2, ASKS | NAMES},
    [FUSE_LINK] = {on_link, sizeof(struct fuse_link_in) + 1, ASKS | NAMES},
    [FUSE_OPEN] = {on_open, sizeof(struct fuse_open_in), ASKS | NAMES},
    [FUSE_READ] = {on_read, sizeof(struct fuse_read_in), 0},
    [FUSE_WRITE] = {on_write, sizeof(struct fuse_write_in), 0},
    [FUSE_STATFS] = {on_statfs, 0, ASKS | NAMES},
    [FUSE_RELEASE] = {on_release, sizeof(struct fuse_release_in), 0},
    [FUSE_FSYNC] = {on_fsync, sizeof(struct fuse_fsync_in), 0},
    [FUSE_FLUSH] = {on_flush, sizeof(struct fuse_flush_in), 0},
    [FUSE_INIT] = {on_init, offsetof(struct fuse_init_in, flags2), 0},
    [FUSE_OPENDIR] = {on_opendir, sizeof(struct fuse_open_in), ASKS | NAMES},
    [FUSE_READDIR] = {on_readdir, sizeof(struct fuse_read_in), ASKS | NAMES},
    [FUSE_RELEASEDIR] = {on_releasedir, sizeof(struct fuse_release_in), 0},
    [FUSE_FSYNCDIR] = {on_fsyncdir, sizeof(struct fuse_fsync_in), 0},
    [FUSE_CREATE] = {on_create, sizeof(struct fuse_create_in) + 1, ASKS | NAMES},
    [FUSE_INTERRUPT] = {on_interrupt, sizeof(struct fuse_interrupt_in), SILENT},
    [FUSE_DESTROY] = {on_destroy, 0, 0},
    [FUSE_BATCH_FORGET] = {on_batch_forget, sizeof(struct fuse_batch_forget_in), SILENT},
    [FUSE_FALLOCATE] = {on_fallocate, sizeof(struct fuse_fallocate_in), 0},
    [FUSE_READDIRPLUS] = {on_readdirplus, sizeof(struct fuse_read_in), ASKS | NAMES},
    [FUSE_RENAME2] = {on_rename2, sizeof(struct fuse_rename2_in) + 2, ASKS | NAMES},
};

void fuse_dispatch(const unsigned char *message, size_t size)
{
    const struct fuse_in_header *in = (const void *)message;
    const unsigned char *body = message + sizeof *in;
    if (size < sizeof *in || in->len != size)
        return;
    size -= sizeof *in;
    /* The one place where a replay meets the file system: what it asks never gets further than this. */
    const struct replay *replay;
    if (notice_is_own(in->pid, &replay)) {
        replay_answer(replay, in, body, size);
        return;
    }
    const struct kind *kind = in->opcode < sizeof kinds / sizeof *kinds ? &kinds[in->opcode] : NULL;
    if (kind == NULL || kind->handler == NULL) {
        (void)answer_error(in, -ENOSYS);
        return;
    }
    if (!(kind->flags & SILENT) && in->nodeid != 0 && node_of(in->nodeid)->ghost) {
        (void)answer_error(in, -ESTALE);
        return;
    }
    if (size < kind->size) {
        if (!(kind->flags & SILENT))
            (void)answer_error(in, -EINVAL);
        return;
    }
    if (kind->flags & ASKS && !link_up()) {
        if (link_awaited())
            hold(&for_link, in);
        else
            answer_without_link(in, body, size, -EIO);
        return;
    }
    if (kind->flags & NAMES && folders_renamed > 0) {
        hold(&for_folder, in);
        return;
    }
    kind->handler(in, body, size);
}

void fuse_link_up(void)
{
    events_ask();
    release_all(&for_link);
}

/* Nothing is watched any more. */
void fuse_link_lost(void)
{
    notice_everything();
}

void fuse_link_given_up(void)
{
    struct held *held = for_link.first;
    for_link.first = NULL;
    while (held != NULL) {
        struct held *next = held->next;
        struct fuse_in_header *in = (void *)held->message;
        answer_without_link(in, held->message + sizeof *in, held->size - sizeof *in, -EIO);
        free(held);
        held = next;
    }
}

void fuse_on_requests(void)
{
    for (int i = 0; i < MOST_IN_ROUND; i++) {
        ssize_t size = read(fuse_fd, message_room, MESSAGE_ROOM);
        if (size >= 0) {
            fuse_dispatch(message_room, (size_t)size);
            continue;
        }
        if (errno == EINTR || errno == ENOENT) /* ENOENT: it was taken back meanwhile */
            continue;
        if (errno == ENODEV) /* it was unmounted */
            exit(0);
        return;
    }
}

/* The kernel reads ahead 128 KB of a file system that it has just met, whatever INIT says: too little for so long a way. */
static void set_read_ahead(int own)
{
    char place[64];
    struct statx found;
    /* Not one that asks the file system: nobody answers yet. */
    if (own < 0 || statx(own, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &found) != 0)
        return;
    snprintf(place, sizeof place, "/sys/class/bdi/%u:%u/read_ahead_kb", found.stx_dev_major, found.stx_dev_minor);
    int fd = open(place, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)!write(fd, READ_AHEAD_KB, strlen(READ_AHEAD_KB));
    close(fd);
}

/* A mount that only we have: whoever watches a read-only share is told of changes too, and nothing that is mounted is met. */
static int own_root(const char *path)
{
    return (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

int fuse_mount_at(const char *id, const char *path, int read_only)
{
    char options[128], source[64];
    message_room = malloc(MESSAGE_ROOM);
    fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fuse_fd < 0 || message_room == NULL)
        die(1, "share: /dev/fuse: %s", strerror(errno));
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fuse_fd);
    snprintf(source, sizeof source, "wherry:%s", id);
    if (mount(source, path, "fuse.wherry", MS_NOSUID | MS_NODEV, options) != 0)
        die(1, "share: mount %s: %s", path, strerror(errno));
    int own = own_root(path);
    set_read_ahead(own);
    if (read_only && mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) != 0) {
        int error = errno;
        (void)umount2(path, MNT_DETACH);
        die(1, "share: mount %s: %s", path, strerror(error));
    }
    return own;
}
