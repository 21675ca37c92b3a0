#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "CProcesses.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

extern char **environ;

void qd_keep_files(posix_spawn_file_actions_t *actions) {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 34)
    posix_spawn_file_actions_addclosefrom_np(actions, 3);
#else
    (void)actions;
    long limit = sysconf(_SC_OPEN_MAX);
    for (int file = 3; file < (limit > 4096 ? 4096 : limit); file++) fcntl(file, F_SETFD, FD_CLOEXEC);
#endif
}

/// Room for what a program says while nobody reads (we are stopped by ^Z): several minutes of a node's log.
#define PIPE_BYTES (1 << 20)

pid_t qd_start_child(char *const arguments[], char *const environment[], int *input, int *output) {
    int in[2] = {-1, -1}, out[2] = {-1, -1};
    if (input != NULL && pipe2(in, O_CLOEXEC) != 0) return -errno;
    if (pipe2(out, O_CLOEXEC) != 0) {
        int error = errno;
        if (input != NULL) close(in[0]), close(in[1]);
        return -error;
    }
    fcntl(out[1], F_SETPIPE_SZ, PIPE_BYTES);
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_init(&actions);
    sigset_t none, every;
    sigemptyset(&none);
    sigfillset(&every);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &every);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
    if (input != NULL) posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
    else posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDERR_FILENO);
    qd_keep_files(&actions);
    pid_t pid = 0;
    int error = posix_spawn(&pid, arguments[0], &actions, &attributes, arguments, environment != NULL ? environment : environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(out[1]);
    if (input != NULL) close(in[0]);
    if (error) {
        close(out[0]);
        if (input != NULL) close(in[1]);
        return -error;
    }
    if (input != NULL) *input = in[1];
    *output = out[0];
    return pid;
}

bool qd_end_with_parent(pid_t parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    // The parent may have ended before the call.
    return getppid() == parent;
}

bool qd_remove_at_end(const char *path) {
    int ends[2];
    if (path[0] != '/' || path[1] == 0 || pipe2(ends, O_CLOEXEC) != 0) return false;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_init(&actions);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    // A session of its own: neither ^C nor a closed window reaches it, and it holds no terminal.
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
    posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    char *const arguments[] = {"/bin/sh", "-c",
                               // Nodes that end at the same moment may still be making files while it removes them.
                               "read -r end; n=0; while rm -rf -- \"$1\"; [ -e \"$1\" ] && [ $n -lt 50 ]; do n=$((n + 1)); sleep 0.1; done", "sh", (char *)path, NULL};
    pid_t pid = 0;
    int error = posix_spawn(&pid, arguments[0], &actions, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(ends[0]);
    // The writing end stays open until this process ends; nothing is ever written to it.
    if (error) close(ends[1]);
    return error == 0;
}
