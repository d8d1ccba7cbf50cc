/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Passive open (RFC 9293 3.10.7.2): SYN queue, SYN cookies, accept queue.
 *
 * An embryo, a socket of its own in SYN-RECEIVED, stands for each handshake under way; the listener's list holds at
 * most embryo_limit() of them (RFC 4987). When the list, or the pool, is full, the answer is a SYN cookie: all that we
 * must know is in our initial sequence number, authenticated, and comes back with the ACK. Nothing is stored.
 *
 *   cookie = MAC (24 bits) | MSS class (3) | window scale class (3) | SACK (1) | parity of the 16 s period (1)
 *
 * with the low eight bits masked by another hash, so that they tell an observer nothing. Timestamps need no bit: the
 * ACK has them if our SYN-ACK had. A cookie is good for 16 to 32 seconds.
 *
 * Accept queue as Linux: it holds backlog + 1 connections. When it is full, SYNs are dropped, and the ACK that would
 * complete a handshake is ignored: the embryo's SYN-ACK goes out again later and gives it another chance. A connection
 * that is reset while it waits stays in the queue; accept returns it, and its first read says so. Places that are
 * promised to clients on a wire (tcp_open.c) count as taken.
 */
#include <assert.h>

#include "engine/tcp_open.h"
#include "engine/tcp_send.h"

#define COOKIE_PERIOD_US 16000000u
#define EMBRYOS_MIN 16u /* even a backlog of 0 lets some handshakes overlap */

/* What the program set on the listener and its children begin with, as Linux copies it. */
#define INHERIT_SOCKF                                                                                                  \
	(SOCKF_REUSEADDR | SOCKF_KEEPALIVE | SOCKF_OOBINLINE | SOCKF_V6ONLY | SOCKF_LINGER | SOCKF_RCVBUF_SET |        \
	 SOCKF_SNDBUF_SET | SOCKF_REUSEPORT | SOCKF_INQ)
#define INHERIT_TCPF (TCPF_NODELAY | TCPF_CORK | TCPF_QUICKACK)

struct tuple {
	struct endpoint local, remote;
	uint32_t extra[2];
};
_Static_assert(sizeof(struct tuple) == 44, "hashed as bytes: no padding");

static uint64_t tuple_hash(struct engine *e, const struct endpoint *local, const struct endpoint *remote, uint32_t a,
			   uint32_t b)
{
	struct tuple t = {.local = *local, .remote = *remote, .extra = {a, b}};

	return keyed_hash(e->s->cfg.secret, &t, sizeof(t));
}

/* RFC 6528: a clock of 4 us ticks plus a keyed hash of the connection's name. */
uint32_t tcp_new_isn(struct engine *e, const struct endpoint *local, const struct endpoint *remote)
{
	return (uint32_t)(e->s->now_us / 4) + (uint32_t)tuple_hash(e, local, remote, 0x69736e, 0);
}

/* --- SYN cookies --- */

/* Common sizes, ascending; what the peer said is rounded down. The last two are those of loopback and of a wire. */
static const uint16_t cookie_mss[8] = {536, 1220, 1440, 1460, 4036, 8940, 32708, 65475};
#define COOKIE_NO_WSCALE 0xff
/* Rounded down as well: that understates the peer's window, which is safe. */
static const uint8_t cookie_wscale[8] = {COOKIE_NO_WSCALE, 0, 1, 2, 4, 6, 7, 9};

static uint32_t cookie_make(struct engine *e, const struct segment *g, uint32_t irs, uint64_t period, uint32_t data)
{
	const struct endpoint *local = &g->f->dst, *remote = &g->f->src;
	uint64_t mask = tuple_hash(e, local, remote, irs, (uint32_t)period * 2);
	uint64_t mac = tuple_hash(e, local, remote, irs ^ data << 24, (uint32_t)period * 2 + 1);

	return (uint32_t)mac << 8 | ((data ^ (uint32_t)mask) & 0xfe) | (uint32_t)(period & 1);
}

static uint32_t cookie_data(const struct tcp_opts *o)
{
	uint32_t mss = 7, ws = 0;

	while (mss > 0 && cookie_mss[mss] > (o->has_mss ? o->mss : 536))
		mss--;
	if (o->has_wscale)
		for (ws = 7; ws > 1 && cookie_wscale[ws] > o->wscale; ws--)
			;
	return mss << 5 | ws << 2 | (o->sack_ok ? 2u : 0);
}

/* Does the ACK bring back a cookie of ours? Then its options are what the SYN's were (nearly). */
static bool cookie_check(struct engine *e, const struct segment *g, struct tcp_opts *o)
{
	uint32_t isn = g->ack - 1, irs = g->seq - 1, data;
	uint64_t period = e->s->now_us / COOKIE_PERIOD_US;

	period -= (period ^ isn) & 1;
	data = (isn ^ (uint32_t)tuple_hash(e, &g->f->dst, &g->f->src, irs, (uint32_t)period * 2)) & 0xfe;
	if (cookie_make(e, g, irs, period, data) != isn)
		return false;
	*o = (struct tcp_opts){
	    .has_mss = true,
	    .mss = cookie_mss[data >> 5],
	    .has_wscale = cookie_wscale[data >> 2 & 7] != COOKIE_NO_WSCALE,
	    .wscale = cookie_wscale[data >> 2 & 7],
	    .sack_ok = (data & 2) != 0,
	    .has_ts = g->o.has_ts,
	    .ts_val = g->o.ts_val,
	    .ts_ecr = g->o.ts_ecr,
	};
	o->wscale = o->has_wscale ? o->wscale : 0;
	return true;
}

/* --- embryos --- */

static uint32_t embryo_limit(const struct sock *l)
{
	return l->tcp.backlog > EMBRYOS_MIN ? l->tcp.backlog : EMBRYOS_MIN;
}

static bool accept_full(const struct sock *l)
{
	/* What was offered before listen() made the backlog smaller leaves room for others. */
	return l->tcp.accept_count + min_u32(l->tcp.open_offered, l->tcp.backlog / TCP_OPEN_SHARE) > l->tcp.backlog;
}

static void inherit(struct sock *c, const struct sock *l)
{
	c->family = l->family;
	c->flags |= l->flags & INHERIT_SOCKF;
	c->rcvbuf = l->rcvbuf;
	c->sndbuf = l->sndbuf;
	c->rcvlowat = l->rcvlowat;
	c->linger_s = l->linger_s;
	c->rcvtimeo_us = l->rcvtimeo_us;
	c->sndtimeo_us = l->sndtimeo_us;
	memcpy(c->backing_options, l->backing_options, sizeof(c->backing_options));
	c->tos = l->tos;
	c->ttl = l->ttl;
	c->tcp.cc = l->tcp.cc;
	c->tcp.flags |= l->tcp.flags & INHERIT_TCPF;
	c->tcp.keep_idle_s = l->tcp.keep_idle_s;
	c->tcp.keep_intvl_s = l->tcp.keep_intvl_s;
	c->tcp.keep_cnt = l->tcp.keep_cnt;
	c->tcp.user_timeout_ms = l->tcp.user_timeout_ms;
	c->tcp.linger2_s = l->tcp.linger2_s;
	c->tcp.syncnt = l->tcp.syncnt;
	c->tcp.maxseg = l->tcp.maxseg;
	c->tcp.notsent_lowat = l->tcp.notsent_lowat;
}

/* Make c the answer to a SYN with sequence number irs and options o, our own number being iss. */
static void child_setup(struct engine *e, struct sock *c, const struct sock *l, const struct segment *g, uint32_t irs,
			uint32_t iss, const struct tcp_opts *o)
{
	struct tcb *t = &c->tcp;

	inherit(c, l);
	c->local = g->f->dst;
	c->remote = g->f->src;
	c->vnic = g->f->vnic;
	c->vnic_gen = stack_vnic(e->s, c->vnic)->gen;
	if (g->f->network) {
		memcpy(c->dst.mac, frame_source_mac(g->f), sizeof(c->dst.mac));
		c->dst.learnt = 1;
		route_sock(e, c); /* the answer may take another interface, or a smaller MTU */
	}
	t->state = TCP_SYN_RECEIVED;
	t->flags |= TCPF_EMBRYO;
	t->irs = irs;
	t->rcv_nxt = t->rcv_read = t->rcv_wup = t->last_ack_sent = t->rcv_adv = irs + 1;
	t->iss = t->snd_una = t->snd_nxt = t->snd_max = iss;
	t->snd_end = iss + 1;
	t->snd_wnd = t->snd_max_wnd = g->wnd;
	tcp_open_window(e, c);
	tcp_take_syn_options(e, c, o);
}

static void embryo_link(struct engine *e, struct sock *l, struct sock *c)
{
	uint32_t ci = sock_index(e->s, c);
	struct sock *next = sock_at(e->s, l->tcp.embryo_head);

	c->tcp.parent = sock_index(e->s, l);
	c->tcp.parent_gen = l->gen;
	c->tcp.q_prev = 0;
	c->tcp.q_next = l->tcp.embryo_head;
	if (next)
		next->tcp.q_prev = ci;
	l->tcp.embryo_head = ci;
	l->tcp.embryo_count++;
}

static struct sock *parent_of(struct engine *e, const struct sock *c)
{
	struct sock *l = sock_at(e->s, c->tcp.parent);

	return l && l->gen == c->tcp.parent_gen && l->proto == SOCK_TCP && l->tcp.state == TCP_LISTEN ? l : NULL;
}

static void embryo_unlink(struct engine *e, struct sock *l, struct sock *c)
{
	struct sock *prev = sock_at(e->s, c->tcp.q_prev), *next = sock_at(e->s, c->tcp.q_next);

	if (prev)
		prev->tcp.q_next = c->tcp.q_next;
	else
		l->tcp.embryo_head = c->tcp.q_next;
	if (next)
		next->tcp.q_prev = c->tcp.q_prev;
	c->tcp.q_next = c->tcp.q_prev = 0;
	l->tcp.embryo_count--;
}

void tcp_embryo_drop(struct engine *e, struct sock *child)
{
	struct sock *l = parent_of(e, child);

	if (l)
		embryo_unlink(e, l, child);
	tcp_free(e, child);
}

static void accept_append(struct engine *e, struct sock *l, struct sock *child)
{
	struct sock *last = sock_at(e->s, l->tcp.accept_tail);
	uint32_t ci = sock_index(e->s, child);

	if (last)
		last->tcp.q_next = ci;
	else
		l->tcp.accept_head = ci;
	l->tcp.accept_tail = ci;
	l->tcp.accept_count++;
	sock_notify(e, l, EV_IN | EV_RDNORM);
}

bool tcp_embryo_established(struct engine *e, struct sock *child)
{
	struct sock *l = parent_of(e, child);

	if (!l || accept_full(l))
		return false;
	embryo_unlink(e, l, child);
	accept_append(e, l, child);
	tcp_open_offer(e, l, child);
	return true;
}

/* --- segments for a listener --- */

static struct sock *child_alloc(struct engine *e, const struct sock *l)
{
	struct sock *c = sock_alloc(e, SOCK_TCP, l->family);

	if (!c && tcp_recycle(e))
		c = sock_alloc(e, SOCK_TCP, l->family);
	return c;
}

static void send_cookie(struct engine *e, struct sock *l, const struct segment *g)
{
	uint64_t period = e->s->now_us / COOKIE_PERIOD_US;
	uint32_t isn = cookie_make(e, g, g->seq, period, cookie_data(&g->o));
	struct sock c = {.proto = SOCK_TCP}; /* for its options only */
	uint8_t opts[40];

	tcp_sock_init(e, &c);
	child_setup(e, &c, l, g, g->seq, isn, &g->o);
	l->tcp.cookie_us = e->s->now_us;
	count(e->s, C_tcp_cookies_sent);
	tcp_reply_syn_ack(e, l, g, isn, opts, tcp_build_syn_options(e, &c, opts, true));
}

static void syn(struct engine *e, struct sock *l, const struct segment *g)
{
	struct sock *c;

	if (accept_full(l)) {
		count(e->s, C_tcp_syn_dropped);
		return;
	}
	c = l->tcp.embryo_count < embryo_limit(l) ? child_alloc(e, l) : NULL;
	/* A cookie is of no use where there is no socket to come back to. Over a wire the kernel can serve the client.
	 */
	if (!c && l->tcp.embryo_count < embryo_limit(l) &&
	    stack_vnic(e->s, g->f->vnic)->features & VNIC_FEAT_LOSSLESS) {
		count(e->s, C_tcp_listen_overflow);
		tcp_reply_rst(e, g);
		return;
	}
	if (!c) {
		send_cookie(e, l, g);
		return;
	}
	child_setup(e, c, l, g, g->seq, g->isn ? g->isn : tcp_new_isn(e, &g->f->dst, &g->f->src), &g->o);
	tcp_ecn_take_syn(e, c, g);
	embryo_link(e, l, c);
	sock_hash(e->s, c);
	tcp_send_syn(e, c);
}

bool tcp_listen_open(struct engine *e, struct sock *l, const struct segment *g, uint32_t isn, uint32_t wscale)
{
	struct sock *c = child_alloc(e, l);
	struct tcb *t;

	if (!c)
		return false;
	child_setup(e, c, l, g, g->seq, isn, &g->o);
	t = &c->tcp;
	if (t->flags & TCPF_WSCALE)
		t->rcv_wscale = (uint8_t)wscale;
	t->parent = sock_index(e->s, l);
	t->parent_gen = l->gen;
	t->rto_us = TCP_INIT_RTO_US;
	t->snd_una = t->snd_nxt = t->snd_max = t->snd_wl2 = isn + 1;
	t->snd_wl1 = g->seq;
	t->segs_in = 1;
	t->rcv_wnd = TCP_OPEN_WINDOW;
	t->rcv_adv = t->rcv_nxt + TCP_OPEN_WINDOW;
	tcp_promise_changed(e->s, c);
	sock_hash(e->s, c);
	accept_append(e, l, c);
	tcp_established(e, c);
	t->rcvq_space = tcp_first_window(e->s, c->rcvbuf); /* as if we had told more: tuning begins there */
	tcp_open_offer(e, l, c);
	return true;
}

/* An ACK for a listener: of a cookie, or of nothing. */
static void ack(struct engine *e, struct sock *l, struct segment *g)
{
	struct tcp_opts o;
	struct sock *c;

	if (!l->tcp.cookie_us || e->s->now_us - l->tcp.cookie_us > 2ull * COOKIE_PERIOD_US) {
		tcp_reply_rst(e, g);
		return;
	}
	if (!cookie_check(e, g, &o)) {
		count(e->s, C_tcp_cookies_bad);
		tcp_reply_rst(e, g);
		return;
	}
	if (accept_full(l) || !(c = child_alloc(e, l))) {
		count(e->s, C_tcp_listen_overflow);
		return;
	}
	count(e->s, C_tcp_cookies_good);
	child_setup(e, c, l, g, g->seq - 1, g->ack - 1, &o);
	c->tcp.flags |= TCPF_COOKIE;
	c->tcp.snd_nxt = c->tcp.snd_max = c->tcp.iss + 1;
	c->tcp.rcv_wnd = c->rcvbuf < 65535 ? c->rcvbuf : 65535; /* what the SYN-ACK offered */
	c->tcp.rcv_adv = c->tcp.rcv_nxt + c->tcp.rcv_wnd;
	embryo_link(e, l, c);
	sock_hash(e->s, c);
	tcp_conn_input(e, c, g);
}

void tcp_listen_input(struct engine *e, struct sock *l, struct segment *g)
{
	if (g->flags & TH_RST || ip_source_ours(e, g->f)) /* first */
		return;
	if (g->flags & TH_ACK) /* second */
		ack(e, l, g);
	else if ((g->flags & (TH_SYN | TH_FIN)) == TH_SYN) /* third; its text, if any, comes again */
		syn(e, l, g);
	/* anything else, null and SYN with FIN included, is dropped */
}

/* --- calls --- */

int tcp_listen(struct engine *e, struct sock *k, int backlog)
{
	struct tcb *t = &k->tcp;
	uint32_t most = e->s->cfg.defaults.somaxconn;

	sock_changing(e->s, k);
	if (t->state != TCP_CLOSED && t->state != TCP_LISTEN)
		return -EINVAL;
	t->backlog = (uint32_t)backlog > most ? most : (uint32_t)backlog; /* negative: the most, as Linux */
	if (t->state == TCP_LISTEN)
		return 0;
	memset(&k->remote, 0, sizeof(k->remote));
	k->vnic = VNIC_NONE;
	t->accept_head = t->accept_tail = t->accept_count = 0;
	t->embryo_head = t->embryo_count = 0;
	t->open_offered = 0;
	t->cookie_us = 0;
	k->flags &= ~(SOCKF_SHUT_RD | SOCKF_SHUT_WR);
	tcp_set_state(e, k, TCP_LISTEN);
	if (!(k->flags & SOCKF_HASHED))
		sock_hash(e->s, k);
	return 0;
}

/* The first of the accept queue, or NULL. */
static struct sock *accept_first(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	struct sock *c = sock_at(e->s, t->accept_head);

	if (!c)
		return NULL;
	t->accept_head = c->tcp.q_next;
	if (!t->accept_head)
		t->accept_tail = 0;
	t->accept_count--;
	c->tcp.q_next = 0;
	c->tcp.parent = 0;
	c->tcp.flags &= ~TCPF_EMBRYO;
	return c;
}

int tcp_accept(struct engine *e, struct sock *k)
{
	struct sock *c;

	if (k->tcp.state != TCP_LISTEN)
		return -EINVAL;
	c = accept_first(e, k);
	if (!c)
		return -EAGAIN;
	sock_changing(e->s, c);
	tcp_open_offer(e, k, c);
	return (int)sock_index(e->s, c);
}

uint32_t tcp_accept_pending(struct engine *e, const struct sock *k)
{
	return tcp_accept_elsewhere(e, k) == VNIC_NONE ? k->tcp.accept_count : 0;
}

uint32_t tcp_accept_elsewhere(struct engine *e, const struct sock *k)
{
	const struct sock *c = k->tcp.state == TCP_LISTEN ? sock_at(e->s, k->tcp.accept_head) : NULL;

	return c && vnic_elsewhere(e, c->vnic, c->vnic_gen) ? c->vnic : VNIC_NONE;
}

void tcp_listen_close(struct engine *e, struct sock *listener)
{
	struct sock *c;

	tcp_open_withdraw(e, listener);
	while ((c = sock_at(e->s, listener->tcp.embryo_head))) {
		tcp_send_rst(e, c);
		tcp_embryo_drop(e, c);
	}
	while ((c = accept_first(e, listener))) {
		if (c->tcp.state != TCP_CLOSED)
			tcp_send_rst(e, c);
		tcp_free(e, c);
	}
}
