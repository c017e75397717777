/*
 * The first and only process of a guest that does nothing: says that it is there, then switches the power off, or, with the word
 * "rest" on the kernel's command line, does nothing until it is ended. What a start costs before any of ours runs.
 */
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static const char word[] = "wherry-floor\n";
    (void)!write(1, word, sizeof word - 1);
    for (int i = 1; i < argc; i++)
        while (strcmp(argv[i], "rest") == 0)
            (void)pause();
    if (getpid() == 1) /* nobody else's power */
        (void)reboot(RB_POWER_OFF);
    return 1;
}
