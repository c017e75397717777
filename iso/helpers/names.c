/*
 * names ADDRESS UPSTREAM HOST NAME...: a resolver on ADDRESS (port 53 unless it says another, UDP and TCP) that answers each NAME with
 * the address HOST, and passes every other question on to UPSTREAM. Supervised by init; it never returns.
 *
 * A question over UDP goes on from a socket, a port and with an id of its own, all chosen at random, and its answer counts only when it
 * comes from UPSTREAM to that socket, with that id and question. Everything is bounded: when there are too many questions the oldest one
 * goes, of the same asker first. Nothing is waited for but packets, and an end of patience while something is under way.
 */
#define _GNU_SOURCE
#include "dns.h"
#include "lib.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define QUESTIONS 384    /* over UDP, under way */
#define OF_ONE 96        /* of them from one address */
#define CONNECTIONS 64   /* over TCP */
#define PATIENCE_MS 15000
#define LARGEST 65535
#define NAMES 8

enum kind { NOTHING, DATAGRAMS, LISTENER, QUESTION, CLIENT, UPSTREAM };

/* One question over UDP that was passed on. */
struct asked {
    int fd; /* -1: free */
    int64_t until;
    struct sockaddr_in asker;
    uint16_t id; /* the asker's */
    struct dns_question question;
    uint8_t query[DNS_HEADER + DNS_NAME + 4]; /* its beginning as it was sent, with our id */
};

/* One message over TCP, with the two octets of its length. */
struct frame {
    uint8_t *data;
    size_t have, sent;
};

/* One client's connection, and ours for it. Each direction holds one message at a time. */
struct joined {
    int client, upstream; /* -1: free; none yet */
    int64_t until;
    struct frame there, back;
    enum { READING, FORWARDING, ANSWERING } state; /* of `there` */
    bool full;                                     /* `back` is whole */
    bool ended;                                    /* the client sends no more */
    unsigned owed;                                 /* answers that are to come */
};

static struct asked asked[QUESTIONS];
static struct joined joined[CONNECTIONS];
static struct sockaddr_in upstream;
static uint8_t host[4];
static struct {
    uint8_t labels[DNS_NAME];
    size_t size;
} names[NAMES];
static size_t name_count;
static int poller, datagrams, listener;
static uint8_t packet[LARGEST];

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Have events of FD told; with EVENTS 0 none, not even its end. */
static void watch(int fd, enum kind kind, size_t index, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)kind << 32 | index};
    if (events == 0)
        (void)epoll_ctl(poller, EPOLL_CTL_DEL, fd, NULL);
    else if (epoll_ctl(poller, EPOLL_CTL_MOD, fd, &event) != 0 && errno == ENOENT)
        (void)epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

static struct sockaddr_in address_of(const char *text)
{
    char name[64];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(53)};
    const char *colon = strchr(text, ':');
    size_t length = colon != NULL ? (size_t)(colon - text) : strlen(text);
    if (length >= sizeof name)
        die(2, "names: no address: %s", text);
    memcpy(name, text, length);
    name[length] = '\0';
    if (colon != NULL) {
        char *rest;
        unsigned long port = strtoul(colon + 1, &rest, 10);
        if (port < 1 || port > 65535 || *rest != '\0')
            die(2, "names: no port: %s", text);
        address.sin_port = htons((uint16_t)port);
    }
    if (inet_pton(AF_INET, name, &address.sin_addr) != 1)
        die(2, "names: no address: %s", text);
    return address;
}

static bool is_ours(const uint8_t *message, const struct dns_question *question)
{
    if (question->class != DNS_IN && question->class != DNS_ANY)
        return false;
    size_t size = question->end - 4 - DNS_HEADER;
    for (size_t i = 0; i < name_count; i++)
        if (names[i].size == size && dns_same(message + DNS_HEADER, names[i].labels, size))
            return true;
    return false;
}

/* What we say ourselves to a query: its size in ANSWER, 0 when it is for UPSTREAM to say. */
static size_t own_answer(const uint8_t *query, size_t size, struct dns_question *question, uint8_t answer[DNS_OURS])
{
    if (query[2] & 0x78) /* not a question but an update or the like */
        return dns_head(query, NULL, DNS_NOTIMP, answer);
    if (!dns_read(query, size, question))
        return dns_head(query, NULL, DNS_FORMERR, answer);
    return is_ours(query, question) ? dns_ours(query, question, host, answer) : 0;
}

/* UDP */

static void forget(struct asked *one)
{
    close(one->fd);
    one->fd = -1;
}

static void tell(const struct asked *one, const void *message, size_t size)
{
    (void)sendto(datagrams, message, size, MSG_DONTWAIT, (const struct sockaddr *)&one->asker, sizeof one->asker);
}

static void tell_failure(struct asked *one)
{
    uint8_t answer[DNS_OURS];
    size_t size = dns_head(one->query, &one->question, DNS_SERVFAIL, answer);
    dns_put16(answer, one->id);
    tell(one, answer, size);
    forget(one);
}

/* A socket that only hears UPSTREAM, on a port that nobody can guess: the kernel's own choice is of 10,000 here. */
static int ask_socket(void)
{
    struct sockaddr_in from = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    for (int tries = 0; tries < 8; tries++) {
        uint16_t random;
        if (getrandom(&random, sizeof random, 0) != sizeof random)
            break;
        from.sin_port = htons((uint16_t)(30000 + random % 35000));
        if (bind(fd, (struct sockaddr *)&from, sizeof from) == 0)
            break;
    }
    if (connect(fd, (struct sockaddr *)&upstream, sizeof upstream) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* A free place; the oldest question makes room, one of the same asker when that has many. */
static struct asked *place_for(const struct sockaddr_in *asker)
{
    struct asked *empty = NULL, *oldest = NULL, *its = NULL;
    size_t many = 0;
    for (struct asked *one = asked; one < asked + QUESTIONS; one++) {
        if (one->fd < 0) {
            empty = one;
            continue;
        }
        if (oldest == NULL || one->until < oldest->until)
            oldest = one;
        if (one->asker.sin_addr.s_addr != asker->sin_addr.s_addr)
            continue;
        many++;
        if (its == NULL || one->until < its->until)
            its = one;
    }
    struct asked *place = many >= OF_ONE ? its : empty != NULL ? empty : oldest;
    if (place->fd >= 0)
        forget(place);
    return place;
}

/* The same question asked once more because no answer came yet. */
static struct asked *asked_before(const struct sockaddr_in *asker, const uint8_t *query, const struct dns_question *question)
{
    for (struct asked *one = asked; one < asked + QUESTIONS; one++)
        if (one->fd >= 0 && one->id == dns_16(query) && one->asker.sin_port == asker->sin_port &&
            one->asker.sin_addr.s_addr == asker->sin_addr.s_addr && one->question.end == question->end &&
            memcmp(one->query + DNS_HEADER, query + DNS_HEADER, question->end - DNS_HEADER) == 0)
            return one;
    return NULL;
}

static void pass_on(const struct sockaddr_in *asker, uint8_t *query, size_t size, const struct dns_question *question)
{
    uint16_t id;
    struct asked *one = asked_before(asker, query, question);
    if (one == NULL) {
        if (getrandom(&id, sizeof id, 0) != sizeof id)
            return;
        one = place_for(asker);
        one->asker = *asker;
        one->question = *question;
        one->id = dns_16(query);
        one->until = now_ms() + PATIENCE_MS;
        memcpy(one->query, query, question->end);
        dns_put16(one->query, id);
        one->fd = ask_socket();
        if (one->fd < 0) {
            tell_failure(one);
            return;
        }
        watch(one->fd, QUESTION, (size_t)(one - asked), EPOLLIN);
    }
    memcpy(query, one->query, 2);
    if (send(one->fd, query, size, MSG_DONTWAIT) < 0 && errno != EAGAIN)
        tell_failure(one);
}

static void on_datagram(void)
{
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    struct dns_question question;
    uint8_t answer[DNS_OURS];
    ssize_t n = recvfrom(datagrams, packet, sizeof packet, MSG_DONTWAIT, (struct sockaddr *)&from, &length);
    if (n < DNS_HEADER || (packet[2] & 0x80))
        return; /* too short for an answer, or an answer, to which there is none */
    size_t size = own_answer(packet, (size_t)n, &question, answer);
    if (size > 0)
        (void)sendto(datagrams, answer, size, MSG_DONTWAIT, (struct sockaddr *)&from, length);
    else
        pass_on(&from, packet, (size_t)n, &question);
}

static void on_answer(struct asked *one)
{
    ssize_t n = recv(one->fd, packet, sizeof packet, MSG_DONTWAIT);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR)
            tell_failure(one);
        return;
    }
    if (!dns_answers(packet, (size_t)n, one->query, &one->question))
        return;
    dns_put16(packet, one->id);
    tell(one, packet, (size_t)n);
    forget(one);
}

/* TCP */

enum progress { LATER, DONE, OVER };

/* Reads one message, or as much of it as there is. */
static enum progress fill(int fd, struct frame *frame)
{
    for (;;) {
        size_t want = frame->have < 2 ? 2 : 2 + (size_t)dns_16(frame->data);
        if (frame->have >= 2 && want < 2 + DNS_HEADER)
            return OVER;
        if (frame->have == want)
            return DONE;
        ssize_t n = recv(fd, frame->data + frame->have, want - frame->have, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN || errno == ENOTCONN ? LATER : OVER;
        if (n == 0)
            return OVER;
        frame->have += (size_t)n;
    }
}

static enum progress flush(int fd, struct frame *frame)
{
    while (frame->sent < frame->have) {
        ssize_t n = send(fd, frame->data + frame->sent, frame->have - frame->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN || errno == ENOTCONN || errno == EINPROGRESS ? LATER : OVER;
        frame->sent += (size_t)n;
    }
    frame->have = frame->sent = 0;
    return DONE;
}

static void part(struct joined *one)
{
    close(one->client);
    if (one->upstream >= 0)
        close(one->upstream);
    free(one->there.data);
    free(one->back.data);
    *one = (struct joined){.client = -1, .upstream = -1};
}

/* A whole message of the client: answered here, or on its way. */
static bool decide(struct joined *one)
{
    uint8_t answer[DNS_OURS];
    struct dns_question question;
    uint8_t *query = one->there.data + 2;
    if (query[2] & 0x80)
        return false;
    size_t size = own_answer(query, one->there.have - 2, &question, answer);
    if (size > 0) {
        dns_put16(one->there.data, (unsigned)size);
        memcpy(query, answer, size);
        one->there.have = 2 + size;
        one->state = ANSWERING;
        return true;
    }
    if (one->upstream < 0) {
        one->upstream = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (one->upstream < 0)
            return false;
        if (connect(one->upstream, (struct sockaddr *)&upstream, sizeof upstream) != 0 && errno != EINPROGRESS)
            return false;
    }
    one->state = FORWARDING;
    return true;
}

/* From the client: one message read, then passed on or answered. False when the connection is over. */
static bool there(struct joined *one, bool *moved)
{
    enum progress progress = LATER;
    switch (one->state) {
    case READING:
        if (one->ended || (progress = fill(one->client, &one->there)) == LATER)
            return true;
        if (progress == OVER) {
            one->ended = true;
            return one->there.have == 0;
        }
        if (!decide(one))
            return false;
        break;
    case FORWARDING:
        if ((progress = flush(one->upstream, &one->there)) == LATER)
            return true;
        if (progress == OVER)
            return false;
        one->owed++;
        one->state = READING;
        break;
    case ANSWERING:
        /* Never into a message that is half written. */
        if (one->full || (progress = flush(one->client, &one->there)) == LATER)
            return true;
        if (progress == OVER)
            return false;
        one->state = READING;
        break;
    }
    *moved = true;
    return true;
}

/* To the client: one message read, then written. False when the connection is over. */
static bool back(struct joined *one, bool *moved)
{
    enum progress progress;
    if (!one->full) {
        if (one->upstream < 0 || (progress = fill(one->upstream, &one->back)) == LATER)
            return true;
        if (progress == OVER) {
            if (one->owed > 0 || one->back.have > 0 || one->state == FORWARDING)
                return false;
            close(one->upstream); /* it was idle; the next question opens another */
            one->upstream = -1;
            return true;
        }
        one->full = true;
    } else {
        if (one->state == ANSWERING && one->there.sent > 0)
            return true;
        if ((progress = flush(one->client, &one->back)) == LATER)
            return true;
        if (progress == OVER)
            return false;
        one->full = false;
        if (one->owed > 0)
            one->owed--;
    }
    *moved = true;
    return true;
}

static void on_joined(struct joined *one)
{
    size_t index = (size_t)(one - joined);
    bool moved = true;
    while (moved) {
        moved = false;
        if (!there(one, &moved) || !back(one, &moved)) {
            part(one);
            return;
        }
        if (moved)
            one->until = now_ms() + PATIENCE_MS;
    }
    if (one->ended && one->state == READING && !one->full && one->owed == 0) {
        part(one);
        return;
    }
    bool writing = one->full || one->state == ANSWERING;
    watch(one->client, CLIENT, index, (one->state == READING && !one->ended ? EPOLLIN : 0) | (writing ? EPOLLOUT : 0));
    if (one->upstream >= 0)
        watch(one->upstream, UPSTREAM, index, (one->full ? 0 : EPOLLIN) | (one->state == FORWARDING ? EPOLLOUT : 0));
}

static void on_connection(void)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct joined *place = joined;
    for (struct joined *one = joined; one < joined + CONNECTIONS && place->client >= 0; one++)
        if (one->client < 0 || one->until < place->until)
            place = one;
    if (place->client >= 0)
        part(place);
    *place = (struct joined){.client = fd, .upstream = -1, .until = now_ms() + PATIENCE_MS};
    place->there.data = malloc(2 + LARGEST);
    place->back.data = malloc(2 + LARGEST);
    if (place->there.data == NULL || place->back.data == NULL)
        part(place);
    else
        on_joined(place);
}

/* How long to wait, in ms, -1 without end: until the next one's patience ends. What has run out goes. */
static int run_out(void)
{
    int64_t now = now_ms(), next = -1;
    for (struct asked *one = asked; one < asked + QUESTIONS; one++) {
        if (one->fd >= 0 && one->until <= now)
            forget(one); /* the asker has given up long ago */
        if (one->fd >= 0 && (next < 0 || one->until < next))
            next = one->until;
    }
    for (struct joined *one = joined; one < joined + CONNECTIONS; one++) {
        if (one->client >= 0 && one->until <= now)
            part(one);
        if (one->client >= 0 && (next < 0 || one->until < next))
            next = one->until;
    }
    return next < 0 ? -1 : (int)(next - now) + 1;
}

static void open_sockets(const struct sockaddr_in *address)
{
    int yes = 1;
    poller = epoll_create1(EPOLL_CLOEXEC);
    datagrams = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (poller < 0 || datagrams < 0 || listener < 0)
        die(1, "names: %s", strerror(errno));
    (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(datagrams, (const struct sockaddr *)address, sizeof *address) != 0 ||
        bind(listener, (const struct sockaddr *)address, sizeof *address) != 0 || listen(listener, 128) != 0)
        die(1, "names: %s", strerror(errno));
    watch(datagrams, DATAGRAMS, 0, EPOLLIN);
    watch(listener, LISTENER, 0, EPOLLIN);
}

int main(int argc, char **argv)
{
    if (argc < 5 || argc - 4 > NAMES)
        die(2, "usage: names ADDRESS UPSTREAM HOST NAME...");
    struct sockaddr_in address = address_of(argv[1]);
    upstream = address_of(argv[2]);
    if (inet_pton(AF_INET, argv[3], host) != 1)
        die(2, "names: no address: %s", argv[3]);
    for (; name_count < (size_t)argc - 4; name_count++)
        if ((names[name_count].size = dns_name(argv[4 + name_count], names[name_count].labels)) == 0)
            die(2, "names: no name: %s", argv[4 + name_count]);
    for (size_t i = 0; i < QUESTIONS; i++)
        asked[i].fd = -1;
    for (size_t i = 0; i < CONNECTIONS; i++)
        joined[i].client = joined[i].upstream = -1;
    open_sockets(&address);
    for (;;) {
        /* One at a time: what it does may end what the next one would be about. */
        struct epoll_event event;
        if (epoll_wait(poller, &event, 1, run_out()) != 1)
            continue;
        size_t index = (uint32_t)event.data.u64;
        switch ((enum kind)(event.data.u64 >> 32)) {
        case DATAGRAMS:
            on_datagram();
            break;
        case LISTENER:
            on_connection();
            break;
        case QUESTION:
            on_answer(&asked[index]);
            break;
        case CLIENT:
        case UPSTREAM:
            if (event.data.u64 >> 32 == CLIENT && event.events & (EPOLLERR | EPOLLHUP))
                part(&joined[index]);
            else
                on_joined(&joined[index]);
            break;
        case NOTHING:
            break;
        }
    }
}
