/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The timer wheel (Varghese, Lauck 1987, scheme 7), lazily: see timer.h.
 *
 * Level 0 has a slot per tick for the next 63 ticks, each further level a slot per 64 of the one below. The wheel
 * looks at an entry when its slot comes up (`due`): at level 0 it fires, moves on if its deadline was put off, or is
 * forgotten if it was cleared; at higher levels it moves down. `occupied` has a bit per slot, so time is
 * skipped, not stepped through, and the next slot to look at is four bit operations away.
 */
#include "engine/engine.h"

#define TICK_SHIFT 10 /* 1024 us */
#define LEVEL_SHIFT 6
#define SLOT_MASK (TIMER_SLOTS - 1)
#define RANGE (1ull << (LEVEL_SHIFT * TIMER_LEVELS)) /* ticks; what is further away is looked at before */

#define ELSEWHERE_US 3000u /* a timer whose socket another process must serve: for that one to take notice of */

static inline uint64_t tick_of(uint64_t deadline_us)
{
	return (deadline_us + (1u << TICK_SHIFT) - 1) >> TICK_SHIFT;
}

static struct timer *timer_at(struct stack *s, uint32_t id)
{
	struct sock *k = sock_at(s, id / TIMER_KINDS);

	return k && k->proto == SOCK_TCP ? &k->tcp.timer[id % TIMER_KINDS] : NULL;
}

/* Put a timer into the slot for its deadline, at the next tick at the earliest. */
static void wheel_add(struct stack *s, struct timer *t, uint32_t id)
{
	struct timer_wheel *w = &s->wheel;
	uint64_t tick = tick_of(t->deadline_us);
	uint32_t level = 0, slot;
	struct timer *first;

	if (tick <= w->now_ms)
		tick = w->now_ms + 1;
	if (tick - w->now_ms >= RANGE)
		tick = w->now_ms + RANGE - 1;
	while (tick - w->now_ms >= 1ull << LEVEL_SHIFT * (level + 1))
		level++;
	slot = (uint32_t)(tick >> LEVEL_SHIFT * level & SLOT_MASK);
	first = timer_at(s, w->slot[level][slot]);
	t->due = (uint32_t)(tick >> LEVEL_SHIFT * level << LEVEL_SHIFT * level);
	t->slot = (uint16_t)(level * TIMER_SLOTS + slot + 1);
	t->prev = 0;
	t->next = w->slot[level][slot];
	if (first)
		first->prev = id;
	w->slot[level][slot] = id;
	w->occupied[level] |= 1ull << slot;
	w->pending++;
}

static void wheel_del(struct stack *s, struct timer *t)
{
	struct timer_wheel *w = &s->wheel;
	uint32_t level = (t->slot - 1u) / TIMER_SLOTS, slot = (t->slot - 1u) % TIMER_SLOTS;
	struct timer *next = timer_at(s, t->next), *prev = timer_at(s, t->prev);

	if (prev)
		prev->next = t->next;
	else
		w->slot[level][slot] = t->next;
	if (next)
		next->prev = t->prev;
	if (!w->slot[level][slot])
		w->occupied[level] &= ~(1ull << slot);
	t->slot = 0;
	t->next = t->prev = 0;
	w->pending--;
}

void timer_set(struct engine *e, struct sock *k, enum timer_kind kind, uint64_t deadline_us)
{
	struct timer_wheel *w = &e->s->wheel;
	struct timer *t = &k->tcp.timer[kind];

	t->deadline_us = deadline_us ? deadline_us : 1;
	if (t->slot) {
		if ((int32_t)((uint32_t)tick_of(t->deadline_us) - t->due) >= 0)
			return;
		wheel_del(e->s, t);
	}
	if (!w->pending && e->s->now_us >> TICK_SHIFT > w->now_ms)
		w->now_ms = e->s->now_us >> TICK_SHIFT; /* nothing lies between */
	wheel_add(e->s, t, sock_index(e->s, k) * TIMER_KINDS + (uint32_t)kind);
}

void timer_clear(struct sock *k, enum timer_kind kind)
{
	k->tcp.timer[kind].deadline_us = 0;
}

void timer_remove_all(struct engine *e, struct sock *k)
{
	for (int kind = 0; kind < TIMER_KINDS; kind++) {
		struct timer *t = &k->tcp.timer[kind];

		if (t->slot)
			wheel_del(e->s, t);
		t->deadline_us = 0;
	}
}

/* Move what a slot of a higher level holds to where it belongs now. */
static void cascade(struct stack *s, uint32_t level, uint32_t slot)
{
	struct timer_wheel *w = &s->wheel;
	uint32_t id = w->slot[level][slot];
	struct timer *t;

	/* Taken off as a whole: an entry may come back to this very slot, a lap later. */
	w->slot[level][slot] = 0;
	w->occupied[level] &= ~(1ull << slot);
	while ((t = timer_at(s, id))) {
		uint32_t next = t->next;

		t->slot = 0;
		w->pending--;
		if (t->deadline_us && tick_of(t->deadline_us) <= w->now_ms) {
			/* Due at this very tick: level 0's slot of now is looked at next. */
			uint32_t now = (uint32_t)w->now_ms & SLOT_MASK;
			struct timer *first = timer_at(s, w->slot[0][now]);

			t->prev = 0;
			t->next = w->slot[0][now];
			if (first)
				first->prev = id;
			w->slot[0][now] = id;
			w->occupied[0] |= 1ull << now;
			t->slot = (uint16_t)(now + 1);
			t->due = (uint32_t)w->now_ms;
			w->pending++;
		} else if (t->deadline_us) {
			wheel_add(s, t, id);
		}
		id = next;
	}
}

/* What fires last may set a timer: with nothing else pending the wheel then goes on to the present, and all that the
 * slot holds is for a later lap. */
static void fire_slot(struct engine *e)
{
	struct stack *s = e->s;
	struct timer_wheel *w = &s->wheel;
	uint64_t now_ms = w->now_ms;
	uint32_t slot = (uint32_t)now_ms & SLOT_MASK, id;
	struct timer *t;

	while (w->now_ms == now_ms && (t = timer_at(s, id = w->slot[0][slot]))) {
		wheel_del(s, t);
		if (!t->deadline_us)
			continue;
		if (tick_of(t->deadline_us) > w->now_ms) {
			wheel_add(s, t, id);
			continue;
		}
		if (__builtin_expect(sock_elsewhere(e, sock_at(s, id / TIMER_KINDS)), 0)) {
			t->deadline_us = s->now_us + ELSEWHERE_US;
			wheel_add(s, t, id);
			continue;
		}
		t->deadline_us = 0;
		sock_changing(s, sock_at(s, id / TIMER_KINDS));
		tcp_timer(e, sock_at(s, id / TIMER_KINDS), (enum timer_kind)(id % TIMER_KINDS));
	}
}

/* The next tick at which a slot comes up; UINT64_MAX: all are empty. */
static uint64_t next_tick(const struct timer_wheel *w)
{
	uint64_t best = UINT64_MAX;

	for (uint32_t level = 0; level < TIMER_LEVELS; level++) {
		uint64_t base = (w->now_ms >> LEVEL_SHIFT * level) + 1, bits = w->occupied[level], tick;
		uint32_t turn = (uint32_t)base & SLOT_MASK;

		if (!bits)
			continue;
		bits = turn ? bits >> turn | bits << (64 - turn) : bits;
		tick = (base + (uint32_t)__builtin_ctzll(bits)) << LEVEL_SHIFT * level;
		if (tick < best)
			best = tick;
	}
	return best;
}

static void run_slow(struct engine *e, uint64_t until)
{
	struct timer_wheel *w = &e->s->wheel;
	uint64_t tick;

	while ((tick = next_tick(w)) <= until) {
		w->now_ms = tick;
		for (uint32_t level = TIMER_LEVELS - 1; level > 0; level--)
			if (!(tick & ((1ull << LEVEL_SHIFT * level) - 1)))
				cascade(e->s, level, (uint32_t)(tick >> LEVEL_SHIFT * level) & SLOT_MASK);
		fire_slot(e);
	}
	if (w->now_ms < until)
		w->now_ms = until;
}

void timer_run(struct engine *e, uint64_t now_us)
{
	if (now_us >> TICK_SHIFT > e->s->wheel.now_ms)
		run_slow(e, now_us >> TICK_SHIFT);
}

uint64_t timer_next(const struct engine *e)
{
	uint64_t tick = e->s->wheel.pending ? next_tick(&e->s->wheel) : UINT64_MAX;

	return tick == UINT64_MAX ? UINT64_MAX : tick << TICK_SHIFT;
}
