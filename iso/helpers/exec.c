/*
 * exec REQUEST | exec -f FILE: runs one command for the keeper, over SSH (provisioning/README.md has the request's form).
 *
 * Why a wrapper: the keeper's SSH library drops the "exit-signal" message, so that a signal must become the exit code 128+N here;
 * a command's arguments, environment and directory are bytes that no shell on the way may read; and a command without a
 * terminal would outlive its connection.
 *
 * A signal request on the channel reaches the whole process group, so the command gets it by itself and the wrapper only has to
 * live through it.
 */
#include "lib.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CANNOT 126
#define NOT_FOUND 127
#define MAX_REQUEST (16u << 20)
#define GRACE_SECONDS 5

struct request {
    char **argv;
    size_t argc;
    const char *directory;
};

/* No share covers it (/root may be the user's own home). */
static const char home_directory[] = "/run/wherry/home";
static const char docker_config[] = "/var/lib/wherry/docker-config";
static const char default_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

static void *need(void *memory)
{
    if (memory == NULL)
        die(CANNOT, "exec: out of memory");
    return memory;
}

static int sextet(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+')
        return 62;
    return c == '/' ? 63 : -1;
}

/* RFC 4648, standard alphabet, padded, nothing else in it. In place: the result is shorter. */
static size_t decode(char *text)
{
    size_t length = strlen(text), out = 0;
    if (length == 0 || length % 4 != 0)
        die(CANNOT, "exec: the request is not base64");
    size_t padding = text[length - 1] != '=' ? 0 : text[length - 2] != '=' ? 1 : 2;
    for (size_t i = 0; i < length; i += 4) {
        uint32_t group = 0;
        size_t last = i + 4 == length ? padding : 0;
        for (size_t j = 0; j < 4; j++) {
            int value = j >= 4 - last ? 0 : sextet(text[i + j]);
            if (value < 0)
                die(CANNOT, "exec: the request is not base64");
            group = group << 6 | (uint32_t)value;
        }
        for (size_t j = 0; j < 3 - last; j++)
            text[out++] = (char)(group >> (16 - 8 * j) & 0xff);
    }
    return out;
}

/* The whole FILE, which is removed whatever happens next. */
static char *take_file(const char *name, size_t *size)
{
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        die(CANNOT, "exec: %s: %s", name, strerror(errno));
    (void)unlink(name);
    size_t room = 1u << 16, have = 0;
    char *data = need(malloc(room));
    for (;;) {
        if (have == room) {
            if (room >= MAX_REQUEST)
                die(CANNOT, "exec: the request is too large");
            data = need(realloc(data, room *= 2));
        }
        ssize_t n = read(fd, data + have, room - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            die(CANNOT, "exec: %s: %s", name, strerror(errno));
        if (n == 0)
            break;
        have += (size_t)n;
    }
    close(fd);
    *size = have;
    return data;
}

static void add_environment(char *pair)
{
    char *equals = strchr(pair, '=');
    if (equals == NULL || equals == pair)
        die(CANNOT, "exec: not NAME=value: %s", pair);
    *equals = '\0';
    if (setenv(pair, equals + 1, 1) != 0)
        die(CANNOT, "exec: out of memory");
    *equals = '=';
}

/* A fresh environment, but for the terminal that sshd knows. */
static void start_environment(void)
{
    const char *terminal = getenv("TERM");
    char *kept = terminal != NULL ? need(strdup(terminal)) : NULL;
    if (clearenv() != 0 || setenv("PATH", default_path, 1) != 0 || setenv("HOME", home_directory, 1) != 0 ||
        setenv("DOCKER_CONFIG", docker_config, 1) != 0 ||
        setenv("USER", "root", 1) != 0 || setenv("LOGNAME", "root", 1) != 0 || setenv("SHELL", "/bin/sh", 1) != 0 ||
        setenv("LANG", "C.UTF-8", 1) != 0 || (kept != NULL && setenv("TERM", kept, 1) != 0))
        die(CANNOT, "exec: out of memory");
    free(kept);
}

static struct request parse(char *data, size_t size)
{
    struct request request = {NULL, 0, NULL};
    if (size < 2 || data[size - 1] != '\0' || strcmp(data, "1") != 0)
        die(CANNOT, "exec: unknown request format");
    size_t fields = 0;
    for (size_t i = 0; i < size; i++)
        fields += data[i] == '\0';
    request.argv = need(calloc(fields, sizeof *request.argv));
    for (char *at = data + 2; at < data + size; at += strlen(at) + 1) {
        switch (*at) {
        case 'A':
            request.argv[request.argc++] = at + 1;
            break;
        case 'E':
            add_environment(at + 1);
            break;
        case 'C':
            request.directory = at + 1;
            break;
        default:
            die(CANNOT, "exec: unknown request field");
        }
    }
    if (request.argc == 0)
        die(CANNOT, "exec: no command");
    return request;
}

static void enter_directory(const char *directory)
{
    const char *home = getenv("HOME");
    if (directory != NULL && chdir(directory) == 0)
        return;
    if (home == NULL || chdir(home) != 0)
        (void)!chdir("/");
}

static _Noreturn void run_command(const struct request *request, pid_t wrapper, const sigset_t *mask)
{
    /* The wrapper was killed: so is the command. The look at the parent closes the gap before prctl. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != wrapper)
        _exit(CANNOT);
    for (int signal_number = 1; signal_number < NSIG; signal_number++)
        (void)signal(signal_number, SIG_DFL);
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvp(request->argv[0], request->argv);
    int error = errno;
    if (error == ENOENT || error == ENOTDIR)
        die(NOT_FOUND, "%s: not found", request->argv[0]);
    die(CANNOT, "%s: %s", request->argv[0], strerror(error));
}

/* To the command, and to all of its process group when that is ours alone (sshd makes a session of every command). */
static void signal_all(pid_t child, int signal_number)
{
    kill(child, signal_number);
    if (getpgrp() == getpid())
        kill(0, signal_number);
}

/* The connection is gone: what a closed terminal sends (a client of the engine hands it on to its container), then the end. */
static _Noreturn void end_with_connection(pid_t child, const sigset_t *watched)
{
    struct timespec end, now, step = {1, 0};
    signal_all(child, SIGHUP);
    signal_all(child, SIGCONT);
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += GRACE_SECONDS;
    while (waitpid(child, NULL, WNOHANG) == 0) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec >= end.tv_sec)
            break;
        (void)sigtimedwait(watched, NULL, &step);
    }
    signal_all(child, SIGKILL);
    _exit(128 + SIGHUP);
}

/* Waits for the command; its exit code as a shell would tell it. */
static int supervise(pid_t child, pid_t parent, const sigset_t *watched)
{
    for (;;) {
        int status;
        pid_t done = waitpid(child, &status, WNOHANG);
        if (done == child)
            return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        if (done < 0 && errno != EINTR)
            return CANNOT;
        if (getppid() != parent)
            end_with_connection(child, watched);
        if (sigwaitinfo(watched, NULL) < 0 && errno != EINTR)
            return CANNOT;
    }
}

int main(int argc, char **argv)
{
    char *data;
    size_t size;
    pid_t parent = getppid(), self = getpid();

    (void)signal(SIGCHLD, SIG_DFL);
    if (argc == 3 && strcmp(argv[1], "-f") == 0)
        data = take_file(argv[2], &size);
    else if (argc == 2)
        size = decode(data = argv[1]);
    else
        die(CANNOT, "usage: exec REQUEST | exec -f FILE");

    start_environment();
    struct request request = parse(data, size);
    enter_directory(request.directory);

    /* Everything is blocked and looked at in one place; what the terminal and the keeper send is for the command. */
    sigset_t watched, before;
    sigfillset(&watched);
    sigprocmask(SIG_SETMASK, &watched, NULL);
    sigemptyset(&before);
    prctl(PR_SET_PDEATHSIG, SIGHUP);

    pid_t child = fork();
    if (child < 0)
        die(CANNOT, "exec: %s", strerror(errno));
    if (child == 0)
        run_command(&request, self, &before);
    return supervise(child, parent, &watched);
}
