/* Requests about names and attributes. */
#include "share.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define WRONG(answer) ((answer)->body.bad = 1)

/* The name that BODY holds at OFFSET; the kernel ends it with a NUL. An empty one and -1 when it does not. */
int name_at(const void *body, size_t size, size_t offset, struct text *name)
{
    const char *at = (const char *)body + offset;
    size_t length = offset < size ? strnlen(at, size - offset) : 0;
    *name = (struct text){at, length};
    return length > 0 && length < size - offset ? 0 : -1;
}

/* One that is too long is told so by us. */
struct op *op_named(const struct fuse_in_header *in, const void *body, size_t size, size_t offset)
{
    struct text name;
    if (name_at(body, size, offset, &name) != 0 || name.size > LONGEST_NAME) {
        (void)answer_error(in, name.size > LONGEST_NAME ? -ENAMETOOLONG : -EINVAL);
        return NULL;
    }
    struct op *op = op_new(in, node_of(in->nodeid));
    if (op != NULL)
        op_set_name(op, name);
    return op;
}

/* The path of the node, or of its entry NAME; answers when there is none. */
int path_for(struct op *op, struct node *node, struct text name, char *room, struct text *path)
{
    int error;
    *path = node_path(node, name, room, &error);
    if (error != 0)
        op_fail(op, error);
    return error;
}

void attr_of(struct answer *answer, struct attr *attr)
{
    if (answer->is_status)
        WRONG(answer); /* OK is no answer to this */
    else
        get_attr(&answer->body, attr);
    attr->at = answer->asked;
    if (answer->stale)
        attr->watched = 0;
}

/* Open to be written, or at all. What was opened ahead of the kernel does not count. */
static int in_use(struct node *node, int any)
{
    ahead_drop(node);
    for (const struct handle *handle = node->handles; handle != NULL; handle = handle->next)
        if (!handle_lost(handle) && (any || (handle->flags & O_ACCMODE) != O_RDONLY))
            return 1;
    return node->unacked_count > 0;
}

/*
 * A file that was replaced, and of which nothing is open, is what has its name now. To be opened so is one that has lost its name and
 * is only read: a container may have that file alone bound, and the kernel nothing to look up again.
 */
static int may_become(struct node *node, const struct attr *attr, const struct op *op)
{
    if (node->names == NULL)
        return node->was != NULL && !in_use(node, op->in.opcode != FUSE_OPEN);
    return S_ISREG(attr->mode) && node->names->next == NULL && !in_use(node, 1);
}

int attr_take(struct node *node, const struct attr *attr, const struct op *op)
{
    /* The kernel gives up for ever what is of another kind at once. The root may become another folder. */
    if (((node->attr.mode ^ attr->mode) & S_IFMT) != 0)
        return 0;
    if (node != &root && node->attr.ino != attr->ino) {
        if (node->became > op->version)
            return 1; /* this is older */
        if (!may_become(node, attr, op))
            return 0;
        node_becomes(node, attr);
        if (node->lookups > 0)
            tell_attributes_gone(node);
    }
    /* Answers come in any order: of two the later question counts. */
    if (node->attr.at > attr->at && node->version <= op->version)
        return 1;
    node->attr = *attr;
    node->owner_at = attr->at;
    if (node->version > op->version)
        node->attr.at = node->owner_at = 0; /* it was changed meanwhile: not to be believed for long */
    if (op->stale)
        node->attr.watched = 0;
    return 1;
}

/* ---- looking ---- */

static const struct text no_name = {"", 0};

/* A name that is known stays so while the server is away: a kernel that is told otherwise unmounts what containers have there. */
static void lookup_failed(const struct fuse_in_header *in, struct node *parent, struct text name, int error)
{
    struct name *known = name_find(parent, name);
    if (known == NULL) {
        (void)answer_error(in, error);
        return;
    }
    struct node *node = known->node;
    node->attr.at = 0;
    (void)answer_node(in, node, parent, name, NULL);
}

void answer_without_link(const struct fuse_in_header *in, const void *body, size_t size, int error)
{
    struct text name;
    if (in->opcode == FUSE_LOOKUP && name_at(body, size, 0, &name) == 0)
        lookup_failed(in, node_of(in->nodeid), name, error);
    else
        (void)answer_error(in, error);
}

static void looked_up(struct op *op, struct answer *answer)
{
    struct attr attr;
    struct fuse_entry_out none = {0};
    if (answer->error == -ENOENT) {
        name_remove(op->node, op_name(op));
        if (answer->watched && !answer->stale && may_expire) {
            none.entry_valid = GOOD_WATCHED_MS / 1000;
            notice_absent(op->node, op_name(op));
        }
        if (none.entry_valid > 0)
            (void)answer_data(&op->in, &none, sizeof none);
        else
            (void)answer_error(&op->in, -ENOENT);
        op_free(op);
        return;
    }
    if (answer->error == 0)
        attr_of(answer, &attr);
    if (answer->body.bad || answer->error == -EIO) {
        lookup_failed(&op->in, op->node, op_name(op), -EIO);
        op_free(op);
        return;
    }
    if (answer->error != 0)
        (void)answer_error(&op->in, answer->error);
    else
        answer_entry(op, &attr);
    op_free(op);
}

void on_lookup(const struct fuse_in_header *in, const void *body, size_t size)
{
    char room[LONGEST_PATH];
    struct text path, bytes;
    if (name_at(body, size, 0, &bytes) == 0) {
        struct node *parent = node_of(in->nodeid);
        struct name *known = name_find(parent, bytes);
        if (known != NULL && wait_for_writes(known->node, in))
            return;
        if (known != NULL && now_ms() - known->seen_at < GOOD_MS && good_for(&known->node->attr) > 0) {
            (void)answer_node(in, known->node, parent, bytes, NULL);
            return;
        }
        if (known != NULL && S_ISDIR(known->node->attr.mode) && parent->complete_until > now_ms() + GOOD_MS) {
            (void)answer_node(in, known->node, parent, bytes, NULL);
            return;
        }
        if (known == NULL && bytes.size <= LONGEST_NAME && parent->complete_until > now_ms()) {
            (void)answer_error(in, -ENOENT);
            return;
        }
        if (look_again(parent, in))
            return;
    }
    struct op *op = op_named(in, body, size, 0);
    if (op == NULL || path_for(op, op->node, op_name(op), room, &path) != 0)
        return;
    struct out *out = link_ask(SFTP_LSTAT);
    if (out == NULL) {
        op_fail(op, -EIO);
        return;
    }
    put_text(out, path);
    link_send(op, looked_up, URGENT);
}

/* Of a file that has lost its name and that nobody can ask for: as it was, with a link less. */
static void answer_nameless(const struct fuse_in_header *in, struct node *node)
{
    struct attr before = node->attr;
    node->attr.at = 0;
    node->attr.nlink = 0;
    answer_attr(in, node);
    node->attr.nlink = before.nlink;
}

static void got_attr(struct op *op, struct answer *answer);

/* The name is another file's by now, or nobody's: who has the file open asks by that. 0: nobody has. */
static int ask_by_handle(struct op *op)
{
    const struct handle *handle = op->flags ? NULL : any_handle(op->node);
    struct out *out = handle != NULL ? link_ask(SFTP_FSTAT) : NULL;
    if (out == NULL)
        return 0;
    op->flags = 1;
    put_text(out, (struct text){handle->bytes, handle->size});
    link_send(op, got_attr, URGENT);
    return 1;
}

static void got_attr(struct op *op, struct answer *answer)
{
    struct attr attr;
    if (answer->error == -ENOENT && ask_by_handle(op))
        return;
    if (answer->error == -ENOENT && op->node->names == NULL) {
        answer_nameless(&op->in, op->node);
        op_free(op);
        return;
    }
    if (answer->error == 0)
        attr_of(answer, &attr);
    if (answer->error != 0 || answer->body.bad) {
        op_fail(op, answer->error != 0 ? answer->error : -EIO);
        return;
    }
    if (attr_take(op->node, &attr, op))
        answer_attr(&op->in, op->node);
    else if (ask_by_handle(op))
        return;
    else
        (void)answer_error(&op->in, -ESTALE); /* the kernel looks the name up again */
    op_free(op);
}

/* LSTAT by its path, or FSTAT when it has none and is open. 0: could not be asked, and nothing is answered yet. */
static int ask_attr(struct op *op, answered *then)
{
    char room[LONGEST_PATH];
    int error;
    struct handle *handle = any_handle(op->node);
    struct out *out = NULL;
    if (op->node->names == NULL && op->node != &root && handle != NULL) {
        op->flags = 1;
        if ((out = link_ask(SFTP_FSTAT)) != NULL)
            put_text(out, (struct text){handle->bytes, handle->size});
    } else {
        struct text path = node_last_path(op->node, room, &error);
        if (error == 0 && (out = link_ask(SFTP_LSTAT)) != NULL)
            put_text(out, path);
    }
    if (out != NULL)
        link_send(op, then, URGENT);
    return out != NULL;
}

void on_getattr(const struct fuse_in_header *in, const void *body, size_t size)
{
    struct node *node = node_of(in->nodeid);
    (void)body;
    (void)size;
    if (wait_for_writes(node, in))
        return;
    if (good_for(&node->attr) > 0) {
        answer_attr(in, node);
        return;
    }
    struct op *op = op_new(in, node);
    if (op != NULL && !ask_attr(op, got_attr)) {
        answer_nameless(in, node); /* a folder above it has gone */
        op_free(op);
    }
}

static void read_link(struct op *op, struct answer *answer)
{
    struct text target = no_name;
    if (answer->error == 0) {
        if (answer->is_status || get_u32(&answer->body) != 1)
            WRONG(answer);
        target = get_text(&answer->body, LONGEST_PATH - 1);
    }
    if (answer->error != 0 || answer->body.bad) {
        op_fail(op, answer->error != 0 ? answer->error : -EIO);
        return;
    }
    (void)answer_data(&op->in, target.data, target.size);
    op_free(op);
}

/* Asks with the path of the node, or of its entry. */
static void ask_path(struct op *op, uint8_t type, const char *extension, answered *then)
{
    char room[LONGEST_PATH];
    struct text path;
    if (op == NULL || path_for(op, op->node, op_name(op), room, &path) != 0)
        return;
    struct out *out = extension != NULL ? link_ask_extended(extension) : link_ask(type);
    if (out == NULL) {
        op_fail(op, -EIO);
        return;
    }
    put_text(out, path);
    link_send(op, then, URGENT);
}

void on_readlink(const struct fuse_in_header *in, const void *body, size_t size)
{
    (void)body;
    (void)size;
    ask_path(op_new(in, node_of(in->nodeid)), SFTP_READLINK, NULL, read_link);
}

static void got_statfs(struct op *op, struct answer *answer)
{
    uint64_t value[11] = {0};
    if (answer->error == 0) {
        if (answer->is_status)
            WRONG(answer);
        for (int i = 0; i < 11; i++)
            value[i] = get_u64(&answer->body);
    }
    if (answer->error != 0 || answer->body.bad) {
        op_fail(op, answer->error != 0 ? answer->error : -EIO);
        return;
    }
    struct fuse_statfs_out out = {.st = {
                                      .bsize = (uint32_t)value[0],
                                      .frsize = (uint32_t)value[1],
                                      .blocks = value[2],
                                      .bfree = value[3],
                                      .bavail = value[4],
                                      .files = value[5],
                                      .ffree = value[6],
                                      .namelen = value[10] < LONGEST_NAME ? (uint32_t)value[10] : LONGEST_NAME,
                                  }};
    (void)answer_data(&op->in, &out, sizeof out);
    op_free(op);
}

void on_statfs(const struct fuse_in_header *in, const void *body, size_t size)
{
    (void)body;
    (void)size;
    ask_path(op_new(in, &root), SFTP_EXTENDED, "statvfs@openssh.com", got_statfs);
}

/* ---- making: one request that does it, and an LSTAT that says what came of it, on their way together ---- */

static void finish_change(struct op *op)
{
    if (op->error == 0 && op->in.opcode == FUSE_SETATTR) {
        if (attr_take(op->node, &op->attr, op))
            answer_attr(&op->in, op->node);
        else
            (void)answer_error(&op->in, -ESTALE);
    } else if (op->error == 0) {
        /* A new name of a file that is known: one node, so that what is written by one name is read by the other. */
        if (op->in.opcode == FUSE_LINK && op->node2->attr.ino == op->attr.ino)
            (void)node_add_name(op->node2, op->node, op_name(op));
        answer_entry(op, &op->attr);
        struct name *made = op->in.opcode == FUSE_MKDIR ? name_find(op->node, op_name(op)) : NULL;
        if (made != NULL && S_ISDIR(made->node->attr.mode))
            made->node->complete_until = op->attr.at + GOOD_MS; /* nothing is in it */
    } else
        (void)answer_error(&op->in, op->error);
    op_free(op);
}

static void changed(struct op *op, struct answer *answer)
{
    if (answer->error == 0 && !answer->is_status)
        WRONG(answer);
    if (answer->error != 0 || answer->body.bad)
        op->error = answer->error != 0 ? answer->error : -EIO;
    if (--op->waiting == 0)
        finish_change(op);
}

static void changed_attr(struct op *op, struct answer *answer)
{
    if (answer->error == 0)
        attr_of(answer, &op->attr);
    if ((answer->error != 0 || answer->body.bad) && op->error == 0)
        op->error = answer->error != 0 ? answer->error : -EIO;
    op->stale |= answer->stale;
    if (--op->waiting == 0)
        finish_change(op);
}

/* After the packet of the change has been written: sends it, and the question. */
static void send_change(struct op *op, uint8_t question, struct text path)
{
    op->waiting = 2;
    op->version = changes;
    link_send(op, changed, URGENT);
    struct out *out = link_ask(question);
    if (out == NULL) {
        struct answer none = {.error = -EIO, .body = {NULL, NULL, 1}};
        changed_attr(op, &none);
        return;
    }
    put_text(out, path);
    link_send(op, changed_attr, URGENT);
}

static void make(struct op *op, uint8_t type, struct text target, uint32_t mode)
{
    char room[LONGEST_PATH];
    struct text path;
    if (op == NULL || path_for(op, op->node, op_name(op), room, &path) != 0)
        return;
    struct out *out = link_ask(type);
    if (out == NULL) {
        op_fail(op, -EIO);
        return;
    }
    if (type == SFTP_SYMLINK)
        put_text(out, target);
    put_text(out, path);
    if (type == SFTP_MKDIR)
        put_mode(out, mode);
    attr_spoil(op->node);
    send_change(op, SFTP_LSTAT, path);
}

void on_mkdir(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_mkdir_in *wanted = body;
    make(op_named(in, body, size, sizeof *wanted), SFTP_MKDIR, no_name, wanted->mode);
}

void on_symlink(const struct fuse_in_header *in, const void *body, size_t size)
{
    struct text name, target;
    if (name_at(body, size, 0, &name) != 0 || name_at(body, size, name.size + 1, &target) != 0 || target.size >= LONGEST_PATH) {
        (void)answer_error(in, -EINVAL);
        return;
    }
    make(op_named(in, body, size, 0), SFTP_SYMLINK, target, 0);
}

void on_link(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_link_in *wanted = body;
    char room[LONGEST_PATH], new_room[LONGEST_PATH];
    struct text path, new_path;
    struct node *node = node_of(wanted->oldnodeid);
    if (wait_for_writes(node, in))
        return;
    struct op *op = op_named(in, body, size, sizeof *wanted);
    if (op == NULL || path_for(op, node, no_name, room, &path) != 0 || path_for(op, op->node, op_name(op), new_room, &new_path) != 0)
        return;
    struct out *out = link_ask_extended("hardlink@openssh.com");
    if (out == NULL) {
        op_fail(op, -EIO);
        return;
    }
    op->node2 = node;
    node_ref(node);
    put_text(out, path);
    put_text(out, new_path);
    attr_spoil(op->node);
    attr_spoil(node);
    send_change(op, SFTP_LSTAT, new_path);
}

/* ---- changing ---- */

/* A chown or chmod to what is there already, as tar does with each file, need not be asked for. */
static int changes_nothing(const struct node *node, const struct fuse_setattr_in *wanted)
{
    const struct attr *attr = &node->attr;
    unsigned what = wanted->valid & ~(unsigned)(FATTR_FH | FATTR_CTIME | FATTR_LOCKOWNER);
    if (what == 0 || (what & ~(unsigned)(FATTR_MODE | FATTR_UID | FATTR_GID)) != 0)
        return 0;
    if (node->owner_at == 0 || now_ms() - node->owner_at > GOOD_MS || node->names == NULL || attr->mode & (S_ISUID | S_ISGID))
        return 0;
    return (!(what & FATTR_MODE) || (wanted->mode & 07777) == (attr->mode & 07777)) && (!(what & FATTR_UID) || wanted->uid == attr->uid) &&
           (!(what & FATTR_GID) || wanted->gid == attr->gid);
}

static struct change change_of(const struct fuse_setattr_in *wanted)
{
    return (struct change){
        .valid = wanted->valid & (FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE | FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW |
                                  FATTR_MTIME_NOW),
        .size = wanted->size,
        .mode = wanted->mode,
        .uid = wanted->uid,
        .gid = wanted->gid,
        .atime = (int64_t)wanted->atime,
        .mtime = (int64_t)wanted->mtime,
        .atime_ns = wanted->atimensec,
        .mtime_ns = wanted->mtimensec,
    };
}

/* By which open file it is to be changed, if by any; the path is tried when that is NULL. Answers when it cannot be. */
static int handle_for_change(const struct fuse_in_header *in, const struct fuse_setattr_in *wanted, int nameless, struct handle **found)
{
    struct node *node = node_of(in->nodeid);
    struct handle *handle = writing_handle(node);
    if (handle == NULL && wanted->valid & FATTR_FH) {
        handle = (struct handle *)(uintptr_t)wanted->fh;
        if (handle_lost(handle)) {
            (void)answer_error(in, -EIO);
            return -1;
        }
    }
    if (handle == NULL && nameless)
        handle = any_handle(node);
    if (handle == NULL && nameless) {
        (void)answer_error(in, -ESTALE);
        return -1;
    }
    *found = handle;
    return 0;
}

void on_setattr(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_setattr_in *wanted = body;
    struct node *node = node_of(in->nodeid);
    struct handle *handle;
    char room[LONGEST_PATH];
    int error;
    (void)size;
    if (changes_nothing(node, wanted)) {
        answer_attr(in, node);
        return;
    }
    if (writing_handle(node) == NULL && wait_for_writes(node, in))
        return;
    struct text path = node_path(node, no_name, room, &error);
    if (error == -ENAMETOOLONG) {
        (void)answer_error(in, error);
        return;
    }
    if (handle_for_change(in, wanted, error != 0, &handle) != 0)
        return;
    struct change change = change_of(wanted);
    struct op *op = op_new(in, node);
    if (op == NULL)
        return;
    /* Only SETSTAT, which follows links, changes sizes; but what has one to change is no link. */
    struct out *out = handle != NULL              ? link_ask(SFTP_FSETSTAT)
                      : change.valid & FATTR_SIZE ? link_ask(SFTP_SETSTAT)
                                                  : link_ask_extended("lsetstat@openssh.com");
    if (out == NULL) {
        op_fail(op, -EIO);
        return;
    }
    struct text object = handle != NULL ? (struct text){handle->bytes, handle->size} : path;
    put_text(out, object);
    put_change(out, &change);
    node->owner_at = 0;
    attr_spoil(node);
    if (change.valid & FATTR_SIZE)
        node->pages_known = 0;
    send_change(op, handle != NULL ? SFTP_FSTAT : SFTP_LSTAT, object);
}

/* ---- removing, renaming ---- */

static void removed(struct op *op, struct answer *answer)
{
    if (answer->error == 0 && !answer->is_status)
        WRONG(answer);
    if (answer->body.bad && answer->error == 0)
        answer->error = -EIO;
    if (answer->error == 0)
        name_remove(op->node, op_name(op));
    attr_spoil(op->node);
    op_fail(op, answer->error);
}

static void before_change(const struct fuse_in_header *in, struct node *parent, struct text name)
{
    struct name *known = name_find(parent, name);
    if (known == NULL)
        return;
    ahead_drop(known->node);
    open_waiting(known->node, in);
}

void on_unlink(const struct fuse_in_header *in, const void *body, size_t size)
{
    struct text name;
    if (name_at(body, size, 0, &name) == 0)
        before_change(in, node_of(in->nodeid), name);
    ask_path(op_named(in, body, size, 0), SFTP_REMOVE, NULL, removed);
}

void on_rmdir(const struct fuse_in_header *in, const void *body, size_t size)
{
    ask_path(op_named(in, body, size, 0), SFTP_RMDIR, NULL, removed);
}

static void renamed(struct op *op, struct answer *answer)
{
    int folder = op->flags;
    if (answer->error == 0 && !answer->is_status)
        WRONG(answer);
    if (answer->body.bad && answer->error == 0)
        answer->error = -EIO;
    if (answer->error == 0)
        name_move(op->node, op_name(op), op->node2, op_name2(op));
    attr_spoil(op->node);
    attr_spoil(op->node2);
    op_fail(op, answer->error);
    if (folder)
        folder_rename_ends();
}

static void rename_named(const struct fuse_in_header *in, const void *body, size_t size, size_t offset, uint64_t parent, uint32_t flags)
{
    struct text name, new_name, path, new_path;
    char room[LONGEST_PATH], new_room[LONGEST_PATH];
    if ((flags & ~1u) != 0 || name_at(body, size, offset, &name) != 0 ||
        name_at(body, size, offset + name.size + 1, &new_name) != 0) {
        (void)answer_error(in, -EINVAL); /* only RENAME_NOREPLACE can be had */
        return;
    }
    if (name.size > LONGEST_NAME || new_name.size > LONGEST_NAME) {
        (void)answer_error(in, -ENAMETOOLONG);
        return;
    }
    struct name *known = name_find(node_of(in->nodeid), name);
    before_change(in, node_of(in->nodeid), name);
    before_change(in, node_of(parent), new_name);
    struct op *op = op_new(in, node_of(in->nodeid));
    if (op == NULL)
        return;
    op_set_name(op, name);
    op_set_name2(op, new_name);
    op->node2 = node_of(parent);
    node_ref(op->node2);
    if (path_for(op, op->node, name, room, &path) != 0 || path_for(op, op->node2, new_name, new_room, &new_path) != 0)
        return;
    struct out *out = flags & 1 ? link_ask(SFTP_RENAME) : link_ask_extended("posix-rename@openssh.com");
    if (out == NULL) {
        op_fail(op, -EIO);
        return;
    }
    put_text(out, path);
    put_text(out, new_path);
    op->flags = known == NULL || S_ISDIR(known->node->attr.mode);
    if (op->flags)
        folder_rename_begins();
    link_send(op, renamed, URGENT);
}

void on_rename(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_rename_in *wanted = body;
    rename_named(in, body, size, sizeof *wanted, wanted->newdir, 0);
}

void on_rename2(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_rename2_in *wanted = body;
    rename_named(in, body, size, sizeof *wanted, wanted->newdir, wanted->flags);
}
