/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Datagrams beside the connections: each host has one UDP socket, and its program sends numbered datagrams to the other
 * (RFC 768). What a program receives was sent, by that end, with these bytes and this length; nothing comes twice
 * unless the link duplicates, and nothing out of its turn unless the link reorders. Where nothing on the way drops
 * anything and no queue was full, everything comes.
 */
#include <string.h>

#include "world.h"

#define DATAGRAM_PORT 53u
#define HEAD 8u            /* number, length */
#define TX_RESERVE 64u     /* buffers of a vNIC that the engine's UDP leaves to others */
#define SLOW_RATE 2000000u /* bytes per second: below, large ones would keep connections waiting for minutes */
#define RETRY_US 1000u     /* after EAGAIN */

static uint8_t sent_bytes[65536 + 8], got_bytes[65536 + 8];

static uint32_t bufs_for(const struct world *w, uint32_t len)
{
	return (len + PKT_HEADROOM + 8 + w->cfg.buf_size - 1) / w->cfg.buf_size;
}

void datagrams_plan(struct world *w)
{
	struct datagrams *d = &w->datagrams;
	uint32_t room = ip_mtu_payload(w->host[0].e, 0, w->family) - 8;

	memset(d, 0, sizeof(*d));
	d->max_len = room > 65000 ? 65000 : room;
	for (int i = 0; i < 2; i++)
		if (w->cfg.dir[i].rate && w->cfg.dir[i].rate < SLOW_RATE && d->max_len > 200)
			d->max_len = 200;
	if (bufs_for(w, d->max_len) + TX_RESERVE > w->cfg.tx_bufs || pick_more(w, 3) == 0)
		return;
	for (int i = 0; i < 2; i++) {
		struct host *h = &w->host[i];
		struct sock *k = sock_alloc(h->e, SOCK_UDP, w->family);

		memcpy(k->local.addr, h->addr, 16);
		k->local.port = DATAGRAM_PORT;
		k->holders = 1;
		sock_hash(h->e->s, k);
		d->end[i].sock = sock_index(h->e->s, k);
		d->end[i].stream = sim_random(&w->more);
		d->end[i].total = 1 + pick_more(w, DATAGRAMS_MAX);
		d->end[i].pause_us = pick_more(w, 2) ? 0 : 1 + pick_more(w, 50000);
		d->end[i].next_us = w->now + pick_more(w, 1000000);
	}
}

static struct sock *sock_of(struct world *w, int host)
{
	return sock_at(w->host[host].e->s, w->datagrams.end[host].sock);
}

/* The length of a datagram follows from its number, as its bytes do. */
static uint32_t length_of(const struct world *w, const struct datagram_end *from, uint32_t number)
{
	uint64_t state = from->stream + number;
	uint32_t most = sim_below(&state, 4) ? 200 : w->datagrams.max_len - HEAD;

	return HEAD + sim_below(&state, most + 1);
}

static void make_bytes(const struct world *w, const struct datagram_end *from, uint32_t number, uint8_t *to)
{
	uint32_t len = length_of(w, from, number);

	app_pattern(from->stream + number, 0, to, len);
	memcpy(to, &number, 4);
	memcpy(to + 4, &len, 4);
}

static struct endpoint name_of(const struct world *w, int host)
{
	struct endpoint ep = {.port = DATAGRAM_PORT};

	memcpy(ep.addr, w->host[host].addr, 16);
	return ep;
}

static void send_one(struct world *w, int host)
{
	struct datagram_end *end = &w->datagrams.end[host];
	struct endpoint from = name_of(w, host), to = name_of(w, 1 - host);
	uint32_t len = length_of(w, end, end->sent), cut = pick_more(w, len + 1);
	struct iovec iov[2] = {{sent_bytes, cut}, {sent_bytes + cut, len - cut}};
	ssize_t r;

	make_bytes(w, end, end->sent, sent_bytes);
	r = udp_send(w->host[host].e, sock_of(w, host), 0, &from, &to, iov, 2, w->now);
	if (r == -EAGAIN) {
		end->next_us = w->now + RETRY_US;
		return;
	}
	if (r != (ssize_t)len) {
		world_fail(w, "host %d: datagram of %u bytes gives %ld", host, len, (long)r);
		return;
	}
	end->sent++;
	end->next_us = w->now + (end->pause_us ? 1 + pick_more(w, end->pause_us) : 0);
	w->progress_us = w->now;
}

static void check_one(struct world *w, int host, const struct udp_meta *m, uint32_t copied)
{
	struct datagram_end *from = &w->datagrams.end[1 - host], *end = &w->datagrams.end[host];
	const struct sim_dir *d = &w->cfg.dir[1 - host];
	struct endpoint peer = name_of(w, 1 - host);
	uint32_t number;

	memcpy(&number, got_bytes, 4);
	if (memcmp(m->from.addr, peer.addr, 16) || m->from.port != peer.port)
		world_fail(w, "host %d: a datagram from somewhere else", host);
	else if (m->size < HEAD || number >= from->sent || m->size != length_of(w, from, number))
		world_fail(w, "host %d: a datagram of %u bytes that nobody sent", host, m->size);
	if (w->failed)
		return;
	make_bytes(w, from, number, sent_bytes);
	if (memcmp(sent_bytes, got_bytes, copied))
		world_fail(w, "host %d: bytes of datagram %u are wrong", host, number);
	if (end->seen[number] && !d->dup_ppm)
		world_fail(w, "host %d: datagram %u came twice", host, number);
	if (number < end->next_number && !d->reorder_ppm && !d->dup_ppm)
		world_fail(w, "host %d: datagram %u came after %u", host, number, end->next_number - 1);
	end->got += !end->seen[number];
	end->seen[number] = true;
	end->next_number = number + 1;
}

/* One datagram, or a look at it first; at times into less memory than it needs. False: there is none. */
static bool receive_one(struct world *w, int host)
{
	struct engine *e = w->host[host].e;
	struct sock *k = sock_of(w, host);
	uint32_t room = pick_more(w, 8) ? 65536 : HEAD + pick_more(w, 100);
	bool peek = pick_more(w, 8) == 0, readable = udp_poll(e, k) & EV_IN;
	struct iovec iov = {got_bytes, room};
	struct udp_meta m, again;
	ssize_t r;

	r = peek ? udp_recv(e, k, &iov, 1, true, &m) : -EAGAIN;
	if (peek && (r >= 0) != readable)
		world_fail(w, "host %d: readable %d, a look gives %ld", host, readable, (long)r);
	r = udp_recv(e, k, &iov, 1, false, &again);
	if ((r >= 0) != readable)
		world_fail(w, "host %d: readable %d, recv gives %ld", host, readable, (long)r);
	if (r < 0)
		return false;
	if (peek && m.size != again.size)
		world_fail(w, "host %d: looked at %u bytes, received %u", host, m.size, again.size);
	if ((uint32_t)r != (again.size < room ? again.size : room))
		world_fail(w, "host %d: %ld bytes of a datagram of %u into %u", host, (long)r, again.size, room);
	if (!w->failed)
		check_one(w, host, &again, (uint32_t)r);
	w->progress_us = w->now;
	w->bytes += (uint64_t)r;
	return true;
}

void datagrams_run(struct world *w)
{
	for (int i = 0; i < 2 && w->datagrams.end[i].sock; i++) {
		struct datagram_end *end = &w->datagrams.end[i];

		for (int n = 0; n < 4 && !w->failed && end->sent < end->total && end->next_us <= w->now; n++)
			send_one(w, i);
		while (!w->failed && receive_one(w, i))
			;
	}
}

uint64_t datagrams_next(const struct world *w)
{
	uint64_t next = UINT64_MAX;

	for (int i = 0; i < 2; i++) {
		const struct datagram_end *end = &w->datagrams.end[i];

		if (end->sent < end->total && end->next_us < next)
			next = end->next_us;
	}
	return next;
}

bool datagrams_done(const struct world *w)
{
	return datagrams_next(w) == UINT64_MAX;
}

static bool may_lose(const struct world *w, int to)
{
	const struct sim_stats *st = sim_statistics(w->link);
	const struct stack *s = w->host[to].e->s;

	return !w->clean || st->queue_drops || st->no_rx_buffer || s->counters[C_udp_rx_full] ||
	       s->counters[C_udp_rx_no_memory];
}

void datagrams_close(struct world *w)
{
	for (int i = 0; i < 2; i++) {
		struct datagram_end *end = &w->datagrams.end[i], *from = &w->datagrams.end[1 - i];
		struct sock *k = end->sock ? sock_of(w, i) : NULL;

		if (!k)
			continue;
		world_say(w, "host %d: %u of %u datagrams", i, end->got, from->sent);
		if (end->got != from->sent && !may_lose(w, i))
			world_fail(w, "host %d: %u of %u datagrams came over a link that loses none", i, end->got,
				   from->sent);
		k->holders = 0;
		udp_close(w->host[i].e, k);
		w->delivered += end->got;
		end->sock = 0;
	}
}
