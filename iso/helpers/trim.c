/*
 * trim FOLDER: tells the disk below FOLDER of every block that its file system does not use, and says how many bytes these are.
 *
 * Linux, fs/ext4/mballoc.c: a group that was trimmed once is passed over until something in it was freed; but with the mount option
 * "discard" that does not count (ext4_free_data_in_buddy), though what was freed bit by bit was less at a time than the disk's file
 * can give back. Groups are looked at anew by a trim whose smallest extent is smaller than that of the trim before. So a first one, of
 * the first group only, asks for the largest that is possible.
 */
#include "lib.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#define LARGEST ((uint64_t)128 << 20) /* a group of blocks of 4 KiB */
#define SMALLEST ((uint64_t)64 << 10) /* a cluster of a qcow2 disk */

int main(int argc, char **argv)
{
    if (argc != 2)
        die(2, "usage: trim FOLDER");
    int fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        die(1, "trim: %s: %s", argv[1], strerror(errno));
    struct fstrim_range first = {.start = 0, .len = LARGEST, .minlen = LARGEST};
    (void)ioctl(fd, FITRIM, &first); /* other file systems refuse it, and need none */
    struct fstrim_range all = {.start = 0, .len = UINT64_MAX, .minlen = SMALLEST};
    if (ioctl(fd, FITRIM, &all) != 0)
        die(1, "trim: %s: %s", argv[1], strerror(errno));
    printf("%llu\n", (unsigned long long)all.len);
    return 0;
}
