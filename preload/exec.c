/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Executing another program in this process. Its memory goes, and with it what we know of its sockets; the kernel
 * closes descriptors that are close-on-exec. So these are let go here, before: a child that was forked to run a program
 * must not keep its parent's connections open. Sockets that are not close-on-exec stay held, as the kernel keeps them
 * open.
 *
 * What is let go can't be taken back if the call fails, so it is done only when there is a file to execute.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "fdtable.h"
#include "socket/kick.h"

#define ARGS_MAX 4096 /* of execl and its kin */
#define PATH_ROOM 4096

static bool executable(const char *file, bool search)
{
	const char *path = getenv("PATH"), *end;
	char name[PATH_ROOM];

	if (!search || strchr(file, '/'))
		return access(file, X_OK) == 0;
	for (path = path ? path : "/bin:/usr/bin"; *path; path = *end ? end + 1 : end) {
		int len;

		end = strchrnul(path, ':');
		len = snprintf(name, sizeof name, "%.*s%s%s", (int)(end - path), path, end == path ? "" : "/", file);
		if (len > 0 && len < (int)sizeof name && access(name, X_OK) == 0)
			return true;
	}
	return false;
}

static void let_go(void)
{
	for (int fd = fd_first_ours(0); fd >= 0; fd = fd_first_ours(fd + 1)) {
		int flags = real.fcntl(fd, F_GETFD);

		if (flags < 0 || flags & FD_CLOEXEC)
			fd_closing(fd);
	}
	kick_all(); /* nobody is here afterwards who would */
}

int execve(const char *file, char *const argv[], char *const envp[])
{
	if (fd_limit && executable(file, false))
		let_go();
	return real.execve(file, argv, envp);
}

int execv(const char *file, char *const argv[])
{
	return execve(file, argv, environ);
}

int fexecve(int fd, char *const argv[], char *const envp[])
{
	if (fd_limit && real.fcntl(fd, F_GETFD) >= 0)
		let_go();
	return real.fexecve(fd, argv, envp);
}

int execvpe(const char *file, char *const argv[], char *const envp[])
{
	if (fd_limit && executable(file, true))
		let_go();
	return real.execvpe(file, argv, envp);
}

int execvp(const char *file, char *const argv[])
{
	return execvpe(file, argv, environ);
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
