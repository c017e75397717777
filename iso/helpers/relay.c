/*
 * relay [-m MODE] [-w SECONDS] [-a ANSWER] CLIENT_SOCKET KEEPER_SOCKET: programs of the guest reach the keeper.
 *
 * Programs connect to CLIENT_SOCKET. The keeper, which nothing in the guest can connect to, connects to KEEPER_SOCKET by channels
 * of its SSH connection, and lets them wait. A client that has something to say is joined with the waiting one that came last:
 * those of a connection that has died, and that sshd has not noticed yet, came first. From then on bytes go both ways, and so
 * does the end of either direction alone.
 *
 * A client that says nothing takes no channel. One that has waited for SECONDS (10) in which no channel came, for others before
 * it either, gets the bytes of the file ANSWER, if any, and its end; so does one whose channel ends before a word came from it.
 * Nothing is polled. What one side does not read is held, at most a buffer for each direction, and the other side is not read
 * any further.
 */
#define _GNU_SOURCE /* accept4 */
#include "lib.h"

#include <errno.h>
#include <fcntl.h>
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

#define BUFFER (64u << 10)
#define LARGEST_ANSWER 4096
/* Two descriptors each; more clients than that wait in the backlog of their socket. */
#define MOST_CLIENTS 1024
#define MOST_CHANNELS 1200
#define BACKLOG 1024

enum kind { CLIENTS, CHANNELS, CLIENT, CHANNEL };

/* One descriptor: a listening socket, or one end of what is joined or will be. */
struct end {
    enum kind kind;
    int fd;
    unsigned watched;
    struct end *other; /* joined with */
    struct end *before, *after; /* in the list of those that wait */
    int listed, gone;
    int read_ended; /* nothing more comes from here */
    int write_ended; /* nothing more goes there */
    int told; /* something was sent there */
    char *held; /* what this end has not taken yet */
    size_t held_at, held_size;
    long long deadline; /* for a client that waits for a channel, in ms; see met */
};

struct list {
    struct end *first, *last;
};

static int epoll = -1;
static struct end clients = {.kind = CLIENTS, .fd = -1}, channels = {.kind = CHANNELS, .fd = -1};
static struct list waiting_clients, waiting_channels, freed;
static int client_count, channel_count;
static long long patience = 10000;
static long long met; /* when the last channel came: where many clients wait, a slow keeper is one that is there */
static char answer[LARGEST_ANSWER];
static size_t answer_size;
static char buffer[BUFFER];

static long long now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (long long)at.tv_sec * 1000 + at.tv_nsec / 1000000;
}

static void append(struct list *list, struct end *end)
{
    end->listed = 1;
    end->before = list->last;
    end->after = NULL;
    *(list->last != NULL ? &list->last->after : &list->first) = end;
    list->last = end;
}

static void take_out(struct list *list, struct end *end)
{
    if (!end->listed)
        return;
    *(end->before != NULL ? &end->before->after : &list->first) = end->after;
    *(end->after != NULL ? &end->after->before : &list->last) = end->before;
    end->listed = 0;
}

static void watch(struct end *end, unsigned events)
{
    struct epoll_event wanted = {.events = events, .data.ptr = end};
    int operation = end->watched == 0 ? EPOLL_CTL_ADD : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
    if (events == end->watched)
        return;
    if (epoll_ctl(epoll, operation, end->fd, &wanted) != 0)
        die(1, "relay: epoll: %s", strerror(errno));
    end->watched = events;
}

/* Full tables, or no descriptors: who comes waits in the backlog until somebody goes. */
static void watch_doors(void)
{
    watch(&clients, client_count < MOST_CLIENTS ? EPOLLIN : 0);
    watch(&channels, channel_count < MOST_CHANNELS ? EPOLLIN : 0);
}

/* Events of this round may still name it: it is freed at the round's end. */
static void drop(struct end *end)
{
    if (end->gone)
        return;
    take_out(end->kind == CLIENT ? &waiting_clients : &waiting_channels, end);
    close(end->fd);
    free(end->held);
    end->held = NULL;
    end->gone = 1;
    *(end->kind == CLIENT ? &client_count : &channel_count) -= 1;
    append(&freed, end);
}

static void drop_both(struct end *end)
{
    if (end->other != NULL)
        drop(end->other);
    drop(end);
}

static void watch_joined(struct end *end)
{
    unsigned events = 0;
    if (!end->read_ended && end->other->held == NULL)
        events |= EPOLLIN;
    if (end->held != NULL)
        events |= EPOLLOUT;
    /* With nothing to wait for it is still told when the other side has gone altogether. EPOLLET: once. */
    watch(end, events != 0 ? events : EPOLLHUP | EPOLLET);
}

static void end_writing(struct end *end)
{
    if (!end->write_ended)
        (void)shutdown(end->fd, SHUT_WR);
    end->write_ended = 1;
}

/* The end takes nothing any more: what is held for it is lost, and who sends it learns that. */
static void refused(struct end *end)
{
    free(end->held);
    end->held = NULL;
    end->write_ended = 1;
    end->other->read_ended = 1;
    (void)shutdown(end->other->fd, SHUT_RD);
}

/* Bytes that came from the other end; what is not taken at once is held. */
static void give(struct end *end, const char *data, size_t size)
{
    end->told = 1;
    ssize_t taken = send(end->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (taken < 0 && errno != EAGAIN && errno != EINTR) {
        refused(end);
        return;
    }
    size_t rest = size - (taken > 0 ? (size_t)taken : 0);
    if (rest == 0)
        return;
    end->held = malloc(rest);
    if (end->held == NULL) {
        drop_both(end);
        return;
    }
    memcpy(end->held, data + size - rest, rest);
    end->held_at = 0;
    end->held_size = rest;
}

static void flush(struct end *end)
{
    ssize_t taken = send(end->fd, end->held + end->held_at, end->held_size - end->held_at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (taken < 0) {
        if (errno != EAGAIN && errno != EINTR)
            refused(end);
        return;
    }
    end->held_at += (size_t)taken;
    if (end->held_at < end->held_size)
        return;
    free(end->held);
    end->held = NULL;
}

static void take(struct end *end)
{
    ssize_t size = recv(end->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (size > 0)
        give(end->other, buffer, (size_t)size);
    else if (size == 0 || (errno != EAGAIN && errno != EINTR)) {
        end->read_ended = 1;
        if (end->kind == CHANNEL && !end->other->told && !end->other->write_ended && answer_size > 0)
            give(end->other, answer, answer_size);
    }
}

static void settle(struct end *end)
{
    struct end *other = end->other;
    if (end->gone)
        return;
    if (end->read_ended && other->held == NULL)
        end_writing(other);
    if (other->read_ended && end->held == NULL)
        end_writing(end);
    if (end->write_ended && other->write_ended) {
        drop_both(end);
        return;
    }
    watch_joined(end);
    watch_joined(other);
}

static void on_joined(struct end *end, unsigned events)
{
    if (events & EPOLLOUT && end->held != NULL)
        flush(end);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !end->read_ended && end->other->held == NULL)
        take(end);
    /* Nobody is there who could read: what the other end still sends has no place to go. */
    if (!end->gone && end->read_ended && events & (EPOLLHUP | EPOLLERR)) {
        if (end->other->held == NULL) {
            drop_both(end);
            return;
        }
        refused(end);
    }
    settle(end);
}

static void join(struct end *client)
{
    struct end *channel = waiting_channels.last;
    take_out(&waiting_clients, client);
    take_out(&waiting_channels, channel);
    client->other = channel;
    channel->other = client;
    watch_joined(client);
    watch_joined(channel);
}

/* A client that is not joined: it has something to say, or has gone. */
static void on_client(struct end *client, unsigned events)
{
    char byte;
    if ((client->listed && events & (EPOLLHUP | EPOLLERR)) || recv(client->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
        drop(client);
        return;
    }
    if (waiting_channels.last != NULL) {
        join(client);
        return;
    }
    if (!client->listed) {
        client->deadline = now() + patience;
        append(&waiting_clients, client);
        watch(client, EPOLLHUP | EPOLLET);
    }
}

/* One that waits is only heard when it goes: the keeper says nothing before a client does. */
static void on_channel(struct end *channel)
{
    drop(channel);
}

static void give_up(struct end *client)
{
    /* What it sent is taken first: a socket that is closed with something unread looks broken to the other side. */
    while (recv(client->fd, buffer, sizeof buffer, MSG_DONTWAIT) > 0)
        ;
    if (answer_size > 0)
        (void)!send(client->fd, answer, answer_size, MSG_NOSIGNAL | MSG_DONTWAIT);
    drop(client);
}

/* Milliseconds until the first client's patience ends; -1: nobody waits. */
static int time_left(void)
{
    while (waiting_clients.first != NULL) {
        long long deadline = waiting_clients.first->deadline;
        if (deadline < met + patience)
            deadline = met + patience;
        long long left = deadline - now();
        if (left > 0)
            return left > INT_MAX ? INT_MAX : (int)left;
        give_up(waiting_clients.first);
    }
    return -1;
}

static void accept_one(struct end *door)
{
    int fd = accept4(door->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            pause_ms(100); /* no descriptors, no memory */
        return;
    }
    struct end *end = calloc(1, sizeof *end);
    if (end == NULL) {
        close(fd);
        return;
    }
    end->fd = fd;
    end->kind = door == &clients ? CLIENT : CHANNEL;
    if (end->kind == CLIENT) {
        client_count++;
        watch(end, EPOLLIN | EPOLLRDHUP);
        return;
    }
    channel_count++;
    met = now();
    append(&waiting_channels, end);
    watch(end, EPOLLIN | EPOLLRDHUP);
    if (waiting_clients.first != NULL)
        join(waiting_clients.first);
}

static void dispatch(struct end *end, unsigned events)
{
    if (end->gone)
        return;
    if (end->kind == CLIENTS || end->kind == CHANNELS)
        accept_one(end);
    else if (end->other != NULL)
        on_joined(end, events);
    else if (end->kind == CLIENT)
        on_client(end, events);
    else
        on_channel(end);
}

/* Listens before it has its name, so that whoever finds it is heard; the socket of a relay before this one is replaced. */
static int listen_at(const char *path, mode_t mode)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int length = snprintf(address.sun_path, sizeof address.sun_path, "%s.new", path);
    if (length < 0 || (size_t)length >= sizeof address.sun_path)
        die(1, "relay: path too long: %s", path);
    (void)unlink(address.sun_path);
    mode_t before = umask(0777 & ~mode);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, BACKLOG) != 0 ||
        rename(address.sun_path, path) != 0)
        die(1, "relay: %s: %s", path, strerror(errno));
    umask(before);
    return fd;
}

static void read_answer(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, answer, sizeof answer);
    if (size < 0)
        die(1, "relay: %s: %s", path, strerror(errno));
    answer_size = (size_t)size;
    close(fd);
}

static long number(const char *text, int base, long largest)
{
    char *end;
    long value = strtol(text, &end, base);
    if (end == text || *end != '\0' || value < 0 || value > largest)
        die(2, "relay: not a number that can be used: %s", text);
    return value;
}

int main(int argc, char **argv)
{
    mode_t mode = 0600;
    int option;
    while ((option = getopt(argc, argv, "m:w:a:")) != -1) {
        if (option == 'm')
            mode = (mode_t)number(optarg, 8, 0777);
        else if (option == 'w')
            patience = number(optarg, 10, 86400) * 1000;
        else if (option == 'a')
            read_answer(optarg);
        else
            return 2;
    }
    if (argc - optind != 2)
        die(2, "usage: relay [-m MODE] [-w SECONDS] [-a ANSWER] CLIENT_SOCKET KEEPER_SOCKET");
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die(1, "relay: epoll: %s", strerror(errno));
    /* In this order: who can be met by the keeper can be found by clients. */
    clients.fd = listen_at(argv[optind], mode);
    channels.fd = listen_at(argv[optind + 1], 0600);
    for (;;) {
        struct epoll_event events[64];
        watch_doors();
        int count = epoll_wait(epoll, events, 64, time_left());
        if (count < 0 && errno != EINTR)
            die(1, "relay: epoll: %s", strerror(errno));
        for (int i = 0; i < count; i++)
            dispatch(events[i].data.ptr, events[i].events);
        while (freed.first != NULL) {
            struct end *end = freed.first;
            take_out(&freed, end);
            free(end);
        }
    }
}
