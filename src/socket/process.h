/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * This process's view: the stacks it is attached to, and the door through which every call goes in and out.
 *
 * attached[0..attached_count) are the stacks that this process has mapped: its own (own_stack, made at first use) and,
 * after fork, those of its ancestors. New sockets are made in process_home(): that is its own one, or, for one forked
 * process at a time, its parent's where that has an interface's own queues, which nobody else can have. An attachment
 * never goes away and never moves, so a vsock_t's first byte is an index that stays good. A stack's memory, its
 * doorbells and the wires' memory are inherited by fork; struct attached itself is private.
 *
 * The door: stack_enter takes the lock. stack_leave collects what has to be told to others (vNICs with posted
 * frames, sockets with news), releases the lock, and only then rings doorbells and calls wait_on_news: no system call
 * is made under the lock. News are left in the dirty ring as long as nobody in this process wants them (nobody
 * waits but the caller, no epoll set): then a message costs no more than a bit that is set already.
 */
#ifndef VD_PROCESS_H
#define VD_PROCESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/capture.h"
#include "socket/lock.h"
#include "socket/vsock.h"
#include "vnic/ring.h"
#include "vnic/xdp.h"

/* What a spinning thread looks at without the lock. Pointers are never NULL and stay readable: a wire's memory
 * is replaced by zero pages, not unmapped, when the wire goes (wire.c). */
struct spin_view {
	struct vnic_desc *evq;
	const struct vnic_state *st;
	struct vnic_ctrl *ctrl;
	const struct vnic_ctrl *peer;
	const uint32_t *arrivals; /* network: differs from st->evq_cons when a frame waits; NULL: a wire, see evq */
};

#define BELLS 16u /* each is a descriptor in each process of the tree */

struct attached {
	struct engine e;
	struct stack *s;
	size_t len;
	uint32_t index; /* in attached[] */
	uint32_t slot;  /* our entry in s->proc */
	int memfd;
	int alive_fd;    /* plus 1; 0 none: it tells whoever gave us the stack that we are there (handover.c) */
	int doorbell[2]; /* [0] wakes sleeping threads of the tree, [1] the helpers */
	int bell[BELLS]; /* of the processes of the tree (bells.h), if has_bells */
	_Atomic bool has_bells;
	uint32_t active; /* vNICs mapped here: entries of view and vnic; changed under the lock */
	uint16_t vnic[VNIC_MAX];
	struct spin_view view[VNIC_MAX];
	uint64_t now_us, now_cycles; /* the clock when it was last read for a call, and the counter then */
	uint64_t polled_tick;        /* ms in which all vNICs were looked at by a call that wants only one */
	uint32_t seen_acquired;      /* helper: lock.acquired at its last look */
	bool large_used;             /* large segments may go (large.h); areas that nobody fills or sends: */
	_Atomic(struct large *) large_spare[2];
};

extern struct attached *attached[VS_STACKS_MAX];
extern _Atomic uint32_t attached_count;
extern struct attached *own_stack;

/* Threads of this process that wait (beyond the first microseconds of spinning) or sleep, on whatever stack. */
extern _Atomic uint32_t process_waiting;
/* Of those, sleeping ones that may wait for any socket (poll, epoll): any news wakes them. */
extern _Atomic uint32_t process_any_sleepers;
/* Goes up when a thread of this process has taken in news: spinning threads look again. */
extern _Atomic uint32_t process_news;
/* 1: the helper sleeps without looking, until helper_deadline (microseconds; UINT64_MAX: without end). Whoever makes it
 * late wakes it. */
extern _Atomic uint32_t helper_asleep;
extern _Atomic uint64_t helper_deadline;

/* This process's own stack, made at the first call. NULL: could not be made (the reason was logged once). */
struct attached *process_own_stack(void);
/* Where this process makes its sockets. NULL: as above. */
struct attached *process_home(void);
/* The same if it is known by now. NULL: no socket was made yet. */
struct attached *process_settled(void);
/* Map a stack that another process made, or this one before execve: there is an entry for us in its process table. The
 * descriptors become ours. NULL: it is not the stack of that identity, or can't be mapped; they stay the caller's. */
struct attached *process_attach(int memfd, const int doorbell[2], uint32_t slot, const uint8_t id[16]);
/* From here on this process makes its sockets there, as it did before execve. */
void process_settle(struct attached *a);
/* Make the real memory of a stack: descriptor and doorbells, formatted. NULL on failure. For tests too. */
struct attached *process_new_stack(const struct stack_config *cfg);
/* Stack number i, NULL none. */
static inline struct attached *process_stack(uint32_t i)
{
	return i < atomic_load_explicit(&attached_count, memory_order_acquire) ? attached[i] : NULL;
}

#define PROC_FAR 0x7fffffffu /* pid of an entry whose process is not known yet (handover.c) */
/* A free entry in the stack's process table, filled for pid; PROC_MAX: none. With the lock. */
uint32_t process_slot_alloc(struct stack *s, uint32_t pid);
/* Which process the slot stands for. */
void process_slot_name(struct stack *s, uint32_t slot, uint32_t pid);
/* In the child after fork: the next stack it needs is its own. */
void process_after_fork(void);
/* The process behind the slot is gone: its holds are dropped, sockets that nobody holds are closed. With the lock. */
void process_slot_drop(struct attached *a, uint32_t slot, uint64_t now_us);

void process_helper_kick(void);
/* Something must be done at `deadline`: wake the helper if it would sleep on. */
static inline void process_helper_expect(uint64_t deadline)
{
	if (__builtin_expect(atomic_load_explicit(&helper_asleep, memory_order_relaxed), 0) &&
	    deadline < atomic_load_explicit(&helper_deadline, memory_order_relaxed))
		process_helper_kick();
}
/* The name by which the program knows a socket: a listener taken over after fork keeps its old one (listen.c). */
vsock_t listener_program_name(vsock_t v);
/* The lock was taken over from an owner that died (repair.c). */
void stack_repair(struct attached *a);

/* --- the door --- */
/* What was gathered under the lock is this thread's to send (large.h): 1; 0 nothing. */
uint32_t large_take(struct attached *a);
void stack_ring(struct attached *a, const uint16_t *posted, uint32_t n);

uint64_t process_deadline(const struct attached *a);
/* vNIC i is mapped here from now on: threads look at it and wait for it. With the lock. */
void process_activate(struct attached *a, uint32_t i);

static inline void stack_enter(struct attached *a)
{
	if (__builtin_expect(lock_take(a->s), 0))
		stack_repair(a);
}

/* News must be taken out now: somebody wants them, or the ring fills. `self`: callers that count as waiting. */
static inline bool stack_news_wanted(const struct attached *a, uint32_t self)
{
	const struct stack_proc *p = &a->s->proc[a->slot];

	return p->dirty_tail != p->dirty_head && (wait_on_news || p->dirty_tail - p->dirty_head >= DIRTY_RING / 16 ||
						  atomic_load_explicit(&process_waiting, memory_order_relaxed) > self);
}

extern _Thread_local uint32_t wait_self;  /* 1 while this thread counts in process_waiting */
extern _Thread_local bool wait_same_core; /* the other end shared our core last time: spinning keeps it from running */
extern _Thread_local bool wait_sleepy;    /* this thread's last waits were long: it does not spin */

/* All of what stack_leave does. */
void stack_leave_with_work(struct attached *a);

/* Nothing to tell to anybody: no frames were posted, nobody wants news, and nobody shares the stack. */
static inline bool stack_is_quiet(const struct attached *a)
{
	for (uint32_t i = 0; i < a->active; i++)
		if (a->e.vnic[a->vnic[i]].st->posted)
			return false;
	return !stack_news_wanted(a, wait_self) && !a->s->proc[a->slot].dirty_overflow && a->s->procs <= 1 &&
	       !a->large_used && !atomic_load_explicit(&helper_asleep, memory_order_relaxed);
}

static inline void stack_leave(struct attached *a)
{
	if (!stack_is_quiet(a)) {
		stack_leave_with_work(a);
		return;
	}
	lock_release(a->s);
	process_helper_expect(0);
}

/* --- names --- */
static inline vsock_t vs_name(const struct attached *a, const struct sock *k)
{
	return (vsock_t)a->index << 56 | (vsock_t)sock_index(a->s, k) << 32 | k->gen;
}

static inline struct attached *vs_attached(vsock_t v)
{
	return process_stack(vs_stack_of(v));
}

/* With the lock: the socket, or NULL if the name is stale. */
static inline struct sock *vs_sock(struct attached *a, vsock_t v)
{
	struct sock *k = sock_at(a->s, vs_index_of(v));

	return k && k->proto != SOCK_FREE && k->gen == (uint32_t)v ? k : NULL;
}

/* Enter the stack of v: its socket, or NULL (then nothing is held). */
static inline struct sock *vs_enter(vsock_t v, struct attached **ap)
{
	struct attached *a = vs_attached(v);
	struct sock *k;

	if (!a)
		return NULL;
	stack_enter(a);
	k = vs_sock(a, v);
	if (!k)
		stack_leave(a);
	else
		sock_changing(a->s, k);
	*ap = a;
	return k;
}

static inline bool view_pending(const struct spin_view *w)
{
	const struct vnic_state *st = __atomic_load_n(&w->st, __ATOMIC_RELAXED);
	const uint32_t *arrivals = __atomic_load_n(&w->arrivals, __ATOMIC_RELAXED);

	if (arrivals)
		return __atomic_load_n(arrivals, __ATOMIC_ACQUIRE) != __atomic_load_n(&st->evq_cons, __ATOMIC_RELAXED);
	return vnic_evq_waits(__atomic_load_n(&w->evq, __ATOMIC_RELAXED), st, WIRE_RING);
}

/* True if a frame waits on one of the stack's vNICs. Needs no lock. */
static inline bool stack_pending(const struct attached *a)
{
	uint32_t active = __atomic_load_n(&a->active, __ATOMIC_ACQUIRE);

	for (uint32_t i = 0; i < active; i++)
		if (view_pending(&a->view[i]))
			return true;
	return false;
}

/* The program has nothing to do just now: what waited for that goes out (ACKs). Cheap when nothing did. */
static inline void process_idle(void)
{
	uint32_t n = atomic_load_explicit(&attached_count, memory_order_acquire);

	for (uint32_t i = 0; i < n; i++) {
		if (__builtin_expect(!__atomic_load_n(&attached[i]->s->ack_soon, __ATOMIC_RELAXED), 1))
			continue;
		stack_enter(attached[i]);
		tcp_flush_acks(&attached[i]->e);
		stack_leave(attached[i]);
	}
}

#define IDLE_SPINS 32 /* a spinning thread is idle after so many looks */
#define POLL_BUDGET 64

/* With the lock: take in what has arrived and fire what is due. Number of frames. Processes that share the stack read
 * their clocks each for itself, so one may be a little behind: the stack's time never goes back. */
static inline int stack_poll(struct attached *a, uint64_t now_us)
{
	int n;

	if (__builtin_expect(now_us < a->s->now_us, 0))
		now_us = a->s->now_us;
	n = engine_poll(&a->e, now_us, POLL_BUDGET);

	if (__builtin_expect(a->s->wheel.pending && now_us >> 10 > a->s->wheel.now_ms, 0))
		engine_tick(&a->e, now_us);
	return n;
}

#endif
