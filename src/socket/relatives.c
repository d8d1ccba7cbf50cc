/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The maker's side (relatives.h); the asking side is wire_map (wire.c). Who asks is served if the stack's process table
 * says that it is of the tree: its pid, as the kernel tells it, and when it began.
 */
#include "socket/relatives.h"

#include <string.h>

#include "host/host.h"
#include "host/tree.h"
#include "socket/helper.h"
#include "socket/proc_info.h"

static _Atomic int listening[VS_STACKS_MAX]; /* per stack: descriptor plus 1; 0 none */

void relatives_serve(struct attached *a)
{
	int fd;

	if (atomic_load(&listening[a->index]))
		return;
	fd = tree_listen(a->s->id, a->s->proc[a->slot].pid);
	if (fd < 0)
		return;
	atomic_store(&listening[a->index], fd + 1);
	helper_watch_relatives(a, fd);
}

static bool is_relative(struct attached *a, uint32_t pid)
{
	struct thread_info info;
	uint64_t begin = 0;
	bool found = false;

	stack_enter(a);
	for (uint32_t i = 0; i < PROC_MAX && pid; i++) {
		if (a->s->proc[i].pid != pid)
			continue;
		begin = a->s->proc[i].start_time;
		found = true;
	}
	stack_leave(a);
	return found && proc_thread_info(pid, pid, &info) == 0 && info.start_time == begin;
}

/* The wire of that name, if we have made it. With the lock. */
static const struct vnic *wire_named(struct attached *a, const uint8_t nonce[16])
{
	for (uint32_t i = 0; i < a->active; i++) {
		const struct vnic *v = &a->e.vnic[a->vnic[i]];

		if (v->wire_fd && v->gen == v->st->gen && !v->st->dead && !memcmp(v->st->link, nonce, 16))
			return v;
	}
	return NULL;
}

static void answer(struct attached *a, int fd)
{
	const struct vnic *v;
	struct vnic copy;
	uint8_t nonce[16];

	if (tree_request(fd, a->s->id, nonce) < 0)
		return;
	stack_enter(a);
	v = wire_named(a, nonce);
	if (v)
		copy = *v;
	stack_leave(a);
	/* Descriptors of a wire that dies now stay open long enough (wire.c). */
	if (v)
		tree_give(fd, a->s->id, nonce, copy.wire_fd - 1, copy.life_fd, copy.doorbell_fd);
}

void relatives_answer(struct attached *a, int listen_fd)
{
	uint32_t pid;
	int fd = tree_accept(listen_fd, &pid);

	if (fd < 0)
		return;
	if (is_relative(a, pid))
		answer(a, fd);
	host_sys.close(fd);
}

void relatives_after_fork(void)
{
	for (uint32_t i = 0; i < VS_STACKS_MAX; i++) {
		int fd = atomic_exchange(&listening[i], 0) - 1;

		if (fd >= 0)
			host_fd_close(fd); /* the parent's */
	}
}
