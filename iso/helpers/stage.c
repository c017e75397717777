/* stage NAME [FILE...]: says on the console that a stage is reached, after every FILE exists. */
#include "lib.h"

int main(int argc, char **argv)
{
    if (argc < 2)
        die(2, "usage: stage NAME [FILE...]");
    for (int i = 2; i < argc; i++)
        wait_for_path(argv[i]);
    stage(argv[1]);
    return 0;
}
