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
 */
#include "engine/engine.h"
#include "engine/tcp_internal.h"

void txwait_add(struct engine *e, struct sock *k)
{
	txwait_add_on(e, k, k->vnic);
}

void txwait_add_on(struct engine *e, struct sock *k, uint32_t vnic)
{
	struct vnic_state *st = stack_vnic(e->s, vnic);
	struct sock *last;
	uint32_t i = sock_index(e->s, k);

	if (k->txwait_prev || !st)
		return;
	last = sock_at(e->s, st->txwait_tail);
	k->txwait_vnic = vnic;
	k->txwait_next = 0;
	k->txwait_prev = last ? st->txwait_tail : i;
	if (last)
		last->txwait_next = i;
	else
		st->txwait_head = i;
	st->txwait_tail = i;
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
		st->txwait_head = k->txwait_next;
	if (next)
		next->txwait_prev = prev ? k->txwait_prev : k->txwait_next;
	else
		st->txwait_tail = prev ? k->txwait_prev : 0;
	k->txwait_next = k->txwait_prev = 0;
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
		txwait_remove(e, k);
		sock_notify(e, k, EV_OUT);
		if (k->proto == SOCK_TCP) {
			k->tcp.flags &= ~TCPF_NOBUF;
			tcp_output(e, k);
		}
	}
}
