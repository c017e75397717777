/*
 * Listings. A page of one is what came in one answer: names with attributes. The next is asked for when the last is begun; of
 * those behind the reader only a few are kept.
 */
#include "share.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PAGE_BYTES 200000u
#define PAGES_KEPT 3
#define DOTS 2 /* "." and ".." come first */

struct entry {
    struct attr attr;
    struct text name;
};

struct page {
    struct page *next;
    uint64_t first; /* index of its first entry */
    long long asked;
    uint64_t version; /* changes that it can have seen */
    struct entry *entries;
    uint32_t count;
    char *names; /* what the entries point to */
};

struct listing {
    struct node *node;
    unsigned refs, epoch;
    struct page *pages; /* ascending */
    uint64_t end; /* index behind the last page */
    int started, asking, complete, told, error;
    int opening; /* the kernel waits for its first page to have it open */
    long long began; /* when it was asked for */
    unsigned dropped; /* of the folder, then */
    uint64_t version;
    uint64_t told_nodes, told_watched, told_folders; /* entries that have become nodes */
    unsigned generation; /* counts rewinds */
    size_t size;
    char handle[LONGEST_HANDLE];
    struct held_list held;
};

static void page_free(struct page *page)
{
    free(page->entries);
    free(page->names);
    free(page);
}

static void ignored(struct op *op, struct answer *answer)
{
    (void)op;
    (void)answer;
}

static void close_handle(unsigned epoch, struct text handle)
{
    struct out *out = handle.size > 0 && epoch == link_epoch ? link_ask(SFTP_CLOSE) : NULL;
    if (out == NULL)
        return;
    put_text(out, handle);
    link_send(NULL, ignored, LAZY);
}

/* The kernel has all of it, and is told when that changes. */
static int is_known(const struct node *folder)
{
    return folder->complete_until > now_ms() + GOOD_MS;
}

/* As if it had just been opened. */
static void rewind_listing(struct listing *listing)
{
    while (listing->pages != NULL) {
        struct page *page = listing->pages;
        listing->pages = page->next;
        page_free(page);
    }
    close_handle(listing->epoch, (struct text){listing->handle, listing->size});
    listing->size = 0;
    listing->end = DOTS;
    listing->told_nodes = listing->told_watched = listing->told_folders = 0;
    listing->started = listing->asking = listing->complete = listing->told = listing->error = 0;
    listing->generation++;
}

static void listing_unref(struct listing *listing)
{
    if (--listing->refs > 0)
        return;
    rewind_listing(listing);
    node_unref(listing->node);
    free(listing);
}

void on_releasedir(const struct fuse_in_header *in, const void *body, size_t size)
{
    const struct fuse_release_in *wanted = body;
    (void)size;
    (void)answer_error(in, 0);
    listing_unref((struct listing *)(uintptr_t)wanted->fh);
}

void on_fsyncdir(const struct fuse_in_header *in, const void *body, size_t size)
{
    (void)body;
    (void)size;
    (void)answer_error(in, 0);
}

/* ---- asking ---- */

static int name_allowed(struct text name)
{
    return name.size > 0 && memchr(name.data, '/', name.size) == NULL && memchr(name.data, '\0', name.size) == NULL &&
           !(name.size == 1 && name.data[0] == '.') && !(name.size == 2 && memcmp(name.data, "..", 2) == 0);
}

/* Fills the page with what was told; 0 when there is no memory. */
static int read_entries(struct answer *answer, struct page *page)
{
    struct in *in = &answer->body;
    size_t room = (size_t)(in->end - in->at);
    if (page->count > room / 100) /* less than what an entry takes */
        in->bad = 1;
    if (in->bad)
        return 1;
    page->names = malloc(room + 1);
    page->entries = calloc(page->count + 1u, sizeof *page->entries);
    if (page->names == NULL || page->entries == NULL)
        return 0;
    char *at = page->names;
    for (uint32_t i = 0; i < page->count && !in->bad; i++) {
        struct entry *entry = &page->entries[i];
        struct text name = get_text(in, LONGEST_NAME);
        get_attr(in, &entry->attr);
        entry->attr.at = answer->asked;
        if (!name_allowed(name))
            in->bad = 1;
        memcpy(at, name.data, name.size);
        entry->name = (struct text){at, name.size};
        at += name.size;
        if (answer->stale)
            entry->attr.watched = 0;
    }
    return 1;
}

static void append_page(struct listing *listing, struct page *page)
{
    struct page **at = &listing->pages;
    unsigned count = 0;
    for (; *at != NULL; at = &(*at)->next)
        count++;
    *at = page;
    listing->end += page->count;
    for (; count >= PAGES_KEPT; count--) {
        struct page *first = listing->pages;
        listing->pages = first->next;
        page_free(first);
    }
}

/* 0, or the error. */
static int take_page(struct listing *listing, struct answer *answer, uint64_t version)
{
    if (answer->error != 0)
        return answer->error;
    if (answer->is_status) {
        answer->body.bad = 1;
        return -EIO;
    }
    struct page *page = calloc(1, sizeof *page);
    if (page == NULL)
        return -ENOMEM;
    struct text handle = get_text(&answer->body, LONGEST_HANDLE);
    page->count = get_u32(&answer->body);
    page->first = listing->end;
    page->version = version;
    int done = read_entries(answer, page);
    if (!answer->body.bad) {
        listing->size = handle.size;
        memcpy(listing->handle, handle.data, handle.size);
        listing->complete = handle.size == 0;
        if (page->count == 0 && !listing->complete)
            answer->body.bad = 1; /* an empty page that is not the last would have us ask for ever */
    }
    if (answer->body.bad || !done) {
        page_free(page);
        return answer->body.bad ? -EIO : -ENOMEM;
    }
    append_page(listing, page);
    return 0;
}

/* A folder that cannot be read says so here: there are programs that take an error of the first READDIR for an empty folder. */
static void answer_opened(struct listing *listing, const struct fuse_in_header *in)
{
    struct fuse_open_out out = {.fh = (uint64_t)(uintptr_t)listing, .open_flags = FOPEN_CACHE_DIR};
    int error = listing->error;
    listing->opening = 0;
    /* The kernel's own list is good while all of it is known and watched; what the guest changes it sees itself. */
    if (is_known(listing->node))
        out.open_flags |= FOPEN_KEEP_CACHE;
    if (error != 0)
        (void)answer_error(in, error);
    else
        error = answer_data(in, &out, sizeof out);
    if (error != 0)
        listing_unref(listing);
}

static void listed(struct op *op, struct answer *answer)
{
    struct listing *listing = op->listing;
    if (op->flags == listing->generation) {
        listing->asking = 0;
        listing->error = take_page(listing, answer, op->version);
        if (listing->opening)
            answer_opened(listing, &op->in);
        release_all(&listing->held);
    } else if (answer->error == 0 && !answer->is_status)
        close_handle(listing->epoch, get_text(&answer->body, LONGEST_HANDLE)); /* the reader has begun anew */
    listing_unref(listing);
    op_free(op);
}

/* For the next page; the op belongs to no request. */
static void ask_page(struct listing *listing, const struct fuse_in_header *in)
{
    char room[LONGEST_PATH];
    struct text path = {"", 0};
    int error = 0;
    if (!listing->started)
        path = node_path(listing->node, path, room, &error);
    else if (listing->epoch != link_epoch)
        error = -EIO;
    struct op *op = calloc(1, sizeof *op);
    struct out *out = error == 0 && op != NULL ? link_ask_extended("list@wherry") : NULL;
    if (out == NULL) {
        listing->error = error != 0 ? (error == -ESTALE ? -ENOENT : error) : -EIO;
        free(op);
        return;
    }
    op->in = *in;
    op->node = listing->node;
    node_ref(op->node);
    op->listing = listing;
    listing->refs++;
    op->flags = listing->generation;
    op->version = changes;
    if (!listing->started) {
        listing->began = now_ms();
        listing->dropped = listing->node->dropped;
        listing->version = changes;
    }
    put_text(out, path);
    put_text(out, (struct text){listing->handle, listing->size});
    put_u32(out, PAGE_BYTES);
    listing->size = 0;
    listing->epoch = link_epoch;
    listing->started = listing->asking = 1;
    link_send(op, listed, URGENT);
}

void on_opendir(const struct fuse_in_header *in, const void *body, size_t size)
{
    struct listing *listing = calloc(1, sizeof *listing);
    (void)body;
    (void)size;
    if (listing == NULL) {
        (void)answer_error(in, -ENOMEM);
        return;
    }
    listing->node = node_of(in->nodeid);
    node_ref(listing->node);
    listing->refs = 1;
    listing->end = DOTS;
    listing->opening = 1;
    if (!is_known(listing->node))
        ask_page(listing, in);
    if (!listing->asking)
        answer_opened(listing, in);
}

/* ---- looking at all of a folder, for one who looks at many names of it (git status, make) ---- */

#define LOOKS_BEFORE 4u
#define NAMES_FOR_A_LOOK 64u
#define LOOKS_FOR_A_PAGE 16u /* beyond the first one */
/* Nodes that the kernel has not asked for yet. */
#define MOST_CACHED 8192

static struct node *cached[MOST_CACHED];
static size_t cached_at;

static void cache_node(struct node *node)
{
    struct node **place = &cached[cached_at++ % MOST_CACHED];
    struct node *before = *place;
    *place = node;
    node_ref(node);
    if (before != NULL)
        node_unref(before);
}

/* 0: it may have been changed by the guest meanwhile. */
static int take_entry(struct node *folder, const struct page *page, const struct entry *entry)
{
    struct name *known = name_find(folder, entry->name);
    if (known != NULL && (known->node->version > page->version || known->node->acked > page->version || known->node->unacked_count > 0))
        return 0;
    struct node *node = node_named(folder, entry->name, &entry->attr);
    if (node == NULL)
        return 0;
    node->owner_at = entry->attr.at;
    if (node->lookups == 0)
        cache_node(node);
    if ((known = name_find(folder, entry->name)) != NULL)
        known->seen_at = entry->attr.at;
    return 1;
}

static void take_again(struct node *folder, const struct page *page, int last)
{
    uint32_t taken = 0;
    if (folder->version > page->version)
        return;
    for (uint32_t i = 0; i < page->count; i++)
        taken += take_entry(folder, page, &page->entries[i]) != 0;
    /* All of it in one page: other names are not there. */
    if (last && page->first == 0 && taken == page->count)
        folder->complete_until = page->asked + GOOD_MS;
}

static void looked_again(struct op *op, struct answer *answer);

static int ask_again(struct node *folder, struct text handle, unsigned pages, unsigned looks)
{
    char room[LONGEST_PATH];
    int error = 0;
    struct text path = {"", 0};
    if (handle.size == 0)
        path = node_path(folder, path, room, &error);
    struct op *op = error == 0 ? calloc(1, sizeof *op) : NULL;
    struct out *out = op != NULL ? link_ask_extended("list@wherry") : NULL;
    if (out == NULL) {
        free(op);
        return 0;
    }
    op->node = folder;
    node_ref(folder);
    op->version = changes;
    op->offset = pages;
    op->flags = looks;
    folder->looking_again = 1;
    put_text(out, path);
    put_text(out, handle);
    put_u32(out, PAGE_BYTES);
    link_send(op, looked_again, URGENT);
    return 1;
}

static void looked_again(struct op *op, struct answer *answer)
{
    struct page *page = answer->error == 0 ? calloc(1, sizeof *page) : NULL;
    struct text handle = {"", 0};
    struct node *folder = op->node;
    folder->looking_again = 0;
    if (answer->error == 0 && answer->is_status)
        answer->body.bad = 1;
    if (page != NULL && !answer->body.bad) {
        handle = get_text(&answer->body, LONGEST_HANDLE);
        page->count = get_u32(&answer->body);
        page->version = op->version;
        if (!read_entries(answer, page) || answer->body.bad)
            handle.size = page->count = 0;
        else {
            page->first = op->offset;
            page->asked = answer->asked;
            take_again(folder, page, handle.size == 0);
        }
        if (handle.size > 0 && page->count > 0 && op->offset < op->flags / LOOKS_FOR_A_PAGE)
            (void)ask_again(folder, handle, (unsigned)op->offset + 1, op->flags);
        else
            close_handle(link_epoch, handle);
    }
    if (page != NULL)
        page_free(page);
    release_all(&folder->again_held);
    op_free(op);
}

int look_again(struct node *folder, const struct fuse_in_header *in)
{
    if (folder->looking_again) {
        hold(&folder->again_held, in);
        return 1;
    }
    long long now = now_ms();
    if (now - folder->looks_since > GOOD_MS) {
        folder->looks_since = now;
        folder->looks = 0;
    }
    if (++folder->looks < LOOKS_BEFORE || folder->child_count > (size_t)folder->looks * NAMES_FOR_A_LOOK)
        return 0;
    if (!ask_again(folder, (struct text){"", 0}, 0, folder->looks))
        return 0;
    folder->looks = 0;
    hold(&folder->again_held, in);
    return 1;
}

/* ---- telling ---- */

struct filling {
    const struct fuse_in_header *in;
    struct listing *listing;
    unsigned char *data;
    size_t size, room;
    int plus;
};

/* Nothing has happened to it by the guest since it was listed, so that it is still as listed. */
static int still_so(const struct filling *filling, const struct page *page, const struct entry *entry)
{
    struct node *folder = filling->listing->node;
    struct name *known = name_find(folder, entry->name);
    if (folder->version > page->version || good_for(&entry->attr) <= 0)
        return 0;
    if (known == NULL)
        return 1;
    const struct node *node = known->node;
    return node->version <= page->version && node->acked <= page->version && node->unacked_count == 0;
}

static void tell_node(struct filling *filling, const struct page *page, const struct entry *entry, struct fuse_entry_out *out)
{
    if (page == NULL || !still_so(filling, page, entry))
        return;
    struct node *node = node_named(filling->listing->node, entry->name, &entry->attr);
    if (node == NULL)
        return;
    fill_entry(out, node, filling->listing->node, entry->name);
    node->owner_at = entry->attr.at;
    node->lookups++;
    filling->listing->told_nodes++;
    filling->listing->told_watched += entry->attr.watched != 0;
    filling->listing->told_folders += S_ISDIR(entry->attr.mode) && !entry->attr.watched;
}

/* 0: no room. */
static int tell(struct filling *filling, const struct page *page, const struct entry *entry, uint64_t index)
{
    size_t head = filling->plus ? sizeof(struct fuse_entry_out) : 0;
    size_t size = FUSE_DIRENT_ALIGN(head + FUSE_NAME_OFFSET + entry->name.size);
    if (filling->room - filling->size < size)
        return 0;
    unsigned char *at = filling->data + filling->size;
    struct fuse_dirent dirent = {
        .ino = entry->attr.ino,
        .off = index + 1,
        .namelen = (uint32_t)entry->name.size,
        .type = (entry->attr.mode & S_IFMT) >> 12,
    };
    memset(at, 0, size);
    if (filling->plus) {
        struct fuse_entry_out out = {0};
        tell_node(filling, page, entry, &out);
        memcpy(at, &out, sizeof out);
    }
    memcpy(at + head, &dirent, FUSE_NAME_OFFSET);
    memcpy(at + head + FUSE_NAME_OFFSET, entry->name.data, entry->name.size);
    filling->size += size;
    return 1;
}

static int tell_dots(struct filling *filling, uint64_t *index)
{
    struct node *node = filling->listing->node;
    struct node *above = node->names != NULL ? node->names->parent : node;
    struct entry here = {.attr = node->attr, .name = {".", 1}}, up = {.attr = above->attr, .name = {"..", 2}};
    if (*index == 0 && tell(filling, NULL, &here, 0))
        *index = 1;
    if (*index == 1 && tell(filling, NULL, &up, 1))
        *index = 2;
    return *index >= DOTS;
}

/* The kernel has not heard of these after all. */
static void forget_told(const struct filling *filling)
{
    for (size_t at = 0; filling->plus && at < filling->size;) {
        struct fuse_entry_out out;
        struct fuse_dirent dirent;
        memcpy(&out, filling->data + at, sizeof out);
        memcpy(&dirent, filling->data + at + sizeof out, FUSE_NAME_OFFSET);
        if (out.nodeid != 0)
            node_forget(node_of(out.nodeid), 1);
        at += FUSE_DIRENT_ALIGN(sizeof out + FUSE_NAME_OFFSET + dirent.namelen);
    }
}

/* The kernel knows all that is in it: other names need not be asked for. */
static void folder_complete(const struct listing *listing)
{
    uint64_t entries = listing->end - DOTS;
    const struct node *node = listing->node;
    if (listing->told_nodes != entries || listing->dropped != node->dropped || node->version > listing->version)
        return;
    /* Folders in it change without an event of this one, but not their names. */
    int watched = listing->told_watched > 0 && listing->told_watched + listing->told_folders == entries && may_expire;
    listing->node->complete_until = listing->began + (watched ? GOOD_WATCHED_MS : GOOD_MS);
}

static void fill_and_answer(struct filling *filling, uint64_t index)
{
    struct listing *listing = filling->listing;
    int room = tell_dots(filling, &index);
    struct page *page = listing->pages;
    while (page != NULL && index >= page->first + page->count)
        page = page->next;
    for (; room && page != NULL; page = page->next)
        for (; room && index < page->first + page->count; index += room ? 1 : 0)
            room = tell(filling, page, &page->entries[index - page->first], index);
    listing->told = 1;
    if (listing->complete && index >= listing->end)
        folder_complete(listing);
    if (answer_data(filling->in, filling->data, filling->size) != 0)
        forget_told(filling);
}

/* The reader is in the last page that has come. */
static int last_begun(const struct listing *listing, uint64_t index)
{
    const struct page *last = listing->pages;
    while (last->next != NULL)
        last = last->next;
    return index >= last->first;
}

static void read_listing(const struct fuse_in_header *in, const struct fuse_read_in *wanted, int plus)
{
    struct listing *listing = (struct listing *)(uintptr_t)wanted->fh;
    uint64_t index = wanted->offset;
    if ((index == 0 && listing->told) || (listing->pages != NULL && index >= DOTS && index < listing->pages->first))
        rewind_listing(listing); /* what is behind was let go */
    int there = listing->pages != NULL && index < listing->end;
    if (!there && listing->error != 0) {
        (void)answer_error(in, listing->error);
        listing->error = 0;
        return;
    }
    if (!there && !listing->complete) {
        if (!listing->asking)
            ask_page(listing, in);
        if (listing->asking)
            hold(&listing->held, in);
        else
            (void)answer_error(in, listing->error);
        return;
    }
    struct filling filling = {.in = in, .listing = listing, .plus = plus, .room = wanted->size < 1u << 20 ? wanted->size : 1u << 20};
    filling.data = malloc(filling.room);
    if (filling.data == NULL) {
        (void)answer_error(in, -ENOMEM);
        return;
    }
    fill_and_answer(&filling, index);
    free(filling.data);
    if (listing->pages != NULL && last_begun(listing, index) && !listing->complete && !listing->asking && listing->error == 0)
        ask_page(listing, in);
}

void on_readdir(const struct fuse_in_header *in, const void *body, size_t size)
{
    (void)size;
    read_listing(in, body, 0);
}

void on_readdirplus(const struct fuse_in_header *in, const void *body, size_t size)
{
    (void)size;
    read_listing(in, body, 1);
}
