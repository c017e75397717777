/*
 * modprobe ARGUMENT...: what the kernel calls when it wants a module (kernel.modprobe): busybox's modprobe, but for formats of programs.
 * No module of the image is one, and the engine tries at every start whether programs of eight other processors run: for each of them
 * the indexes were read in vain.
 */
#include "lib.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    const char *program = getenv("WHERRY_MODPROBE");
    if (program == NULL)
        program = "/usr/sbin/modprobe";
    if (argc > 1 && strncmp(argv[argc - 1], "binfmt-", 7) == 0)
        return 1;
    execv(program, argv);
    die(127, "cannot run %s", program);
}
