/*
 * The connection that the keeper makes. What is asked is gathered and sent at the end of each round of the loop, in one write.
 * Whatever does not parse ends the connection, and so does silence: the file system lives on.
 */
#define _GNU_SOURCE /* accept4 */
#include "lib.h"
#include "share.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PING_AFTER_MS 2000
#define DEAD_AFTER_MS 8000
#define FIRST_WAIT_MS 60000
#define LATER_WAIT_MS 8000
#define LAZY_MS 40
#define MOST_LAZY (64u << 10)
#define LEAST_GOOD_MS 200
#define MOST_ASKED 65536u
#define READ_ROOM (1u << 20)

/* One request: its number is its place, and how often the place was used. */
struct asked {
    answered *then;
    struct op *op;
    uint32_t id;
    uint32_t next_free;
    unsigned events_seen;
    long long at;
    int quiet;
};

unsigned link_epoch;
unsigned long long link_asked;

static int door = -1, line = -1;
static int up; /* VERSION has come */
static unsigned watched_for;
static struct out going;
static size_t going_at; /* sent already */
static size_t begun; /* the packet that is being written starts here */
static int is_urgent;
static long long lazy_since;
static unsigned char *coming;
static size_t coming_size;
static struct asked *table;
static uint32_t table_size, first_free;
static unsigned owed; /* answers that ought to come soon */
static long long heard, pinged, wait_until;
static int awaited = 1;
static int given_up_due;
unsigned link_events_seen;

long long now_ms(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    /* Never 0, which is "no longer true". */
    return (long long)at.tv_sec * 1000 + at.tv_nsec / 1000000 + 1;
}

int link_up(void)
{
    return up;
}

int link_awaited(void)
{
    return awaited;
}

static void watch_line(unsigned events)
{
    if (line >= 0 && events != watched_for)
        loop_watch(line, watched_for = events, 0);
}

/* All that was asked is answered: there will be no answer. */
static void forget_asked(void)
{
    struct asked *lost = table;
    uint32_t count = table_size;
    table = NULL;
    table_size = 0;
    first_free = 0;
    owed = 0;
    for (uint32_t i = 0; i < count; i++)
        if (lost[i].then != NULL) {
            struct answer none = {.error = -EIO, .body = {NULL, NULL, 1}};
            lost[i].then(lost[i].op, &none);
        }
    free(lost);
}

static void link_drop(void)
{
    if (line < 0)
        return;
    close(line);
    line = -1;
    if (up)
        wait_until = now_ms() + LATER_WAIT_MS;
    up = 0;
    link_epoch++;
    awaited = wait_until > now_ms();
    given_up_due = !awaited;
    going.size = going_at = 0;
    going.failed = 0;
    is_urgent = 0;
    lazy_since = 0;
    coming_size = 0;
    forget_asked();
    fuse_link_lost();
}

static struct asked *place_free(void)
{
    if (first_free >= table_size) {
        uint32_t size = table_size == 0 ? 256 : table_size * 2;
        struct asked *larger = size > MOST_ASKED ? NULL : realloc(table, size * sizeof *table);
        if (larger == NULL)
            return NULL;
        table = larger;
        for (uint32_t i = table_size; i < size; i++)
            table[i] = (struct asked){.id = i, .next_free = i + 1};
        table_size = size;
    }
    return &table[first_free];
}

static struct out *begin(uint8_t type)
{
    if (line < 0 || place_free() == NULL || !out_room(&going, 16)) {
        going.failed = 0;
        return NULL;
    }
    begun = going.size;
    put_u32(&going, 0);
    put_byte(&going, type);
    put_u32(&going, table[first_free].id);
    return &going;
}

struct out *link_ask(uint8_t type)
{
    return up ? begin(type) : NULL;
}

struct out *link_ask_extended(const char *name)
{
    struct out *out = link_ask(SFTP_EXTENDED);
    if (out != NULL)
        put_text(out, text_of(name));
    return out;
}

static void set_length(void)
{
    size_t size = going.size - begun - 4;
    unsigned char bytes[4] = {(unsigned char)(size >> 24), (unsigned char)(size >> 16), (unsigned char)(size >> 8), (unsigned char)size};
    memcpy(going.data + begun, bytes, sizeof bytes);
}

void link_send(struct op *op, answered *then, unsigned how)
{
    if (going.failed) {
        struct answer none = {.error = -ENOMEM, .body = {NULL, NULL, 1}};
        going.failed = 0;
        going.size = begun;
        then(op, &none);
        return;
    }
    set_length();
    struct asked *asked = &table[first_free];
    first_free = asked->next_free;
    asked->then = then;
    asked->op = op;
    asked->quiet = (how & QUIET) != 0;
    asked->events_seen = link_events_seen;
    asked->at = now_ms();
    link_asked++;
    if (!asked->quiet && owed++ == 0)
        heard = now_ms();
    if (!(how & LAZY))
        is_urgent = 1;
    else if (lazy_since == 0)
        lazy_since = now_ms();
}

void link_hurry(void)
{
    is_urgent |= going.size > going_at;
}

void link_flush(void)
{
    if (line < 0 || going.size == going_at)
        return;
    if (!is_urgent && lazy_since != 0 && going.size - going_at < MOST_LAZY && now_ms() - lazy_since < LAZY_MS)
        return;
    is_urgent = 0;
    lazy_since = 0;
    while (going_at < going.size) {
        ssize_t taken = send(line, going.data + going_at, going.size - going_at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (taken < 0 && errno == EINTR)
            continue;
        if (taken < 0 && errno != EAGAIN) {
            link_drop();
            return;
        }
        if (taken < 0) {
            is_urgent = 1;
            watch_line(EPOLLIN | EPOLLOUT);
            return;
        }
        going_at += (size_t)taken;
    }
    going.size = going_at = 0;
    if (going.room > 4u << 20) {
        free(going.data);
        going = (struct out){NULL, 0, 0, 0};
    }
    watch_line(EPOLLIN);
}

static void read_status(struct answer *answer)
{
    uint32_t code = get_u32(&answer->body);
    (void)get_text(&answer->body, LONGEST_PACKET);
    (void)get_text(&answer->body, LONGEST_PACKET);
    uint32_t error = get_u32(&answer->body);
    answer->watched = (get_u32(&answer->body) & 1) != 0;
    answer->is_status = 1;
    answer->eof = code == 1;
    if (code == 0 || code == 1)
        answer->error = 0;
    else
        answer->error = error > 0 && error < 512 ? -(int)error : -EIO;
}

/* 0, or -1 when it was no packet of the protocol. */
static int read_version(struct in *in)
{
    int ours = 0;
    if (get_byte(in) != SFTP_VERSION || get_u32(in) != 3)
        return -1;
    while (!in->bad && in->at < in->end) {
        struct text name = get_text(in, LONGEST_PACKET), data = get_text(in, LONGEST_PACKET);
        ours |= name.size == 13 && memcmp(name.data, "wherry@wherry", 13) == 0 && data.size == 1 && data.data[0] == '1';
    }
    if (in->bad || !ours)
        return -1;
    up = 1;
    awaited = 1;
    owed = 0;
    fuse_link_up();
    return 0;
}

/* An answer is from when it was asked for; but what took long must not be too old at once to be used at all. */
static long long true_since(long long asked)
{
    long long oldest = now_ms() - GOOD_MS + LEAST_GOOD_MS;
    return asked > oldest ? asked : oldest;
}

static int read_packet(const unsigned char *data, size_t size)
{
    struct answer answer = {.body = {data, data + size, 0}};
    if (!up)
        return read_version(&answer.body);
    uint8_t type = get_byte(&answer.body);
    uint32_t id = get_u32(&answer.body), place = id % MOST_ASKED;
    if (answer.body.bad || place >= table_size || table[place].then == NULL || table[place].id != id)
        return -1;
    if (type == SFTP_STATUS)
        read_status(&answer);
    else if (type != SFTP_HANDLE && type != SFTP_DATA && type != SFTP_NAME && type != SFTP_ATTRS && type != SFTP_EXTENDED_REPLY)
        return -1;
    if (answer.body.bad)
        return -1;
    struct asked *asked = &table[place], done = *asked;
    answer.stale = done.events_seen != link_events_seen;
    answer.asked = true_since(done.at);
    asked->then = NULL;
    asked->id += MOST_ASKED;
    asked->next_free = first_free;
    first_free = place;
    if (!done.quiet)
        owed--;
    done.then(done.op, &answer);
    return answer.body.bad ? -1 : 0;
}

/* -1: what came is no protocol. */
static int read_packets(void)
{
    size_t at = 0;
    unsigned epoch = link_epoch;
    while (coming_size - at >= 4) {
        const unsigned char *head = coming + at;
        size_t size = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
        if (size == 0 || size > LONGEST_PACKET)
            return -1;
        if (coming_size - at - 4 < size)
            break;
        if (read_packet(head + 4, size) != 0)
            return -1;
        if (link_epoch != epoch) /* dropped by what came */
            return 0;
        at += 4 + size;
    }
    if (at > 0)
        memmove(coming, coming + at, coming_size -= at);
    return 0;
}

void link_on_data(unsigned events)
{
    if (line < 0)
        return;
    if (events & EPOLLOUT)
        link_flush();
    if (line < 0 || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    ssize_t size = recv(line, coming + coming_size, READ_ROOM - coming_size, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        link_drop();
        return;
    }
    heard = now_ms();
    pinged = 0;
    coming_size += (size_t)size;
    if (read_packets() != 0)
        link_drop();
}

static void begin_talk(void)
{
    put_u32(&going, 0);
    put_byte(&going, SFTP_INIT);
    put_u32(&going, 3);
    put_text(&going, text_of("wherry@wherry"));
    put_text(&going, text_of("1"));
    begun = 0;
    if (going.failed) {
        link_drop();
        return;
    }
    set_length();
    owed = 1;
    is_urgent = 1;
    heard = now_ms();
    pinged = 0;
    link_flush();
}

/* The newest counts: one that has died, and that sshd has not noticed yet, came before. */
void link_on_door(void)
{
    int fd = accept4(door, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    link_drop();
    if (coming == NULL && (coming = malloc(READ_ROOM)) == NULL) {
        close(fd);
        return;
    }
    line = fd;
    watched_for = EPOLLIN;
    loop_watch(line, EPOLLIN, 1);
    begin_talk();
}

static void on_pong(struct op *op, struct answer *answer)
{
    (void)op;
    (void)answer;
}

static void look_at_silence(long long now)
{
    if (line < 0 || owed == 0)
        return;
    if (now - heard >= DEAD_AFTER_MS)
        link_drop();
    else if (now - heard >= PING_AFTER_MS && !pinged && up) {
        pinged = now;
        if (link_ask_extended("ping@wherry") != NULL)
            link_send(NULL, on_pong, URGENT);
    }
}

static void sooner(int *best, long long left)
{
    if (left < 0)
        left = 0;
    if (left > INT_MAX)
        left = INT_MAX;
    if (*best < 0 || left < *best)
        *best = (int)left;
}

int link_clock(void)
{
    long long now = now_ms();
    int best = -1;
    look_at_silence(now);
    if (!up && awaited && now >= wait_until)
        awaited = 0, given_up_due = 1;
    if (given_up_due && !awaited) {
        given_up_due = 0;
        fuse_link_given_up();
    }
    link_flush();
    if (line >= 0 && owed > 0)
        sooner(&best, heard + (pinged || !up ? DEAD_AFTER_MS : PING_AFTER_MS) - now);
    if (!up && awaited)
        sooner(&best, wait_until - now);
    if (line >= 0 && !is_urgent && lazy_since != 0)
        sooner(&best, lazy_since + LAZY_MS - now);
    return best;
}

/* It listens before it has its name, so that whoever finds it is heard. */
int link_listen(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    door = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int length = snprintf(address.sun_path, sizeof address.sun_path, "%s.new", path);
    if (length < 0 || (size_t)length >= sizeof address.sun_path)
        die(1, "share: path too long: %s", path);
    (void)unlink(address.sun_path);
    mode_t before = umask(0177);
    if (door < 0 || bind(door, (struct sockaddr *)&address, sizeof address) != 0 || listen(door, 16) != 0 ||
        rename(address.sun_path, path) != 0)
        die(1, "share: %s: %s", path, strerror(errno));
    umask(before);
    wait_until = now_ms() + FIRST_WAIT_MS;
    loop_watch(door, EPOLLIN, 1);
    return door;
}
