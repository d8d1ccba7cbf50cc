/* SPDX-License-Identifier: BSD-2-Clause */
/* What a thread keeps between calls, made when first needed and freed when the thread ends. */
#ifndef VD_THREAD_H
#define VD_THREAD_H

#include <stddef.h>
#include <stdint.h>

#include "socket/vsock.h"

/* A kernel descriptor that this thread's poll() or select() watches while it sleeps. */
struct watch {
	int fd;
	uint32_t events; /* EPOLL* */
	vsock_t v;       /* the accelerated socket that it is a half of; VS_NONE: the kernel's */
};

struct thread {
	void *buffer;
	size_t buffer_size;
	int epfd;              /* -1: none yet */
	struct watch *watched; /* what is in epfd */
	size_t watched_n, watched_room;
	uint32_t generation; /* fork_generation: a forked child makes its own epfd */
};

/* NULL: no memory. */
struct thread *thread_state(void);
/* Room for `size` bytes, valid until the next call in this thread. NULL: no memory. */
void *thread_buffer(size_t size);

#endif
