/* echo FIRST LAST: answers each datagram that comes to one of these UDP ports with the port, a space and what came. */

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { MOST = 64, SIZE = 65536 };

int main(int argc, char **argv)
{
    struct pollfd ports[MOST];
    int first = argc > 2 ? atoi(argv[1]) : 0, count = argc > 2 ? atoi(argv[2]) - first + 1 : 0;
    if (count < 1 || count > MOST)
        return 2;
    for (int i = 0; i < count; i++) {
        struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((unsigned short)(first + i))};
        ports[i].fd = socket(AF_INET, SOCK_DGRAM, 0);
        ports[i].events = POLLIN;
        if (ports[i].fd < 0 || bind(ports[i].fd, (struct sockaddr *)&here, sizeof here) < 0)
            return 1;
    }
    while (poll(ports, (nfds_t)count, -1) > 0) {
        for (int i = 0; i < count; i++) {
            static char data[SIZE];
            struct sockaddr_in peer;
            socklen_t length = sizeof peer;
            if (!(ports[i].revents & POLLIN))
                continue;
            int head = sprintf(data, "%d ", first + i);
            ssize_t got = recvfrom(ports[i].fd, data + head, SIZE - (size_t)head, 0, (struct sockaddr *)&peer, &length);
            if (got >= 0)
                sendto(ports[i].fd, data, (size_t)(head + got), 0, (struct sockaddr *)&peer, length);
        }
    }
    return 1;
}
