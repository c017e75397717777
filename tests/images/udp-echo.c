/* Sends each UDP datagram on port 7 back to where it came from (RFC 862). */
#include <netinet/in.h>
#include <sys/socket.h>

int main(void)
{
    static char data[65536];
    struct sockaddr_in from, address = {.sin_family = AF_INET, .sin_port = htons(7)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0)
        return 1;
    for (;;) {
        socklen_t length = sizeof from;
        ssize_t n = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&from, &length);
        if (n >= 0)
            sendto(fd, data, (size_t)n, 0, (struct sockaddr *)&from, length);
    }
}
