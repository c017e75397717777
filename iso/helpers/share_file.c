/* Open files: reading, writing behind, and what is kept of small ones. */
#include "share.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { PF_READ = 1, PF_WRITE = 2, PF_APPEND = 4, PF_CREAT = 8, PF_TRUNC = 16, PF_EXCL = 32, PF_SYNC = 0x20000000 };

/* Writes of a file that are answered before they are done; what comes then waits for its own acknowledgement. */
#define MOST_UNACKED (4u << 20)
#define MOST_UNACKED_COUNT 256
#define MOST_UNACKED_OF_ALL (32u << 20)
/* Contents of small files that are kept for their reader, of all files. */
#define MOST_KEPT (32u << 20)
/* A file that was changed this short a time ago may change again without a new time. */
#define SETTLED_SECONDS 2
#define O_ANY_SYNC (O_SYNC | O_DSYNC)

static size_t kept;
static size_t all_unacked;

static struct handle *handle_of(uint64_t fh)
{
    return (struct handle *)(uintptr_t)fh;
}

static struct text text_of_handle(const struct handle *handle)
{
    return (struct text){handle->bytes, handle->size};
}

int handle_lost(const struct handle *handle)
{
    return handle->epoch != link_epoch;
}

static int handle_writes(const struct handle *handle)
{
    return (handle->flags & O_ACCMODE) != O_RDONLY;
}

struct handle *any_handle(struct node *node)
{
    for (struct handle *handle = node->handles; handle != NULL; handle = handle->next)
        if (!handle_lost(handle) && handle->size > 0 && !handle->other)
            return handle;
    return NULL;
}

static void drop_data(struct handle *handle)
{
    if (handle->data == NULL)
        return;
    free(handle->data);
    handle->data = NULL;
    kept -= handle->data_size;
}

static void ignored(struct op *op, struct answer *answer)
{
    (void)op;
    (void)answer;
}

/* Nobody waits for the answer, and it goes with what is sent next. */
void close_at_server(struct text bytes)
{
    struct out *out = link_ask(SFTP_CLOSE);
    if (out == NULL)
        return;
    put_text(out, bytes);
    link_send(NULL, ignored, LAZY);
}

void handle_unref(struct handle *handle)
{
    if (--handle->refs > 0)
        return;
    struct handle **at = &handle->node->handles;
    while (*at != handle)
        at = &(*at)->next;
    *at = handle->next;
    if (!handle_lost(handle) && handle->size > 0)
        close_at_server(text_of_handle(handle));
    drop_data(handle);
    node_unref(handle->node);
    free(handle);
}

struct handle *handle_new(struct node *node, struct text bytes, unsigned flags)
{
    struct handle *handle = calloc(1, sizeof *handle);
    if (handle == NULL) {
        close_at_server(bytes);
        return NULL;
    }
    handle->node = node;
    node_ref(node);
    handle->refs = 1;
    handle->epoch = link_epoch;
    handle->flags = flags;
    handle->size = bytes.size;
    memcpy(handle->bytes, bytes.data, bytes.size);
    handle->next = node->handles;
    node->handles = handle;
    return handle;
}

struct handle *writing_handle(struct node *node)
{
    for (struct handle *handle = node->handles; handle != NULL && node->unacked_count > 0; handle = handle->next)
        if (handle->unacked_count == node->unacked_count && !handle_lost(handle) && node->held.first == NULL)
            return handle;
    return NULL;
}

int wait_for_writes(struct node *node, const struct fuse_in_header *in)
{
    if (node->unacked_count == 0)
        return 0;
    link_hurry();
    hold(&node->held, in);
    return 1;
}

/* ---- opening ---- */

static uint32_t pflags_of(uint32_t flags)
{
    uint32_t access = flags & O_ACCMODE;
    return (access != O_WRONLY ? PF_READ : 0) | (access != O_RDONLY ? PF_WRITE : 0) |
           (flags & O_APPEND && access != O_RDONLY ? PF_APPEND : 0) | (flags & O_CREAT ? PF_CREAT : 0) |
           (flags & O_TRUNC && access != O_RDONLY ? PF_TRUNC : 0) | (flags & O_EXCL && flags & O_CREAT ? PF_EXCL : 0) |
           (flags & O_ANY_SYNC && access != O_RDONLY ? PF_SYNC : 0);
}

/* The op is freed and answered when it cannot be asked. */
static void ask_open(struct op *op, struct text name, uint32_t flags, int makes, uint32_t mode, answered *then)
{
    char room[LONGEST_PATH];
    int error;
    struct text path = name.size > 0 ? node_path(op->node, name, room, &error) : node_last_path(op->node, room, &error);
    if (error != 0) {
        op_fail(op, error);
        return;
    }
    struct out *out = link_ask_extended("open@wherry");
    if (out == NULL) {
        op_fail(op, -EIO);
        return;
    }
    put_text(out, path);
    put_u32(out, pflags_of(flags));
    if (makes)
        put_mode(out, mode);
    else
        put_no_attr(out);
    int small = (flags & O_ACCMODE) == O_RDONLY && !makes && op->node->attr.size <= WHOLE_FILE;
    put_u32(out, small ? WHOLE_FILE : 0);
    op->flags = flags;
    op->version = changes;
    link_send(op, then, URGENT);
}

int read_opened(struct op *op, struct answer *answer, struct opened *opened)
{
    if (answer->error != 0)
        return answer->error;
    if (answer->is_status) {
        answer->body.bad = 1;
        return -EIO;
    }
    opened->handle = get_text(&answer->body, LONGEST_HANDLE);
    get_attr(&answer->body, &opened->attr);
    opened->attr.at = answer->asked;
    opened->whole = get_byte(&answer->body) != 0;
    opened->data = get_text(&answer->body, WHOLE_FILE);
    op->stale |= answer->stale;
    return answer->body.bad ? -EIO : 0;
}

void keep_data(struct handle *handle, const struct opened *opened)
{
    if (!opened->whole || kept + opened->data.size > MOST_KEPT)
        return;
    handle->data = malloc(opened->data.size > 0 ? opened->data.size : 1);
    if (handle->data == NULL)
        return;
    memcpy(handle->data, opened->data.data, opened->data.size);
    handle->data_size = opened->data.size;
    handle->data_at = opened->attr.at;
    handle->attr = opened->attr;
    handle->data_version = handle->node->version;
    kept += handle->data_size;
}

/* The times are old enough for the next change to show in them. */
static int settled(const struct attr *attr)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec - attr->mtime > SETTLED_SECONDS && now.tv_sec - attr->ctime > SETTLED_SECONDS;
}

/* Whether the kernel's pages of it are still what it holds; from now on they are. */
static int pages_good(struct node *node, const struct attr *attr, uint32_t flags)
{
    int good = node->pages_known && attr_same_content(&node->pages, attr) && !(flags & O_TRUNC);
    node->pages = *attr;
    node->pages_known = settled(attr) && !(flags & O_TRUNC);
    return good;
}

/* An answer to OPEN has no attributes: what is read would be cut to the size that the kernel knows. */
static void show_anew(struct node *node, const struct attr *attr)
{
    if (node->lookups > 0 && (node->shown_size != attr->size || node->shown_mtime != attr->mtime || node->shown_mtime_ns != attr->mtime_ns))
        tell_attributes_gone(node);
}

struct fuse_open_out open_out(struct handle *handle, const struct attr *attr)
{
    struct fuse_open_out out = {.fh = (uint64_t)(uintptr_t)handle};
    show_anew(handle->node, attr);
    if (pages_good(handle->node, attr, handle->flags))
        out.open_flags |= FOPEN_KEEP_CACHE;
    if (!handle_writes(handle))
        out.open_flags |= FOPEN_NOFLUSH; /* nothing to be told at its close */
    return out;
}

/*
 * The name was looked up, and is another file's by now. Who reads it finds what is open already, as it was: two files must not share
 * the kernel's pages of one. NULL: nobody has it open to be read.
 */
static struct handle *open_already(const struct op *op)
{
    if ((op->flags & (O_ACCMODE | O_TRUNC)) != O_RDONLY)
        return NULL;
    for (struct handle *handle = op->node->handles; handle != NULL; handle = handle->next)
        if (!handle_lost(handle) && handle->size > 0 && !handle->other && handle != op->node->ahead && handle->error == 0 &&
            !handle_writes(handle))
            return handle;
    return NULL;
}

static void answer_shared(struct op *op, struct handle *handle)
{
    struct fuse_open_out out = {.fh = (uint64_t)(uintptr_t)handle, .open_flags = FOPEN_NOFLUSH};
    handle->refs++;
    if (answer_data(&op->in, &out, sizeof out) != 0)
        handle_unref(handle);
    op_free(op);
}

/*
 * A file that was replaced while somebody writes it. The kernel looks its name up again and finds the other; but where the file alone
 * is bound there is no name, and who only wants to read gets the other one past the kernel's pages.
 */
static void opened_other(struct op *op, const struct opened *told)
{
    struct node *node = op->node;
    int reads = (op->flags & (O_ACCMODE | O_TRUNC)) == O_RDONLY;
    struct handle *handle = reads && node->names == NULL ? handle_new(node, told->handle, op->flags) : NULL;
    if (handle == NULL) {
        if (!reads || node->names != NULL)
            close_at_server(told->handle);
        if (node->names != NULL && node->names->next == NULL && node->version <= op->version)
            name_doubt(node->names->parent, text_of_name(node->names));
        op_fail(op, -ESTALE);
        return;
    }
    handle->other = 1;
    struct fuse_open_out out = {.fh = (uint64_t)(uintptr_t)handle, .open_flags = FOPEN_DIRECT_IO | FOPEN_NOFLUSH};
    if (answer_data(&op->in, &out, sizeof out) != 0)
        handle_unref(handle);
    op_free(op);
}

static void opened(struct op *op, struct answer *answer)
{
    struct opened told = {0};
    int error = read_opened(op, answer, &told);
    if (error != 0) {
        op_fail(op, error == -ENOENT ? -ESTALE : error); /* the kernel looks the name up again */
        return;
    }
    struct handle *handle = told.attr.ino != op->node->attr.ino ? open_already(op) : NULL;
    if (handle != NULL) {
        close_at_server(told.handle);
        answer_shared(op, handle);
        return;
    }
    if (!attr_take(op->node, &told.attr, op)) {
        opened_other(op, &told);
        return;
    }
    if (op->node->attr.ino != told.attr.ino) { /* it has become a later one meanwhile, which is asked for now */
        close_at_server(told.handle);
        ask_open(op, (struct text){"", 0}, op->flags, 0, 0, opened);
        return;
    }
    handle = handle_new(op->node, told.handle, op->flags);
    if (handle == NULL) {
        op_fail(op, -ENOMEM);
        return;
    }
    if (op->node->version <= op->version)
        keep_data(handle, &told);
    if (op->flags & O_TRUNC)
        attr_spoil(op->node);
    struct fuse_open_out out = open_out(handle, &told.attr);
    if (answer_data(&op->in, &out, sizeof out) != 0)
        handle_unref(handle);
    op_free(op);
}

/* ---- opening what the kernel has: a watched file whose pages are good is opened at the server when one is missing ---- */

static int open_later(struct node *node, const struct fuse_in_header *in)
{
    if (!node->pages_known || node->attr.size > WHOLE_FILE || good_for(&node->attr) <= GOOD_MS || !attr_same_content(&node->pages, &node->attr))
        return 0;
    struct handle *handle = handle_new(node, (struct text){"", 0}, O_RDONLY);
    if (handle == NULL)
        return 0;
    struct fuse_open_out out = {.fh = (uint64_t)(uintptr_t)handle, .open_flags = FOPEN_KEEP_CACHE | FOPEN_NOFLUSH};
    if (answer_data(in, &out, sizeof out) != 0)
        handle_unref(handle);
    return 1;
}

static void opened_now(struct op *op, struct answer *answer)
{
    struct opened told = {0};
    struct handle *handle = op->handle;
    struct node *node = op->node;
    int error = read_opened(op, answer, &told);
    handle->opening = 0;
    if (error == 0) {
        handle->size = told.handle.size;
        memcpy(handle->bytes, told.handle.data, told.handle.size);
        /* Changed meanwhile, and the event is on its way: what the kernel has of it goes. */
        if (!attr_same_content(&node->pages, &told.attr)) {
            node->pages_known = 0;
            notice_inode(node, AND_PAGES);
        } else if (attr_take(node, &told.attr, op) && node->version <= op->version)
            keep_data(handle, &told);
    } else
        handle->error = error == -ENOENT ? -ESTALE : error;
    release_all(&node->ahead_held);
    op_free(op);
}

/* 0, or the error. */
static int ask_open_now(struct handle *handle, const struct fuse_in_header *in)
{
    char room[LONGEST_PATH];
    int error;
    struct text path = node_last_path(handle->node, room, &error);
    if (error != 0)
        return error;
    struct op *op = calloc(1, sizeof *op);
    struct out *out = op != NULL ? link_ask_extended("open@wherry") : NULL;
    if (out == NULL) {
        free(op);
        return -EIO;
    }
    op->in = *in;
    op->node = handle->node;
    node_ref(op->node);
    op->handle = handle;
    handle->refs++;
    handle->opening = 1;
    op->version = changes;
    put_text(out, path);
    put_u32(out, PF_READ);
    put_no_attr(out);
    put_u32(out, WHOLE_FILE);
    link_send(op, opened_now, URGENT);
    return 0;
}

/* The request is kept until the handle is one of the server's. */
static void open_now(struct handle *handle, const struct fuse_in_header *in)
{
    if (hold_for_folder(in))
        return;
    int error = handle->opening ? 0 : ask_open_now(handle, in);
    if (error != 0)
        (void)answer_error(in, error);
    else
        hold(&handle->node->ahead_held, in);
}

/* Before its name goes: who has it open reads on. */
void open_waiting(struct node *node, const struct fuse_in_header *in)
{
    for (struct handle *handle = node->handles; handle != NULL; handle = handle->next)
        if (handle->size == 0 && !handle->opening && !handle_lost(handle))
            (void)ask_open_now(handle, in);
}

void on_open(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_open_in *wanted = body;
    struct node *node = node_of(in->nodeid);
    (void)size;
    if (wait_for_writes(node, in))
        return;
    if ((wanted->flags & (O_ACCMODE | O_TRUNC)) == O_RDONLY) {
        if (open_later(node, in))
            return;
        int answered_now = ahead_open(node, in);
        ahead_opened(node);
        if (answered_now)
            return;
    }
    struct op *op = op_new(in, node);
    if (op == NULL)
        return;
    ask_open(op, (struct text){"", 0}, wanted->flags & ~(uint32_t)(O_CREAT | O_EXCL), 0, 0, opened);
}

static void created(struct op *op, struct answer *answer)
{
    struct opened told = {0};
    int error = read_opened(op, answer, &told);
    if (error != 0) {
        op_fail(op, error);
        return;
    }
    attr_spoil(op->node);
    struct node *node = node_named(op->node, op_name(op), &told.attr);
    if (node == NULL) {
        close_at_server(told.handle);
        op_fail(op, -ENOMEM);
        return;
    }
    (void)attr_take(node, &told.attr, op);
    struct handle *handle = handle_new(node, told.handle, op->flags);
    if (handle == NULL) {
        op_fail(op, -ENOMEM);
        return;
    }
    struct fuse_open_out out = open_out(handle, &told.attr);
    int makes_only = op->in.opcode == FUSE_MKNOD;
    if (answer_node(&op->in, node, op->node, op_name(op), makes_only ? NULL : &out) != 0 || makes_only)
        handle_unref(handle);
    op_free(op);
}

void on_create(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_create_in *wanted = body;
    struct op *op = op_named(in, body, size, sizeof *wanted);
    if (op != NULL)
        ask_open(op, op_name(op), wanted->flags | O_CREAT, 1, wanted->mode, created);
}

/* Only files: what is special on this computer is no business of the guest's. */
void on_mknod(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_mknod_in *wanted = body;
    if (!S_ISREG(wanted->mode)) {
        (void)answer_error(in, -EPERM);
        return;
    }
    struct op *op = op_named(in, body, size, sizeof *wanted);
    if (op != NULL)
        ask_open(op, op_name(op), O_CREAT | O_EXCL | O_WRONLY, 1, wanted->mode, created);
}

/* ---- reading ---- */

static void ask_read(struct op *op);

static void finish_read(struct op *op, struct text data)
{
    if (op->data_size > 0)
        (void)answer_two(&op->in, op->data, op->data_size, data.data, data.size);
    else
        (void)answer_data(&op->in, data.data, data.size);
    op_free(op);
}

static int keep_part(struct op *op, struct text data)
{
    if (op->data == NULL && (op->data = malloc(op->size)) == NULL)
        return -1;
    memcpy(op->data + op->data_size, data.data, data.size);
    op->data_size += data.size;
    return 0;
}

static void got_data(struct op *op, struct answer *answer)
{
    size_t wanted = op->size - op->data_size;
    if (answer->error != 0) {
        op_fail(op, answer->error);
        return;
    }
    struct text data = answer->is_status ? (struct text){"", 0} : get_text(&answer->body, wanted);
    if (answer->is_status ? !answer->eof : data.size == 0)
        answer->body.bad = 1;
    if (answer->body.bad) {
        op_fail(op, -EIO);
        return;
    }
    uint64_t end = op->offset + op->data_size + data.size;
    if (answer->eof || data.size == wanted || (op->node->attr.at != 0 && end == op->node->attr.size)) {
        finish_read(op, data);
        return;
    }
    /* Less than there is: the kernel would take it for the end of the file. */
    if (keep_part(op, data) != 0)
        op_fail(op, -ENOMEM);
    else
        ask_read(op);
}

static void ask_read(struct op *op)
{
    struct out *out = handle_lost(op->handle) ? NULL : link_ask(SFTP_READ);
    if (out == NULL) {
        op_fail(op, -EIO);
        return;
    }
    put_text(out, text_of_handle(op->handle));
    put_u64(out, op->offset + op->data_size);
    put_u32(out, op->size - (uint32_t)op->data_size);
    link_send(op, got_data, URGENT);
}

/* What is known of the file since does not contradict what came with its open. */
int data_good(const struct handle *handle)
{
    const struct node *node = handle->node;
    return handle->data_version == node->version && now_ms() - handle->data_at <= GOOD_MS &&
           (node->attr.at == 0 || attr_same_content(&node->attr, &handle->attr));
}

static int answer_from_data(const struct fuse_in_header *in, struct handle *handle, uint64_t offset, size_t size)
{
    if (handle->data == NULL)
        return 0;
    if (!data_good(handle)) {
        drop_data(handle);
        return 0;
    }
    size_t left = offset < handle->data_size ? handle->data_size - (size_t)offset : 0;
    (void)answer_data(in, handle->data + (left > 0 ? offset : 0), left < size ? left : size);
    if (offset == 0 && size > handle->data_size)
        drop_data(handle); /* the kernel has it all */
    return 1;
}

void on_read(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_read_in *wanted = body;
    struct handle *handle = handle_of(wanted->fh);
    (void)size;
    if (handle_lost(handle)) {
        (void)answer_error(in, -EIO);
        return;
    }
    if (answer_from_data(in, handle, wanted->offset, wanted->size) || wait_for_writes(handle->node, in))
        return;
    if (handle->size == 0) {
        if (handle->error != 0)
            (void)answer_error(in, handle->error);
        else
            open_now(handle, in);
        return;
    }
    struct op *op = op_new(in, handle->node);
    if (op == NULL)
        return;
    op->handle = handle;
    handle->refs++;
    op->offset = wanted->offset;
    op->size = wanted->size < LONGEST_DATA ? wanted->size : LONGEST_DATA;
    ask_read(op);
}

/* ---- writing ---- */

/* What was told of it before the write is true no more, and the server takes the write for one that is known here. */
static void doubt_twin(struct node *node)
{
    if (node->told_watched)
        notice_inode(node, AND_PAGES);
    node->told_watched = node->pages_known = 0;
    attr_spoil(node);
}

static void wrote(struct op *op, struct answer *answer)
{
    struct node *node = op->node;
    int error = answer->error;
    if (error == 0 && !answer->is_status)
        answer->body.bad = 1;
    if (answer->body.bad && error == 0)
        error = -EIO;
    node->unacked -= op->size;
    all_unacked -= op->size;
    node->unacked_count--;
    op->handle->unacked_count--;
    each_twin(node, doubt_twin);
    node->acked = ++changes; /* a list that was asked for before may have seen it, or not */
    if (op->flags) {
        struct fuse_write_out out = {.size = op->size};
        (void)(error != 0 ? answer_error(&op->in, error) : answer_data(&op->in, &out, sizeof out));
    } else if (error != 0)
        op->handle->error = error;
    if (node->unacked_count == 0)
        release_all(&node->held);
    op_free(op);
}

/* FLAGS of the op: whether the kernel waits for it. */
static void send_write(struct op *op, const void *data)
{
    struct node *node = op->node;
    struct out *out = handle_lost(op->handle) ? NULL : link_ask(SFTP_WRITE);
    if (out == NULL) {
        op_fail(op, -EIO);
        return;
    }
    put_text(out, text_of_handle(op->handle));
    put_u64(out, op->offset);
    put_text(out, (struct text){data, op->size});
    node->unacked += op->size;
    all_unacked += op->size;
    node->unacked_count++;
    op->handle->unacked_count++;
    node->pages_known = 0;
    attr_spoil(node);
    uint64_t end = op->handle->flags & O_APPEND ? node->attr.size + op->size : op->offset + op->size;
    if (end > node->attr.size)
        node->attr.size = end; /* as the kernel has it from now on */
    if (!op->flags) {
        struct fuse_write_out done = {.size = op->size};
        (void)answer_data(&op->in, &done, sizeof done);
    }
    link_send(op, wrote, op->flags ? URGENT : LAZY); /* with what follows, mostly a change of times or the next write */
}

static void opened_for_pages(struct op *op, struct answer *answer)
{
    struct opened told = {0};
    int error = read_opened(op, answer, &told);
    if (error == 0 && told.attr.ino != op->node->attr.ino) {
        close_at_server(told.handle);
        error = -EIO;
    }
    if (error != 0 || (op->handle = handle_new(op->node, told.handle, O_WRONLY)) == NULL) {
        op_fail(op, error != 0 ? error : -ENOMEM);
        return;
    }
    op->flags = 1;
    send_write(op, op->data);
}

/* Pages of a mapping have places of their own: a handle that appends cannot take them. */
static struct handle *handle_for_pages(struct handle *handle)
{
    if (!(handle->flags & O_APPEND) && handle_writes(handle) && !handle_lost(handle))
        return handle;
    for (struct handle *other = handle->node->handles; other != NULL; other = other->next)
        if (!(other->flags & O_APPEND) && handle_writes(other) && !handle_lost(other))
            return other;
    return NULL;
}

static void write_pages(struct op *op, struct handle *handle, const void *data)
{
    op->flags = 1;
    if (handle != NULL) {
        op->handle = handle;
        handle->refs++;
        send_write(op, data);
        return;
    }
    if ((op->data = malloc(op->size)) == NULL) {
        op_fail(op, -ENOMEM);
        return;
    }
    memcpy(op->data, data, op->size);
    ask_open(op, (struct text){"", 0}, O_WRONLY, 0, 0, opened_for_pages);
}

void on_write(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_write_in *wanted = body;
    const void *data = wanted + 1;
    struct handle *handle = handle_of(wanted->fh);
    struct node *node = handle->node;
    int from_pages = (wanted->write_flags & FUSE_WRITE_CACHE) != 0;
    if (wanted->size > LONGEST_DATA || size - sizeof *wanted < wanted->size) {
        (void)answer_error(in, -EINVAL);
        return;
    }
    if ((handle_lost(handle) && !from_pages) || handle->error != 0) {
        (void)answer_error(in, handle->error != 0 ? handle->error : -EIO);
        return;
    }
    if (node->held.first != NULL) { /* they waited first */
        hold(&node->held, in);
        return;
    }
    struct op *op = op_new(in, node);
    if (op == NULL)
        return;
    op->offset = wanted->offset;
    op->size = wanted->size;
    handle->written = 1;
    if (from_pages) {
        write_pages(op, handle_for_pages(handle), data);
        return;
    }
    op->handle = handle;
    handle->refs++;
    op->flags = node->unacked + op->size > MOST_UNACKED || all_unacked + op->size > MOST_UNACKED_OF_ALL ||
                 node->unacked_count >= MOST_UNACKED_COUNT ||
                (wanted->flags & O_ANY_SYNC) != 0 || (handle->flags & O_ANY_SYNC) != 0;
    send_write(op, data);
}

/* ---- finishing ---- */

static int take_error(struct handle *handle)
{
    int error = handle->error;
    if (error == 0 && handle->written && handle_lost(handle))
        error = -EIO;
    handle->error = 0;
    return error;
}

void on_flush(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_flush_in *wanted = body;
    struct handle *handle = handle_of(wanted->fh);
    (void)size;
    if (handle->written && wait_for_writes(handle->node, in))
        return;
    (void)answer_error(in, take_error(handle));
}

void on_release(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_release_in *wanted = body;
    (void)size;
    (void)answer_error(in, 0);
    handle_unref(handle_of(wanted->fh));
}

static void finished(struct op *op, struct answer *answer)
{
    if (answer->error == 0 && !answer->is_status)
        answer->body.bad = 1;
    op_fail(op, answer->body.bad && answer->error == 0 ? -EIO : answer->error);
}

static struct op *op_with_handle(const struct fuse_in_header *in, struct handle *handle)
{
    struct op *op = op_new(in, handle->node);
    if (op != NULL) {
        op->handle = handle;
        handle->refs++;
    }
    return op;
}

void on_fsync(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_fsync_in *wanted = body;
    struct handle *handle = handle_of(wanted->fh);
    (void)size;
    if (wait_for_writes(handle->node, in))
        return;
    int error = take_error(handle);
    if (error == 0 && handle->size == 0) {
        (void)answer_error(in, 0); /* nothing was ever written by it */
        return;
    }
    if (error != 0 || handle_lost(handle)) {
        (void)answer_error(in, error != 0 ? error : -EIO);
        return;
    }
    struct op *op = op_with_handle(in, handle);
    struct out *out = op != NULL ? link_ask_extended("fsync@openssh.com") : NULL;
    if (op == NULL)
        return;
    if (out == NULL) {
        op_fail(op, -EIO);
        return;
    }
    put_text(out, text_of_handle(handle));
    link_send(op, finished, URGENT);
}

static void allocated(struct op *op, struct answer *answer)
{
    attr_spoil(op->node);
    finished(op, answer);
}

void on_fallocate(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_fallocate_in *wanted = body;
    struct handle *handle = handle_of(wanted->fh);
    (void)size;
    if (wait_for_writes(handle->node, in))
        return;
    struct op *op = op_with_handle(in, handle);
    struct out *out = op != NULL && !handle_lost(handle) ? link_ask_extended("fallocate@wherry") : NULL;
    if (op == NULL)
        return;
    if (out == NULL) {
        op_fail(op, -EIO);
        return;
    }
    put_text(out, text_of_handle(handle));
    put_u32(out, wanted->mode);
    put_u64(out, wanted->offset);
    put_u64(out, wanted->length);
    handle->node->pages_known = 0;
    attr_spoil(handle->node);
    link_send(op, allocated, URGENT);
}
