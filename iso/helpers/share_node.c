/* A node is known to the kernel by its address. It lives as long as the kernel, a name below, a handle or a request needs it. */
#include "share.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The root's name is the share's: it has none. */
struct node root = {.refs = 1, .lookups = 1, .attr = {.mode = S_IFDIR | 0755, .nlink = 1}};

uint64_t changes;

static struct name **names;
static struct node **inodes;
static size_t name_buckets, name_count, inode_buckets, inode_count;

struct node *node_of(uint64_t id)
{
    return id == FUSE_ROOT_ID ? &root : (struct node *)(uintptr_t)id;
}

uint64_t id_of(const struct node *node)
{
    return node == &root ? FUSE_ROOT_ID : (uint64_t)(uintptr_t)node;
}

static size_t mix(uint64_t value)
{
    value = (value ^ value >> 32) * 0x9e3779b97f4a7c15u;
    return (size_t)(value ^ value >> 29);
}

static size_t name_hash(const struct node *parent, struct text name)
{
    uint64_t value = (uint64_t)(uintptr_t)parent;
    for (size_t i = 0; i < name.size; i++)
        value = (value ^ (unsigned char)name.data[i]) * 0x100000001b3u;
    return mix(value);
}

struct text text_of_name(const struct name *name)
{
    return (struct text){name->bytes, name->size};
}

/* Without memory for larger tables the chains get longer. The first ones must be had. */
static int names_grow(void)
{
    if (name_count < name_buckets)
        return 1;
    size_t buckets = name_buckets == 0 ? 1024 : name_buckets * 2;
    struct name **table = calloc(buckets, sizeof *table);
    if (table == NULL)
        return name_buckets > 0;
    for (size_t i = 0; i < name_buckets; i++)
        for (struct name *name = names[i], *next; name != NULL; name = next) {
            struct name **at = &table[name_hash(name->parent, text_of_name(name)) % buckets];
            next = name->chain;
            name->chain = *at;
            *at = name;
        }
    free(names);
    names = table;
    name_buckets = buckets;
    return 1;
}

static int inodes_grow(void)
{
    if (inode_count < inode_buckets)
        return 1;
    size_t buckets = inode_buckets == 0 ? 1024 : inode_buckets * 2;
    struct node **table = calloc(buckets, sizeof *table);
    if (table == NULL)
        return inode_buckets > 0;
    for (size_t i = 0; i < inode_buckets; i++)
        for (struct node *node = inodes[i], *next; node != NULL; node = next) {
            struct node **at = &table[mix(node->attr.ino) % buckets];
            next = node->chain;
            node->chain = *at;
            *at = node;
        }
    free(inodes);
    inodes = table;
    inode_buckets = buckets;
    return 1;
}

static struct name **name_place(struct node *parent, struct text name)
{
    struct name **at = &names[name_hash(parent, name) % name_buckets];
    while (*at != NULL && !((*at)->parent == parent && (*at)->size == name.size && memcmp((*at)->bytes, name.data, name.size) == 0))
        at = &(*at)->chain;
    return at;
}

struct name *name_find(struct node *parent, struct text name)
{
    return name_buckets == 0 ? NULL : *name_place(parent, name);
}

void node_ref(struct node *node)
{
    node->refs++;
}

static void forget_last(struct node *node)
{
    struct node *parent = node->was_in;
    free(node->was);
    node->was = NULL;
    node->was_in = NULL;
    if (parent != NULL)
        node_unref(parent);
}

static void keep_last(struct node *node, const struct name *name)
{
    if (!S_ISREG(node->attr.mode) || node->lookups == 0 || (node->was = malloc(name->size)) == NULL)
        return;
    memcpy(node->was, name->bytes, name->size);
    node->was_size = name->size;
    node->was_in = name->parent;
    node_ref(name->parent);
}

static void name_drop(struct name *name)
{
    struct node *parent = name->parent;
    if (name->node->names == name && name->next == NULL)
        keep_last(name->node, name);
    struct name **at = name_place(parent, text_of_name(name));
    *at = name->chain;
    name_count--;
    for (at = &name->node->names; *at != name; at = &(*at)->next)
        ;
    *at = name->next;
    *(name->sibling_before != NULL ? &name->sibling_before->sibling : &parent->children) = name->sibling;
    if (name->sibling != NULL)
        name->sibling->sibling_before = name->sibling_before;
    parent->child_count--;
    free(name);
    node_unref(parent);
}

static void node_free(struct node *node)
{
    struct node **at = &inodes[mix(node->attr.ino) % inode_buckets];
    while (*at != node)
        at = &(*at)->chain;
    *at = node->chain;
    inode_count--;
    node->refs++; /* not again from below */
    while (node->names != NULL) {
        node->names->parent->complete_until = 0; /* it has not gone, we only do not know it any more */
        node->names->parent->dropped++;
        name_drop(node->names);
    }
    forget_last(node);
    free(node);
}

static void node_check(struct node *node)
{
    if (node != &root && node->refs == 0 && node->lookups == 0)
        node_free(node);
}

void node_unref(struct node *node)
{
    node->refs--;
    node_check(node);
}

void node_forget(struct node *node, uint64_t count)
{
    node->lookups -= count < node->lookups ? count : node->lookups;
    node_check(node);
}

int node_add_name(struct node *node, struct node *parent, struct text bytes)
{
    struct name *name = malloc(sizeof *name + bytes.size);
    if (name == NULL || !names_grow()) {
        free(name);
        return -ENOMEM;
    }
    forget_last(node);
    name->node = node;
    name->parent = parent;
    name->told_ms = 0;
    name->seen_at = 0;
    name->named_at = 0;
    name->doubted_at = 0;
    name->size = bytes.size;
    memcpy(name->bytes, bytes.data, bytes.size);
    struct name **at = name_place(parent, bytes);
    if (*at != NULL) { /* the node there may have only this one */
        struct node *before = (*at)->node;
        node_ref(before);
        name_drop(*at);
        node_unref(before);
        at = name_place(parent, bytes);
    }
    name->chain = NULL;
    *at = name;
    name_count++;
    name->next = node->names;
    node->names = name;
    name->sibling = parent->children;
    name->sibling_before = NULL;
    if (name->sibling != NULL)
        name->sibling->sibling_before = name;
    parent->children = name;
    parent->child_count++;
    node_ref(parent);
    return 0;
}

void name_remove(struct node *parent, struct text bytes)
{
    struct name *name = name_find(parent, bytes);
    if (name == NULL)
        return;
    struct node *node = name->node;
    attr_spoil(node);
    if (node->attr.nlink > 0)
        node->attr.nlink--;
    node_ref(node);
    name_drop(name);
    node_unref(node);
}

void folder_doubt(struct node *folder)
{
    folder->complete_until = 0;
    folder->dropped++;
}

void name_doubt(struct node *parent, struct text bytes)
{
    folder_doubt(parent);
    name_remove(parent, bytes);
}

int name_doubted(const struct name *name)
{
    return name->doubted_at != 0 && name->named_at <= name->doubted_at;
}

void name_move(struct node *parent, struct text bytes, struct node *new_parent, struct text new_bytes)
{
    struct name *name = name_find(parent, bytes), *there = name_find(new_parent, new_bytes);
    if (name != NULL && there != NULL && name->node == there->node)
        return; /* two names of one file: rename(2) does nothing */
    name_remove(new_parent, new_bytes);
    if (name == NULL) {
        new_parent->complete_until = 0;
        return;
    }
    struct node *node = name->node;
    long long told_ms = name->told_ms;
    node_ref(node);
    attr_spoil(node);
    name_drop(name);
    /* Without memory it is a node without a name. */
    if (node_add_name(node, new_parent, new_bytes) == 0)
        node->names->told_ms = told_ms; /* the kernel takes that along */
    node_unref(node);
}

int attr_same_content(const struct attr *one, const struct attr *other)
{
    return one->ino == other->ino && one->size == other->size && one->mtime == other->mtime && one->mtime_ns == other->mtime_ns &&
           one->ctime == other->ctime && one->ctime_ns == other->ctime_ns;
}

/* A link that was made anew may have the number of the one before, and another target, which the kernel does not ask for again. */
static int same_file(const struct attr *one, const struct attr *other)
{
    if (one->ino != other->ino || ((one->mode ^ other->mode) & S_IFMT) != 0)
        return 0;
    return !S_ISLNK(one->mode) || (one->mtime == other->mtime && one->mtime_ns == other->mtime_ns && one->size == other->size);
}

/* A file with several names is one node, when there is no doubt that it is one: numbers of two disks may be equal. */
static struct node *by_content(const struct attr *attr)
{
    if (!S_ISREG(attr->mode) || attr->nlink < 2 || inode_buckets == 0)
        return NULL;
    for (struct node *node = inodes[mix(attr->ino) % inode_buckets]; node != NULL; node = node->chain)
        if (node->names != NULL && S_ISREG(node->attr.mode) && node->attr.nlink > 1 && attr_same_content(&node->attr, attr))
            return node;
    return NULL;
}

static struct node *node_new(const struct attr *attr)
{
    struct node *node = calloc(1, sizeof *node);
    if (node == NULL || !inodes_grow()) {
        free(node);
        return NULL;
    }
    node->attr = *attr;
    struct node **at = &inodes[mix(attr->ino) % inode_buckets];
    node->chain = *at;
    *at = node;
    inode_count++;
    return node;
}

struct node *node_named(struct node *parent, struct text bytes, const struct attr *attr)
{
    struct name *name = name_find(parent, bytes);
    if (name != NULL && same_file(&name->node->attr, attr)) {
        if (name->node->attr.at <= attr->at) /* else a later question has been answered already */
            name->node->attr = *attr;
        if (name->named_at < attr->at)
            name->named_at = attr->at;
        return name->node;
    }
    struct node *node = by_content(attr);
    int fresh = node == NULL;
    if (fresh && (node = node_new(attr)) == NULL)
        return NULL;
    node->attr = *attr;
    if (node_add_name(node, parent, bytes) != 0) {
        if (fresh)
            node_check(node);
        return NULL;
    }
    return node;
}

struct text node_path(struct node *node, struct text name, char *buffer, int *error)
{
    size_t at = LONGEST_PATH;
    const struct text none = {"", 0};
    *error = 0;
    for (struct text part = name;;) {
        if (part.size > 0) {
            if (at < part.size + 1) {
                *error = -ENAMETOOLONG;
                return none;
            }
            at -= part.size;
            memcpy(buffer + at, part.data, part.size);
            buffer[--at] = '/';
        }
        if (node == &root)
            break;
        if (node->names == NULL) {
            *error = -ESTALE;
            return none;
        }
        part = text_of_name(node->names);
        node = node->names->parent;
    }
    if (at == LONGEST_PATH)
        buffer[--at] = '/';
    return (struct text){buffer + at, LONGEST_PATH - at};
}

struct text node_last_path(struct node *node, char *buffer, int *error)
{
    if (node->names == NULL && node->was != NULL)
        return node_path(node->was_in, (struct text){node->was, node->was_size}, buffer, error);
    return node_path(node, (struct text){"", 0}, buffer, error);
}

void node_becomes(struct node *node, const struct attr *attr)
{
    struct node **at = &inodes[mix(node->attr.ino) % inode_buckets];
    while (*at != node)
        at = &(*at)->chain;
    *at = node->chain;
    node->attr = *attr;
    node->pages_known = 0;
    node->became = ++changes;
    at = &inodes[mix(attr->ino) % inode_buckets];
    node->chain = *at;
    *at = node;
}

void attr_spoil(struct node *node)
{
    node->attr.at = 0;
    node->version = ++changes;
}

void each_node(void (*visit)(struct node *node))
{
    visit(&root);
    for (size_t i = 0; i < inode_buckets; i++)
        for (struct node *node = inodes[i]; node != NULL; node = node->chain)
            visit(node);
}

void each_twin(const struct node *node, void (*visit)(struct node *node))
{
    for (struct node *other = inodes[mix(node->attr.ino) % inode_buckets]; other != NULL; other = other->chain)
        if (other != node && other->attr.ino == node->attr.ino)
            visit(other);
}

void each_name(void (*visit)(struct name *name))
{
    for (size_t i = 0; i < name_buckets; i++)
        for (struct name *name = names[i]; name != NULL; name = name->chain)
            visit(name);
}

struct node *node_at(struct text path)
{
    struct node *node = &root;
    const char *at = path.data, *end = path.data + path.size;
    while (node != NULL && at < end) {
        const char *slash = memchr(at, '/', (size_t)(end - at));
        struct text part = {at, (size_t)((slash != NULL ? slash : end) - at)};
        at += part.size + (slash != NULL);
        if (part.size == 0)
            continue;
        struct name *name = name_find(node, part);
        node = name != NULL ? name->node : NULL;
    }
    return node;
}

struct node *node_ghost(int is_folder)
{
    static uint64_t number = UINT64_C(1) << 62;
    struct attr attr = {.ino = ++number, .mode = is_folder ? S_IFDIR | 0755 : S_IFREG | 0644, .nlink = 1};
    struct node *node = node_new(&attr);
    if (node != NULL) {
        node->ghost = 1;
        node->lookups = 1;
    }
    return node;
}
