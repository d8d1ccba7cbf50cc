/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The lock's slow half: waiting for it, and noticing that its owner died (lock.h has the fast half).
 *
 * A waiter spins briefly (the lock is held for a microsecond or two), then marks the word and sleeps on it: at first
 * for LOCK_FIRST_US, as an owner who releases with a plain store may miss the mark, then twice as long each time, at
 * most LOCK_CHECK_MS. When that is over it asks the kernel whether the owner still lives:
 *   - a process of the stack (stack.proc) has a thread of that tid, and it is not a zombie; and
 *   - that thread began before we began to wait for it (else the number was given out anew).
 * If not, the waiter takes the word over with one exchange, so that only one successor repairs.
 */
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "socket/lock.h"
#include "socket/proc_info.h"
#include "socket/raw.h"

#define LOCK_SPINS 200
#define LOCK_FIRST_US 50
#define LOCK_CHECK_MS 20

_Thread_local uint32_t lock_tid;
_Thread_local volatile uint32_t wait_lock_depth;
_Thread_local volatile bool wait_signal_pending;
_Thread_local volatile uint32_t wait_signals[2];
void (*wait_signals_deferred)(void);

void lock_tid_load(void)
{
	lock_tid = (uint32_t)raw_call(SYS_gettid, 0, 0, 0, 0, 0, 0);
}

void lock_run_signals(void)
{
	if (wait_signals_deferred)
		wait_signals_deferred();
}

void lock_wake(struct stack_lock *l)
{
	raw_call(SYS_futex, (long)&l->owner, FUTEX_WAKE, 1, 0, 0, 0);
}

/* True if no thread that could hold the lock since `since` (clock ticks after boot) has this tid. */
static bool owner_dead(const struct stack *s, uint32_t tid, uint64_t since)
{
	for (uint32_t i = 0; i < PROC_MAX; i++) {
		uint32_t pid = s->proc[i].pid;
		struct thread_info info;

		if (!pid || raw_call(SYS_tgkill, pid, tid, 0, 0, 0, 0) < 0)
			continue;
		if (proc_thread_info(pid, tid, &info) < 0)
			return false; /* no /proc to ask: it is there, says tgkill */
		return info.state == 'Z' || info.state == 'X' || info.start_time > since;
	}
	return true;
}

/* True: the word stood as it is for as long as an owner may take unasked. *us: how long to sleep, this time and next.
 */
static bool sleep_for(struct stack_lock *l, uint32_t word, uint32_t *us)
{
	struct timespec ts = {.tv_nsec = *us * 1000L};
	bool longest = *us == LOCK_CHECK_MS * 1000;

	*us = 2 * *us < LOCK_CHECK_MS * 1000 ? 2 * *us : LOCK_CHECK_MS * 1000;
	return raw_call(SYS_futex, (long)&l->owner, FUTEX_WAIT, (long)word, (long)&ts, 0, 0) == -ETIMEDOUT && longest;
}

bool lock_take_slow(struct stack *s)
{
	struct stack_lock *l = &s->lock;
	uint32_t seen = 0, us = LOCK_FIRST_US;
	uint64_t since = 0;

	for (int i = 0; i < LOCK_SPINS; i++) {
		uint32_t none = 0;

		if (!atomic_load_explicit(&l->owner, memory_order_relaxed) &&
		    atomic_compare_exchange_strong_explicit(&l->owner, &none, lock_tid, memory_order_acquire,
							    memory_order_relaxed))
			return false;
		wait_relax();
	}
	for (;;) {
		/* Others may sleep too: whoever got here leaves the mark, so that its release wakes the next. */
		uint32_t word = atomic_load_explicit(&l->owner, memory_order_relaxed);

		if (!word) {
			if (atomic_compare_exchange_strong(&l->owner, &word, lock_tid | LOCK_SLEEPERS))
				return false;
			continue;
		}
		if (!(word & LOCK_SLEEPERS) && !atomic_compare_exchange_strong(&l->owner, &word, word | LOCK_SLEEPERS))
			continue;
		word |= LOCK_SLEEPERS;
		if (word != seen) {
			seen = word;
			since = proc_clock_ticks();
			us = LOCK_FIRST_US;
		}
		if (sleep_for(l, word, &us) && owner_dead(s, word & ~LOCK_SLEEPERS, since) &&
		    atomic_compare_exchange_strong(&l->owner, &word, lock_tid | LOCK_SLEEPERS))
			return true;
	}
}
