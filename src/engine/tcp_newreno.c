/* SPDX-License-Identifier: BSD-2-Clause */
/* Congestion control of RFC 5681: slow start, one MSS a round trip after it, half the window at a loss. */
#include "engine/tcp_cc.h"

static void newreno_init(struct engine *e, struct sock *k)
{
	(void)e;
	tcp_cc_start(k);
}

static void newreno_acked(struct engine *e, struct sock *k, uint32_t bytes)
{
	struct tcb *t = &k->tcp;

	(void)e;
	bytes = tcp_cc_slow_start(t, bytes);
	if (bytes)
		tcp_cc_increase(t, &t->cc_priv[0], bytes);
}

static uint32_t newreno_ssthresh(struct engine *e, struct sock *k)
{
	(void)e;
	return max_u32(k->tcp.cwnd / 2, 2 * k->tcp.mss);
}

static void newreno_rto(struct engine *e, struct sock *k)
{
	(void)e;
	k->tcp.cc_priv[0] = 0;
}

static void newreno_idle(struct engine *e, struct sock *k)
{
	tcp_cc_restart(e, k);
}

static void newreno_undo(struct engine *e, struct sock *k)
{
	(void)e;
	(void)k; /* cwnd and ssthresh are all there is, and recovery has put them back */
}

const struct tcp_cc_ops tcp_newreno = {
    .name = "reno",
    .init = newreno_init,
    .acked = newreno_acked,
    .ssthresh = newreno_ssthresh,
    .rto = newreno_rto,
    .idle = newreno_idle,
    .undo = newreno_undo,
};
