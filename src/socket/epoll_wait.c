/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * epoll_wait. Accelerated members that are ready are taken off the ready list without a system call; the kernel is
 * asked too when that is due (knob POLL_KERNEL_US) or when it had something the last time. When nothing is ready and
 * the call may wait, the wait itself looks at the kernel (wait.c).
 */
#define _GNU_SOURCE
#include <errno.h>

#include "socket/epoll_set.h"
#include "socket/kick.h"

#define BATCH 64       /* items that a wait takes at a time */
#define HALF_EVENTS 32 /* kernel halves looked at a time */

/* Take up to `max` items off the ready list: under items_lock. */
static int take(struct epset *set, struct item **out, int max)
{
	struct item *i;
	int n = 0;

	while (n < max && (i = set->ready_head)) {
		ready_remove(i);
		if (i->events & EPOLLONESHOT)
			i->flags |= ITEM_CLAIMED;
		i->pins++;
		out[n++] = i;
	}
	return n;
}

/* What becomes of an item that was taken and found at `level`: under items_lock. Returns the events to report. */
static uint32_t settle(struct item *i, uint32_t level, bool peek)
{
	uint32_t events = (spread(level) | i->half_level) & i->events & LEVELS;
	bool lost_claim = i->events & EPOLLONESHOT && !(i->flags & ITEM_CLAIMED);

	i->pins--;
	if (i->flags & ITEM_DEAD) {
		item_reap(i);
		return 0;
	}
	if (lost_claim || i->flags & ITEM_DISABLED)
		return 0; /* changed meanwhile: epoll_ctl has put it back if it is ready */
	if (!events) {
		if (i->flags & ITEM_MISSED)
			ready_push(i);
		i->flags &= ~(uint32_t)(ITEM_CLAIMED | ITEM_MISSED);
		return 0;
	}
	i->flags &= ~(uint32_t)(ITEM_CLAIMED | ITEM_MISSED);
	if (peek) {
		ready_push(i);
		return events;
	}
	i->half_level = 0;
	if (i->events & EPOLLONESHOT)
		i->flags |= ITEM_DISABLED;
	else if (!(i->events & EPOLLET))
		ready_push(i);
	return events;
}

/* Report what is ready, at most `max`; events NULL: only tell whether something is, and leave it as it is. */
static int collect(struct epset *set, struct epoll_event *events, int max)
{
	struct item *taken[BATCH];
	uint32_t level[BATCH], left = atomic_load_explicit(&set->ready_n, memory_order_acquire);
	int n = 0;

	while (n < max && left) {
		int want = max - n < BATCH ? max - n : BATCH, got;

		if ((uint32_t)want > left)
			want = (int)left;
		items_lock();
		got = take(set, taken, want);
		items_unlock();
		if (!got)
			break;
		left -= (uint32_t)got;
		for (int i = 0; i < got; i++)
			level[i] = vs_poll(taken[i]->v);
		items_lock();
		for (int i = 0; i < got; i++) {
			uint64_t data = taken[i]->data;
			uint32_t report = settle(taken[i], level[i], !events);

			if (!report)
				continue;
			if (events)
				events[n] = (struct epoll_event){.events = report, .data.u64 = data};
			n++;
		}
		items_unlock();
	}
	return n;
}

/* Members that are sets with something ready. */
static int collect_nested(struct epset *set, struct epoll_event *events, int n, int max)
{
	for (struct nested *m = set->nested; m && n < max; m = m->next) {
		uint32_t report = m->events & (EPOLLIN | EPOLLRDNORM);

		if (report && ep_readable(m->inner))
			events[n++] = (struct epoll_event){.events = report, .data.u64 = m->data};
	}
	return n;
}

bool ep_readable(struct epset *set)
{
	if (atomic_load_explicit(&set->ready_n, memory_order_acquire) && collect(set, NULL, 1) > 0)
		return true;
	for (struct nested *m = set->nested; m; m = m->next)
		if (ep_readable(m->inner))
			return true;
	return false;
}

/* Ask the kernel about the halves and put those that are ready on the list. */
static void look_at_halves(struct epset *set)
{
	struct epoll_event ev[HALF_EVENTS];
	int n = host_sys.epoll_pwait(set->halves, ev, HALF_EVENTS, 0, NULL);

	if (n <= 0)
		return;
	items_lock();
	for (int k = 0; k < n; k++) {
		struct item *i = (struct item *)(uintptr_t)(ev[k].data.u64 & ((1ull << 48) - 1));

		if (i->gen != ev[k].data.u64 >> 48 || i->set != set || i->flags & ITEM_DEAD)
			continue;
		i->half_level = spread(ev[k].events);
		item_event(i);
	}
	items_unlock();
}

/* Take our own kick out of the program's events. */
static int filter_kick(struct epset *set, struct epoll_event *events, int n)
{
	int kept = 0;

	for (int i = 0; i < n; i++)
		if (!set->kicked || events[i].data.u64 != DATA_KICK)
			events[kept++] = events[i];
	return kept;
}

/* Only where something is ready at all: an item that was reported stays on the list until somebody asks for its level,
 * and a wait that finds nothing looks at the kernel itself. */
static bool due(struct epset *set)
{
	uint64_t now = clock_cycles();

	if (now - set->looked < knob[K_POLL_KERNEL_US] * clock_cycles_per_us() && !wait_take_refused())
		return false;
	if (!collect(set, NULL, 1))
		return false;
	set->looked = now;
	return true;
}

/* Usually neither the program's kernel members nor the halves have anything: one call tells. */
static void ask_both(const struct epset *set, bool *kernel, bool *halves)
{
	struct epoll_event ev[2];
	int n = host_sys.epoll_pwait(set->inner, ev, 2, 0, NULL);

	*kernel = *halves = false;
	for (int i = 0; i < n; i++)
		*(ev[i].data.fd == set->halves ? halves : kernel) = true;
}

/* What is ready now: accelerated members, and kernel members if they are due, or `must` be asked. */
static int gather(struct epset *set, struct epoll_event *events, int max, bool must)
{
	bool kernel = atomic_load_explicit(&set->kernel_n, memory_order_relaxed) != 0;
	bool halves = atomic_load_explicit(&set->halves_n, memory_order_relaxed) != 0;
	bool some = must || atomic_load_explicit(&set->ready_n, memory_order_relaxed);
	bool look = (kernel || halves) && (set->kernel_busy || (must && kernel) || (some && due(set)));
	int n, r = 0;

	if (look && halves && set->forked)
		set_rebuild(set);
	if (look && kernel && halves && !set->kernel_busy && set->inner >= 0)
		ask_both(set, &kernel, &halves);
	if (look && halves)
		look_at_halves(set);
	n = collect(set, events, max);
	if (set->nested)
		n = collect_nested(set, events, n, max);
	if (look && kernel && n < max) {
		r = host_sys.epoll_pwait(set->epfd, events + n, max - n, 0, NULL);
		r = r > 0 ? filter_kick(set, events + n, r) : 0;
	}
	if (look)
		set->kernel_busy = r > 0;
	return n + r;
}

/* What a waiting thread looks at for the kernel's members; -1: there are none. */
static int kernel_fd(const struct epset *set)
{
	if (atomic_load(&set->halves_n) && set->inner >= 0)
		return set->inner;
	return atomic_load(&set->kernel_n) || set->nested ? set->epfd : -1;
}

struct ep_waiter {
	struct epset *set;
	int kernel_fd;
};

static bool set_ready(void *arg)
{
	const struct ep_waiter *waiter = arg;
	struct epset *set = waiter->set;

	if (atomic_load_explicit(&set->ready_n, memory_order_acquire) || kernel_fd(set) != waiter->kernel_fd)
		return true;
	for (struct nested *m = set->nested; m; m = m->next)
		if (ep_readable(m->inner))
			return true;
	return false;
}

/* Something is left for the next waiter. */
static void pass_on(struct epset *set)
{
	if (atomic_load(&set->sleepers) && atomic_load(&set->ready_n))
		wait_wake_all();
}

static int wait_blocking(struct epset *set, struct epoll_event *events, int max, int64_t timeout_us,
			 const sigset_t *sigmask)
{
	uint64_t start = timeout_us > 0 ? clock_us() : 0;
	int64_t left = timeout_us;
	int r, n;

	if (set->forked)
		set_rebuild(set);
	for (;;) {
		struct ep_waiter waiter = {set, kernel_fd(set)};
		struct wait w = {.ready = set_ready, .arg = &waiter, .timeout_us = left, .sigmask = sigmask};

		w.kernel_fd = waiter.kernel_fd;
		w.kernel_id = waiter.kernel_fd >= 0 ? set->id : 0;
		w.as_epoll = true;
		atomic_fetch_add(&set->sleepers, 1);
		r = wait_for_masked(&w);
		atomic_fetch_sub(&set->sleepers, 1);
		if (w.kernel_ready)
			set->kernel_busy = true;
		else if (w.slept || w.looked)
			set->looked = clock_cycles(); /* the wait has watched the kernel's members */
		n = gather(set, events, max, w.kernel_ready || (r == -ETIMEDOUT && !w.slept));
		if (n)
			return n;
		if (r < 0)
			return r == -ETIMEDOUT ? 0 : r;
		left = wait_left(start, timeout_us);
	}
}

/* No accelerated member: the kernel waits. Returns -EAGAIN when the set got one meanwhile and nothing was ready. */
static int wait_plain(struct epset *set, struct epoll_event *events, int max, int64_t timeout_us,
		      const sigset_t *sigmask)
{
	int64_t ms = timeout_us < 0 ? -1 : (timeout_us + 999) / 1000;
	int r, kept;

	atomic_fetch_add(&set->plain_waiters, 1);
	if (ep_has_accelerated(set)) {
		atomic_fetch_sub(&set->plain_waiters, 1);
		return -EAGAIN;
	}
	r = host_sys.epoll_pwait(set->epfd, events, max, ms > INT32_MAX ? INT32_MAX : (int)ms, sigmask);
	r = r < 0 ? -errno : r;
	atomic_fetch_sub(&set->plain_waiters, 1);
	if (r <= 0 || !set->kicked)
		return r;
	kept = filter_kick(set, events, r);
	return kept ? kept : -EAGAIN;
}

/* The last thread that slept in the kernel is back: the kick has done its work. */
static void unkick(struct epset *set)
{
	struct epoll_event ev = {0};

	ctl_lock();
	if (set->kicked && !atomic_load(&set->plain_waiters)) {
		host_sys.epoll_ctl(set->epfd, EPOLL_CTL_DEL, set->kick, &ev);
		set->kicked = false;
	}
	ctl_unlock();
}

int ep_wait(struct epset *set, struct epoll_event *events, int max, int64_t timeout_us, const sigset_t *sigmask)
{
	int n;

	if (max <= 0)
		return -EINVAL;
	kick_end();
	if (!ep_has_accelerated(set)) {
		n = wait_plain(set, events, max, timeout_us, sigmask);
		if (n != -EAGAIN)
			return n;
	}
	if (set->kicked)
		unkick(set);
	wait_poll_stacks();
	n = gather(set, events, max, timeout_us == 0);
	if (!n && timeout_us)
		n = wait_blocking(set, events, max, timeout_us, sigmask);
	if (n > 0)
		pass_on(set);
	kick_expect(n);
	return n;
}
