/*
 * The thread that tells the kernel what it must not believe any more, and that replays events. Both may wait in the kernel for an
 * answer of the file system's, so the thread that gives answers cannot do them. All it has of the nodes are their ids.
 */
#define _GNU_SOURCE /* gettid */
#include "lib.h"
#include "share.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

/* Names that are known not to be there, which the kernel never says it has forgotten: the oldest is asked for again. */
#define MOST_ABSENT 32768

struct notice {
    struct notice *next;
    struct replay *replay; /* or one of those: */
    uint64_t id;
    int offset; /* of an inode's */
    uint32_t size; /* of the name; 0: an inode's */
    char name[];
};

struct absent {
    uint64_t parent;
    uint32_t size;
    char *name;
};

int notice_fd = -1;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static struct notice *first, **end = &first; /* locked */
static struct replay *done; /* locked */
static const struct replay *running; /* locked */
static uint32_t own_thread; /* locked; set before there is work */
static int own_root = -1;
static unsigned replays; /* the loop's */
static struct absent absent[MOST_ABSENT]; /* the loop's */
static size_t absent_at;

static void append(struct notice *notice)
{
    notice->next = NULL;
    pthread_mutex_lock(&lock);
    *end = notice;
    end = &notice->next;
    pthread_cond_signal(&more);
    pthread_mutex_unlock(&lock);
}

static void add(uint64_t id, int offset, struct text name)
{
    struct notice *notice = may_expire ? malloc(sizeof *notice + name.size + 1) : NULL;
    if (notice == NULL)
        return;
    notice->replay = NULL;
    notice->id = id;
    notice->offset = offset;
    notice->size = (uint32_t)name.size;
    memcpy(notice->name, name.data, name.size);
    notice->name[name.size] = '\0'; /* the kernel wants to see it */
    append(notice);
}

void notice_entry(const struct node *parent, struct text name)
{
    add(id_of(parent), 0, name);
}

void notice_inode(const struct node *node, int offset)
{
    add(id_of(node), offset, (struct text){"", 0});
}

void notice_absent(const struct node *parent, struct text name)
{
    struct absent *place = &absent[absent_at++ % MOST_ABSENT];
    if (place->name != NULL)
        add(place->parent, 0, (struct text){place->name, place->size});
    free(place->name);
    place->parent = id_of(parent);
    place->size = (uint32_t)name.size;
    place->name = malloc(name.size);
    if (place->name != NULL)
        memcpy(place->name, name.data, name.size);
    else
        add(place->parent, 0, name);
}

static void doubt_name(struct name *name)
{
    if (name->told_ms > GOOD_MS)
        notice_entry(name->parent, (struct text){name->bytes, name->size});
    name->told_ms = 0;
}

static void doubt_node(struct node *node)
{
    if (node->told_watched)
        notice_inode(node, ONLY_ATTRIBUTES);
    node->told_watched = 0;
    node->complete_until = 0;
    attr_spoil(node);
}

void notice_everything(void)
{
    each_name(doubt_name);
    each_node(doubt_node);
    for (size_t i = 0; i < MOST_ABSENT; i++) {
        if (absent[i].name != NULL)
            add(absent[i].parent, 0, (struct text){absent[i].name, absent[i].size});
        free(absent[i].name);
        absent[i].name = NULL;
    }
}

void notice_replay(struct replay *replay)
{
    struct notice *notice = own_root >= 0 ? calloc(1, sizeof *notice) : NULL;
    if (notice == NULL) {
        replay_free(replay);
        return;
    }
    notice->replay = replay;
    replays++;
    append(notice);
}

unsigned notice_replays(void)
{
    return replays;
}

void notice_on_done(void)
{
    uint64_t count;
    (void)!read(notice_fd, &count, sizeof count);
    pthread_mutex_lock(&lock);
    struct replay *replay = done;
    done = NULL;
    pthread_mutex_unlock(&lock);
    while (replay != NULL) {
        struct replay *next = replay->next;
        replays--;
        replay_free(replay);
        replay = next;
    }
}

int notice_is_own(uint32_t pid, const struct replay **replay)
{
    pthread_mutex_lock(&lock);
    int own = own_thread != 0 && pid == own_thread;
    *replay = running;
    pthread_mutex_unlock(&lock);
    return own;
}

/*
 * Attributes alone may be forgotten by the thread that gives answers: the kernel marks them (fuse_reverse_inval_inode of
 * fs/fuse/inode.c), and waits for pages only when it is to drop some. Only of a node for which it has a request under way: it would
 * wait for one that it is letting go of, which may wait for a page.
 */
void tell_attributes_gone(const struct node *node)
{
    struct fuse_out_header head = {.error = FUSE_NOTIFY_INVAL_INODE};
    struct fuse_notify_inval_inode_out inode = {.ino = id_of(node), .off = ONLY_ATTRIBUTES};
    struct iovec parts[2] = {{&head, sizeof head}, {&inode, sizeof inode}};
    head.len = sizeof head + sizeof inode;
    (void)!writev(fuse_fd, parts, 2); /* ENOENT: it knows nothing of it */
}

/* ---- in the thread ---- */

static void tell(const struct notice *notice)
{
    struct fuse_out_header head = {.error = notice->size > 0 ? FUSE_NOTIFY_INVAL_ENTRY : FUSE_NOTIFY_INVAL_INODE};
    struct fuse_notify_inval_entry_out entry = {.parent = notice->id, .namelen = notice->size, .flags = FUSE_EXPIRE_ONLY};
    struct fuse_notify_inval_inode_out inode = {.ino = notice->id, .off = notice->offset};
    struct iovec parts[3] = {{&head, sizeof head}, {&inode, sizeof inode}, {NULL, 0}};
    int count = 2;
    head.len = sizeof head + sizeof inode;
    if (notice->size > 0) {
        parts[1] = (struct iovec){&entry, sizeof entry};
        parts[2] = (struct iovec){(void *)(uintptr_t)notice->name, notice->size + 1};
        head.len = (uint32_t)(sizeof head + sizeof entry + notice->size + 1);
        count = 3;
    }
    (void)!writev(fuse_fd, parts, count); /* ENOENT: it knows nothing of it */
}

static void replay_one(struct replay *replay)
{
    const uint64_t one = 1;
    pthread_mutex_lock(&lock);
    running = replay;
    pthread_mutex_unlock(&lock);
    replay_run(replay, own_root);
    pthread_mutex_lock(&lock);
    running = NULL;
    replay->next = done;
    done = replay;
    pthread_mutex_unlock(&lock);
    (void)!write(notice_fd, &one, sizeof one);
}

static struct notice *next_notice(void)
{
    pthread_mutex_lock(&lock);
    while (first == NULL)
        pthread_cond_wait(&more, &lock);
    struct notice *notice = first;
    first = notice->next;
    if (first == NULL)
        end = &first;
    pthread_mutex_unlock(&lock);
    return notice;
}

static void *work(void *nothing)
{
    pthread_mutex_lock(&lock);
    own_thread = (uint32_t)gettid();
    pthread_mutex_unlock(&lock);
    for (;;) {
        struct notice *notice = next_notice();
        if (notice->replay != NULL)
            replay_one(notice->replay);
        else
            tell(notice);
        free(notice);
    }
    return nothing;
}

void notice_start(int root_fd)
{
    pthread_t thread;
    own_root = root_fd;
    notice_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (notice_fd < 0 || pthread_create(&thread, NULL, work, NULL) != 0)
        die(1, "share: no thread: %s", strerror(errno));
    pthread_detach(thread);
    loop_watch(notice_fd, EPOLLIN, 1);
}
