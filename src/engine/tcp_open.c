/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Opening at once. The kernel answers a SYN over loopback in the client's own context; here the server's process has to
 * do it, and a connect() that waits for it costs two wake-ups of sleeping processes, or a round trip of spinning ones.
 * So a listener says beforehand, for each wire over which it has been connected to, how many more connections it will
 * take: in the wire's control line (vnic_ctrl.open_limit, free-running), as if it had sent that many SYN-ACKs. A client
 * that has one left opens without waiting: its SYN carries an option (RFC 6994 experiment) with the sequence number
 * that it has chosen for the other end, and the connection is established on both sides, when the SYN is sent and when
 * it comes in. Neither SYN-ACK nor its ACK are sent. Both ends agree on the numbers: a wire loses nothing and keeps
 * order, and whoever could forge the option is the client itself.
 *
 * What connect() promises stays true: the listener has kept the place in its accept queue. All that it has offered,
 * over all wires, is at most a quarter of its backlog, and counts as if it waited to be accepted (tcp_listen.c), so the
 * queue is never longer than it may be. A listener that is closed withdraws its offer; the SYN of one who had opened
 * before he saw that is reset, as a connection is that waits in the queue of a listener that closes. A process that
 * died withdraws nothing: the socket layer looks whether it lives before it opens at once (connect.c).
 *
 * A socket is kept for each, too (stack.socks_kept).
 *
 * The window. The first one is that which every new connection gets, however short memory is (tcp_recv.c).
 *
 * The counts: open_used is the client's number of SYNs sent so, open_seen the server's of those received; open_limit is
 * where the first must stop. A SYN beyond the limit is refused, so a peer that lies gains nothing.
 */
#include "engine/tcp_open.h"

#include "engine/tcp_wire.h"

#define OPEN_MOST 32u /* offered over one wire at a time */

#define OPT_EXPERIMENT 254u /* RFC 6994: kind, length, identifier, and ours the peer's initial sequence number */
#define OPT_LEN 8u
#define OPT_ID 0x5644u

/* --- who connects --- */

/* Connections are accepted in the order in which they were opened. What came over one wire is in order; over another to
 * the same process the next one waits until the one before has come in. */
static bool in_turn(const struct engine *e, const struct vnic *v)
{
	const struct vnic *last = &e->vnic[e->s->open_last % VNIC_MAX];

	return last == v || !last->ops || last->st->dead || last->st->peer_pid != v->st->peer_pid || !last->peer_ctrl ||
	       __atomic_load_n(&last->peer_ctrl->open_seen, __ATOMIC_ACQUIRE) == last->st->open_used;
}

bool tcp_open_ready(const struct engine *e, uint32_t vnic, const struct endpoint *remote)
{
	const struct vnic *v = &e->vnic[vnic % VNIC_MAX];
	const struct vnic_ctrl *c = v->peer_ctrl;
	uint8_t addr[16];
	uint32_t left;

	if (!v->ops || v->st->provider != VNIC_PROV_LOCAL || v->st->dead || !c)
		return false;
	left = __atomic_load_n(&c->open_limit, __ATOMIC_ACQUIRE) - v->st->open_used;
	if (!left || left > OPEN_MOST || !in_turn(e, v))
		return false;
	memcpy(addr, c->open_addr, sizeof(addr));
	return __atomic_load_n(&c->open_port, __ATOMIC_RELAXED) == remote->port &&
	       !memcmp(addr, remote->addr, sizeof(addr));
}

/* As if the SYN-ACK had come (tcp_input.c, SYN-SENT). */
static void established(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	uint8_t wscale = __atomic_load_n(&e->vnic[k->vnic].peer_ctrl->open_wscale, __ATOMIC_RELAXED);
	struct tcp_opts o = {.has_mss = true, .has_wscale = true, .sack_ok = true, .mss = (uint16_t)t->adv_mss};

	o.wscale = wscale < 14 ? wscale : 14;
	t->rcv_nxt = t->rcv_read = t->rcv_wup = t->last_ack_sent = t->irs + 1;
	t->rcv_adv = t->rcv_nxt + t->rcv_wnd;
	tcp_take_syn_options(e, k, &o);
	t->snd_wnd = t->snd_max_wnd = TCP_OPEN_WINDOW;
	t->snd_wl1 = t->irs;
	t->snd_una = t->snd_wl2 = t->iss + 1;
	t->rtt_sent_us = 0;
	count(e->s, C_tcp_opened_at_once);
	tcp_established(e, k);
}

void tcp_open_send(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	uint64_t sent = t->segs_out;

	if (tcp_open_ready(e, k->vnic, &k->remote))
		t->irs = tcp_new_isn(e, &k->remote, &k->local) | 1; /* not 0: that says there is none */
	tcp_send_syn(e, k);
	if (t->irs && t->segs_out != sent) {
		stack_vnic(e->s, k->vnic)->open_used++;
		e->s->open_last = k->vnic;
		established(e, k);
	} else {
		t->irs = 0; /* no buffer: the SYN goes out later, and is answered */
	}
}

uint8_t *tcp_open_option(const struct sock *k, uint8_t *to)
{
	const struct tcb *t = &k->tcp;
	uint32_t isn = be32(t->irs);

	if (t->state != TCP_SYN_SENT || !t->irs)
		return to;
	to[0] = OPT_EXPERIMENT;
	to[1] = OPT_LEN;
	put_be16(to + 2, OPT_ID);
	memcpy(to + 4, &isn, sizeof(isn));
	return to + OPT_LEN;
}

/* --- who listens --- */

/* Tell the other end. The limit comes last: until then it is one that has been reached. */
static void publish(const struct vnic *v, const struct endpoint *where, uint8_t wscale)
{
	struct vnic_ctrl *c = v->ctrl;

	__atomic_store_n(&c->open_limit, v->st->open_seen, __ATOMIC_RELEASE);
	memcpy(c->open_addr, where->addr, sizeof(c->open_addr));
	__atomic_store_n(&c->open_wscale, wscale, __ATOMIC_RELAXED);
	__atomic_store_n(&c->open_port, where->port, __ATOMIC_RELAXED);
}

static uint32_t offered(const struct vnic_state *st)
{
	uint32_t left = st->open_limit - st->open_seen;

	return left <= OPEN_MOST ? left : 0;
}

/* The listener that has an offer out over this vNIC. */
static struct sock *offerer(struct engine *e, const struct vnic_state *st)
{
	struct sock *l = sock_at(e->s, st->open_sock);

	return l && l->gen == st->open_gen && l->proto == SOCK_TCP && l->tcp.state == TCP_LISTEN ? l : NULL;
}

/* n more places are promised by the listener, or less. */
static void promise(struct stack *s, struct sock *l, uint32_t n)
{
	l->tcp.open_offered += n;
	s->socks_kept += n;
}

static bool may_offer(struct engine *e, const struct sock *l, const struct sock *c, const struct vnic *v)
{
	return v && v->st->provider == VNIC_PROV_LOCAL && v->ctrl && !l->tcp.defer_accept_s && !l->tcp.maxseg &&
	       l->rcvbuf >= TCP_OPEN_WINDOW && c->tcp.flags & TCPF_WSCALE &&
	       (l == offerer(e, v->st) || !offerer(e, v->st));
}

void tcp_open_offer(struct engine *e, struct sock *l, const struct sock *c)
{
	struct vnic *v = tcp_vnic(e, c);
	const struct stack_pool *pool = &e->s->sock_pool;
	uint32_t most = l->tcp.backlog / TCP_OPEN_SHARE, used = l->tcp.open_offered + l->tcp.accept_count, n;
	uint32_t room = (pool->limit - 1 - pool->in_use - e->s->socks_kept) / TCP_OPEN_SHARE;
	struct vnic_state *st;

	if (used >= most || !may_offer(e, l, c, v))
		return;
	st = v->st;
	if (l != offerer(e, st)) {
		st->open_sock = sock_index(e->s, l);
		st->open_gen = l->gen;
		st->open_wscale = c->tcp.rcv_wscale;
		st->open_limit = st->open_seen;
		publish(v, &c->local, st->open_wscale);
	}
	n = offered(st);
	if (n > OPEN_MOST / 2)
		return;
	n = OPEN_MOST - n < most - used ? OPEN_MOST - n : most - used;
	n = n < room ? n : room;
	promise(e->s, l, n);
	st->open_limit += n;
	__atomic_store_n(&v->ctrl->open_limit, st->open_limit, __ATOMIC_RELEASE);
}

static void withdraw(struct engine *e, uint32_t vnic)
{
	static const struct endpoint nowhere;
	struct vnic_state *st = stack_vnic(e->s, vnic);
	struct sock *l = offerer(e, st);

	if (l)
		promise(e->s, l, 0 - offered(st));
	st->open_limit = st->open_seen;
	st->open_sock = 0;
	if (e->vnic[vnic].ops && e->vnic[vnic].gen == st->gen && e->vnic[vnic].ctrl)
		publish(&e->vnic[vnic], &nowhere, 0);
}

void tcp_open_vnic_dead(struct engine *e, uint32_t vnic)
{
	if (stack_vnic(e->s, vnic)->open_sock)
		withdraw(e, vnic);
}

void tcp_open_withdraw(struct engine *e, struct sock *l)
{
	for (uint32_t i = 0; l->tcp.open_offered && i < e->s->vnic_high; i++)
		if (offerer(e, stack_vnic(e->s, i)) == l)
			withdraw(e, i);
}

/* True: the SYN has our option, with that number. */
static bool find_option(const struct segment *g, uint32_t opts, uint32_t *isn)
{
	const uint8_t *p =
	    g->f->hdr + g->payload - OPT_LEN; /* it is the last one, which tcp_build_syn_options aligns */

	if (opts < OPT_LEN || p[0] != OPT_EXPERIMENT || p[1] != OPT_LEN || get_be16(p + 2) != OPT_ID)
		return false;
	*isn = get_be32(p + 4);
	return true;
}

/* The sender believes in a connection: a reset that it takes for one of this connection. */
static void refuse(struct engine *e, const struct segment *g, uint32_t isn)
{
	struct segment reset = *g;

	reset.flags |= TH_ACK;
	reset.ack = isn + 1;
	count(e->s, C_tcp_open_refused);
	tcp_reply_rst(e, &reset);
}

/* One more has come. The listener that has offered it, or NULL. */
static struct sock *take_one(struct engine *e, uint32_t vnic)
{
	struct vnic_state *st = stack_vnic(e->s, vnic);
	struct sock *l = offered(st) ? offerer(e, st) : NULL;

	st->open_seen++;
	__atomic_store_n(&e->vnic[vnic].ctrl->open_seen, st->open_seen, __ATOMIC_RELEASE);
	if (l)
		promise(e->s, l, 0 - 1u);
	return l;
}

bool tcp_open_input(struct engine *e, struct sock *k, struct segment *g, uint32_t opts)
{
	struct vnic_state *st = stack_vnic(e->s, g->f->vnic);
	struct sock *l;
	uint32_t isn;

	if (st->provider != VNIC_PROV_LOCAL || g->flags & (TH_ACK | TH_RST | TH_FIN) || !find_option(g, opts, &isn))
		return false;
	l = take_one(e, g->f->vnic);
	/* A connection of the same name: its other end has forgotten it, or would not open this one. */
	if (k && k->tcp.state == TCP_SYN_RECEIVED && k->tcp.flags & TCPF_EMBRYO)
		tcp_embryo_drop(e, k);
	else if (k && k->tcp.state != TCP_LISTEN)
		tcp_done(e, k, k->tcp.state == TCP_CLOSE_WAIT ? EPIPE : ECONNRESET);
	tcp_parse_options(g->f->hdr + g->payload - opts, opts, &g->o);
	if (!l || sock_lookup_bound(e->s, SOCK_TCP, &g->f->dst) != l || !tcp_listen_open(e, l, g, isn, st->open_wscale))
		refuse(e, g, isn);
	return true;
}
