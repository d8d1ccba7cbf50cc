/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A world: made from its seed, run until everything in it is over, then checked.
 *
 * Time moves from event to event: what the link delivers, what the engines' deadlines ask for, what the programs plan.
 * At each instant all is done that can be done. What must hold: see app.c for the programs and trace.c for the wire;
 * here: an instant ends, somebody makes progress within a bound, and when all is closed nothing is left in either
 * stack: no socket, no pkt, no buffer, no timer.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tcp_internal.h"
#include "lib/test_stack.h"
#include "world.h"

#define SECOND 1000000ull
#define INSTANT_MAX 20000u /* rounds at one instant */
#define STALL_US (200 * SECOND)
#define STALL_BAD_US (2000 * SECOND) /* without SACK each lost retransmission costs a timeout, of up to 120 s */
#define PORTS_REST_US (10 * SECOND)
#define SLOW_RATE 2000000u           /* bytes per second: below, queues at the link cause timeouts */
#define LINGERING_US (1500 * SECOND) /* after the last close, until the last socket is gone */

void world_say(struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (!w->verbose)
		return;
	printf("%10.3f ms  ", (double)w->now / 1000);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}

void world_fail(struct world *w, const char *fmt, ...)
{
	va_list ap;

	if (w->failed)
		return;
	w->failed = true;
	printf("FAIL seed %lu at %.3f ms: ", (unsigned long)w->seed, (double)w->now / 1000);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}

uint32_t pick_log(struct world *w, uint32_t low, uint32_t high)
{
	uint32_t bits = 0;

	while (low << bits <= high / 2)
		bits++;

	uint32_t base = low << pick(w, bits + 1), n = base + pick(w, base);

	return n > high ? high : n;
}

/* --- making --- */

static void plan_direction(struct world *w, struct sim_dir *d)
{
	uint32_t much = w->heavy ? 4 : 1;

	d->delay_us = one_in(w, 4) ? pick(w, 20) : pick_log(w, 1, 150000);
	d->rate = one_in(w, 2) ? pick_log(w, 20000, 200000000) : 0;
	if (w->cfg.features & VNIC_FEAT_LOSSLESS) /* another process, not another continent */
		d->delay_us %= 20000;
	if (w->clean)
		return;
	d->jitter_us = one_in(w, 2) ? pick(w, d->delay_us + 1) : 0;
	d->queue_bytes = one_in(w, 3) ? pick_log(w, 3000, 300000) : 0;
	d->loss_ppm = one_in(w, 2) ? pick(w, 50000) * much : 0;
	d->burst_ppm = one_in(w, 4) ? pick(w, 5000) * much : 0;
	d->burst_len = pick(w, 10);
	d->dup_ppm = one_in(w, 3) ? pick(w, 100000) : 0;
	d->reorder_ppm = one_in(w, 3) ? pick(w, 200000) : 0;
	d->reorder_us = pick_log(w, 1, 50000);
	d->corrupt_ppm = one_in(w, 4) ? pick(w, 20000) * much : 0;
	d->hold_us = one_in(w, 4) ? pick(w, 2000) : 0;
}

static void plan_link(struct world *w)
{
	static const uint32_t mtus[] = {296, 576, 1280, 1500, 1500, 1500, 4000, 9000, 65535};
	struct sim_config *c = &w->cfg;

	*c = (struct sim_config){.seed = sim_random(&w->random)};
	c->mtu = mtus[pick(w, 9)];
	if (w->family == 6 && c->mtu < 1280)
		c->mtu = 1280;
	c->buf_size = c->mtu > 2048 ? 4096 : 2048;
	if (one_in(w, 6))
		c->buf_size = c->mtu < 9000 ? 512 : 4096;
	if (c->buf_size < c->mtu + 14 + PKT_HEADROOM)
		c->features |= VNIC_FEAT_SCATTER;
	if (c->buf_size * 16 < c->mtu)
		c->mtu = c->buf_size * 16;

	uint32_t parts = c->mtu / c->buf_size + 2;

	c->tx_bufs = TXWAIT_RESERVE + parts + pick_log(w, 16, 512);
	c->rx_bufs = 2 * parts + pick_log(w, 16, 512);
	if (w->clean) {
		c->tx_bufs = c->rx_bufs = 1024;
		if (one_in(w, 3))
			c->features |= VNIC_FEAT_LOSSLESS | VNIC_FEAT_CSUM_TX | VNIC_FEAT_SCATTER;
	}
	c->flights = 2048;
	if (c->mtu > 9000)
		c->flights = 256;
	plan_direction(w, &c->dir[0]);
	c->dir[1] = c->dir[0];
	if (one_in(w, 2))
		plan_direction(w, &c->dir[1]);
	for (int i = 0; i < 2; i++)
		c->dir[i].ce_ppm = pick_more(w, 3) ? 0 : 1000u << pick_more(w, 10);
}

static void plan_stack(struct world *w, struct stack_config *c)
{
	static const uint8_t ccs[] = {TCP_CC_CUBIC, TCP_CC_CUBIC, TCP_CC_NEWRENO};

	struct sock_defaults *d = &c->defaults;

	*c = test_config();
	c->max_socks = 128;
	c->max_private = 4096;
	c->hash_buckets = 64;
	if (!w->clean && one_in(w, 4)) {
		c->max_pkts = pick_log(w, 400, 4000);
		c->max_private = pick_log(w, 200, 2000);
	}
	for (size_t i = 0; i < sizeof(c->secret); i++)
		c->secret[i] = (uint8_t)sim_random(&w->random);
	d->rcvbuf = pick_log(w, 4096, 131072);
	d->sndbuf = pick_log(w, 4096, 262144);
	d->cc = ccs[pick(w, 3)];
	d->time_wait_ms = one_in(w, 2) ? 60000 : 1000;
	d->no_timestamps = one_in(w, 3);
	d->rcvbuf_max = d->rcvbuf << pick(w, 5);
	d->sndbuf_max = d->sndbuf << pick(w, 5);
	d->ecn = pick_more(w, 4) ? TCP_ECN_ASK : pick_more(w, TCP_ECN_NEVER + 1);
}

static void make_host(struct world *w, int i)
{
	static const uint8_t v4[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 0, 1};
	static const uint8_t v6[16] = {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
	struct host *h = &w->host[i];
	struct stack_config cfg;

	plan_stack(w, &cfg);
	memset(h, 0, sizeof(*h));
	h->e = calloc(1, sizeof(*h->e));
	if (!h->e) {
		printf("out of memory\n");
		exit(2);
	}
	test_stack_new(h->e, &cfg, w->now);
	if (test_link_join(w->link, i, h->e) != 0)
		world_fail(w, "the first vNIC is not number 0");
	memcpy(h->addr, w->family == 6 ? v6 : v4, 16);
	h->addr[15] = (uint8_t)(i + 1);
	h->backlog = one_in(w, 3) ? pick(w, 4) : 128;
	h->accept_pause_us = one_in(w, 4) ? pick_log(w, 1, 500000) : 0;
}

static void make_listener(struct world *w, int i)
{
	struct host *h = &w->host[i];
	struct sock *k = sock_alloc(h->e, SOCK_TCP, w->family);

	memcpy(k->local.addr, h->addr, 16);
	if (one_in(w, 2))
		memset(k->local.addr, 0, 16); /* any */
	k->local.port = SERVER_PORT;
	k->holders = 1;
	h->listener = sock_index(h->e->s, k);
	sock_hash(h->e->s, k);

	int r = tcp_listen(h->e, k, (int)h->backlog);

	if (r)
		world_fail(w, "listen gives %d", r);
}

/* Turn the SACK-permitted option of a SYN into padding, as some middleboxes do (RFC 1624 for the checksum). */
static void forbid_sack(void *arg, int from, uint8_t *f, uint32_t len)
{
	uint32_t l4 = 14 + (f[14] >> 4 == 4 ? (f[14] & 15) * 4u : 40u);

	(void)arg;
	(void)from;
	if (len < l4 + 20 || !(f[l4 + 13] & 2))
		return;

	uint32_t end = l4 + (uint32_t)(f[l4 + 12] >> 4) * 4;

	for (uint32_t i = l4 + 20; i + 1 < end && i + 1 < len; i += f[i] == 1 ? 1 : f[i + 1] ? f[i + 1] : 40) {
		if (f[i] != 4 || f[i + 1] != 2)
			continue;

		bool odd = (i - l4) & 1;
		uint32_t old = odd ? 0x0204 : 0x0402, now = 0x0101;
		uint32_t sum = (~((uint32_t)f[l4 + 16] << 8 | f[l4 + 17]) & 0xffff) + (~old & 0xffff) + now;

		sum = (sum & 0xffff) + (sum >> 16);
		sum = ~((sum & 0xffff) + (sum >> 16));
		f[l4 + 16] = (uint8_t)(sum >> 8);
		f[l4 + 17] = (uint8_t)sum;
		f[i] = f[i + 1] = 1;
		return;
	}
}

static void make(struct world *w, uint64_t seed, bool verbose)
{
	memset(w, 0, sizeof(*w));
	w->seed = w->random = seed;
	w->more = ~seed;
	w->verbose = verbose;
	w->now = w->begin_us = w->progress_us = 1000 * SECOND + pick(w, 1000000);
	w->family = one_in(w, 3) ? 6 : 4;
	w->clean = one_in(w, 4);
	w->heavy = !w->clean && one_in(w, 8);
	w->no_sack = one_in(w, 5);
	if (!w->clean && one_in(w, 10)) {
		w->cut_at = w->now + pick_log(w, 1000, 3000000);
		w->cut_until = w->cut_at + pick_log(w, 1000, 20000000);
		w->cut_for_good = one_in(w, 3);
	}
	plan_link(w);
	w->link = test_link_new(&w->cfg);
	trace_reset(w);
	sim_set_tap(w->link, trace_frame, w);
	if (w->no_sack && !(w->cfg.features & VNIC_FEAT_CSUM_TX))
		sim_set_middlebox(w->link, forbid_sack, w);
	for (int i = 0; i < 2; i++) {
		make_host(w, i);
		make_listener(w, i);
	}
	w->conns = one_in(w, 3) ? 1 : 1 + pick(w, CONNS_MAX);
	for (uint32_t i = 0; i < w->conns; i++)
		app_plan(w, &w->conn[i]);
	datagrams_plan(w);
	world_say(w,
		  "seed %lu: IPv%d, mtu %u, features %#x, buffers of %u (tx %u, rx %u), backlogs %u %u, %u "
		  "connections%s%s%s%s",
		  (unsigned long)seed, w->family, w->cfg.mtu, w->cfg.features, w->cfg.buf_size, w->cfg.tx_bufs,
		  w->cfg.rx_bufs, w->host[0].backlog, w->host[1].backlog, w->conns, w->clean ? ", clean" : "",
		  w->heavy ? ", heavy loss" : "", w->cut_at ? ", cut" : "", w->no_sack ? ", no SACK" : "");
	for (int i = 0; i < 2; i++) {
		struct sim_dir *d = &w->cfg.dir[i];

		world_say(
		    w,
		    "from %d: delay %u+%u us, rate %lu, queue %u, loss %u burst %u*%u dup %u reorder %u+%u corrupt %u "
		    "CE %u",
		    i, d->delay_us, d->jitter_us, (unsigned long)d->rate, d->queue_bytes, d->loss_ppm, d->burst_ppm,
		    d->burst_len, d->dup_ppm, d->reorder_ppm, d->reorder_us, d->corrupt_ppm, d->ce_ppm);
	}
}

static void unmake(struct world *w)
{
	for (int i = 0; i < 2; i++) {
		test_stack_free(w->host[i].e);
		free(w->host[i].e);
	}
	test_link_free(w->link);
}

/* --- running --- */

static void drain_news(struct world *w, int host)
{
	struct stack *s = w->host[host].e->s;
	struct stack_proc *p = &s->proc[0];

	while (p->dirty_head != p->dirty_tail) {
		uint32_t i = p->dirty[p->dirty_head++ % DIRTY_RING];
		struct sock *k = sock_at(s, i);

		if (!k)
			continue;

		uint32_t edges = k->edges;

		k->edges = k->edge_rdhup = 0;
		k->dirty_mask &= ~1ull;
		app_news(w, host, i, edges);
	}
	if (p->dirty_overflow)
		world_fail(w, "host %d: the ring of news overflowed", host);
}

static bool over(const struct app *a)
{
	return a->born && !a->open;
}

/* The earlier connection between the same ports has been, and its programs are done with it. */
static bool predecessor_over(const struct conn *c)
{
	return over(&c->after->end[0]) && over(&c->after->end[1]);
}

/* Ports are used again when the client's engine has forgotten them, and nothing old is still on its way. */
static bool may_start(const struct world *w, const struct conn *c)
{
	const struct host *h = &w->host[c->end[0].host];
	struct endpoint local = {.port = c->client_port}, remote = {.port = c->server_port};

	if (c->started || w->now < w->begin_us + c->start_us)
		return false;
	if (!c->after)
		return true;
	memcpy(local.addr, h->addr, 16);
	memcpy(remote.addr, w->host[c->end[1].host].addr, 16);
	return predecessor_over(c) && w->now >= w->progress_us + PORTS_REST_US &&
	       !sock_lookup(h->e->s, SOCK_TCP, &local, &remote);
}

/* Everything that can be done now, once. True: something happened that may have consequences now. */
static bool round_of(struct world *w)
{
	bool active = false;

	for (int i = 0; i < 2; i++) {
		struct engine *e = w->host[i].e;

		while (engine_poll(e, w->now, 64) > 0)
			active = true;
		if (engine_deadline(e) <= w->now)
			engine_tick(e, w->now);
		drain_news(w, i);
		if (w->host[i].listener)
			app_accept(w, i);
	}
	for (uint32_t n = 0; n < w->conns; n++) {
		struct conn *c = &w->conn[n];

		if (may_start(w, c))
			app_connect(w, c);
		for (int end = 0; end < 2; end++)
			if (app_next(&c->end[end]) <= w->now || (c->end[end].open && !c->end[end].connected))
				app_run(w, c, end);
	}
	datagrams_run(w);
	drain_news(w, 0);
	drain_news(w, 1);
	sim_step(w->link, w->now);
	return active || vnic_pending(&w->host[0].e->vnic[0]) || vnic_pending(&w->host[1].e->vnic[0]);
}

static void cut_link(struct world *w)
{
	if (!w->cut_at || w->now < w->cut_at)
		return;

	bool down = w->cut_for_good || w->now < w->cut_until;

	for (int i = 0; i < 2; i++)
		sim_direction(w->link, i)->loss_ppm = down ? 1000000 : w->cfg.dir[i].loss_ppm;
}

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* When something happens next. */
static uint64_t next_instant(const struct world *w)
{
	uint64_t next = sim_next(w->link);

	for (int i = 0; i < 2; i++) {
		const struct host *h = &w->host[i];
		const struct sock *l = sock_at(h->e->s, h->listener);

		next = min64(next, engine_deadline(h->e));
		if (l && l->tcp.accept_count)
			next = min64(next, h->accept_at_us);
	}
	for (uint32_t n = 0; n < w->conns; n++) {
		if (!w->conn[n].started && !w->conn[n].after)
			next = min64(next, w->begin_us + w->conn[n].start_us);
		else if (!w->conn[n].started && w->progress_us + PORTS_REST_US > w->now)
			next = min64(next, w->progress_us + PORTS_REST_US);
		next = min64(next, min64(app_next(&w->conn[n].end[0]), app_next(&w->conn[n].end[1])));
	}
	next = min64(next, datagrams_next(w));
	if (w->cut_at > w->now)
		next = min64(next, w->cut_at);
	else if (w->cut_until > w->now)
		next = min64(next, w->cut_until);
	return next;
}

static bool all_started(const struct world *w)
{
	for (uint32_t n = 0; n < w->conns; n++)
		if (!w->conn[n].started && (!w->conn[n].after || predecessor_over(&w->conn[n])))
			return false;
	return true;
}

static void check_audit(struct world *w, const char *when)
{
	for (int i = 0; i < 2; i++) {
		uint32_t bad = stack_audit(w->host[i].e);

		if (bad)
			world_fail(w, "host %d: the audit %s finds %u contradictions", i, when, bad);
		for (uint32_t n = 1; n < w->host[i].e->s->cfg.max_socks; n++)
			if (sock_at(w->host[i].e->s, n)->proto == SOCK_TCP)
				tcp_check(w->host[i].e, sock_at(w->host[i].e->s, n));
	}
}

static void describe_ends(struct world *w)
{
	for (uint32_t n = 0; n < w->conns; n++)
		for (int e = 0; e < 2; e++) {
			struct app *a = &w->conn[n].end[e];
			struct sock *k = a->open ? sock_at(w->host[a->host].e->s, a->sock) : NULL;

			if (!k)
				continue;
			printf(
			    "  #%u host %d %s: sent %lu of %lu, received %lu, wants%s%s, una %u nxt %u max %u end %u "
			    "wnd %u cwnd %u rcv_nxt %u ca %u txq %u rxq %u ooo %u level %#x\n",
			    n, a->host, tcp_state_name[k->tcp.state], (unsigned long)a->sent, (unsigned long)a->to_send,
			    (unsigned long)a->received, a->want_read ? " read" : "", a->want_write ? " write" : "",
			    k->tcp.snd_una - k->tcp.iss, k->tcp.snd_nxt - k->tcp.iss, k->tcp.snd_max - k->tcp.iss,
			    k->tcp.snd_end - k->tcp.iss, k->tcp.snd_wnd, k->tcp.cwnd, k->tcp.rcv_nxt - k->tcp.irs,
			    k->tcp.ca_state, k->tcp.txq.bytes, k->rxq.bytes, k->tcp.ooo_bytes,
			    tcp_poll(w->host[a->host].e, k));
		}
}

/* Until `done` holds; progress must not stop for longer than limit. */
static void run_until(struct world *w, bool (*done)(const struct world *), uint64_t limit)
{
	uint32_t rounds = 0;

	while (!w->failed && !done(w)) {
		bool again = round_of(w);

		w->steps++;
		if (w->steps % 997 == 0)
			check_audit(w, "on the way");

		uint64_t next = again ? w->now : next_instant(w);

		if (next <= w->now) {
			if (++rounds > INSTANT_MAX)
				world_fail(w, "time stands still (link %lu, deadlines %lu %lu, now %lu)",
					   (unsigned long)sim_next(w->link),
					   (unsigned long)engine_deadline(w->host[0].e),
					   (unsigned long)engine_deadline(w->host[1].e), (unsigned long)w->now);
			continue;
		}
		rounds = 0;
		if (next == UINT64_MAX || next - w->progress_us > limit) {
			if (done(w))
				return;
			world_fail(w, "stall: nothing has moved since %.3f ms", (double)w->progress_us / 1000);
			describe_ends(w);
			return;
		}
		w->now = next;
		cut_link(w);
	}
}

static bool programs_done(const struct world *w)
{
	if (!all_started(w) || w->open_ends)
		return false;
	for (int i = 0; i < 2; i++) {
		const struct sock *l = sock_at(w->host[i].e->s, w->host[i].listener);

		if (l && (l->tcp.accept_count || l->tcp.embryo_count))
			return false;
	}
	return true;
}

/* All datagrams have left, and nothing is on its way. */
static bool datagrams_over(const struct world *w)
{
	return datagrams_done(w) && sim_next(w->link) == UINT64_MAX && !vnic_pending(&w->host[0].e->vnic[0]) &&
	       !vnic_pending(&w->host[1].e->vnic[0]);
}

static bool stacks_empty(const struct world *w)
{
	for (int i = 0; i < 2; i++) {
		const struct stack *s = w->host[i].e->s;
		const struct vnic_state *st = w->host[i].e->vnic[0].st;

		if (s->sock_pool.in_use || s->pkt_pool.in_use || s->private_pool.in_use || st->rx_held ||
		    st->free_top != st->tx_count)
			return false;
	}
	return sim_next(w->link) == UINT64_MAX;
}

static void close_listeners(struct world *w)
{
	for (int i = 0; i < 2; i++) {
		struct host *h = &w->host[i];
		struct sock *k = sock_at(h->e->s, h->listener);

		h->listener_closed = true;
		h->listener = 0;
		k->holders = 0;
		tcp_close(h->e, k, w->now);
	}
	w->progress_us = w->now;
}

static void describe_leftovers(const struct world *w)
{
	for (int i = 0; i < 2; i++) {
		struct stack *s = w->host[i].e->s;
		const struct vnic_state *st = w->host[i].e->vnic[0].st;

		printf("  host %d: %u sockets, %u pkts, %u private buffers, %u rx buffers held, %u of %u tx buffers "
		       "free\n",
		       i, s->sock_pool.in_use, s->pkt_pool.in_use, s->private_pool.in_use, st->rx_held, st->free_top,
		       st->tx_count);
		for (uint32_t n = 1; n < s->cfg.max_socks; n++)
			if (sock_at(s, n)->proto == SOCK_TCP)
				printf("    socket %u port %u-%u %s flags %#x %#x\n", n, sock_at(s, n)->local.port,
				       sock_at(s, n)->remote.port, tcp_state_name[sock_at(s, n)->tcp.state],
				       sock_at(s, n)->flags, sock_at(s, n)->tcp.flags);
	}
}

/* No reason to send anything again: nothing was lost, refused or late. */
static bool faultless(const struct world *w)
{
	const struct sim_stats *st = sim_statistics(w->link);

	for (int i = 0; i < 2; i++)
		if (w->host[i].e->s->counters[C_tcp_listen_overflow] || w->host[i].e->s->counters[C_tcp_syn_dropped] ||
		    (w->cfg.dir[i].rate && (w->cfg.dir[i].rate < SLOW_RATE || w->datagrams.end[i].total)))
			return false;
	return w->clean && !st->queue_drops && !st->no_rx_buffer;
}

static void check_end(struct world *w)
{
	const struct sim_stats *st = sim_statistics(w->link);
	uint64_t probes = 0; /* tail loss probes, which a delayed ACK may provoke */

	check_audit(w, "at the end");
	if (!stacks_empty(w)) {
		world_fail(w, "all is closed, but something is left");
		describe_leftovers(w);
	}
	if (st->rewritten)
		world_fail(w, "%lu tx buffers were rewritten before their completion", (unsigned long)st->rewritten);
	if (st->bad_desc)
		world_fail(w, "%lu bad descriptors were posted", (unsigned long)st->bad_desc);
	for (int i = 0; i < 2; i++) {
		const struct vnic_stats *v = &w->host[i].e->vnic[0].st->stats;

		if (v->bad_desc || v->bad_return || v->bad_reuse)
			world_fail(w, "host %d: the vNIC counts %lu bad descriptors, %lu returns, %lu reuses", i,
				   (unsigned long)v->bad_desc, (unsigned long)v->bad_return,
				   (unsigned long)v->bad_reuse);
		w->retrans += w->host[i].e->s->counters[C_tcp_retrans];
		probes += w->host[i].e->s->counters[C_tcp_tlp];
	}
	if (faultless(w) && w->retrans > probes)
		world_fail(w, "%lu retransmissions over a link that loses nothing", (unsigned long)w->retrans);
}

static void say_counters(struct world *w)
{
	for (int i = 0; i < 2; i++)
		for (int c = 0; c < COUNTER_COUNT; c++)
			if (w->host[i].e->s->counters[c])
				world_say(w, "host %d: %s %lu", i, counter_info[c].name,
					  (unsigned long)w->host[i].e->s->counters[c]);
}

bool world_run(struct world *w, uint64_t seed, bool verbose)
{
	make(w, seed, verbose);
	run_until(w, programs_done, w->heavy || w->cut_at || (w->no_sack && !w->clean) ? STALL_BAD_US : STALL_US);
	run_until(w, datagrams_over, STALL_BAD_US);
	datagrams_close(w);
	if (!w->failed) {
		close_listeners(w);
		run_until(w, stacks_empty, LINGERING_US);
	}
	if (!w->failed)
		check_end(w);
	say_counters(w);
	w->marked = sim_statistics(w->link)->marked;
	world_say(w, "%lu bytes, %lu steps, %s", (unsigned long)w->bytes, (unsigned long)w->steps,
		  w->failed ? "failed" : "passed");
	unmake(w);
	return !w->failed;
}
