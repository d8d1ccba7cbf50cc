/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bells (bells.h). A stack's doorbell is one eventfd, by which the other ends of its wires wake who sleeps. Of the
 * processes that share the stack (fork) one takes the frames in for all, and what it has for others it must tell them.
 * By the doorbell it would wake them all each time: each would look, find nothing, and sleep again.
 *
 * So before its first fork a process makes BELLS more eventfds, which all inherit that are forked from then on: the
 * bell of entry i of the process table is number i % BELLS. Nothing is ever handed to relatives, and with more
 * processes than that some share a bell and wake each other. The entry says whether its process hears its bell
 * (has_bell). One that has got the stack by execve or in a message does not, and has none to ring: for it, and by it,
 * all goes by the doorbell.
 *
 * A process is rung once per sleep, not by everybody who leaves the stack before it is awake. Under the lock `naps` is
 * noted, which goes up with each thread that goes to sleep; when the bell was rung, that is stored in `rung`. Whoever
 * dies in between has not stored it, so the next one rings. Who stores it late stores an old number: at worst somebody
 * rings once more.
 *
 * Of those who hear a bell the doorbell itself wakes one, too (EPOLLEXCLUSIVE): of the threads that are asleep in
 * epoll_wait just then, the kernel takes the one that has been registered longest. It takes in what there is before
 * anything else (wait.c), and so rings whom it concerns. If it has not mapped all wires (relatives.h), or did not take
 * in all, it rings everybody; and in the first case it is woken together with the others from then on. A process may be
 * stopped or killed just when it was woken so: therefore those who hear a bell look once a second while they sleep.
 */
#include "socket/bells.h"

#include <sys/eventfd.h>

#include "host/host.h"

void bells_ring_fd(int fd)
{
	static const uint64_t one = 1;

	if (fd >= 0)
		(void)!host_sys.write(fd, &one, sizeof(one));
}

static void close_bells(struct attached *a, uint32_t n)
{
	while (n)
		host_fd_close(a->bell[--n]);
}

/* All or none. */
static bool make_all(struct attached *a)
{
	for (uint32_t i = 0; i < BELLS; i++) {
		a->bell[i] = host_fd_own(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
		if (a->bell[i] < 0) {
			close_bells(a, i);
			return false;
		}
	}
	return true;
}

void bells_make(struct attached *a)
{
	bool first;

	if (__atomic_load_n(&a->s->bells, __ATOMIC_RELAXED) || !host_fd_plenty() || !make_all(a))
		return;
	stack_enter(a);
	first = !a->s->bells;
	if (first) {
		__atomic_store_n(&a->s->bells, 1, __ATOMIC_RELAXED);
		atomic_store(&a->has_bells, true);
		__atomic_store_n(&a->s->proc[a->slot].has_bell, 1, __ATOMIC_RELAXED);
	}
	stack_leave(a);
	if (first) {
		wait_bells_made();
		bells_ring_fd(a->doorbell[0]); /* those who sleep now don't hear the bell */
	} else {
		close_bells(a, BELLS);
	}
}

int bells_of(const struct attached *a, uint32_t slot)
{
	if (!atomic_load(&a->has_bells) || !__atomic_load_n(&a->s->proc[slot].has_bell, __ATOMIC_RELAXED))
		return a->doorbell[0];
	return a->bell[slot % BELLS];
}

void bells_ring_own(const struct attached *a)
{
	bells_ring_fd(bells_of(a, a->slot));
}

static bool has_news(const struct stack_proc *p)
{
	return (p->dirty_head != p->dirty_tail || p->dirty_overflow) &&
	       __atomic_load_n(&p->rung, __ATOMIC_RELAXED) != p->naps;
}

uint64_t bells_look(const struct attached *a, struct bells_due *due, bool all)
{
	uint64_t who = 0;

	/* each entry is far from the next: not more of them than there are */
	for (uint32_t i = 0, left = a->s->procs; i < PROC_MAX && left; i++) {
		const struct stack_proc *p = &a->s->proc[i];

		left -= p->pid != 0;
		if (i == a->slot || !p->pid || !p->sleepers || !(all || has_news(p)))
			continue;
		who |= 1ull << i;
		due->naps[i] = p->naps;
	}
	due->who = who;
	return who;
}

bool bells_see_all_wires(const struct attached *a)
{
	for (uint32_t i = 0; i < a->s->vnic_high && i < VNIC_MAX; i++)
		if (vnic_elsewhere(&a->e, i, stack_vnic(a->s, i)->gen))
			return false;
	return true;
}

void bells_ring(struct attached *a, const struct bells_due *due)
{
	for (uint64_t left = due->who; left; left &= left - 1) {
		uint32_t i = (uint32_t)__builtin_ctzll(left);
		int fd = bells_of(a, i);

		bells_ring_fd(fd);
		if (fd != a->doorbell[0]) /* that may have woken somebody else, who then rings him */
			__atomic_store_n(&a->s->proc[i].rung, due->naps[i], __ATOMIC_RELAXED);
	}
}
