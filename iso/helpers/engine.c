/*
 * engine: waits until the engine answers, sees to it that the hello image is there, tells the console, and then loads the image again
 * whenever it was removed. Supervised by init; it never returns.
 * engine ensure-hello: loads the image if it is missing; exit code 0 when it is there.
 *
 * A docker client costs 3 to 5 seconds in a guest without acceleration, so this speaks HTTP itself. HTTP/1.0: an answer ends with its
 * connection, there are no chunks. A request that is sent while the engine starts is held by its socket until it serves: one held
 * request tells readiness to the moment and costs nothing.
 */
#define _GNU_SOURCE
#include "lib.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define IMAGE "wherry.internal/hello:latest"
#define EVENTS "/events?filters=%7B%22type%22%3A%5B%22image%22%5D%2C%22event%22%3A%5B%22delete%22%2C%22untag%22%2C%22prune%22%5D%7D"
#define RETRY_MS 100
#define QUIET_MS 300
#define TRIES 3

static const char *setting(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value != NULL && *value != '\0' ? value : otherwise;
}

static int dial(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = setting("WHERRY_ENGINE_SOCKET", "/run/docker.sock");
    if (strlen(path) >= sizeof address.sun_path)
        die(2, "engine: socket path too long");
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int send_request(int fd, const char *method, const char *target, off_t body)
{
    char head[512];
    int length = snprintf(head, sizeof head,
                          "%s %s HTTP/1.0\r\nHost: wherry\r\nUser-Agent: wherry-guest\r\nContent-Type: application/x-tar\r\n"
                          "Content-Length: %lld\r\n\r\n",
                          method, target, (long long)body);
    return length < 0 || length >= (int)sizeof head ? -1 : write_all(fd, head, (size_t)length);
}

/* The status of the answer, its head read away; -1 when the connection ended before. */
static int read_status(int fd)
{
    char head[32], c;
    size_t have = 0;
    int newlines = 0, status;
    while (newlines < 2) {
        ssize_t n = read(fd, &c, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        if (have + 1 < sizeof head)
            head[have++] = c;
        if (c == '\n')
            newlines++;
        else if (c != '\r')
            newlines = 0;
    }
    head[have] = '\0';
    return sscanf(head, "HTTP/%*d.%*d %d", &status) == 1 ? status : -1;
}

/* The body's end into TEXT, one line of it, for a message; the rest is read away. */
static void read_body(int fd, char *text, size_t size)
{
    char buffer[4096];
    size_t have = 0;
    for (;;) {
        ssize_t n = read(fd, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        for (ssize_t i = 0; i < n; i++) {
            if (have + 1 >= size) {
                memmove(text, text + size / 2, have - size / 2);
                have -= size / 2;
            }
            text[have++] = buffer[i];
        }
    }
    text[have] = '\0';
}

static int get(const char *target, char *text, size_t size)
{
    int fd = dial();
    if (fd < 0)
        return -1;
    int status = send_request(fd, "GET", target, 0) == 0 ? read_status(fd) : -1;
    if (status > 0)
        read_body(fd, text, size);
    close(fd);
    return status;
}

/* 1: the image is there. 0: it is not. -1: the engine does not answer. */
static int have_image(void)
{
    char text[256];
    int status = get("/images/" IMAGE "/json", text, sizeof text);
    return status < 0 || status >= 500 ? -1 : status == 200;
}

/* Sends the archive; TEXT gets the reason when the engine does not take it. The image's presence is asked for anew by the caller. */
static void load_image(char *text, size_t size)
{
    const char *archive = setting("WHERRY_HELLO", "/usr/share/wherry/hello.tar");
    struct stat info;
    int file = open(archive, O_RDONLY | O_CLOEXEC), fd = -1, status = -1;
    if (file < 0 || fstat(file, &info) != 0) {
        snprintf(text, size, "%s: %s", archive, strerror(errno));
    } else if ((fd = dial()) < 0 || send_request(fd, "POST", "/images/load?quiet=1", info.st_size) != 0) {
        snprintf(text, size, "the engine does not answer");
    } else {
        off_t left = info.st_size;
        while (left > 0) {
            ssize_t n = sendfile(fd, file, NULL, (size_t)left);
            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0)
                break; /* an early answer says why */
            left -= n;
        }
        status = read_status(fd);
        if (status > 0)
            read_body(fd, text, size);
        else
            snprintf(text, size, "the engine does not answer");
    }
    if (file >= 0)
        close(file);
    if (fd >= 0)
        close(fd);
}

/*
 * The engine writes an image's files and does not sync them, its list of images it does: a machine that is switched off now would
 * keep the image and have empty files in it, for good.
 */
static void sync_store(void)
{
    int store = open(setting("WHERRY_STORE", "/var/lib/docker"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store < 0)
        return;
    (void)syncfs(store);
    close(store);
}

/* 1: there. 0: the engine would not take it, TEXT says why. -1: the engine does not answer. */
static int ensure_image(char *text, size_t size)
{
    int have = have_image();
    if (have == 0) {
        load_image(text, size);
        sync_store();
        have = have_image();
    }
    return have;
}

/* The events of removals, on a connection that lives as long as the engine; -1 until it is up. */
static int subscribe(void)
{
    int fd = dial();
    if (fd < 0)
        return -1;
    if (send_request(fd, "GET", EVENTS, 0) == 0 && read_status(fd) == 200)
        return fd;
    close(fd);
    return -1;
}

/* Returns 1 after an event and a moment of quiet (a prune says many), 0 when the engine is gone. */
static int next_event(int fd)
{
    char buffer[4096];
    struct pollfd ready = {fd, POLLIN, 0};
    int seen = 0;
    for (;;) {
        int found = poll(&ready, 1, seen ? QUIET_MS : -1);
        if (found < 0 && errno == EINTR)
            continue;
        if (found == 0)
            return 1;
        ssize_t n = read(fd, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return 0;
        seen = 1;
    }
}

/* "hello", or a note with the engine's words: a full disk must not keep the machine from being reached and mended. */
static int first_image(void)
{
    char text[256] = "";
    for (int tries = 0; tries < TRIES; tries++) {
        int have = ensure_image(text, sizeof text);
        if (have > 0) {
            stage("hello");
            return 1;
        }
        if (have < 0)
            return 0;
        pause_ms(1000);
    }
    console_line("wherry-note hello the engine did not take the hello image: %s", text);
    return 1;
}

/* "ready" needs the keeper's word too; meanwhile the image is looked after. */
static void say_ready(void)
{
    char path[PATH_MAX];
    pid_t child = fork();
    if (child == 0) {
        wait_for_path(path_of(path, sizeof path, run_dir(), "ssh-port"));
        stage("ready");
        _exit(0);
    }
}

static _Noreturn void follow(void)
{
    int told = 0;
    for (;; pause_ms(RETRY_MS)) {
        int events = subscribe();
        if (events < 0)
            continue;
        stage("engine");
        if (!told && first_image()) {
            told = 1;
            say_ready();
        }
        do {
            char text[256];
            (void)ensure_image(text, sizeof text);
        } while (next_event(events));
        close(events);
    }
}

int main(int argc, char **argv)
{
    char text[256] = "the engine does not answer";
    (void)signal(SIGPIPE, SIG_IGN);
    if (argc == 1) {
        (void)signal(SIGCHLD, SIG_IGN);
        follow();
    }
    if (argc != 2 || strcmp(argv[1], "ensure-hello") != 0)
        die(2, "usage: engine [ensure-hello]");
    if (ensure_image(text, sizeof text) <= 0)
        die(1, "the hello image cannot be loaded: %s", text);
    return 0;
}
