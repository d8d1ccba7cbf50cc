/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fork and the ways a process ends.
 *
 * libc runs handlers around every fork of its own (fork, daemon, forkpty), so the work is done in three such handlers,
 * and only the parent's knowledge of the child's number needs the interposed fork(). vfork becomes fork: the child of
 * a real one would change this process's descriptor table. posix_spawn, system and popen start their child without the
 * handlers; it makes no call of ours before it executes the program.
 *
 * At exit sockets are closed as the kernel would: by a destructor, or before _exit and quick_exit, which run none.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>

#include "calls.h"
#include "fdtable.h"
#include "fork.h"
#include "signals.h"
#include "stdio_streams.h"

uint32_t fork_generation;

static vsock_t *held; /* from prepare until both sides are done */
static size_t held_n;
static _Thread_local bool knows_child; /* fork() below tells the parent's number */

static void prepare(void)
{
	fd_lock(); /* handlers are put off from here on */
	signals_lock();
	held = fd_all_sockets(&held_n);
	vs_fork_begin();
	ep_fork_prepare();
	vs_fork_prepare(held, held_n);
}

static void release(void)
{
	fd_free_all(held, held_n);
	held = NULL;
	signals_unlock();
	fd_unlock();
}

static void parent(void)
{
	ep_fork_parent();
	if (!knows_child)
		vs_fork_parent(0);
	release();
}

static void child(void)
{
	fork_generation++;
	ep_fork_child();
	vs_fork_child();
	release();
}

void fork_init(void)
{
	pthread_atfork(prepare, parent, child);
}

pid_t fork(void)
{
	pid_t pid;

	knows_child = true;
	pid = real.fork();
	knows_child = false;
	if (pid && fd_limit)
		vs_fork_parent(pid);
	return pid;
}
TWIN_OF(fork, __fork);

pid_t vfork(void)
{
	return fork();
}
TWIN_OF(vfork, __vfork);

int daemon(int nochdir, int noclose)
{
	pid_t pid = fork();
	int null;

	if (pid < 0)
		return -1;
	if (pid)
		_exit(0);
	if (setsid() < 0)
		return -1;
	if (!nochdir && chdir("/") < 0)
		return -1;
	if (noclose)
		return 0;
	null = open("/dev/null", O_RDWR);
	if (null < 0)
		return -1;
	for (int fd = 0; fd <= 2; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
	return 0;
}

static void end_sockets(void)
{
	size_t n;
	vsock_t *all;

	if (!fd_limit)
		return;
	all = fd_all_sockets(&n);
	vs_exit(all, n);
	fd_free_all(all, n);
}

__attribute__((destructor)) static void at_exit(void)
{
	streams_flush();
	end_sockets();
}

void _exit(int status)
{
	end_sockets();
	real._exit(status);
	__builtin_unreachable();
}
TWIN_OF(_exit, _Exit);

void quick_exit(int status)
{
	end_sockets();
	real.quick_exit(status);
	__builtin_unreachable();
}
