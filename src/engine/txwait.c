/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Back-pressure of a vNIC: sockets that were refused a tx buffer wait in a list, first come first served.
 *
 * The list is doubly linked through the sockets (txwait_next, txwait_prev) with its ends in the vNIC's state, so that
 * joining and leaving cost O(1) at any number of sockets. A socket is in a list iff txwait_prev is not 0; the first
 * one's txwait_prev is its own index. engine_poll calls txwait_run after each vNIC: one load when nobody waits.
 *
 * A woken socket leaves the list, hears EV_OUT and may output; if buffers are short again it joins at the end. At most
 * as many are woken at once as there are free buffers, so a herd does not run for one buffer.
 *
 * There is a second line, of sockets whose peer has no window for what they would write (tcp_send.c). They are woken
 * when their window opens (tcp_write_space), or when so many buffers are free that they may have some all the same.
 */
#include "engine/engine.h"
#include "engine/tcp_internal.h"

void txwait_add(struct engine *e, struct sock *k)
{
	txwait_add_on(e, k, k->vnic);
}

static uint32_t *line_head(struct vnic_state *st, const struct sock *k)
{
	return k->txwait_held ? &st->txheld_head : &st->txwait_head;
}

static uint32_t *line_tail(struct vnic_state *st, const struct sock *k)
{
	return k->txwait_held ? &st->txheld_tail : &st->txwait_tail;
}

static void join(struct engine *e, struct sock *k, uint32_t vnic, bool held)
{
	struct vnic_state *st = stack_vnic(e->s, vnic);
	struct sock *last;
	uint32_t i = sock_index(e->s, k);

	if (k->txwait_prev || !st)
		return;
	k->txwait_held = held;
	last = sock_at(e->s, *line_tail(st, k));
	k->txwait_vnic = vnic;
	k->txwait_next = 0;
	k->txwait_prev = last ? *line_tail(st, k) : i;
	if (last)
		last->txwait_next = i;
	else
		*line_head(st, k) = i;
	*line_tail(st, k) = i;
}

void txwait_add_on(struct engine *e, struct sock *k, uint32_t vnic)
{
	join(e, k, vnic, false);
}

void txwait_add_held(struct engine *e, struct sock *k)
{
	join(e, k, k->vnic, true);
}

void txwait_remove(struct engine *e, struct sock *k)
{
	struct vnic_state *st = stack_vnic(e->s, k->txwait_vnic);
	struct sock *next, *prev;
	uint32_t i = sock_index(e->s, k);

	if (!k->txwait_prev || !st)
		return;
	next = sock_at(e->s, k->txwait_next);
	prev = k->txwait_prev == i ? NULL : sock_at(e->s, k->txwait_prev);
	if (prev)
		prev->txwait_next = k->txwait_next;
	else
		*line_head(st, k) = k->txwait_next;
	if (next)
		next->txwait_prev = prev ? k->txwait_prev : k->txwait_next;
	else
		*line_tail(st, k) = prev ? k->txwait_prev : 0;
	k->txwait_next = k->txwait_prev = k->txwait_held = 0;
}

static void wake(struct engine *e, struct sock *k)
{
	sock_changing(e->s, k);
	txwait_remove(e, k);
	sock_notify(e, k, EV_OUT);
	if (k->proto == SOCK_TCP) {
		k->tcp.flags &= ~TCPF_NOBUF;
		tcp_output(e, k);
	}
}

/* As many as there are buffers beyond those that are kept for data inside a window. */
void txwait_run_held(struct engine *e, uint32_t vnic)
{
	struct vnic_state *st = stack_vnic(e->s, vnic);
	uint32_t keep = st->tx_count / 8 * TXHELD_EIGHTHS + TXWAIT_RESERVE;
	struct sock *k;

	for (uint32_t i = keep; i < st->free_top && (k = sock_at(e->s, st->txheld_head)); i++)
		wake(e, k);
}

void txwait_run_slow(struct engine *e, uint32_t vnic)
{
	struct vnic_state *st = stack_vnic(e->s, vnic);
	uint32_t turns = st->free_top - TXWAIT_RESERVE;
	uint32_t last = st->txwait_tail;
	struct sock *k;
	bool end = false;

	while (!end && turns-- && (k = sock_at(e->s, st->txwait_head)) && st->free_top > TXWAIT_RESERVE) {
		end = st->txwait_head == last; /* those that join while we run have had their turn */
		wake(e, k);
	}
}
