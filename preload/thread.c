/* SPDX-License-Identifier: BSD-2-Clause */
/* What a thread keeps between calls; see thread.h. */
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "calls.h"
#include "fork.h"
#include "host/host.h"
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
