/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Waiting: spin for about as long as a wake-up costs, then sleep. One function for blocking calls, poll, select
 * and epoll. See wait.c for how spinning adapts and how no wake-up is lost.
 */
#ifndef VD_WAIT_H
#define VD_WAIT_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "host/host.h"
#include "socket/vsock.h"

struct wait {
	/* Asked at the start and after every event that may matter; called without locks. True: done. */
	bool (*ready)(void *arg);
	void *arg;
	int64_t timeout_us;      /* < 0: for ever; 0: look once */
	const sigset_t *sigmask; /* during the wait, as ppoll's; NULL: unchanged */
	int kernel_fd;           /* an epoll descriptor to look at from time to time and while asleep; -1 none */
	bool restart;            /* SA_RESTART handlers do not end the wait (blocking recv, send, accept, connect) */
	bool kernel_ready;       /* out: kernel_fd has events */
	/* What follows may be left zero. */
	vsock_t sock;       /* the only socket whose news matter; none: any socket's */
	bool takes_in;      /* ready() itself takes in what has arrived on the stack of `sock` */
	bool as_epoll;      /* it is epoll_wait, which a stop and continuation may end */
	uint64_t kernel_id; /* not 0: what kernel_fd is, although the number may be given out anew (wait_kernel_id) */
	uint32_t watch_events; /* POLLIN, POLLOUT: a kernel descriptor to wake up for; 0: none. Asleep only. */
	int watch_fd;
	bool looked;      /* out: kernel_fd had nothing POLL_KERNEL_US ago or later */
	bool slept;       /* out: it slept, and kernel_fd had nothing when it woke up */
	bool watch_ready; /* out: watch_fd has had one of watch_events */
};

/* What is left of a timeout that began at start_us; one of 0 or for ever stays what it is. */
static inline int64_t wait_left(uint64_t start_us, int64_t timeout_us)
{
	uint64_t spent;

	if (timeout_us <= 0)
		return timeout_us;
	spent = clock_us() - start_us;
	return spent >= (uint64_t)timeout_us ? 0 : timeout_us - (int64_t)spent;
}

/* Between two looks of a spinning thread. */
static inline void wait_relax(void)
{
#ifdef __x86_64__
	__builtin_ia32_pause();
#else
	__asm__ volatile("" ::: "memory");
#endif
}

/* 0: ready() said true, or kernel_ready; -ETIMEDOUT; -EINTR. */
int wait_for(struct wait *w);
/* The same with w->sigmask in force from the start, also while it spins. */
int wait_for_masked(struct wait *w);

/* Take in what has arrived on all attached stacks (bounded burst) and hand news to epoll sets. True: something
 * was taken in. The cheap look before every nonblocking operation. */
bool wait_poll_stacks(void);

/* Sockets with news: called, without locks, for each (socket, EV_* edges) drained from the dirty rings, in the
 * process that holds it. Set by epoll.c when the first epoll set is made (while it is NULL, nobody drains). */
extern void (*wait_on_news)(vsock_t v, uint32_t edges);
/* Something that ready() looks at changed without news from a stack (epoll_ctl, close in another thread): all who
 * wait in this process look again. */
void wait_wake_all(void);
/* A stack that is attached has bells from now on (bells.h). */
void wait_bells_made(void);
/* Threads keep the kernel_fd of their last wait registered where they sleep. A name for one of its kind, never given
 * twice; and one of them is about to be closed. */
uint64_t wait_kernel_id(void);
void wait_kernel_closing(void);
/* Does this thread have a descriptor that it sleeps on? Close it; its next sleep makes a new one, or does without. */
bool wait_has_bed(void);
void wait_give_way(void);
/* In the child after fork. */
void wait_after_fork(void);

/* A kernel half has refused this thread a datagram, and its error queue says why: who asks what is ready looks at the
 * kernel halves now, not when it is due again. */
extern _Thread_local bool wait_half_refused;
static inline bool wait_take_refused(void)
{
	bool refused = wait_half_refused;

	wait_half_refused = false;
	return refused;
}

/* Each run of a signal handler in this thread counts up (the preload library's trampoline): [0] handlers without
 * SA_RESTART, [1] with. */
extern _Thread_local volatile uint32_t wait_signals[2];
/* This thread is about to sleep, or sleeps. A handler that runs then must call wait_nudge when it returns, lest it came
 * between the last look at wait_signals and the sleep; it leaves the flag as it found it. */
extern _Thread_local volatile bool wait_near_sleep;
void wait_nudge(void);
/* pthread_cancel has named this thread: its waits end with -EINTR, unless it has cancellation switched off. */
extern _Thread_local volatile bool wait_cancelled;
/* Depth of stack locks this thread holds: the trampoline defers handlers while it is not 0, and
 * wait_signals_deferred is called when it gets back to 0 with signals pending. */
extern _Thread_local volatile uint32_t wait_lock_depth;
extern _Thread_local volatile bool wait_signal_pending;
extern void (*wait_signals_deferred)(void);

#endif
