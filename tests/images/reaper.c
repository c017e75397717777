/*
 * The reaper of testcontainers, as far as its clients can tell: they connect to port 8080 and send lines of filters
 * ("label=KEY=VALUE", several joined by "&"), each answered with "ACK". When all of them are gone, and none is back within
 * RYUK_RECONNECTION_TIMEOUT (10s by default), the containers that match any of the lines are removed and the program ends.
 * The protocol is that of testcontainers' moby-ryuk (its README, "Usage"). Only labels are known here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ENGINE "/var/run/docker.sock"
#define CLIENTS 32
#define LINES 64
#define LONGEST 512

struct client {
    int fd;
    size_t have;
    char text[LONGEST];
};

static struct client clients[CLIENTS];
static char lines[LINES][LONGEST];
static int line_count;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* One request to the engine, HTTP/1.0: the answer ends with its connection. The caller frees it. */
static char *ask(const char *method, const char *target)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = ENGINE};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        fail(ENGINE);
    dprintf(fd, "%s %s HTTP/1.0\r\nHost: reaper\r\nContent-Length: 0\r\n\r\n", method, target);
    size_t size = 1 << 16, have = 0;
    char *text = malloc(size);
    ssize_t n;
    while (text != NULL && (n = read(fd, text + have, size - have - 1)) > 0) {
        have += (size_t)n;
        if (have + 1 == size)
            text = realloc(text, size *= 2);
    }
    if (text == NULL)
        fail("memory");
    text[have] = '\0';
    close(fd);
    return text;
}

static void escape(char *to, const char *from, size_t length)
{
    for (; length-- > 0; from++)
        to += sprintf(to, "%%%02X", (unsigned char)*from);
}

static void reap(char *line)
{
    char filters[2 * LONGEST] = "{\"label\":[", escaped[6 * LONGEST], target[7 * LONGEST];
    int labels = 0;
    for (char *word = strtok(line, "&"); word != NULL; word = strtok(NULL, "&"))
        if (strncmp(word, "label=", 6) == 0)
            sprintf(filters + strlen(filters), "%s\"%s\"", labels++ ? "," : "", word + 6);
    if (labels == 0)
        return; /* without a filter it would be every container */
    strcat(filters, "]}");
    escape(escaped, filters, strlen(filters));
    snprintf(target, sizeof target, "/containers/json?all=1&filters=%s", escaped);
    char *answer = ask("GET", target);
    for (char *at = answer; (at = strstr(at, "{\"Id\":\"")) != NULL; at++) {
        snprintf(target, sizeof target, "/containers/%.64s?force=1&v=1", at + 7);
        free(ask("DELETE", target));
        printf("removed %.12s\n", at + 7);
    }
    free(answer);
}

static void take(struct client *client)
{
    ssize_t n = read(client->fd, client->text + client->have, LONGEST - 1 - client->have);
    if (n <= 0) {
        close(client->fd);
        client->fd = -1;
        return;
    }
    client->have += (size_t)n;
    client->text[client->have] = '\0';
    char *end;
    while ((end = strchr(client->text, '\n')) != NULL) {
        size_t length = strcspn(client->text, "\r\n");
        if (line_count < LINES)
            snprintf(lines[line_count++], LONGEST, "%.*s", (int)length, client->text);
        client->have -= (size_t)(end + 1 - client->text);
        memmove(client->text, end + 1, client->have + 1);
        if (write(client->fd, "ACK\n", 4) != 4)
            return;
    }
    if (client->have == LONGEST - 1)
        client->have = 0;
}

static int listen_on(unsigned short port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 16) != 0)
        fail("port 8080");
    return fd;
}

int main(void)
{
    const char *setting = getenv("RYUK_RECONNECTION_TIMEOUT");
    int seconds = setting != NULL && atoi(setting) > 0 ? atoi(setting) : 10, served = 0;
    int listening = listen_on(8080);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("reaper Started! on port 8080\n");
    for (int i = 0; i < CLIENTS; i++)
        clients[i].fd = -1;
    for (;;) {
        struct pollfd polled[CLIENTS + 1] = {{.fd = listening, .events = POLLIN}};
        int connected = 0;
        for (int i = 0; i < CLIENTS; i++) {
            polled[i + 1] = (struct pollfd){.fd = clients[i].fd, .events = POLLIN};
            connected += clients[i].fd >= 0;
        }
        /* The first client is waited for a minute, those that come back as long as they asked for. */
        int found = poll(polled, CLIENTS + 1, connected ? -1 : served ? 1000 * seconds : 60000);
        if (found == 0)
            break;
        if (found < 0 && errno != EINTR)
            fail("poll");
        for (int i = 0; i < CLIENTS; i++)
            if (clients[i].fd >= 0 && polled[i + 1].revents)
                take(&clients[i]);
        if (polled[0].revents) {
            int i = 0, fd = accept(listening, NULL, NULL);
            while (i < CLIENTS && clients[i].fd >= 0)
                i++;
            if (fd >= 0 && i < CLIENTS)
                clients[i] = (struct client){.fd = fd}, served = 1;
            else if (fd >= 0)
                close(fd);
        }
    }
    for (int i = 0; i < line_count; i++)
        reap(lines[i]);
    return 0;
}
