/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The stack's lock: one word in shared memory that holds the tid of its owner, so that whoever waits can tell a slow
 * owner from a dead one. Uncontended it costs one compare-and-exchange and one exchange. The release is a full barrier:
 * a doorbell check may follow it without another fence. Where none follows, a plain store does (lock_release_plain).
 *
 * A thread that holds a lock must not run a signal handler of the program (it would call back into us and deadlock):
 * wait_lock_depth tells the preload library's trampoline to put it off.
 *
 * lock_take returns true when it took the lock over from an owner that died: the caller must repair (stack_repair)
 * before anything else. Locks of several stacks are taken in the order of their attachment numbers.
 */
#ifndef VD_LOCK_H
#define VD_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/stack.h"
#include "socket/wait.h"

#define LOCK_SLEEPERS 0x80000000u /* somebody sleeps on the word */

/* This thread's tid; 0: not asked yet (start of the thread, after fork). */
extern _Thread_local uint32_t lock_tid;
void lock_tid_load(void);

bool lock_take_slow(struct stack *s);
void lock_wake(struct stack_lock *l);
void lock_run_signals(void);

static inline bool lock_take(struct stack *s)
{
	uint32_t none = 0;
	bool died = false;

	if (__builtin_expect(!lock_tid, 0))
		lock_tid_load();
	wait_lock_depth++;
	if (__builtin_expect(!atomic_compare_exchange_strong_explicit(&s->lock.owner, &none, lock_tid,
								      memory_order_acquire, memory_order_relaxed),
			     0))
		died = lock_take_slow(s);
	atomic_store_explicit(&s->lock.acquired, atomic_load_explicit(&s->lock.acquired, memory_order_relaxed) + 1,
			      memory_order_relaxed);
	return died;
}

/* By a helper, with the lock: it was not the program. Those of other processes of the tree are not to take it for that
 * either. */
static inline void lock_unseen(struct stack *s)
{
	atomic_store_explicit(&s->lock.acquired, atomic_load_explicit(&s->lock.acquired, memory_order_relaxed) - 1,
			      memory_order_relaxed);
}

static inline void lock_release(struct stack *s)
{
	uint32_t old;

	s->lock.changing = s->lock.vnic = 0;
	old = atomic_exchange_explicit(&s->lock.owner, 0, memory_order_seq_cst);

	if (__builtin_expect(old & LOCK_SLEEPERS, 0))
		lock_wake(&s->lock);
	if (--wait_lock_depth == 0 && __builtin_expect(wait_signal_pending, 0))
		lock_run_signals();
}

/* By one who has nothing to tell to anybody: no frame was posted, no timer set. It waits for no earlier store, and is
 * no barrier. Who marks the word between our look at it and our store sleeps unnoticed, but not for long (lock.c). */
static inline void lock_release_plain(struct stack *s)
{
	if (__builtin_expect(atomic_load_explicit(&s->lock.owner, memory_order_relaxed) != lock_tid, 0)) {
		lock_release(s);
		return;
	}
	s->lock.changing = s->lock.vnic = 0;
	atomic_store_explicit(&s->lock.owner, 0, memory_order_release);
	if (--wait_lock_depth == 0 && __builtin_expect(wait_signal_pending, 0))
		lock_run_signals();
}

/* A mutex of the socket layer: like the stack's lock it puts signal handlers off, which may need it too. */
static inline void quiet_lock(pthread_mutex_t *m)
{
	wait_lock_depth++;
	pthread_mutex_lock(m);
}

static inline void quiet_unlock(pthread_mutex_t *m)
{
	pthread_mutex_unlock(m);
	if (--wait_lock_depth == 0 && __builtin_expect(wait_signal_pending, 0))
		lock_run_signals();
}

#endif
