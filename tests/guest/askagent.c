/* askagent SOCKET: the names of the agent's keys, one a line (draft-miller-ssh-agent, 3.5); what ssh-add -l does, in one file. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static unsigned char answer[65536];

static uint32_t number(const unsigned char *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return ntohl(value);
}

int main(int argc, char **argv)
{
    static const unsigned char question[] = {0, 0, 0, 1, 11};
    struct sockaddr_un place = {.sun_family = AF_UNIX};
    int stream = socket(AF_UNIX, SOCK_STREAM, 0);
    size_t size = 0, wanted = 4;

    snprintf(place.sun_path, sizeof place.sun_path, "%s", argc > 1 ? argv[1] : "");
    if (connect(stream, (struct sockaddr *)&place, sizeof place) != 0) {
        perror("connect");
        return 2;
    }
    if (write(stream, question, sizeof question) != sizeof question)
        return 3;
    while (size < wanted && wanted <= sizeof answer) {
        ssize_t got = read(stream, answer + size, wanted - size);
        if (got <= 0)
            return 4;
        size += (size_t)got;
        if (wanted == 4 && size == 4)
            wanted += number(answer);
    }
    if (size < 9 || answer[4] != 12)
        return 5;
    unsigned char *at = answer + 9;
    for (uint32_t keys = number(answer + 5); keys > 0; keys--) {
        at += 4 + number(at);
        printf("%.*s\n", (int)number(at), at + 4);
        at += 4 + number(at);
    }
    return 0;
}
