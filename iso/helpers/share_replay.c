/*
 * inotify hears only of what the guest's kernel does itself. So what has happened on this computer is done once more, on the
 * mount, by a thread of ours, and the file system answers the requests of that thread here: from what it knows, or for what
 * the kernel does not know with a ghost, a file that exists for that moment only.
 *
 * Nothing in this file asks the server, and nothing else answers that thread: whatever has become of the names meanwhile, a
 * replay changes what the kernel remembers of them and no file. All that it is told is good for no time at all, so that whoever
 * comes next asks the server.
 */
#define _GNU_SOURCE /* O_PATH, AT_EMPTY_PATH */
#include "share.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif

static void set_name(char *place, struct text name)
{
    memcpy(place, name.data, name.size);
    place[name.size] = '\0';
}

static char *parent_path(struct node *parent)
{
    char room[LONGEST_PATH];
    int error;
    struct text path = node_path(parent, (struct text){"", 0}, room, &error);
    return error == 0 ? strndup(path.data + 1, path.size - 1) : NULL;
}

struct replay *replay_new(enum event_kind kind, int is_folder, struct node *parent, struct text name)
{
    struct replay *replay = calloc(1, sizeof *replay);
    if (replay == NULL || (replay->path = parent_path(parent)) == NULL) {
        free(replay);
        return NULL;
    }
    replay->kind = kind;
    replay->is_folder = is_folder;
    replay->parent = parent;
    node_ref(parent);
    set_name(replay->name, name);
    return replay;
}

int replay_set_second(struct replay *replay, struct node *parent, struct text name)
{
    if ((replay->path2 = parent_path(parent)) == NULL)
        return -1;
    replay->parent2 = parent;
    node_ref(parent);
    set_name(replay->name2, name);
    return 0;
}

void replay_free(struct replay *replay)
{
    if (replay->kind == FOLDER)
        replay->parent->folder_pending = 0;
    node_unref(replay->parent);
    if (replay->parent2 != NULL)
        node_unref(replay->parent2);
    free(replay->path);
    free(replay->path2);
    free(replay);
}

/* ---- in the thread ---- */

/* No link is followed and no mount entered, whatever the kernel remembers. */
static int open_folder(int root_fd, const char *path)
{
    struct open_how how = {
        .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
        .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH | RESOLVE_NO_XDEV,
    };
    return (int)syscall(SYS_openat2, root_fd, *path != '\0' ? path : ".", &how, sizeof how);
}

/* Setting the time of the last change alone is IN_MODIFY, setting both is IN_ATTRIB (fsnotify_change of linux/fsnotify.h). */
static int touch(int folder, const char *name, int attributes)
{
    struct timespec times[2] = {{0, attributes ? 1 : UTIME_OMIT}, {0, 1}};
    return utimensat(folder, name, times, AT_SYMLINK_NOFOLLOW | (*name == '\0' ? AT_EMPTY_PATH : 0));
}

static int replay_rename(const struct replay *replay, int root_fd, int folder)
{
    int folder2 = open_folder(root_fd, replay->path2);
    if (folder2 < 0)
        return -1;
    int result = renameat(folder, replay->name, folder2, replay->name2);
    if (result != 0)
        (void)touch(folder2, "", 1);
    close(folder2);
    return result;
}

static int replay_in(const struct replay *replay, int root_fd, int folder)
{
    switch (replay->kind) {
    case CREATED:
        return replay->is_folder ? mkdirat(folder, replay->name, 0755) : mknodat(folder, replay->name, S_IFREG | 0644, 0);
    case DELETED:
        return unlinkat(folder, replay->name, replay->is_folder ? AT_REMOVEDIR : 0);
    case RENAMED:
        return replay_rename(replay, root_fd, folder);
    case MODIFIED:
        return touch(folder, replay->name, 0);
    case ATTRIBUTES:
        return touch(folder, replay->name, 1);
    default:
        return -1;
    }
}

void replay_run(const struct replay *replay, int root_fd)
{
    int folder = open_folder(root_fd, replay->path);
    if (folder < 0)
        return;
    /* What cannot be done, say where something is mounted, is told as a change of the folder. */
    if (replay_in(replay, root_fd, folder) != 0)
        (void)touch(folder, "", 1);
    close(folder);
}

/* ---- in the loop: the answers ---- */

static int is_first(const struct replay *replay, const struct node *parent, struct text name)
{
    return replay->kind != FOLDER && parent == replay->parent && strlen(replay->name) == name.size &&
           memcmp(replay->name, name.data, name.size) == 0;
}

static int is_second(const struct replay *replay, const struct node *parent, struct text name)
{
    return replay->kind == RENAMED && parent == replay->parent2 && strlen(replay->name2) == name.size &&
           memcmp(replay->name2, name.data, name.size) == 0;
}

static void answer_for_now(const struct fuse_in_header *in, struct node *node)
{
    struct fuse_entry_out out = {.nodeid = id_of(node)};
    fill_attr(&out.attr, node);
    if (answer_data(in, &out, sizeof out) != 0)
        node_forget(node, 1);
}

static void answer_ghost(const struct fuse_in_header *in, int is_folder)
{
    struct node *ghost = node_ghost(is_folder);
    if (ghost == NULL)
        (void)answer_error(in, -ENOMEM);
    else
        answer_for_now(in, ghost);
}

static void answer_lookup(const struct replay *replay, const struct fuse_in_header *in, struct text name)
{
    struct node *parent = node_of(in->nodeid);
    struct name *known = name_find(parent, name);
    int first = is_first(replay, parent, name);
    if (first && replay->kind == CREATED) {
        (void)answer_error(in, -ENOENT); /* it is made next */
        return;
    }
    if (known != NULL && (!first || S_ISDIR(known->node->attr.mode) == (replay->is_folder != 0))) {
        known->node->lookups++;
        answer_for_now(in, known->node);
    } else if (first)
        answer_ghost(in, replay->is_folder);
    else
        (void)answer_error(in, -ENOENT);
}

static void answer_made(const struct replay *replay, const struct fuse_in_header *in, struct text name, int is_folder)
{
    if (replay->kind == CREATED && is_first(replay, node_of(in->nodeid), name) && is_folder == (replay->is_folder != 0))
        answer_ghost(in, is_folder);
    else
        (void)answer_error(in, -EPERM);
}

/*
 * The event may be older than what the name stands for by now, or be no news at all: then it is not to go, neither here nor for the
 * kernel. Writes that are under way belong to it too, and who looks at it has to wait for them.
 */
static int must_stay(const struct name *name)
{
    return name != NULL && (!name_doubted(name) || name->node->unacked_count > 0);
}

static void answer_removed(const struct replay *replay, const struct fuse_in_header *in, struct text name)
{
    struct node *parent = node_of(in->nodeid);
    if (replay->kind != DELETED || !is_first(replay, parent, name)) {
        (void)answer_error(in, -EPERM);
        return;
    }
    if (must_stay(name_find(parent, name))) {
        (void)answer_error(in, -EBUSY);
        return;
    }
    name_doubt(parent, name);
    (void)answer_error(in, 0);
}

/* What has the new name by now keeps it, though the kernel does not know it by that until it asks, at the next use. */
static void move(struct node *parent, struct text name, struct node *parent2, struct text name2)
{
    struct name *known = name_find(parent, name), *there = name_find(parent2, name2);
    long long doubted_at = known != NULL ? known->doubted_at : 0;
    if (must_stay(there))
        name_remove(parent, name);
    else if (known == NULL)
        name_remove(parent2, name2); /* a ghost took its place */
    else {
        name_move(parent, name, parent2, name2);
        if ((known = name_find(parent2, name2)) != NULL)
            known->doubted_at = doubted_at; /* nobody has asked */
    }
}

static void answer_renamed(const struct replay *replay, const struct fuse_in_header *in, const void *body, size_t size)
{
    size_t head = in->opcode == FUSE_RENAME2 ? sizeof(struct fuse_rename2_in) : sizeof(struct fuse_rename_in);
    uint64_t newdir;
    struct text name, name2;
    if (size < head || name_at(body, size, head, &name) != 0 || name_at(body, size, head + name.size + 1, &name2) != 0) {
        (void)answer_error(in, -EINVAL);
        return;
    }
    memcpy(&newdir, body, sizeof newdir); /* both begin with it */
    struct node *parent = node_of(in->nodeid), *parent2 = node_of(newdir);
    if (!is_first(replay, parent, name) || !is_second(replay, parent2, name2)) {
        (void)answer_error(in, -EPERM);
        return;
    }
    if (must_stay(name_find(parent, name))) {
        (void)answer_error(in, -EBUSY);
        return;
    }
    folder_doubt(parent);
    folder_doubt(parent2);
    move(parent, name, parent2, name2);
    (void)answer_error(in, 0);
}

static void answer_attributes(const struct fuse_in_header *in)
{
    struct fuse_attr_out out = {0};
    fill_attr(&out.attr, node_of(in->nodeid));
    (void)answer_data(in, &out, sizeof out);
}

void replay_answer(const struct replay *replay, const struct fuse_in_header *in, const void *body, size_t size)
{
    struct text name = {"", 0};
    size_t offset = in->opcode == FUSE_MKNOD   ? sizeof(struct fuse_mknod_in)
                    : in->opcode == FUSE_MKDIR ? sizeof(struct fuse_mkdir_in)
                                               : 0;
    if (in->opcode == FUSE_INTERRUPT || in->opcode == FUSE_FORGET || in->opcode == FUSE_BATCH_FORGET)
        return; /* no answer is wanted */
    if (replay == NULL) {
        (void)answer_error(in, -EPERM);
        return;
    }
    (void)name_at(body, size, offset, &name);
    switch (in->opcode) {
    case FUSE_LOOKUP:
        answer_lookup(replay, in, name);
        return;
    case FUSE_MKNOD:
    case FUSE_MKDIR:
        answer_made(replay, in, name, in->opcode == FUSE_MKDIR);
        return;
    case FUSE_UNLINK:
    case FUSE_RMDIR:
        answer_removed(replay, in, name);
        return;
    case FUSE_RENAME:
    case FUSE_RENAME2:
        answer_renamed(replay, in, body, size);
        return;
    case FUSE_GETATTR:
    case FUSE_SETATTR:
        answer_attributes(in);
        return;
    default:
        (void)answer_error(in, -EPERM);
    }
}
