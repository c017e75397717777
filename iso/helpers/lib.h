/* What the guest's helpers share: words on the console, waiting for a file. */
#ifndef WHERRY_LIB_H
#define WHERRY_LIB_H

#include <stddef.h>
#include <sys/types.h>

/* Where the guest keeps what holds until it is switched off. WHERRY_RUN replaces it in tests. */
const char *run_dir(void);

/* "DIR/NAME" in a buffer of the caller's; exits when it does not fit. */
char *path_of(char *buffer, size_t size, const char *dir, const char *name);

/* One line on the serial console, in one write. WHERRY_CONSOLE replaces /dev/console in tests. */
void console_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "wherry-stage NAME SECONDS", once for as long as the guest runs: RUN/stage/NAME remembers it. */
void stage(const char *name);

/* Returns when PATH exists; its directory need not exist yet. */
void wait_for_path(const char *path);

/* A message on stderr, then exit with CODE. */
void die(int code, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));

/* Writes all of it; 0, or -1 with errno. */
int write_all(int fd, const void *data, size_t size);

/* Sleeps whatever signals come. */
void pause_ms(long milliseconds);

#endif
