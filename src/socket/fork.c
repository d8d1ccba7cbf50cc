/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fork. Before it, the parent takes the locks of all its stacks, enters the child as one more process in each, and adds
 * it to the holders of all sockets: from here on no socket that the child has a descriptor for can go away. After it,
 * the parent releases the locks, which only it holds: the child's copy of the memory is shared, so the child just
 * waits for its first lock like anybody else. In the child everything that belongs to a thread or to the helper is
 * new; its next own socket is made in a stack of its own.
 */
#include <string.h>
#include <unistd.h>

#include "socket/backing.h"
#include "socket/bells.h"
#include "socket/busy.h"
#include "socket/handshakes.h"
#include "socket/kick.h"
#include "socket/relatives.h"
#include "socket/net.h"
#include "socket/sockets.h"

static uint32_t child_slot[VS_STACKS_MAX];
static uint32_t stacks; /* whose locks are held */

/* Who leaves a stack may have news for the epoll sets, and wants their lock. */
void vs_fork_begin(void)
{
	kick_all();
}

void vs_fork_prepare(const vsock_t *all, size_t n)
{
	backing_fork_prepare();
	stacks = atomic_load(&attached_count);
	for (uint32_t i = 0; i < stacks; i++)
		bells_make(attached[i]);
	for (uint32_t i = 0; i < stacks; i++) {
		stack_enter(attached[i]);
		/* The number is not known yet; our own keeps the slot from others until it is. */
		child_slot[i] = process_slot_alloc(attached[i]->s, (uint32_t)getpid());
		if (child_slot[i] < PROC_MAX)
			attached[i]->s->proc[child_slot[i]].has_bell = atomic_load(&attached[i]->has_bells);
	}
	for (size_t i = 0; i < n; i++) {
		struct attached *a = vs_attached(all[i]);
		struct sock *k = a ? vs_sock(a, all[i]) : NULL;

		if (k && a->index < stacks && child_slot[a->index] < PROC_MAX)
			k->holders |= 1ull << child_slot[a->index];
	}
}

/* Written by the child as well: it knows its number first. */
static void name_child(struct stack *s, uint32_t slot, uint32_t pid)
{
	if (slot < PROC_MAX)
		process_slot_name(s, slot, pid);
}

void vs_fork_parent(int child_pid)
{
	uint32_t n = stacks;

	stacks = 0;
	for (uint32_t i = 0; i < n; i++) {
		struct attached *a = attached[i];

		if (child_pid < 0)
			process_slot_drop(a, child_slot[i], clock_us());
		else if (child_pid > 0)
			name_child(a->s, child_slot[i], (uint32_t)child_pid);
		stack_leave(a);
		if (child_pid > 0 && child_slot[i] < PROC_MAX)
			helper_watch_process(a, child_slot[i]);
	}
	net_fork_parent(child_pid);
}

void vs_fork_child(void)
{
	uint32_t n = stacks;

	stacks = 0;
	lock_tid = 0;
	wait_lock_depth -= n; /* those locks are the parent's to release */
	own_stack = NULL;
	process_after_fork();
	wait_after_fork();
	net_after_fork();
	wire_after_fork();
	relatives_after_fork();
	backing_after_fork();
	listener_after_fork();
	udp_forget();
	busy_after_fork();
	handshakes_after_fork();
	kick_after_fork();
	helper_after_fork();
	for (uint32_t i = 0; i < n; i++) {
		/* The table is full: share the last entry, so that indices stay good; news may then go to the other. */
		attached[i]->slot = child_slot[i] < PROC_MAX ? child_slot[i] : PROC_MAX - 1;
		if (child_slot[i] < PROC_MAX)
			process_slot_name(attached[i]->s, child_slot[i], (uint32_t)getpid());
	}
	if (!wait_lock_depth && wait_signal_pending)
		lock_run_signals();
}
