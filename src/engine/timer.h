/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Timers: a hierarchical wheel (four levels of 64 slots, ticks of 1024 us), O(1) to set, cancel and fire. A timer fires
 * at the first tick at or after its deadline: never early, at most a tick late.
 * They are lazy: a socket has TIMER_KINDS timers, each with an absolute deadline; moving a deadline later, or
 * clearing it, touches only the socket. When the entry's slot comes up, the wheel looks at the deadline and
 * fires, moves on, or forgets. So the data path, which moves the retransmission timer with each segment,
 * costs one store.
 */
#ifndef VD_TIMER_H
#define VD_TIMER_H

#include <stdbool.h>
#include <stdint.h>

struct engine;
struct sock;

/* The timers of a socket. */
enum timer_kind {
	TIMER_RTO,    /* retransmission, zero-window probe, SYN */
	TIMER_DELACK, /* delayed acknowledgement */
	TIMER_KEEP,   /* keepalive */
	TIMER_LIFE,   /* TIME-WAIT, FIN-WAIT-2, linger, user timeout */
	TIMER_KINDS
};

struct timer {
	uint64_t deadline_us; /* 0: not set */
	uint32_t next, prev;  /* wheel slot list: timer id = socket index * TIMER_KINDS + kind, 0 none */
	uint16_t slot;        /* where in the wheel, plus 1; 0: not in it */
	uint16_t pad;
	uint32_t due; /* tick at which the wheel looks at it (low 32 bits) */
};

void timer_set(struct engine *e, struct sock *k, enum timer_kind kind, uint64_t deadline_us);
void timer_clear(struct sock *k, enum timer_kind kind);
/* True: t is in the wheel and will be looked at by deadline_us, so that storing the deadline sets it. */
static inline bool timer_covers(const struct timer *t, uint64_t deadline_us)
{
	return t->slot && (int32_t)((uint32_t)((deadline_us + 1023) >> 10) - t->due) >= 0;
}
static inline uint64_t timer_deadline(const struct timer *t)
{
	return t->deadline_us;
}
/* Take all of a socket's timers out of the wheel (before its slot is freed). */
void timer_remove_all(struct engine *e, struct sock *k);
/* Calls tcp_timer(e, k, kind) for each that is due. */
void timer_run(struct engine *e, uint64_t now_us);
/* When timer_run wants to be called next, us; UINT64_MAX: never. Never later than the first timer's tick; earlier where
 * a timer was put off or cleared since it was set, or is far away. Each call then makes progress. */
uint64_t timer_next(const struct engine *e);

#endif
