/*
 * The parts of share, the guest's file system for a folder of the user's computer. provisioning/shares.md is what it says to the
 * keeper's server; linux/fuse.h what it says to the kernel. One thread asks and answers; the notices to the kernel, and the
 * replay of events, have threads of their own.
 */
#ifndef WHERRY_SHARE_H
#define WHERRY_SHARE_H

#include <linux/fuse.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LONGEST_DATA 262144u
#define LONGEST_PACKET (LONGEST_DATA + 1024u)
#define LONGEST_PATH 4096u
#define LONGEST_NAME 255u
#define LONGEST_HANDLE 256u
#define WHOLE_FILE 65536u /* as much of a file comes with its open */

/* An answer is good for a second, of which a part is spent on its way. */
#define GOOD_MS 900
#define GOOD_WATCHED_MS 3600000

/* Errors are told as negative numbers inside, and as the kernel wants them by answer_error. */

/* ---- share_wire.c: numbers and bytes of packets ---- */

struct text {
    const char *data;
    size_t size;
};

/* What is being written. A failed one (no memory) takes everything and is never sent. */
struct out {
    unsigned char *data;
    size_t size, room;
    int failed;
};

/* What is being read: of a bad one everything is zero and empty. */
struct in {
    const unsigned char *at, *end;
    int bad;
};

struct attr {
    uint64_t ino, size, blocks;
    uint32_t mode, uid, gid, nlink;
    int64_t atime, mtime, ctime;
    uint32_t atime_ns, mtime_ns, ctime_ns;
    int watched;
    long long at; /* when it was told, in ms; 0: no longer true */
};

/* What a setstat asks for. */
struct change {
    unsigned valid; /* FATTR_ bits */
    uint64_t size;
    uint32_t mode, uid, gid;
    int64_t atime, mtime;
    uint32_t atime_ns, mtime_ns;
};

struct text text_of(const char *string);
int out_room(struct out *out, size_t size);
void put_byte(struct out *out, uint8_t value);
void put_u32(struct out *out, uint32_t value);
void put_u64(struct out *out, uint64_t value);
void put_bytes(struct out *out, const void *data, size_t size);
void put_text(struct out *out, struct text text);
void put_no_attr(struct out *out);
void put_mode(struct out *out, uint32_t mode);
void put_change(struct out *out, const struct change *change);
uint8_t get_byte(struct in *in);
uint32_t get_u32(struct in *in);
uint64_t get_u64(struct in *in);
struct text get_text(struct in *in, size_t longest);
/* Bad unless the server has told all that a file system needs. */
void get_attr(struct in *in, struct attr *attr);

/* ---- share_node.c: what the kernel knows, and by which names ---- */

struct node;
struct handle;
struct op;

/* A request of the kernel that waits for something, as it came. */
struct held {
    struct held *next;
    long long since;
    size_t size;
    unsigned char message[];
};

struct held_list {
    struct held *first, **end;
};

struct name {
    struct node *parent, *node;
    struct name *next; /* of the same node */
    struct name *chain; /* of the same hash */
    struct name *sibling, *sibling_before; /* of the same folder, told earlier and later */
    long long told_ms; /* how long the kernel may believe it, as last told; more than GOOD_MS: a watched one */
    long long seen_at; /* in a list, when it was last */
    long long named_at; /* when the server last said what it stands for */
    long long doubted_at; /* when an event last said otherwise; 0: none has */
    size_t size;
    char bytes[];
};

struct node {
    uint64_t lookups; /* as the kernel counts them */
    unsigned refs; /* names below, handles, requests under way */
    struct name *names; /* none: it was deleted, or replaced */
    struct name *children;
    size_t child_count;
    unsigned looks; /* of a folder: names in it that were looked at one by one of late */
    long long looks_since;
    int looking_again; /* all of it is being looked at */
    struct held_list again_held; /* until it has been */
    struct node *was_in; /* of a file that has lost its last name: referenced */
    char *was; /* and that name */
    size_t was_size;
    struct node *chain; /* of the same hash of ino */
    struct attr attr; /* as last told */
    uint64_t version; /* of its last change by the guest */
    uint64_t became; /* changes when it last became another file */
    uint64_t acked; /* changes when the last write was acknowledged */
    long long owner_at; /* when mode and owner were told, 0: they are being changed */
    long long complete_until; /* of a folder: all its names are known till then */
    unsigned dropped; /* of a folder: counts names that the kernel has forgotten */
    struct handle *handles;
    size_t unacked, unacked_count; /* writes that have been answered or sent, and not acknowledged */
    struct held_list held; /* until they are */
    uint64_t shown_size; /* as the kernel was last told, as is the time of the last change */
    int64_t shown_mtime;
    uint32_t shown_mtime_ns;
    int told_watched; /* the kernel believes its attributes for long */
    struct handle *ahead; /* opened before anybody asked, with its content */
    int ahead_asked;
    struct held_list ahead_held; /* until it has come */
    const struct node *last_opened; /* of a folder: only to compare with */
    unsigned run; /* of a folder: how many have been opened one after another as they were listed */
    int ghost; /* only for a replay: no file of the server */
    int folder_pending; /* a replay that tells its watchers is on its way */
    struct attr pages; /* what the kernel's pages of it show */
    int pages_known;
};

extern struct node root;
extern uint64_t changes; /* by the guest, counted */

struct node *node_of(uint64_t id);
uint64_t id_of(const struct node *node);
void node_ref(struct node *node);
void node_unref(struct node *node);
void node_forget(struct node *node, uint64_t count);
struct text text_of_name(const struct name *name);
struct name *name_find(struct node *parent, struct text name);
/* The node of what is called NAME now; the one before, if it was another file, loses the name. NULL: no memory. */
struct node *node_named(struct node *parent, struct text name, const struct attr *attr);
/* One more name of a node that is known. */
int node_add_name(struct node *node, struct node *parent, struct text name);
void name_remove(struct node *parent, struct text name);
/* Not all names in it are known: others are asked for, whatever list there was. */
void folder_doubt(struct node *folder);
/* What it stands for is not known, and it may be there all the same. */
void name_doubt(struct node *parent, struct text name);
/* An event has come, and nothing was asked since of what stands for it. */
int name_doubted(const struct name *name);
void name_move(struct node *parent, struct text name, struct node *new_parent, struct text new_name);
/* The path of it, or of NAME in it, in a buffer of LONGEST_PATH; its size, or a negative error: it has no name, or too long a one. */
struct text node_path(struct node *node, struct text name, char *buffer, int *error);
/* The same of a file that has no name any more: its last one. */
struct text node_last_path(struct node *node, char *buffer, int *error);
/* The node stands for another file by now. */
void node_becomes(struct node *node, const struct attr *attr);
void attr_spoil(struct node *node);
int attr_same_content(const struct attr *one, const struct attr *other);
void each_node(void (*visit)(struct node *node));
/* Other nodes with the same number: a file that has lost its name in the guest, and was found by that again. */
void each_twin(const struct node *node, void (*visit)(struct node *node));
void each_name(void (*visit)(struct name *name));
/* Of a path that the kernel may know; NULL when it does not. */
struct node *node_at(struct text path);
/* With one lookup: what the kernel is told of by a replay alone. */
struct node *node_ghost(int is_folder);

/* ---- share_link.c: the connection ---- */

enum {
    SFTP_INIT = 1, SFTP_VERSION, SFTP_OPEN, SFTP_CLOSE, SFTP_READ, SFTP_WRITE, SFTP_LSTAT, SFTP_FSTAT, SFTP_SETSTAT, SFTP_FSETSTAT,
    SFTP_OPENDIR, SFTP_READDIR, SFTP_REMOVE, SFTP_MKDIR, SFTP_RMDIR, SFTP_REALPATH, SFTP_STAT, SFTP_RENAME, SFTP_READLINK,
    SFTP_SYMLINK, SFTP_STATUS = 101, SFTP_HANDLE, SFTP_DATA, SFTP_NAME, SFTP_ATTRS, SFTP_EXTENDED = 200, SFTP_EXTENDED_REPLY
};

/* What has come, or that nothing will. Who is given one reads its body, and marks it bad when it is no answer to what was asked. */
struct answer {
    int error; /* negative; 0 for OK and for what is no STATUS */
    int watched; /* of a STATUS */
    int eof;
    int is_status;
    int stale; /* events have come since it was asked: nothing in it is watched */
    long long asked; /* as of when it is true, in ms */
    struct in body;
};

typedef void answered(struct op *op, struct answer *answer);

extern unsigned link_epoch; /* counts connections */
extern unsigned link_events_seen; /* counts answers to events@wherry */
extern unsigned long long link_asked; /* requests, for those who count */

int link_listen(const char *path);
int link_up(void);
/* Without a connection it is worth waiting for one. */
int link_awaited(void);
/* Begins a packet; NULL without a connection or memory. It is ended by link_send. */
struct out *link_ask(uint8_t type);
struct out *link_ask_extended(const char *name);
/* ANSWERED is called once, later. LAZY: it may wait for others. Answers to a QUIET one are not waited for by the clock. */
enum { URGENT = 0, LAZY = 1, QUIET = 2 };
void link_send(struct op *op, answered *then, unsigned how);
/* Somebody waits for what is lazy. */
void link_hurry(void);
/* At the end of a round. */
void link_flush(void);
void link_on_door(void);
void link_on_data(unsigned events);
/* What is due by the clock; milliseconds until the next time, or -1. */
int link_clock(void);
long long now_ms(void);
void loop_watch(int fd, unsigned events, int add);

/* ---- share_fuse.c: the kernel's side ---- */

/* A request under way. */
struct op {
    struct fuse_in_header in;
    struct node *node, *node2; /* referenced */
    struct handle *handle; /* referenced */
    answered *then;
    unsigned waiting; /* answers */
    int error;
    int stale;
    uint64_t version; /* changes that it can have seen */
    struct attr attr;
    int has_attr;
    uint64_t offset;
    uint32_t size, flags;
    size_t name_size, name2_size;
    char name[LONGEST_NAME + 1], name2[LONGEST_NAME + 1];
    unsigned char *data; /* owned */
    size_t data_size;
    struct listing *listing;
};

extern int fuse_fd;
extern int may_expire; /* the kernel can forget a name without letting go of what is mounted there */

struct op *op_new(const struct fuse_in_header *in, struct node *node);
void op_free(struct op *op);
struct text op_name(const struct op *op);
struct text op_name2(const struct op *op);
void op_set_name(struct op *op, struct text name);
void op_set_name2(struct op *op, struct text name);
void op_fail(struct op *op, int error); /* answers and frees */
/* 0, or an error when the kernel no longer wants it. */
int answer_error(const struct fuse_in_header *in, int error);
int answer_data(const struct fuse_in_header *in, const void *data, size_t size);
int answer_two(const struct fuse_in_header *in, const void *data, size_t size, const void *more, size_t more_size);
void answer_attr(const struct fuse_in_header *in, struct node *node);
/* Takes what the server has told as the node of the op's name, and tells the kernel. */
void answer_entry(struct op *op, const struct attr *attr);
/* Tells the kernel of a node, and of what was opened, if anything. */
int answer_node(const struct fuse_in_header *in, struct node *node, struct node *parent, struct text name, const struct fuse_open_out *open);
void fill_entry(struct fuse_entry_out *out, struct node *node, struct node *parent, struct text name);
void fill_attr(struct fuse_attr *out, struct node *node);
uint64_t set_validity(long long milliseconds, uint32_t *nanoseconds);
long long good_for(const struct attr *attr);

/* A descriptor of the root on a mount of its own, which may be written to, or -1. */
int fuse_mount_at(const char *id, const char *path, int read_only);
void fuse_on_requests(void);
void fuse_dispatch(const unsigned char *message, size_t size);
/* Keeps the request until the list is released. */
void hold(struct held_list *list, const struct fuse_in_header *in);
void release_all(struct held_list *list);
void fuse_link_up(void);
void fuse_link_lost(void);
void fuse_link_given_up(void);
/* Keeps a request that uses a path while a folder gets another one. */
int hold_for_folder(const struct fuse_in_header *in);
void folder_rename_begins(void);
void folder_rename_ends(void);

/* ---- share_notice.c: a thread of its own tells the kernel what it must forget: it may wait there for answers of ours ---- */

extern int notice_fd; /* readable when the thread has done something */
void notice_start(int root_fd);
void notice_entry(const struct node *parent, struct text name);
enum { ONLY_ATTRIBUTES = -1, AND_PAGES = 0 };
void notice_inode(const struct node *node, int offset);
/* Attributes alone, before this returns: it waits for nobody. */
void tell_attributes_gone(const struct node *node);
/* A name that is known not to be there, for long. */
void notice_absent(const struct node *parent, struct text name);
/* All that the kernel believes for long is asked again. */
void notice_everything(void);
struct replay;
void notice_replay(struct replay *replay);
unsigned notice_replays(void); /* that wait */
/* What the thread has done is let go of by the loop. */
void notice_on_done(void);

/* ---- share_replay.c: what happened on this computer, done once more for those who watch ---- */

enum event_kind { CREATED = 1, DELETED, RENAMED, MODIFIED, ATTRIBUTES, LOST, FOLDER };

struct replay {
    struct replay *next;
    enum event_kind kind;
    int is_folder;
    struct node *parent, *parent2; /* referenced */
    char *path, *path2; /* of the parents, without the leading slash */
    char name[LONGEST_NAME + 1], name2[LONGEST_NAME + 1];
};

struct replay *replay_new(enum event_kind kind, int is_folder, struct node *parent, struct text name);
int replay_set_second(struct replay *replay, struct node *parent, struct text name);
void replay_free(struct replay *replay);
/* In the thread. */
void replay_run(const struct replay *replay, int root_fd);
/* The answer to a request of the thread, which is doing REPLAY. */
void replay_answer(const struct replay *replay, const struct fuse_in_header *in, const void *body, size_t size);
/* The replay that a request belongs to, if it is one of the thread's. */
int notice_is_own(uint32_t pid, const struct replay **replay);

/* ---- share_events.c: what the server tells unasked ---- */

void events_ask(void);

/* ---- share_meta.c, share_file.c, share_dir.c: the requests. BODY has been found long enough for its structure. ---- */

typedef void handler(const struct fuse_in_header *in, const void *body, size_t size);
handler on_lookup, on_getattr, on_setattr, on_readlink, on_symlink, on_mknod, on_mkdir, on_unlink, on_rmdir, on_rename, on_rename2,
    on_link, on_statfs, on_open, on_create, on_read, on_write, on_flush, on_release, on_fsync, on_fallocate, on_opendir, on_readdir,
    on_readdirplus, on_releasedir, on_fsyncdir;

/* Answers what it can of a request for which there is no connection, with ERROR else. */
void answer_without_link(const struct fuse_in_header *in, const void *body, size_t size, int error);

/* A name in a folder, of which many were looked at: keeps the request until all of the folder has been; 0: to be asked alone. */
int look_again(struct node *folder, const struct fuse_in_header *in);

/* A file opened at the server. */
struct handle {
    struct node *node;
    struct handle *next; /* of the node */
    unsigned refs;
    unsigned epoch;
    size_t size; /* 0: the server has not been asked, since the kernel has the pages */
    char bytes[LONGEST_HANDLE];
    unsigned flags; /* as opened */
    int opening; /* one that the server has not been asked for yet is, now */
    unsigned unacked_count;
    int error; /* of a write that was answered before it was done */
    int written;
    int other; /* of the file that has the node's last name by now, and not of the node's */
    unsigned char *data; /* the whole file, as it came with its open */
    size_t data_size;
    long long data_at;
    uint64_t data_version;
    struct attr attr; /* what the data belongs to */
    unsigned place; /* in the list of those */
};

/* What open@wherry has told. */
struct opened {
    struct text handle, data;
    struct attr attr;
    int whole;
};

/* 0, or the error; what does not parse is marked bad. */
int read_opened(struct op *op, struct answer *answer, struct opened *opened);
struct handle *handle_new(struct node *node, struct text bytes, unsigned flags);
void open_waiting(struct node *node, const struct fuse_in_header *in);
int data_good(const struct handle *handle);
void keep_data(struct handle *handle, const struct opened *opened);
void close_at_server(struct text bytes);
struct fuse_open_out open_out(struct handle *handle, const struct attr *attr);
/* ---- share_ahead.c: small files that will be opened next ---- */

/* Answers a request to open the node for reading, or keeps it until it can be; 0: the server has to be asked. */
int ahead_open(struct node *node, const struct fuse_in_header *in);
/* The node has been opened for reading. */
void ahead_opened(struct node *node);
/* Nobody may find it open who wants to remove it. */
void ahead_drop(struct node *node);
/* As link_clock. */
int ahead_clock(void);

/* A handle by which the node can be asked for, or NULL. */
struct handle *any_handle(struct node *node);
void handle_unref(struct handle *handle);
int handle_lost(const struct handle *handle);
/* What was told of the node's present file; 0 when it is another file by now. What is older than the node's file is left. */
int attr_take(struct node *node, const struct attr *attr, const struct op *op);
int name_at(const void *body, size_t size, size_t offset, struct text *name);
void attr_of(struct answer *answer, struct attr *attr);
struct op *op_named(const struct fuse_in_header *in, const void *body, size_t size, size_t offset);
int path_for(struct op *op, struct node *node, struct text name, char *room, struct text *path);
/* The handle by which all writes go that are not done yet: what is asked by it comes behind them. */
struct handle *writing_handle(struct node *node);
/* Writes of it are not done yet: what came is kept until they are. */
int wait_for_writes(struct node *node, const struct fuse_in_header *in);

#endif
