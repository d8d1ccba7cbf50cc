/* SPDX-License-Identifier: BSD-2-Clause */
/* What a thread keeps between calls; see thread.h. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "calls.h"
#include "fdtable.h"
#include "fork.h"
#include "host/host.h"
#include "socket/wait.h"
#include "thread.h"

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local struct thread *mine;

static void end(void *p)
{
	struct thread *t = p;

	mine = NULL;
	if (t->epfd >= 0 && t->generation == fork_generation)
		host_fd_close(t->epfd);
	if (t->buffer)
		munmap(t->buffer, t->buffer_size);
	free(t->watched);
	free(t);
}

static void make_key(void)
{
	pthread_key_create(&key, end);
}

struct thread *thread_state(void)
{
	if (mine)
		return mine;
	pthread_once(&once, make_key);
	mine = calloc(1, sizeof *mine);
	if (!mine)
		return NULL;
	mine->epfd = -1;
	pthread_setspecific(key, mine);
	return mine;
}

void *thread_buffer(size_t size)
{
	struct thread *t = thread_state();
	void *p;

	if (!t)
		return NULL;
	if (t->buffer_size >= size)
		return t->buffer;
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	if (t->buffer)
		munmap(t->buffer, t->buffer_size);
	t->buffer = p;
	t->buffer_size = size;
	return p;
}

/* --- cancellation --- */

/*
 * libc notes that a thread is cancelled in the thread itself, and asks for it in its own blocking calls. Ours sleep
 * without it: unwinding from the middle of a wait would leave everything that the wait has entered itself in. So the
 * thread is told to end its wait, and acts when the call is over. Its flag is found from its handle, which libc makes
 * the address that its thread-local variables lie at a fixed distance from. The flag comes before libc's, because
 * afterwards the thread may be gone.
 */
int pthread_cancel(pthread_t thread)
{
	intptr_t distance = (intptr_t)&wait_cancelled - (intptr_t)pthread_self();
	int r;

	if (!fd_limit)
		return real.pthread_cancel(thread);
	*(volatile bool *)((intptr_t)thread + distance) = true;
	r = real.pthread_cancel(thread);
	wait_wake_all();
	return r;
}

void act_on_cancel(void)
{
	int state;

	if (!unlikely(wait_cancelled))
		return;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	pthread_setcancelstate(state, NULL);
	while (state == PTHREAD_CANCEL_ENABLE) { /* libc will have heard of it in a moment */
		pthread_testcancel();
		sched_yield();
	}
}
