/* Changes that were made on this computer: what the kernel believes of them is doubted, and those who watch are told. */
#include "share.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* With so many replays waiting the next ones are told as changes of their folders, and with twice as many not at all. */
#define MOST_REPLAYS 2000
#define LEAST_EVENT 10 /* bytes */

struct event {
    enum event_kind kind;
    int is_folder;
    struct text path, path2;
};

struct place {
    struct node *parent; /* NULL: the kernel does not know the folder, so that nobody can watch it */
    struct text name;
};

static struct place place_of(struct text path)
{
    struct place place = {NULL, {"", 0}};
    size_t slash = path.size;
    while (slash > 0 && path.data[slash - 1] != '/')
        slash--;
    place.name = (struct text){path.data + slash, path.size - slash};
    if (slash > 0 && place.name.size > 0 && place.name.size <= LONGEST_NAME)
        place.parent = node_at((struct text){path.data, slash});
    return place;
}

static struct node *node_in(const struct place *place)
{
    struct name *name = place->parent != NULL ? name_find(place->parent, place->name) : NULL;
    return name != NULL ? name->node : NULL;
}

static void doubt_attributes(struct node *node, int offset)
{
    notice_inode(node, offset);
    node->told_watched = 0;
    node->complete_until = 0;
    node->owner_at = 0;
    if (offset == AND_PAGES)
        node->pages_known = 0;
    attr_spoil(node);
}

/* The name, what it stands for, and the folder, whose time and list have changed. */
static void doubt_name(const struct place *place)
{
    struct name *name = name_find(place->parent, place->name);
    notice_entry(place->parent, place->name);
    if (name != NULL) {
        name->told_ms = 0;
        name->doubted_at = now_ms();
        doubt_attributes(name->node, AND_PAGES);
    }
    doubt_attributes(place->parent, AND_PAGES);
}

static void tell_folder(struct node *folder)
{
    if (folder->folder_pending || notice_replays() > 2 * MOST_REPLAYS)
        return;
    struct replay *replay = replay_new(FOLDER, 1, folder, (struct text){"", 0});
    if (replay == NULL)
        return;
    folder->folder_pending = 1;
    notice_replay(replay);
}

/* A folder that is known already need not be made once more: something may be mounted in it. */
static int already_known(enum event_kind kind, const struct place *place)
{
    const struct node *node = node_in(place);
    return kind == CREATED && node != NULL && S_ISDIR(node->attr.mode);
}

static void tell(enum event_kind kind, int is_folder, const struct place *place)
{
    if (notice_replays() > MOST_REPLAYS || already_known(kind, place)) {
        tell_folder(place->parent);
        return;
    }
    struct replay *replay = replay_new(kind, is_folder, place->parent, place->name);
    if (replay != NULL)
        notice_replay(replay);
}

static void on_changed_name(const struct event *event)
{
    struct place place = place_of(event->path);
    if (place.parent == NULL)
        return;
    doubt_name(&place);
    tell(event->kind, event->is_folder, &place);
    notice_entry(place.parent, place.name); /* what the replay has left of it */
}

static void on_renamed(const struct event *event)
{
    struct place old = place_of(event->path), new = place_of(event->path2);
    if (old.parent != NULL)
        doubt_name(&old);
    if (new.parent != NULL)
        doubt_name(&new);
    if (old.parent == NULL || new.parent == NULL) {
        if (old.parent != NULL)
            tell(DELETED, event->is_folder, &old);
        if (new.parent != NULL)
            tell(CREATED, event->is_folder, &new);
    } else if (notice_replays() > MOST_REPLAYS) {
        tell_folder(old.parent);
        tell_folder(new.parent);
    } else {
        struct replay *replay = replay_new(RENAMED, event->is_folder, old.parent, old.name);
        if (replay != NULL && replay_set_second(replay, new.parent, new.name) == 0)
            notice_replay(replay);
        else if (replay != NULL)
            replay_free(replay);
    }
    if (old.parent != NULL)
        notice_entry(old.parent, old.name);
    if (new.parent != NULL)
        notice_entry(new.parent, new.name);
}

static void on_changed_file(const struct event *event)
{
    struct place place = place_of(event->path);
    struct node *node = node_in(&place);
    if (node != NULL)
        doubt_attributes(node, event->kind == MODIFIED ? AND_PAGES : ONLY_ATTRIBUTES);
    if (place.parent != NULL)
        tell(event->kind, event->is_folder, &place);
}

static void tell_known_folder(struct node *node)
{
    if (S_ISDIR(node->attr.mode) && node->lookups > 0 && notice_replays() <= MOST_REPLAYS)
        tell_folder(node);
}

/* All of the share, whatever part was named: it is rare, and only costs questions. */
static void on_lost(void)
{
    notice_everything();
    each_node(tell_known_folder);
}

static void on_event(const struct event *event)
{
    switch (event->kind) {
    case CREATED:
    case DELETED:
        on_changed_name(event);
        return;
    case RENAMED:
        on_renamed(event);
        return;
    case MODIFIED:
    case ATTRIBUTES:
        on_changed_file(event);
        return;
    case LOST:
        on_lost();
        return;
    default:
        return; /* of a later server */
    }
}

static int read_event(struct in *in, struct event *event)
{
    event->kind = get_byte(in);
    event->is_folder = get_byte(in) != 0;
    event->path = get_text(in, LONGEST_PATH);
    event->path2 = get_text(in, LONGEST_PATH);
    if (event->path.size == 0 || event->path.data[0] != '/' || memchr(event->path.data, '\0', event->path.size) != NULL ||
        memchr(event->path2.data, '\0', event->path2.size) != NULL)
        in->bad = 1;
    return !in->bad;
}

static void on_events(struct op *op, struct answer *answer)
{
    struct event event;
    (void)op;
    if (answer->error != 0 || answer->is_status)
        return; /* there are none on this connection */
    link_events_seen++;
    uint32_t count = get_u32(&answer->body);
    if (count > LONGEST_PACKET / LEAST_EVENT)
        answer->body.bad = 1;
    while (count-- > 0 && read_event(&answer->body, &event))
        on_event(&event);
    if (!answer->body.bad)
        events_ask();
}

void events_ask(void)
{
    if (link_ask_extended("events@wherry") != NULL)
        link_send(NULL, on_events, QUIET);
}
