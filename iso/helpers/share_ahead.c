/*
 * Who opens one small file of a folder after another, in the order in which they were listed (tar, cp -r, grep -r), finds the next
 * ones opened already: they were asked for together, and came together. What nobody wants within a second is closed.
 */
#include "share.h"

#include <stdlib.h>
#include <sys/stat.h>

#define LEAST_RUN 2
#define LEAST_WINDOW 4u
#define MOST_WINDOW 16u
#define MOST_AHEAD 64u
#define MOST_STEPS 64 /* over what is no small file, for one look */
#define MOST_SCANNED 1000

static struct handle *ready[MOST_AHEAD];
static unsigned under_way; /* asked for, not come */
static unsigned there; /* in ready */

static void take_out(struct node *node)
{
    ready[node->ahead->place] = NULL;
    node->ahead = NULL;
    there--;
}

void ahead_drop(struct node *node)
{
    struct handle *handle = node->ahead;
    if (handle == NULL)
        return;
    take_out(node);
    handle_unref(handle);
}

static int good(const struct handle *handle)
{
    return !handle_lost(handle) && handle->data != NULL && data_good(handle);
}

int ahead_open(struct node *node, const struct fuse_in_header *in)
{
    struct handle *handle = node->ahead;
    if (handle == NULL) {
        if (node->ahead_asked)
            hold(&node->ahead_held, in);
        return node->ahead_asked;
    }
    if (!good(handle)) {
        ahead_drop(node);
        return 0;
    }
    take_out(node);
    struct fuse_open_out out = open_out(handle, &handle->attr);
    if (answer_data(in, &out, sizeof out) != 0)
        handle_unref(handle);
    return 1;
}

/* ---- asking ---- */

static int keep(struct op *op, struct answer *answer)
{
    struct opened told = {0};
    if (read_opened(op, answer, &told) != 0)
        return -1;
    unsigned place = 0;
    while (place < MOST_AHEAD && ready[place] != NULL)
        place++;
    struct node *node = op->node;
    if (place == MOST_AHEAD || !told.whole || node->version > op->version || node->attr.ino != told.attr.ino ||
        !attr_take(node, &told.attr, op)) {
        close_at_server(told.handle);
        return -1;
    }
    struct handle *handle = handle_new(node, told.handle, 0);
    if (handle == NULL)
        return -1;
    keep_data(handle, &told);
    handle->place = place;
    ready[place] = node->ahead = handle;
    there++;
    return 0;
}

static void came(struct op *op, struct answer *answer)
{
    struct node *node = op->node;
    node->ahead_asked = 0;
    under_way--;
    if (!link_up() || keep(op, answer) != 0)
        ahead_drop(node);
    release_all(&node->ahead_held);
    op_free(op);
}

static void ask(struct node *node)
{
    char room[LONGEST_PATH];
    int error;
    struct text path = node_path(node, (struct text){"", 0}, room, &error);
    struct op *op = error == 0 ? calloc(1, sizeof *op) : NULL;
    struct out *out = op != NULL ? link_ask_extended("open@wherry") : NULL;
    if (out == NULL) {
        free(op);
        return;
    }
    put_text(out, path);
    put_u32(out, 1); /* to be read */
    put_no_attr(out);
    put_u32(out, WHOLE_FILE);
    op->node = node;
    node_ref(node);
    op->version = changes;
    node->ahead_asked = 1;
    under_way++;
    link_send(op, came, URGENT);
}

/* ---- guessing ---- */

/* Orders in which folders are read: as listed (tar, grep -r), the other way round, or by inode number (cp -r, find's fts). */
enum order { LISTED, REVERSED, BY_INODE, NONE };

static int is_small(const struct node *node)
{
    return S_ISREG(node->attr.mode) && node->attr.size <= WHOLE_FILE;
}

static struct name *beside(const struct name *name, int later)
{
    struct name *next = (struct name *)(uintptr_t)name;
    for (int steps = 0; steps < MOST_STEPS; steps++) {
        next = later ? next->sibling_before : next->sibling;
        if (next == NULL || is_small(next->node))
            return next;
    }
    return NULL;
}

/* The small file with the nearest inode number above, or below. */
static struct name *by_inode(const struct name *name, int above)
{
    struct name *best = NULL;
    uint64_t own = name->node->attr.ino;
    int steps = 0;
    for (struct name *other = name->parent->children; other != NULL && steps < MOST_SCANNED; other = other->sibling, steps++) {
        uint64_t ino = other->node->attr.ino;
        if (!is_small(other->node) || (above ? ino <= own : ino >= own))
            continue;
        if (best == NULL || (above ? ino < best->node->attr.ino : ino > best->node->attr.ino))
            best = other;
    }
    return best;
}

static struct name *neighbour(const struct name *name, enum order order, int next)
{
    return order == BY_INODE ? by_inode(name, next) : beside(name, (order == LISTED) == (next != 0));
}

static enum order order_of(const struct name *name)
{
    for (enum order order = LISTED; order < NONE; order++) {
        const struct name *before = neighbour(name, order, 0);
        if (before != NULL && before->node == name->parent->last_opened)
            return order;
    }
    return NONE;
}

static int wanted(const struct node *node)
{
    return node->ahead == NULL && !node->ahead_asked && node->unacked_count == 0 && node->handles == NULL;
}

/* Half a window at a time, so that they are asked for together. */
static void ask_window(struct name *name, enum order order, unsigned window)
{
    struct name *next[MOST_WINDOW];
    unsigned count = 0, missing = 0;
    for (struct name *at = name; count < window && (at = neighbour(at, order, 1)) != NULL; count++) {
        next[count] = at;
        missing += wanted(at->node) != 0;
        if (count == window / 2 - 1 && missing == 0)
            return;
    }
    for (unsigned i = 0; i < count && there + under_way < MOST_AHEAD; i++)
        if (wanted(next[i]->node))
            ask(next[i]->node);
}

void ahead_opened(struct node *node)
{
    struct name *name = node->names;
    if (name == NULL || !is_small(node) || name->parent->last_opened == node)
        return;
    struct node *folder = name->parent;
    enum order order = folder->last_opened != NULL ? order_of(name) : NONE;
    folder->run = order != NONE ? folder->run + 1 : 0;
    folder->last_opened = node;
    if (folder->run < LEAST_RUN)
        return;
    unsigned window = LEAST_WINDOW << (folder->run < 4 ? folder->run - LEAST_RUN : 2);
    ask_window(name, order, window < MOST_WINDOW ? window : MOST_WINDOW);
}

int ahead_clock(void)
{
    long long now = now_ms(), first = 0;
    if (there == 0)
        return -1;
    for (unsigned i = 0; i < MOST_AHEAD; i++) {
        struct handle *handle = ready[i];
        if (handle == NULL)
            continue;
        if (!good(handle))
            ahead_drop(handle->node);
        else if (first == 0 || handle->data_at < first)
            first = handle->data_at;
    }
    return first == 0 ? -1 : (int)(first + GOOD_MS + 1 - now);
}
