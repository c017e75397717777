/* await FILE... [-- COMMAND...]: waits until every FILE exists, then runs COMMAND in its own place. */
#include "lib.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int i = 1;
    for (; i < argc && strcmp(argv[i], "--") != 0; i++)
        wait_for_path(argv[i]);
    if (i + 1 >= argc)
        return 0;
    execvp(argv[i + 1], argv + i + 1);
    die(errno == ENOENT ? 127 : 126, "%s: %s", argv[i + 1], strerror(errno));
}
