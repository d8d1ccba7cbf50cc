/* SPDX-License-Identifier: BSD-2-Clause */
/* Kicks: see kick.h. */
#include "socket/kick.h"

#include "host/host.h"
#include "host/xsk.h"
#include "socket/helper.h"
#include "socket/net.h"
#include "socket/net_chardev.h"
#include "vnic/chardev.h"

#define HOLD_US 50u /* the first of a batch is not held longer, as long as the thread comes back here */
#define GAP_US 10u  /* more between two answers: the thread does other things than to answer */

_Thread_local struct kicks kicks;

bool kick_due(const struct vnic *v)
{
	if (!v->wake_fd || !v->ops)
		return false;
	return v->st->provider == VNIC_PROV_CHARDEV ? chardev_kick_due(v) : xdp_kick_due(v);
}

void kick_expect_many(uint32_t n)
{
	if (!net_wakes())
		return;
	kicks.expected = n;
	kicks.last = 0;
}

/* True: frames are left, which the kernel does not take just now. */
static bool kick_one(const struct attached *a, uint32_t vnic)
{
	const struct vnic *v = &a->e.vnic[vnic];

	if (!kick_due(v))
		return false;
	if (v->st->provider == VNIC_PROV_CHARDEV)
		net_chardev_kick(v);
	else
		(void)xsk_kick(v->wake_fd - 1, v->priv);
	return kick_due(v);
}

/* The books are changed with handlers put off: one that sends comes here, too. */
static void books_open(void)
{
	wait_lock_depth++;
}

static void books_close(void)
{
	if (--wait_lock_depth == 0 && __builtin_expect(wait_signal_pending, 0))
		lock_run_signals();
}

void kick_flush(void)
{
	struct kicks now;

	books_open();
	now = kicks;
	kicks.n = 0;
	books_close();
	for (uint32_t i = 0; i < now.n; i++)
		kick_one(now.held[i].a, now.held[i].vnic);
}

void kick_held(void)
{
	kicks.expected = 0;
	kick_flush();
}

static bool hold(struct attached *a, uint32_t vnic)
{
	for (uint32_t i = 0; i < kicks.n; i++)
		if (kicks.held[i].a == a && kicks.held[i].vnic == vnic)
			return true;
	if (kicks.n == KICK_VNICS || !helper_alarm())
		return false;
	kicks.held[kicks.n].a = a;
	kicks.held[kicks.n++].vnic = vnic;
	return true;
}

static bool may_wait(void)
{
	uint64_t now = clock_counter(), us = clock_cycles_per_us();

	if (kicks.last)
		kicks.slow = now - kicks.last > GAP_US * us;
	kicks.last = now;
	if (!kicks.n)
		kicks.since = now;
	return !kicks.slow && now - kicks.since <= HOLD_US * us;
}

void kick_posted(struct attached *a, uint32_t vnic)
{
	bool batch = kicks.expected > 1, held = false;

	if (batch) {
		books_open();
		kicks.expected--;
		held = may_wait() && hold(a, vnic);
		books_close();
	}
	if (held)
		return;
	kick_one(a, vnic);
	if (kicks.n)
		kick_flush();
	if (batch)
		kicks.last = clock_counter();
}

bool kick_stack(struct attached *a)
{
	uint16_t due[VNIC_MAX];
	uint32_t n = 0;
	bool left = false;

	stack_enter(a);
	if (helper_self)
		lock_unseen(a->s);
	for (uint32_t i = 0; i < a->active; i++) {
		const struct vnic *v = &a->e.vnic[a->vnic[i]];

		if (kick_due(v))
			due[n++] = a->vnic[i];
	}
	stack_leave(a);
	for (uint32_t i = 0; i < n; i++)
		left |= kick_one(a, due[i]);
	return left;
}

void kick_all(void)
{
	kicks.expected = kicks.n = 0;
	if (!net_wakes())
		return;
	for (uint32_t i = 0; i < atomic_load(&attached_count); i++)
		kick_stack(attached[i]);
}

void kick_after_fork(void)
{
	kicks = (struct kicks){0};
}
