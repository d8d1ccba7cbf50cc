/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Executing another program in this process, or in a new one. Its memory goes, and with it what we know of its sockets;
 * the kernel closes descriptors that are close-on-exec. So these are let go before: a child that was forked to run a
 * program must not keep its parent's connections open. The others are handed over (heirs.c).
 *
 * What is let go can't be taken back if the call fails, so it is done only when there is a file to execute.
 */
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>

#include "calls.h"
#include "heirs.h"

#define ARGS_MAX 4096 /* of execl and its kin */

int execve(const char *file, char *const argv[], char *const envp[])
{
	struct bequest b;
	int r;

	envp = (char *const *)heirs_prepare(&b, HEIR_IMAGE, file, false, envp);
	r = real.execve(file, argv, envp);
	heirs_done(&b, 0);
	return r;
}

int execv(const char *file, char *const argv[])
{
	return execve(file, argv, environ);
}

int fexecve(int fd, char *const argv[], char *const envp[])
{
	char file[64];
	struct bequest b;
	int r;

	snprintf(file, sizeof file, "/proc/self/fd/%d", fd);
	envp = (char *const *)heirs_prepare(&b, HEIR_IMAGE, file, false, envp);
	r = real.fexecve(fd, argv, envp);
	heirs_done(&b, 0);
	return r;
}

int execvpe(const char *file, char *const argv[], char *const envp[])
{
	struct bequest b;
	int r;

	envp = (char *const *)heirs_prepare(&b, HEIR_IMAGE, file, true, envp);
	r = real.execvpe(file, argv, envp);
	heirs_done(&b, 0);
	return r;
}

int execvp(const char *file, char *const argv[])
{
	return execvpe(file, argv, environ);
}

/* The attributes and actions happen in the child, under the eyes of nobody: which socket has which number there, the
 * library finds out when the program begins. */
int posix_spawn(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attr,
		char *const argv[], char *const envp[])
{
	struct bequest b;
	pid_t child = 0;
	int r;

	envp = (char *const *)heirs_prepare(&b, HEIR_CHILD, file, false, envp);
	r = real.posix_spawn(&child, file, actions, attr, argv, envp);
	heirs_done(&b, r ? 0 : child);
	if (!r && pid)
		*pid = child;
	return r;
}

int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attr,
		 char *const argv[], char *const envp[])
{
	struct bequest b;
	pid_t child = 0;
	int r;

	envp = (char *const *)heirs_prepare(&b, HEIR_CHILD, file, true, envp);
	r = real.posix_spawnp(&child, file, actions, attr, argv, envp);
	heirs_done(&b, r ? 0 : child);
	if (!r && pid)
		*pid = child;
	return r;
}

/* The arguments up to and with NULL, and the environment behind it or ours, for a function that takes arrays. */
static int exec_list(int (*exec)(const char *, char *const[], char *const[]), const char *file, const char *first,
		     va_list args, bool with_env)
{
	char *argv[ARGS_MAX];
	int n = 0;

	argv[n++] = (char *)first;
	while (argv[n - 1] && n < ARGS_MAX)
		argv[n++] = va_arg(args, char *);
	if (argv[n - 1])
		return (int)posix_result(-E2BIG);
	return exec(file, argv, with_env ? va_arg(args, char **) : environ);
}

int execl(const char *file, const char *arg, ...)
{
	va_list args;
	int r;

	va_start(args, arg);
	r = exec_list(execve, file, arg, args, false);
	va_end(args);
	return r;
}

int execlp(const char *file, const char *arg, ...)
{
	va_list args;
	int r;

	va_start(args, arg);
	r = exec_list(execvpe, file, arg, args, false);
	va_end(args);
	return r;
}

int execle(const char *file, const char *arg, ...)
{
	va_list args;
	int r;

	va_start(args, arg);
	r = exec_list(execve, file, arg, args, true);
	va_end(args);
	return r;
}
