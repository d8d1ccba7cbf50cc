/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Repair of a stack whose lock's owner died. Whatever it was changing may be half done: a queue, a free list, the
 * wheel. Such a death can only be seen in a tree of processes (a stack that nobody else holds is viaductd's to look
 * at). Only the socket that was being changed is reset, and all that ties sockets together is made anew
 * (engine/rebuild.h). If more is wrong than that explains, all connections are reset (engine_repair). The counters
 * stack_repaired, stack_reset_socket and stack_reset_all, and lock.repairs, say that it happened.
 */
#include <sys/mman.h>

#include "engine/rebuild.h"
#include "socket/process.h"
#include "host/host.h"

/* Only what was being changed, if that can be told. */
static bool mend(struct attached *a)
{
	size_t len = stack_rebuild_room(a->s);
	void *room = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int ret;

	if (room == MAP_FAILED)
		return false;
	ret = stack_rebuild(&a->e, room, clock_us());
	munmap(room, len);
	return ret == 0;
}

void stack_repair(struct attached *a)
{
	struct stack *s = a->s;
	uint32_t procs = 0;

	if (!mend(a)) {
		count(s, C_stack_reset_all);
		engine_repair(&a->e);
	} else {
		count(s, C_stack_repaired);
		s->lock.repairs++;
	}
	s->lock.changing = s->lock.vnic = 0;
	for (uint32_t i = 0; i < PROC_MAX; i++)
		procs += s->proc[i].pid != 0;
	__atomic_store_n(&s->procs, procs, __ATOMIC_RELAXED);
}
