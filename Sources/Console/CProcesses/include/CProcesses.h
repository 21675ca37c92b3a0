// Programs that run beside this one and do not outlive it. From any thread.
#pragma once

#include <spawn.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/// Keeps our files from a program that is about to be started. Sockets of event loops are not all closed by exec, and a connection that we
/// close stays open as long as somebody else has it.
void qd_keep_files(posix_spawn_file_actions_t *actions);
/// Starts a program that must end with us: signals as by default, in a session of its own (no terminal, no ^C), standard output and error
/// in one pipe whose reading end comes in `output`, and, unless `input` is NULL, the writing end of its standard input there (else it reads
/// nothing). `environment` NULL: ours. Returns its pid or -errno. The thread that calls must live as long as the program: see
/// qd_end_with_parent.
pid_t qd_start_child(char *const arguments[], char *const environment[], int *input, int *output);
/// Called by such a program: from now on it is killed when the thread that started it ends (where the system can do that), also while it is
/// stopped. False when the parent is not `parent` any more: too late, and the caller should end.
bool qd_end_with_parent(pid_t parent);
/// Starts a small process that removes the directory `path` when this one has ended, however it ended (also by SIGKILL): it waits for the
/// end of a pipe that only we hold. False when it could not be started.
bool qd_remove_at_end(const char *path);
