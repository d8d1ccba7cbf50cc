/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * CUBIC (RFC 9438) with HyStart++ (RFC 9406). Names are the RFCs'; windows are in bytes, times in ms or us as named.
 *
 * After a loss at W_max cwnd follows W_cubic(t) = C * (t - K)^3 + W_max, t being the time since congestion avoidance
 * began and K the time to be back at W_max; where Reno would be faster, cwnd follows its estimate W_est (4.3).
 * C = 0.4 segments/s^3, beta = 0.7.
 *
 * Slow start ends before a loss when the round trip grows: HyStart++ compares the smallest RTT of this round with
 * the last round's, and then grows four times slower for five rounds (CSS) unless the RTT comes down again. As in Linux
 * there is no bound (L) on what one ACK may add: it is never more than it acknowledges.
 *
 * A stack can be set to be like Linux instead where that differs (sock_defaults.linux_cubic): HyStart ends slow start
 * at once when the round trip has grown by an eighth, or when ACKs keep coming in a train for half of it; the target is
 * that of the smallest round trip from now, not the smoothed one; cwnd grows by whole segments per segments
 * acknowledged, and until the first loss by one for 20 at least.
 */
#include "engine/tcp_cc.h"

#define RTT_SAMPLES 8u /* N_RTT_SAMPLE */
#define MIN_RTT_THRESH 4000u
#define MAX_RTT_THRESH 16000u
#define CSS_GROWTH 4u
#define CSS_ROUNDS 5u
#define HYSTART_LOW_WINDOW 16u /* segments: Linux's HyStart looks from here on */
#define MAX_ACKS_PER_SEGMENT 20u
#define LINUX_RECKON_US 31250u
#define HYSTART_ACK_GAP 2000u /* us: ACKs no further apart are a train */

struct cubic {
	uint64_t epoch_us; /* start of congestion avoidance; 0: not begun */
	uint32_t est_acc;  /* bytes towards the next MSS of w_est */
	uint32_t w_max, k_ms, w_est;
	uint32_t undo_w_max;
	/* HyStart++ */
	uint32_t round_end;                     /* windowEnd */
	uint32_t round_min, last_min, css_base; /* RTT, us; 0 unknown */
	uint8_t samples, css_rounds;
	bool css : 1, round_known : 1, had_loss : 1;
	/* Linux's */
	uint32_t round_start, last_us; /* HyStart's round began; its last ACK in a train, later the last reckoning */
	uint32_t credit, per_segment;  /* bytes acknowledged that have not yet made cwnd grow; that do by a segment */
};

_Static_assert(sizeof(struct cubic) <= sizeof(((struct tcb *)0)->cc_priv), "CUBIC's state fits");

static struct cubic *cubic(struct tcb *t)
{
	return (struct cubic *)t->cc_priv;
}

/* Integer cube root, rounded down. */
static uint32_t cube_root(uint64_t a)
{
	uint64_t root = 0;

	for (int shift = 21; shift >= 0; shift--) {
		uint64_t r = root | 1ull << shift;

		if (r <= 2642245 && r * r * r <= a)
			root = r;
	}
	return (uint32_t)root;
}

static void cubic_init(struct engine *e, struct sock *k)
{
	(void)e;
	tcp_cc_start(k);
}

/* --- HyStart++ --- */

static void hystart_new_round(struct tcb *t, struct cubic *c)
{
	if (c->css && c->round_known && ++c->css_rounds >= CSS_ROUNDS) {
		t->ssthresh = t->cwnd; /* enough: congestion avoidance from here */
		c->css = false;
	}
	c->last_min = c->round_min;
	c->round_min = 0;
	c->samples = 0;
	c->round_end = t->snd_nxt;
	c->round_known = true;
}

static void hystart_sample(struct tcb *t, struct cubic *c)
{
	uint32_t rtt = t->rack_rtt_us, thresh;

	if (!c->round_known || seq_geq(t->snd_una, c->round_end))
		hystart_new_round(t, c);
	if (!rtt)
		return;
	if (!c->round_min || rtt < c->round_min)
		c->round_min = rtt;
	if (c->samples < RTT_SAMPLES)
		c->samples++;
	if (c->samples < RTT_SAMPLES || !c->last_min)
		return;
	if (c->css) {
		if (c->round_min < c->css_base)
			c->css = false; /* the delay was not a queue's */
		return;
	}
	thresh = max_u32(MIN_RTT_THRESH, min_u32(c->last_min / 8, MAX_RTT_THRESH));
	if (c->round_min >= c->last_min + thresh) {
		c->css = true;
		c->css_base = c->round_min;
		c->css_rounds = 0;
	}
}

/* Linux's HyStart. */
static void linux_hystart(struct engine *e, struct tcb *t, struct cubic *c)
{
	uint32_t now = (uint32_t)e->s->now_us, rtt = t->rack_rtt_us, least = t->min_rtt_us;

	if (t->cwnd < HYSTART_LOW_WINDOW * t->mss || !rtt)
		return;
	if (!c->round_known || seq_gt(t->snd_una, c->round_end)) {
		hystart_new_round(t, c);
		c->round_start = c->last_us = now;
	}
	if (now - c->last_us <= HYSTART_ACK_GAP) {
		c->last_us = now;
		if (now - c->round_start > least / 2)
			t->ssthresh = t->cwnd;
	}
	if (!c->round_min || rtt < c->round_min)
		c->round_min = rtt;
	if (c->samples < RTT_SAMPLES)
		c->samples++;
	else if (c->round_min > least + max_u32(MIN_RTT_THRESH, min_u32(least / 8, MAX_RTT_THRESH)))
		t->ssthresh = t->cwnd;
}

/* Returns the bytes left for congestion avoidance. */
static uint32_t slow_start(struct engine *e, struct tcb *t, struct cubic *c, uint32_t bytes)
{
	if (t->ssthresh == TCP_INFINITE_SSTHRESH && e->s->cfg.defaults.linux_cubic)
		linux_hystart(e, t, c);
	else if (t->ssthresh == TCP_INFINITE_SSTHRESH)
		hystart_sample(t, c);
	if (t->cwnd >= t->ssthresh)
		return bytes;
	if (c->css)
		return tcp_cc_slow_start(t, bytes / CSS_GROWTH), 0;
	return tcp_cc_slow_start(t, bytes);
}

/* --- CUBIC --- */

/* 4.2: K = cubic_root((W_max - cwnd_epoch) / C) seconds. */
static void begin_epoch(struct engine *e, struct tcb *t, struct cubic *c)
{
	c->epoch_us = e->s->now_us;
	c->est_acc = c->per_segment = 0;
	c->w_est = t->cwnd;
	if (t->cwnd < c->w_max) {
		c->k_ms = cube_root((uint64_t)(c->w_max - t->cwnd) * 2500000000ull / max_u32(t->mss, 1));
	} else {
		c->k_ms = 0;
		c->w_max = t->cwnd;
	}
}

/* W_cubic at t_ms after the epoch's start. */
static uint32_t w_cubic(const struct tcb *t, const struct cubic *c, uint64_t t_ms)
{
	int64_t d = (int64_t)t_ms - c->k_ms, w;

	d = d > 100000 ? 100000 : d < -100000 ? -100000 : d;
	w = d * d * d / 1000 * (int64_t)t->mss * 4 / 10000000 + c->w_max;
	return w < 0 ? 0 : w > TCP_MAX_CWND ? TCP_MAX_CWND : (uint32_t)w;
}

/* 4.3: what Reno would have. alpha is 3 * (1 - beta) / (1 + beta) = 9/17 until it has reached W_max, then 1. */
static void grow_w_est(struct tcb *t, struct cubic *c, uint32_t bytes, bool slow)
{
	uint32_t cwnd = max_u32(t->cwnd, 1);

	c->est_acc += slow ? (uint32_t)((uint64_t)bytes * 9 / 17) : bytes;
	if (c->est_acc >= cwnd && c->w_est < TCP_MAX_CWND) {
		c->w_est += (uint32_t)(c->est_acc / cwnd) * t->mss;
		c->est_acc %= cwnd;
	}
}

/* Linux's: after how many bytes acknowledged cwnd grows by a segment, reckoned 32 times a second at most. */
static void linux_reckon(const struct engine *e, const struct tcb *t, struct cubic *c)
{
	uint32_t mss = max_u32(t->mss, 1), cwnd = max_u32(t->cwnd / mss, 1), n = 100 * cwnd, target, est;
	uint64_t t_ms = (e->s->now_us - c->epoch_us) / 1000;

	if (c->per_segment && (uint32_t)e->s->now_us - c->last_us <= LINUX_RECKON_US)
		return;
	c->last_us = (uint32_t)e->s->now_us;
	target = w_cubic(t, c, t_ms + t->min_rtt_us / 1000) / mss;
	est = c->w_est / mss;
	if (target > cwnd)
		n = cwnd / (target - cwnd);
	if (!c->had_loss)
		n = min_u32(n, MAX_ACKS_PER_SEGMENT);
	if (est > cwnd)
		n = min_u32(n, cwnd / (est - cwnd));
	c->per_segment = max_u32(n, 2) * mss;
}

static void linux_growth(const struct engine *e, struct tcb *t, struct cubic *c, uint32_t bytes)
{
	linux_reckon(e, t, c);
	if (c->credit >= c->per_segment) {
		c->credit = 0;
		t->cwnd += t->mss;
	}
	c->credit += bytes;
	t->cwnd += c->credit / c->per_segment * t->mss;
	c->credit %= c->per_segment;
}

static void avoid_congestion(struct engine *e, struct tcb *t, struct cubic *c, uint32_t bytes)
{
	bool as_linux = e->s->cfg.defaults.linux_cubic;
	uint64_t t_ms;
	uint32_t target;

	if (!c->epoch_us)
		begin_epoch(e, t, c);
	grow_w_est(t, c, bytes, as_linux || c->w_est < c->w_max);
	if (as_linux) {
		linux_growth(e, t, c, bytes);
		return;
	}
	t_ms = (e->s->now_us - c->epoch_us) / 1000;
	if (w_cubic(t, c, t_ms) < c->w_est) {
		t->cwnd = max_u32(t->cwnd, c->w_est);
		return;
	}
	target = w_cubic(t, c, t_ms + t->srtt_us / 1000);
	target = min_u32(target, t->cwnd + t->cwnd / 2);
	if (target > t->cwnd)
		t->cwnd += (uint32_t)((uint64_t)(target - t->cwnd) * min_u32(bytes, t->cwnd) / t->cwnd);
}

static void cubic_acked(struct engine *e, struct sock *k, uint32_t bytes)
{
	struct tcb *t = &k->tcp;
	struct cubic *c = cubic(t);

	if (t->cwnd < t->ssthresh)
		bytes = slow_start(e, t, c, bytes);
	if (bytes && t->cwnd >= t->ssthresh && t->cwnd < TCP_MAX_CWND)
		avoid_congestion(e, t, c, bytes);
}

/* 4.6, 4.7: multiplicative decrease, and fast convergence where the last window was not reached again. */
static uint32_t cubic_ssthresh(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	struct cubic *c = cubic(t);

	(void)e;
	c->undo_w_max = c->w_max;
	c->w_max = t->cwnd < c->w_max ? (uint32_t)((uint64_t)t->cwnd * 17 / 20) : t->cwnd;
	c->epoch_us = 0;
	c->css = false;
	c->had_loss = true;
	return max_u32((uint32_t)((uint64_t)t->cwnd * 7 / 10), 2 * t->mss);
}

static void cubic_rto(struct engine *e, struct sock *k)
{
	struct cubic *c = cubic(&k->tcp);

	c->epoch_us = 0;
	if (e->s->cfg.defaults.linux_cubic) { /* it forgets all then */
		c->w_max = c->credit = 0;
		c->had_loss = false;
	}
}

/* Time in which nothing was sent does not count (4.2, as Linux: the epoch moves). */
static void cubic_idle(struct engine *e, struct sock *k)
{
	struct cubic *c = cubic(&k->tcp);

	if (c->epoch_us) {
		c->epoch_us += e->s->now_us - k->tcp.last_snd_us;
		if (c->epoch_us > e->s->now_us)
			c->epoch_us = e->s->now_us;
	}
	tcp_cc_restart(e, k);
}

/* 4.9 */
static void cubic_undo(struct engine *e, struct sock *k)
{
	struct cubic *c = cubic(&k->tcp);

	(void)e;
	c->w_max = c->undo_w_max;
	c->epoch_us = 0;
}

const struct tcp_cc_ops tcp_cubic = {
    .name = "cubic",
    .init = cubic_init,
    .acked = cubic_acked,
    .ssthresh = cubic_ssthresh,
    .rto = cubic_rto,
    .idle = cubic_idle,
    .undo = cubic_undo,
};
