/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: frames and calls into an engine with connections in every state.
 *
 * The input is a sequence of records: advance the clock; inject a segment whose numbers are relative to what the
 * connection expects (so that most of them get past the first checks), with a right checksum or not; inject a datagram,
 * or a frame of the input's own bytes; make a call. Some of the connections and sockets are IPv6's, with extension
 * headers. The engine sits on one end of a simulated link; the other end, which records the sequence numbers that the
 * engine uses, is ours. After each record the invariants of fuzz.c hold; nothing that is sent exceeds the MTU; at the
 * end everything is closed, time passes, and nothing may be left.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "lib/test_stack.h"
#include "vnic/sim.h"

#define SLOTS 8u
#define MTU 1500u
#define RECORDS_MAX 400u
#define SLOT_V6 6u /* from this one on slots are IPv6's */
#define LISTEN_PORT 80u
#define UDP_PORT 53u
#define UDP_SOCKS 3u
#define FRAMES_MAX 4000u /* sent in answer to one record */

/* A socket that the input plays with. */
struct slot {
	uint32_t sock, gen;
	uint16_t local, remote; /* ports */
};

struct peer_view {
	uint32_t seq_end, ack, ts; /* as the engine last sent them */
	uint16_t port;             /* the engine's */
};

static struct {
	struct engine *e;
	struct sim *link;
	struct vnic peer;
	struct vnic_state peer_state;
	struct input in;
	uint64_t now;
	struct slot slot[SLOTS];
	struct peer_view view[SLOTS]; /* by remote port */
	uint32_t listener, listener_gen;
	struct slot udp[UDP_SOCKS]; /* the last is IPv6's */
	uint32_t frames;
} z;

static struct sock *sock_named(uint32_t i, uint32_t gen)
{
	struct sock *k = sock_at(z.e->s, i);

	return k && k->proto == SOCK_TCP && k->gen == gen && k->holders ? k : NULL;
}

static uint16_t remote_port(uint32_t slot)
{
	return (uint16_t)(1000 + slot);
}

/* --- the other end of the link --- */

static void look_at(const uint8_t *f, uint32_t len)
{
	uint32_t ihl;

	fuzz_require(len <= MTU + 14);
	if (len < 54 || f[14 + (f[12] == 8 ? 9 : 6)] != 6)
		return;
	ihl = f[12] == 8 ? (f[14] & 15) * 4u : 40;
	if (len < 14 + ihl + 20)
		return;

	const uint8_t *t = f + 14 + ihl;
	uint32_t port = (uint32_t)t[2] << 8 | t[3], slot = port - remote_port(0);

	if (slot >= SLOTS)
		return;
	z.view[slot].port = (uint16_t)(t[0] << 8 | t[1]);
	z.view[slot].seq_end = ((uint32_t)t[4] << 24 | (uint32_t)t[5] << 16 | (uint32_t)t[6] << 8 | t[7]) +
			       (len - 14 - ihl - (uint32_t)(t[12] >> 4) * 4) + !!(t[13] & TH_SYN) + !!(t[13] & TH_FIN);
	z.view[slot].ack = (uint32_t)t[8] << 24 | (uint32_t)t[9] << 16 | (uint32_t)t[10] << 8 | t[11];
}

/* Let everything come to rest at this instant. */
static void settle(void)
{
	struct vnic_desc ev[32];

	for (int round = 0; round < 4; round++) {
		sim_step(z.link, z.now);
		fuzz_settle(z.e, z.now);
		for (int n; (n = z.peer.ops->poll(&z.peer, ev, 32)) > 0;)
			for (int i = 0; i < n; i++) {
				look_at(vnic_rx_buf(&z.peer, ev[i].buf) + ev[i].off, ev[i].len);
				z.peer.ops->release(&z.peer, ev[i].buf);
				fuzz_require(++z.frames < FRAMES_MAX);
			}
	}
	fuzz_require(sim_statistics(z.link)->too_long == 0);
	fuzz_require(sim_statistics(z.link)->rewritten == 0);
	fuzz_require(sim_statistics(z.link)->bad_desc == 0);
}

static void to_engine(const uint8_t *frame, uint32_t len, bool through_ring)
{
	int buf = through_ring && len && len <= 2048 ? vnic_tx_alloc(&z.peer) : -1;

	if (buf < 0) {
		engine_input(z.e, 0, frame, len, false, z.now);
		return;
	}
	memcpy(vnic_tx_buf(&z.peer, (uint32_t)buf), frame, len);
	z.peer.ops->post(&z.peer, &(struct vnic_desc){.buf = (uint32_t)buf, .len = (uint16_t)len}, 1);
	vnic_tx_free(&z.peer, (uint32_t)buf);
}

/* --- records --- */

static void advance(void)
{
	static const uint32_t unit[] = {1, 100, 1000, 40000, 200000, 1000000, 60000000, 600000000};

	z.now += (uint64_t)unit[in_u8(&z.in) % 8] * (1u + in_u8(&z.in) % 16);
}

/* A number near one of interest. */
static uint32_t near(uint32_t base)
{
	uint8_t how = in_u8(&z.in);

	if (how < 160)
		return base;
	if (how < 200)
		return base + (uint32_t)(int8_t)in_u8(&z.in);
	if (how < 240)
		return base + (uint32_t)(int16_t)in_u16(&z.in);
	return base + in_u32(&z.in);
}

static uint8_t put_option_sack(uint8_t *o, uint32_t una)
{
	uint32_t n = 1 + in_u8(&z.in) % 4;

	o[0] = o[1] = 1;
	o[2] = 5;
	o[3] = (uint8_t)(2 + 8 * n);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t start = una + in_u16(&z.in) % 16384, end = start + in_u16(&z.in) % 8192;

		for (int b = 0; b < 4; b++) {
			o[4 + 8 * i + (uint32_t)b] = (uint8_t)(start >> (24 - 8 * b));
			o[8 + 8 * i + (uint32_t)b] = (uint8_t)(end >> (24 - 8 * b));
		}
	}
	return (uint8_t)(4 + 8 * n);
}

static uint8_t put_options(uint8_t o[40], uint32_t una)
{
	uint32_t ts = (uint32_t)(z.now / 1000);

	switch (in_u8(&z.in) % 8) {
	case 0: /* as on a SYN */
		memcpy(o, (uint8_t[]){2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7}, 20);
		o[2] = in_u8(&z.in) % 6;
		return 20;
	case 1:
		o[0] = o[1] = 1;
		o[2] = 8;
		o[3] = 10;
		ts = near(ts);
		for (int b = 0; b < 4; b++)
			o[4 + b] = (uint8_t)(ts >> (24 - 8 * b));
		memset(o + 8, in_u8(&z.in), 4);
		return 12;
	case 2:
		return put_option_sack(o, una);
	case 3:
		for (int i = 0; i < 40; i++)
			o[i] = in_u8(&z.in);
		return (uint8_t)(in_u8(&z.in) % 11 * 4);
	default:
		return 0;
	}
}

/* What the slot's connection, if there is one, would accept. */
static void expected(uint32_t slot, struct fuzz_segment *g, uint32_t *una)
{
	struct sock *k = sock_named(z.slot[slot].sock, z.slot[slot].gen);

	g->v6 = slot >= SLOT_V6;
	g->sport = remote_port(slot);
	g->dport = LISTEN_PORT;
	g->seq = z.view[slot].ack;
	g->ack = *una = z.view[slot].seq_end;
	if (!k) {
		g->dport = z.view[slot].port ? z.view[slot].port : LISTEN_PORT;
		return;
	}
	g->dport = k->local.port;
	g->seq = k->tcp.rcv_nxt;
	*una = k->tcp.snd_una;
	g->ack = in_u8(&z.in) & 1 ? k->tcp.snd_max : k->tcp.snd_una;
}

/* IPv6: now and then extension headers, right ones or of any bytes. */
static void put_extensions(struct fuzz_segment *g)
{
	uint8_t how = g->v6 ? in_u8(&z.in) : 0;

	if (how < 200)
		return;
	g->ext_len = (uint8_t)(8 + how % 3 * 8);
	g->ext_first = how & 4 ? 0 : how & 8 ? 60 : in_u8(&z.in);
	for (uint32_t i = 0; i < g->ext_len; i++)
		g->ext[i] = how & 16 ? in_u8(&z.in) : 0;
	g->ext[0] = how & 32 ? in_u8(&z.in) : g->udp ? 17 : 6;
	g->ext[1] = how % 7 == 0 ? in_u8(&z.in) : (uint8_t)(g->ext_len / 8 - 1);
}

static void inject_segment(void)
{
	static const uint8_t usual[] = {TH_ACK,          TH_ACK | TH_PSH, TH_SYN,          TH_SYN | TH_ACK,
					TH_FIN | TH_ACK, TH_RST,          TH_RST | TH_ACK, TH_SYN | TH_ECE | TH_CWR,
					TH_ACK,          TH_ACK | TH_URG, TH_SYN | TH_FIN, 0};
	struct fuzz_segment g = {.src = 2, .dst = 1};
	uint8_t frame[FUZZ_FRAME_MAX];
	uint32_t slot = in_u8(&z.in) % SLOTS, una, how = in_u8(&z.in);

	expected(slot, &g, &una);
	if (how & 0x40)
		g.dport = LISTEN_PORT;
	g.flags = how & 0x80 ? in_u8(&z.in) : usual[how % 12];
	g.seq = near(g.seq);
	g.ack = near(g.ack);
	g.len = in_u8(&z.in) & 3 ? 0 : in_u16(&z.in) % 1400;
	g.wnd = in_u8(&z.in) & 1 ? 0xffff : in_u16(&z.in);
	g.fill = (uint8_t)how;
	g.tos = g.flags & TH_PSH ? (uint8_t)how & 3 : 0;
	g.opt_len = put_options(g.opt, una);
	if (g.flags & TH_URG)
		g.urg = in_u16(&z.in);
	how = in_u8(&z.in);
	g.bad_sum = how % 32 == 0;
	if (how % 32 == 1)
		g.dst = in_u8(&z.in);
	if (how % 32 == 2)
		g.src = in_u8(&z.in);
	if (how % 32 == 3)
		g.sport = in_u16(&z.in);
	put_extensions(&g);
	if (g.len > MTU - 60 - g.opt_len - g.ext_len)
		g.len = MTU - 60 - g.opt_len - g.ext_len;
	to_engine(frame, fuzz_frame(frame, &g), how & 0x40);
}

static struct sock *udp_named(uint32_t n)
{
	struct sock *k = sock_at(z.e->s, z.udp[n].sock);

	return k && k->proto == SOCK_UDP && k->gen == z.udp[n].gen && k->holders ? k : NULL;
}

static void inject_datagram(void)
{
	uint8_t frame[FUZZ_FRAME_MAX], how = in_u8(&z.in);
	struct fuzz_segment g = {.udp = true, .src = 2, .dst = 1, .v6 = how & 1, .fill = how, .tos = how};

	g.sport = how & 2 ? in_u16(&z.in) : 2053;
	g.dport = how & 4 ? in_u16(&z.in) : UDP_PORT;
	g.len = how & 8 ? in_u16(&z.in) % 1400 : how;
	g.lie = how & 16 ? (int16_t)in_u16(&z.in) : 0;
	g.bad_sum = how % 32 == 0;
	if (how & 128)
		g.src = in_u8(&z.in);
	put_extensions(&g);
	to_engine(frame, fuzz_frame(frame, &g), how & 64);
}

/* A right segment with some of its bytes changed, or bytes that are all the input's. */
static void inject_raw(void)
{
	uint8_t frame[FUZZ_FRAME_MAX] = {0};
	uint32_t len, how = in_u8(&z.in), una;

	if (how & 1) {
		struct fuzz_segment g = {.src = 2, .dst = 1, .flags = TH_ACK, .len = how % 64};

		expected(how / 2 % SLOTS, &g, &una);
		if (how & 0x20) {
			g.udp = true;
			g.dport = UDP_PORT;
		}
		put_extensions(&g);
		len = fuzz_frame(frame, &g);
		for (uint32_t n = in_u8(&z.in) % 4 + 1; n; n--)
			frame[in_u8(&z.in) % len] = in_u8(&z.in);
		if (how & 2)
			len = in_u8(&z.in) % (len + 1);
	} else {
		len = in_u8(&z.in);
		for (uint32_t i = 0; i < len; i++)
			frame[i] = in_u8(&z.in);
		if (how & 2 && len > 23)
			memcpy(frame + 12, how & 8 ? (uint8_t[]){0x86, 0xdd, 0x60} : (uint8_t[]){8, 0, 0x45}, 3);
	}
	to_engine(frame, len, how & 4);
}

/* Make the frame, which has n bytes of ICMP at l4, an ICMP packet with right lengths and checksums. */
static void finish_icmp(uint8_t *f, bool v6, uint32_t l4, uint32_t n)
{
	uint8_t *ip = f + 14;
	uint32_t sum = v6 ? csum_pseudo(6, ip + 8, ip + 24, 58, n) : 0;
	uint16_t folded;

	if (v6) {
		ip[6] = 58;
		ip[4] = 0;
		ip[5] = (uint8_t)n;
	} else {
		ip[9] = 1;
		ip[2] = 0;
		ip[3] = (uint8_t)(20 + n);
		memset(ip + 10, 0, 2);
		folded = csum_fold(csum_add(ip, 20, 0));
		memcpy(ip + 10, &folded, 2);
	}
	folded = csum_fold(csum_add(f + l4, n, sum));
	memcpy(f + l4 + 2, &folded, 2);
}

/* An ICMP error that quotes a packet of ours, more or less rightly. */
static void inject_icmp(void)
{
	struct fuzz_segment g = {.src = 1, .dst = 2}, outer = {.src = 2, .dst = 1};
	uint8_t f[FUZZ_FRAME_MAX], quote[FUZZ_FRAME_MAX], how = in_u8(&z.in);
	uint32_t una, quoted = in_u8(&z.in) % 100, l4;
	uint16_t swap;

	expected(how % SLOTS, &g, &una);
	swap = g.sport;
	g.sport = g.dport;
	g.dport = swap;
	g.seq = near(una);
	if (how & 0x40) {
		g.udp = true;
		g.sport = how & 0x20 ? UDP_PORT + 1 : UDP_PORT;
		g.dport = 2053;
		g.len = 40;
	}
	fuzz_frame(quote, &g);
	outer.v6 = g.v6;
	fuzz_frame(f, &outer);
	l4 = g.v6 ? 54 : 34;
	memset(f + l4, 0, 8);
	f[l4] = in_u8(&z.in) & 3 ? (g.v6 ? 1 + how / 8 % 4 : 3) : in_u8(&z.in);
	f[l4 + 1] = in_u8(&z.in) % 16;
	f[l4 + 6] = in_u8(&z.in); /* the next MTU */
	f[l4 + 7] = in_u8(&z.in);
	memcpy(f + l4 + 8, quote + 14, quoted);
	finish_icmp(f, g.v6, l4, 8 + quoted);
	to_engine(f, l4 + 8 + quoted, false);
}

/* More handshakes than a listener keeps state for; some of them are completed. */
static void flood(void)
{
	struct fuzz_segment g = {.src = 2, .dst = 1, .dport = LISTEN_PORT, .flags = TH_SYN, .wnd = 1000};
	uint32_t n = in_u8(&z.in) % 40;
	uint8_t frame[FUZZ_FRAME_MAX];

	for (uint32_t i = 0; i < n; i++) {
		g.sport = (uint16_t)(remote_port(0) + 2 * SLOTS - i - 1); /* the slots' own ports come last */
		g.seq = near(i);
		to_engine(frame, fuzz_frame(frame, &g), false);
	}
}

static void call_connect(struct slot *s, uint32_t n)
{
	struct endpoint local = {.port = s->local}, remote = {.port = s->remote};
	bool v6 = s - z.slot >= (long)SLOT_V6;
	struct sock *k = sock_alloc(z.e, SOCK_TCP, v6 ? 6 : 4);

	if (!k)
		return;
	(v6 ? fuzz_address6 : fuzz_address)(local.addr, 1);
	(v6 ? fuzz_address6 : fuzz_address)(remote.addr, n & 0x10 ? 1 : 2);
	k->holders = 1;
	if (sock_lookup(z.e->s, SOCK_TCP, &local, &remote) || tcp_connect(z.e, k, 0, &local, &remote, z.now)) {
		k->holders = 0;
		tcp_close(z.e, k, z.now);
		return;
	}
	s->sock = sock_index(z.e->s, k);
	s->gen = k->gen;
}

static void call_listen(uint32_t n)
{
	struct sock *k = sock_named(z.listener, z.listener_gen);

	if (k) {
		tcp_listen(z.e, k, (int)(n % 8));
		return;
	}
	k = sock_alloc(z.e, SOCK_TCP, 6); /* on any address, of either family unless IPV6_V6ONLY */
	if (!k)
		return;
	k->flags |= n & 16 ? SOCKF_V6ONLY : 0;
	k->local.port = LISTEN_PORT;
	k->holders = 1;
	fuzz_require(tcp_listen(z.e, k, (int)(n % 8)) == 0);
	z.listener = sock_index(z.e->s, k);
	z.listener_gen = k->gen;
}

static void call_accept(struct slot *s)
{
	struct sock *l = sock_named(z.listener, z.listener_gen), *k;
	int i = l ? tcp_accept(z.e, l) : -1;

	if (i <= 0)
		return;
	k = sock_at(z.e->s, (uint32_t)i);
	fuzz_require(k && k->proto == SOCK_TCP);
	k->holders = 1;
	s->sock = (uint32_t)i;
	s->gen = k->gen;
}

static void close_sock(struct sock *k, uint32_t n)
{
	k->holders = 0;
	if (n & 1) {
		k->flags |= SOCKF_LINGER;
		k->linger_s = 0;
	}
	tcp_close(z.e, k, z.now);
}

static void call_data(struct sock *k, uint32_t what, uint32_t n)
{
	static uint8_t buf[65536];
	struct iovec iov = {.iov_base = buf, .iov_len = n};
	ssize_t r;
	uint32_t level;

	if (what & 1) {
		r = tcp_send(z.e, k, &iov, 1, 0, (int)(what >> 1) & (TCP_F_OOB | TCP_F_MORE), z.now);
	} else {
		level = tcp_poll(z.e, k);
		r = tcp_recv(z.e, k, &iov, 1, 0, (int)(what >> 1) & (TCP_F_PEEK | TCP_F_TRUNC), z.now);
		fuzz_require(!(level & EV_IN) || r != -EAGAIN || !n);
	}
	fuzz_require(r <= (ssize_t)n);
}

static void call_option(struct sock *k, uint32_t n)
{
	switch (n % 8) {
	case 0:
		tcp_set_nodelay(z.e, k, n & 8, z.now);
		break;
	case 1:
		tcp_set_cork(z.e, k, n & 8, z.now);
		break;
	case 2:
		k->tcp.keep_idle_s = 1 + n % 100;
		tcp_set_keepalive(z.e, k, n & 8, z.now);
		break;
	case 3:
		tcp_set_cc(z.e, k, n & 8 ? "cubic" : "reno");
		break;
	case 4:
		k->rcvbuf = 2304 + n % 60000;
		k->flags |= SOCKF_RCVBUF_SET;
		break;
	case 5:
		k->flags ^= SOCKF_OOBINLINE;
		break;
	case 6:
		k->tcp.user_timeout_ms = n;
		break;
	default:
		tcp_inq(z.e, k);
		tcp_outq(z.e, k);
		tcp_atmark(z.e, k);
		break;
	}
}

static void udp_open(uint32_t which, uint32_t n)
{
	struct endpoint local = {.port = (uint16_t)(which == 1 ? UDP_PORT + 1 : UDP_PORT)};
	bool v6 = which == UDP_SOCKS - 1;
	struct sock *k;

	(v6 ? fuzz_address6 : fuzz_address)(local.addr, 1);
	k = sock_lookup_bound(z.e->s, SOCK_UDP, &local) ? NULL : sock_alloc(z.e, SOCK_UDP, v6 ? 6 : 4);
	if (!k)
		return;
	k->local = local;
	k->holders = 1;
	if (n & 1) { /* connected */
		(v6 ? fuzz_address6 : fuzz_address)(k->remote.addr, 2);
		k->remote.port = 2053;
		k->vnic = 0;
		k->vnic_gen = stack_vnic(z.e->s, 0)->gen;
	}
	sock_hash(z.e->s, k);
	z.udp[which].sock = sock_index(z.e->s, k);
	z.udp[which].gen = k->gen;
}

static void udp_call(void)
{
	static uint8_t buf[4096];
	uint32_t how = in_u8(&z.in), which = how % UDP_SOCKS, n = in_u16(&z.in);
	struct sock *k = udp_named(which);
	struct iovec iov[2] = {{buf, n % 1000}, {buf, n % sizeof(buf)}};
	struct endpoint to = {.port = 2053};
	struct udp_meta meta;
	uint32_t level;
	ssize_t r;

	if (!k) {
		udp_open(which, n);
		return;
	}
	level = udp_poll(z.e, k);
	if (how & 0x80) {
		(which == UDP_SOCKS - 1 ? fuzz_address6 : fuzz_address)(to.addr, 2);
		r = udp_send(z.e, k, 0, &k->local, &to, iov, 2, z.now);
		fuzz_require(r < 0 || r == (ssize_t)(iov[0].iov_len + iov[1].iov_len));
	} else if (how & 0x40) {
		r = udp_recv(z.e, k, iov, 2, how & 0x20, &meta);
		fuzz_require(r <= (ssize_t)(iov[0].iov_len + iov[1].iov_len));
		fuzz_require(!(level & EV_IN) || r != -EAGAIN);
		fuzz_require(r < 0 || (meta.size <= MTU && (uint32_t)r <= meta.size));
	} else if (how & 0x20) {
		k->holders = 0;
		udp_close(z.e, k);
	} else {
		udp_first_size(z.e, k);
		k->rcvbuf = 2304 + n;
	}
}

static void call(void)
{
	struct slot *s = &z.slot[in_u8(&z.in) % SLOTS];
	struct sock *k = sock_named(s->sock, s->gen);
	uint32_t what = in_u8(&z.in), n = in_u16(&z.in);

	switch (what % 16) {
	case 0:
		call_listen(n);
		return;
	case 1:
		if (!k)
			call_connect(s, n);
		return;
	case 2:
		if (!k)
			call_accept(s);
		return;
	case 3:
		k = sock_named(z.listener, z.listener_gen);
		if (k && n % 8 == 0)
			close_sock(k, n >> 4);
		return;
	}
	if (!k)
		return;
	if (what % 16 < 10)
		call_data(k, what % 16 < 7 ? 1 | (what >> 4 << 1) : what >> 4 << 1, n);
	else if (what % 16 < 12)
		tcp_shutdown(z.e, k, (int)(n % 3), z.now);
	else if (what % 16 == 12)
		close_sock(k, n);
	else if (what % 16 == 13 && n % 4 == 0)
		tcp_abort(z.e, k, n & 8 ? ETIMEDOUT : 0, z.now);
	else
		call_option(k, n);
}

static void record(void)
{
	uint8_t what = in_u8(&z.in);

	z.frames = 0;
	if (what < 32)
		advance();
	else if (what < 150)
		inject_segment();
	else if (what < 165)
		inject_raw();
	else if (what < 172)
		inject_icmp();
	else if (what < 174)
		flood();
	else if (what >= 248)
		udp_call();
	else if (what >= 240)
		inject_datagram();
	else
		call();
}

static void begin(const uint8_t *data, size_t size)
{
	static _Alignas(64) uint8_t mem[4 << 20];
	struct sim_config cfg = {
	    .seed = 1, .mtu = MTU, .buf_size = 2048, .tx_bufs = 128, .rx_bufs = 128, .flights = 256};

	memset(&z, 0, sizeof(z));
	z.in = (struct input){data, data + size};
	z.now = 1000000000;
	z.e = fuzz_stack(z.now);
	z.link = sim_create(mem, sizeof(mem), &cfg);
	fuzz_require(z.link);
	fuzz_require(test_link_join(z.link, 0, z.e) == 0);
	sim_attach(z.link, 1, &z.peer, &z.peer_state);
	for (uint32_t i = 0; i < SLOTS; i++) {
		z.slot[i].local = (uint16_t)(2000 + i);
		z.slot[i].remote = remote_port(i);
	}
}

/* All closed, and hours later: nothing is left. */
static void finish(void)
{
	for (uint32_t i = 1; i < FUZZ_SOCKS; i++) {
		struct sock *k = sock_at(z.e->s, i);

		if (k->proto == SOCK_TCP && k->holders)
			close_sock(k, i);
		else if (k->proto == SOCK_UDP)
			udp_close(z.e, k);
	}
	for (int i = 0; i < 2000 && engine_deadline(z.e) != UINT64_MAX; i++) {
		z.frames = 0;
		z.now = engine_deadline(z.e) > z.now ? engine_deadline(z.e) : z.now;
		settle();
	}
	z.frames = 0;
	settle();
	fuzz_check(z.e, z.now, true);
	fuzz_require(z.e->s->sock_pool.in_use == 0);
	fuzz_require(z.e->s->pkt_pool.in_use == 0);
	fuzz_require(z.e->s->private_pool.in_use == 0);
	fuzz_require(z.e->vnic[0].st->free_top == z.e->vnic[0].st->tx_count);
	fuzz_require(z.e->vnic[0].st->rx_held == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	begin(data, size);
	for (uint32_t n = 0; in_more(&z.in) && n < RECORDS_MAX; n++) {
		record();
		settle();
		fuzz_check(z.e, z.now, n % 16 == 15);
	}
	finish();
	return 0;
}
