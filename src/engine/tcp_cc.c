/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Congestion control by name, and what all algorithms share: the initial window (RFC 6928), the restart after an idle
 * time (RFC 5681 4.1, as Linux), slow start and the additive increase (RFC 5681 3.1, counting bytes: RFC 3465).
 */
#include <string.h>

#include "engine/tcp_cc.h"

#define INIT_SEGMENTS 10u

static const struct tcp_cc_ops *const algorithms[TCP_CC_COUNT] = {
    [TCP_CC_CUBIC] = &tcp_cubic,
    [TCP_CC_NEWRENO] = &tcp_newreno,
};

const struct tcp_cc_ops *tcp_cc_ops(const struct sock *k)
{
	return algorithms[k->tcp.cc < TCP_CC_COUNT ? k->tcp.cc : TCP_CC_CUBIC];
}

const char *tcp_cc_name(const struct sock *k)
{
	return tcp_cc_ops(k)->name;
}

int tcp_set_cc(struct engine *e, struct sock *k, const char *name)
{
	struct tcb *t = &k->tcp;

	for (uint32_t i = 0; i < TCP_CC_COUNT; i++) {
		/* "reno" is Linux's name for what RFC 6582 calls NewReno. */
		if (strcmp(name, algorithms[i]->name) && (i != TCP_CC_NEWRENO || strcmp(name, "newreno")))
			continue;
		if (t->cc != i) {
			uint32_t cwnd = t->cwnd, ssthresh = t->ssthresh;

			t->cc = (uint8_t)i;
			tcp_cc_ops(k)->init(e, k);
			if (cwnd) { /* a connection under way keeps its window */
				t->cwnd = cwnd;
				t->ssthresh = ssthresh;
			}
		}
		return 0;
	}
	return -ENOENT;
}

void tcp_cc_start(struct sock *k)
{
	struct tcb *t = &k->tcp;

	t->cwnd = INIT_SEGMENTS * t->mss;
	t->ssthresh = TCP_INFINITE_SSTHRESH;
	memset(t->cc_priv, 0, sizeof(t->cc_priv));
}

/* cwnd halves for each RTO of silence, down to the initial window. */
void tcp_cc_restart(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	uint64_t silent = e->s->now_us - t->last_snd_us;
	uint32_t restart = min_u32(INIT_SEGMENTS * t->mss, t->cwnd), cwnd = t->cwnd;

	if (e->s->cfg.defaults.keep_cwnd_idle)
		return;
	if (t->ssthresh != TCP_INFINITE_SSTHRESH || cwnd > restart)
		t->ssthresh = max_u32(t->ssthresh, cwnd - cwnd / 4);
	while (silent > t->rto_us && cwnd > restart) {
		silent -= t->rto_us;
		cwnd /= 2;
	}
	t->cwnd = max_u32(cwnd, restart);
}

/* Slow start over `bytes`; returns the bytes left for congestion avoidance. */
uint32_t tcp_cc_slow_start(struct tcb *t, uint32_t bytes)
{
	uint32_t room = t->cwnd < t->ssthresh ? t->ssthresh - t->cwnd : 0, n = min_u32(bytes, room);

	t->cwnd += n;
	return bytes - n;
}

/* One MSS for each window's worth acknowledged; `acc` keeps the remainder. */
void tcp_cc_increase(struct tcb *t, uint64_t *acc, uint32_t bytes)
{
	uint32_t cwnd = max_u32(t->cwnd, 1);

	*acc += bytes;
	if (*acc >= cwnd && t->cwnd < TCP_MAX_CWND) {
		t->cwnd += (uint32_t)(*acc / cwnd) * t->mss;
		*acc %= cwnd;
	}
}
