/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The programs. Each end sends a stream whose bytes follow from its name and their position, in writes of random sizes,
 * and reads in random sizes. It behaves like a program on an edge-triggered epoll set: after EAGAIN it
 * does nothing more in that direction until the engine reports an edge, so an edge that is forgotten is a stall.
 *
 * What it may see: the peer's bytes, each once and in order; the end of the stream only when the peer has shut
 * down and all of its bytes have been read; an error only with a cause (see cause_of). An urgent byte comes by itself,
 * once, and no read goes past its place; or, if the program likes, in the stream as any other (RFC 6093, tcp(7)).
 */
#include <string.h>

#include "world.h"

static uint8_t scratch[65536 + 8], expected[65536 + 8];

void app_pattern(uint64_t stream, uint64_t offset, uint8_t *to, size_t n)
{
	uint8_t word[8];
	size_t done = 0;

	while (done < n) {
		uint64_t at = offset + done, state = stream * 0x9e3779b97f4a7c15ull + (at >> 3),
			 value = sim_random(&state);
		size_t skip = at & 7, take = 8 - skip < n - done ? 8 - skip : n - done;

		memcpy(word, &value, 8);
		memcpy(to + done, word + skip, take);
		done += take;
	}
}

static struct sock *app_sock(struct app *a)
{
	struct sock *k = sock_at(a->w->host[a->host].e->s, a->sock);

	if (!k || k->gen != a->gen || k->proto != SOCK_TCP) {
		world_fail(a->w, "socket %u vanished under its program", a->sock);
		return NULL;
	}
	return k;
}

static struct app *peer_of(struct app *a)
{
	for (uint32_t i = 0; i < a->w->conns; i++)
		for (int e = 0; e < 2; e++)
			if (&a->w->conn[i].end[e] == a)
				return &a->w->conn[i].end[1 - e];
	return NULL;
}

static uint32_t number_of(const struct app *a)
{
	return (uint32_t)(((const char *)a - (const char *)a->w->conn) / (long)sizeof(struct conn));
}

/* --- the plan --- */

static void plan_end(struct world *w, struct app *a, int host)
{
	static const uint32_t totals[] = {0, 1, 100, 3000, 20000, 100000};

	memset(a, 0, sizeof(*a));
	a->w = w;
	a->host = (uint8_t)host;
	a->stream = sim_random(&w->random);
	a->to_send = pick(w, totals[pick(w, 6)] + 1);
	if (one_in(w, 60))
		a->to_send = 300000 + pick(w, 1500000);
	a->max_write = pick_log(w, 1, 65536);
	a->max_read = pick_log(w, 1, 65536);
	if (a->to_send / a->max_write > 3000)
		a->max_write = (uint32_t)(a->to_send / 3000) + 1;
	if (one_in(w, 3))
		a->write_pause_us = pick_log(w, 1, 200000);
	if (one_in(w, 3))
		a->read_pause_us = pick_log(w, 1, 200000);
	a->finish = FINISH_AFTER_EOF;
	if (one_in(w, 4))
		a->finish = (uint8_t)pick(w, FINISH_COUNT);
	a->abort_at = pick(w, (uint32_t)a->to_send + 2);
	a->options = pick(w, 256) & pick(w, 256) & (OPT_KEEPALIVE - 1 + OPT_SMALL_RCV + OPT_SMALL_SND);
	if (one_in(w, 2))
		a->options |= OPT_NODELAY;
	if (!(w->cfg.features &
	      VNIC_FEAT_LOSSLESS)) /* a reset that is lost is never sent again: only a probe finds out */
		a->options |= OPT_KEEPALIVE;
}

/* How the connection comes about: to a listener, to nobody, both at once, or with the ports of an earlier one. */
static void plan_opening(struct world *w, struct conn *c)
{
	uint32_t number = (uint32_t)(c - w->conn);
	struct conn *before = number && one_in(w, 6) ? c - 1 : NULL;

	c->client_port = (uint16_t)(CLIENT_PORT + number);
	c->server_port = one_in(w, 30) ? DEAD_PORT : SERVER_PORT;
	c->start_us = one_in(w, 2) ? 0 : pick(w, 2000000);
	if (one_in(w, 12)) {
		c->simultaneous = true;
		c->server_port = (uint16_t)(CROSS_PORT + number);
	} else if (before && before->server_port == SERVER_PORT && !before->after) {
		c->after = before;
		c->client_port = before->client_port;
		c->server_port = SERVER_PORT;
		c->end[0].host = before->end[0].host;
		c->end[1].host = before->end[1].host;
	}
}

/* Urgent bytes. An accepted socket has its options too late to keep several of them in the stream. */
static void plan_urgent(struct world *w, struct conn *c)
{
	for (int e = 0; e < 2; e++) {
		struct app *a = &c->end[e];

		a->urgent_at = a->to_send && !pick_more(w, 4) ? pick_more(w, (uint32_t)a->to_send) : URGENT_NONE;
		a->options |= pick_more(w, 2) ? OPT_INLINE : 0;
	}
	if (c->end[0].options & OPT_INLINE && c->end[1].urgent_at != URGENT_NONE && pick_more(w, 2))
		c->end[1].options |= OPT_URGENT_MANY;
}

void app_plan(struct world *w, struct conn *c)
{
	int client = (int)pick(w, 2);

	memset(c, 0, sizeof(*c));
	plan_end(w, &c->end[0], client);
	plan_end(w, &c->end[1], 1 - client);
	/* Both waiting for the other to begin closing would be the programs' own deadlock. */
	if (c->end[0].finish == FINISH_PEER_FIRST)
		c->end[1].finish = FINISH_AFTER_EOF;
	/* A pause per tiny read must not make a long day. */
	for (int e = 0; e < 2; e++) {
		struct app *a = &c->end[e];
		uint64_t reads = c->end[1 - e].to_send / a->max_read + 1;

		if (reads > 3000)
			a->max_read = (uint32_t)(c->end[1 - e].to_send / 3000) + 1;
		if (reads > 200 && a->read_pause_us > 2000)
			a->read_pause_us = 2000;
		if (a->to_send / a->max_write > 200 && a->write_pause_us > 2000)
			a->write_pause_us = 2000;
	}
	plan_opening(w, c);
	plan_urgent(w, c);
}

static void apply_options(struct app *a, struct sock *k)
{
	struct engine *e = a->w->host[a->host].e;

	if (a->options & OPT_NODELAY)
		tcp_set_nodelay(e, k, true, a->w->now);
	if (a->options & OPT_NEWRENO && tcp_set_cc(e, k, "reno"))
		world_fail(a->w, "congestion control «reno» is unknown");
	if (a->options & OPT_KEEPALIVE) {
		k->tcp.keep_idle_s = 30;
		k->tcp.keep_intvl_s = 5;
		k->tcp.keep_cnt = 16; /* more than a burst of loss takes away from an idle connection */
		tcp_set_keepalive(e, k, true, a->w->now);
	}
	if (a->options & OPT_INLINE)
		k->flags |= SOCKF_OOBINLINE;
	if (a->options & OPT_SMALL_RCV) {
		k->rcvbuf = pick_log(a->w, 2304, 16384);
		k->flags |= SOCKF_RCVBUF_SET;
	}
	if (a->options & OPT_SMALL_SND) {
		k->sndbuf = pick_log(a->w, 2304, 16384);
		k->flags |= SOCKF_SNDBUF_SET;
	}
}

static void end_opens(struct app *a, struct sock *k)
{
	struct stack *s = a->w->host[a->host].e->s;

	a->born = a->open = true;
	a->sock = sock_index(s, k);
	a->gen = k->gen;
	k->holders = 1;
	a->w->open_ends++;
	a->w->progress_us = a->w->now;
}

static void end_connects(struct world *w, struct conn *c, int end)
{
	struct app *a = &c->end[end];
	struct host *h = &w->host[a->host];
	struct endpoint local = {.port = end ? c->server_port : c->client_port};
	struct endpoint remote = {.port = end ? c->client_port : c->server_port};
	struct sock *k = sock_alloc(h->e, SOCK_TCP, w->family);
	int r;

	if (!k) {
		world_fail(w, "no socket for connection %u", number_of(a));
		return;
	}
	memcpy(local.addr, h->addr, 16);
	memcpy(remote.addr, w->host[1 - a->host].addr, 16);
	end_opens(a, k);
	apply_options(a, k);
	r = tcp_connect(h->e, k, 0, &local, &remote, w->now);
	world_say(w, "#%u host %d connects: %d", number_of(a), a->host, r);
	if (r)
		world_fail(w, "#%u connect gives %d", number_of(a), r);
}

void app_connect(struct world *w, struct conn *c)
{
	c->started = true;
	end_connects(w, c, 0);
	if (c->simultaneous && !w->failed)
		end_connects(w, c, 1);
}

struct conn *app_of_ports(struct world *w, uint16_t a, uint16_t b)
{
	for (uint32_t i = w->conns; i-- > 0;) {
		struct conn *c = &w->conn[i];

		if (c->started &&
		    ((c->client_port == a && c->server_port == b) || (c->client_port == b && c->server_port == a)))
			return c;
	}
	return NULL;
}

/* --- errors --- */

/* Why an end may see err; NULL: it may not. */
static const char *cause_of(struct app *a, int err)
{
	struct world *w = a->w;
	struct app *peer = peer_of(a);
	struct host *ph = &w->host[peer->host];
	const struct conn *c = &w->conn[number_of(a)];

	switch (err) {
	case ECONNREFUSED:
		if (c->server_port == DEAD_PORT || ph->listener_closed)
			return "nobody listens";
		if (c->simultaneous && !peer->open)
			return "the other end of a simultaneous open is gone already";
		return NULL;
	case ETIMEDOUT:
		return w->heavy || w->cut_for_good || (w->cut_at && a->options & OPT_KEEPALIVE) ? "the link is bad"
												: NULL;
	case ECONNRESET:
	case EPIPE:
		if (peer->linger0_closed || peer->closed_early)
			return "the peer's program closed";
		if (peer->failed && peer->err)
			return "the peer's end failed first";
		if (ph->listener_closed && !peer->born)
			return "never accepted";
		if (w->cut_at || w->heavy)
			return "the peer may have given up";
		if (w->no_sack && !w->clean && !peer->open)
			return "an orphan whose timeout has grown to two minutes gives up at the second, as Linux's "
			       "does";
		return NULL;
	default:
		return NULL;
	}
}

static void end_closes(struct app *a)
{
	struct sock *k = app_sock(a);

	if (!k)
		return;
	if (!a->eof && !a->failed)
		a->closed_early = true;
	a->open = false;
	a->w->open_ends--;
	a->w->progress_us = a->w->now;
	k->holders = 0;
	world_say(a->w, "#%u host %d closes: sent %lu of %lu, received %lu%s", number_of(a), a->host,
		  (unsigned long)a->sent, (unsigned long)a->to_send, (unsigned long)a->received,
		  a->eof ? ", end of stream seen" : "");
	tcp_close(a->w->host[a->host].e, k, a->w->now);
}

static void end_fails(struct app *a, int err, const char *call)
{
	const char *cause = cause_of(a, err);

	world_say(a->w, "#%u host %d: %s gives %s (%s)", number_of(a), a->host, call, strerror(err),
		  cause ? cause : "NO CAUSE");
	a->failed = true;
	a->err = err;
	if (!cause)
		world_fail(a->w, "#%u host %d: %s gives %s without a cause (sent %lu of %lu, received %lu)",
			   number_of(a), a->host, call, strerror(err), (unsigned long)a->sent,
			   (unsigned long)a->to_send, (unsigned long)a->received);
	end_closes(a);
}

static void end_aborts(struct app *a)
{
	struct sock *k = app_sock(a);

	if (!k)
		return;
	a->linger0_closed = true;
	k->flags |= SOCKF_LINGER;
	k->linger_s = 0;
	end_closes(a);
}

/* --- reading and writing --- */

static int cut_iov(struct world *w, struct iovec *iov, uint8_t *from, size_t n)
{
	size_t first = n > 1 && one_in(w, 4) ? 1 + pick(w, (uint32_t)n - 1) : n;

	iov[0] = (struct iovec){.iov_base = from, .iov_len = first};
	iov[1] = (struct iovec){.iov_base = from + first, .iov_len = n - first};
	return first < n ? 2 : 1;
}

/* Is the peer's urgent byte, at the next place in the stream or before it, left out of what is read? */
static bool past_urgent(const struct app *a, const struct app *peer)
{
	return !(a->options & OPT_INLINE) && a->received >= peer->urgent_at;
}

static void check_received(struct app *a, size_t n)
{
	struct app *peer = peer_of(a);
	uint64_t from = a->received + past_urgent(a, peer);

	if (!(a->options & OPT_INLINE) && a->received < peer->urgent_at && a->received + n > peer->urgent_at) {
		world_fail(a->w, "#%u host %d read %zu bytes from %lu on, past the urgent one at %lu", number_of(a),
			   a->host, n, (unsigned long)a->received, (unsigned long)peer->urgent_at);
		return;
	}
	if (from + n > peer->sent) {
		world_fail(a->w, "#%u host %d received %lu bytes, the peer sent %lu", number_of(a), a->host,
			   (unsigned long)(a->received + n), (unsigned long)peer->sent);
		return;
	}
	app_pattern(peer->stream, from, expected, n);
	for (size_t i = 0; i < n; i++)
		if (scratch[i] != expected[i]) {
			world_fail(a->w, "#%u host %d: byte %lu of the stream is wrong", number_of(a), a->host,
				   (unsigned long)(a->received + i));
			return;
		}
}

static void end_of_stream(struct app *a)
{
	struct app *peer = peer_of(a);

	world_say(a->w, "#%u host %d: end of stream after %lu", number_of(a), a->host, (unsigned long)a->received);
	a->eof = true;
	a->want_read = false;
	if (!peer->wr_shut && peer->open)
		world_fail(a->w, "#%u host %d sees the end of a stream that is open", number_of(a), a->host);
	else if (peer->sent > peer->urgent_at && !(a->options & OPT_INLINE) && !a->urgent_got)
		world_fail(a->w, "#%u host %d sees the end of the stream and never saw the urgent byte", number_of(a),
			   a->host);
	else if (a->received + (past_urgent(a, peer) && peer->sent > peer->urgent_at) != peer->sent)
		world_fail(a->w, "#%u host %d sees the end of the stream after %lu bytes of %lu", number_of(a), a->host,
			   (unsigned long)a->received, (unsigned long)peer->sent);
}

/* Ask for an urgent byte. True: there is one. */
static bool read_urgent(struct app *a, struct sock *k, bool must)
{
	struct world *w = a->w;
	struct app *peer = peer_of(a);
	bool peek = pick_more(w, 4) == 0;
	uint8_t got, byte[8];
	struct iovec iov = {&got, 1};
	ssize_t r = tcp_recv(w->host[a->host].e, k, &iov, 1, 0, TCP_F_OOB | (peek ? TCP_F_PEEK : 0), w->now);

	if (r != 1) {
		if (must && !(r == -ENOTCONN && k->tcp.state == TCP_CLOSED)) /* after a reset, as Linux */
			world_fail(w, "#%u host %d: EV_PRI, but recv gives %zd", number_of(a), a->host, r);
		return false;
	}
	if (peer->sent <= peer->urgent_at || a->options & OPT_INLINE || a->urgent_got) {
		world_fail(w, "#%u host %d: an urgent byte that nobody sent", number_of(a), a->host);
		return false;
	}
	app_pattern(peer->stream, peer->urgent_at, byte, 1);
	if (got != byte[0])
		world_fail(w, "#%u host %d: the urgent byte is another", number_of(a), a->host);
	a->urgent_got = !peek;
	return true;
}

/* One read. False: nothing more for now. */
static bool read_once(struct app *a, struct sock *k)
{
	struct world *w = a->w;
	struct engine *e = w->host[a->host].e;
	size_t n = 1 + pick(w, a->max_read);
	struct iovec iov[2];
	int cnt;

	while (!(a->options & OPT_INLINE) && !a->urgent_got && tcp_poll(e, k) & EV_PRI && read_urgent(a, k, true))
		;
	if (pick_more(w, 16) == 0)
		read_urgent(a, k, false);
	n = n > 65536 ? 65536 : n;
	cnt = cut_iov(w, iov, scratch, n);
	if (a->options & OPT_PEEK && one_in(w, 4)) {
		ssize_t p = tcp_recv(e, k, iov, cnt, 0, TCP_F_PEEK, w->now);

		if (p > 0)
			check_received(a, (size_t)p);
		if (p < 0 && p != -EAGAIN) { /* it reports an error as any call does, once */
			end_fails(a, (int)-p, "peek");
			return false;
		}
	}

	uint32_t level = tcp_poll(e, k);
	ssize_t r = tcp_recv(e, k, iov, cnt, 0, 0, w->now);

	if (r == -EAGAIN) {
		if (level & EV_IN)
			world_fail(w, "#%u host %d: readable, but nothing to read", number_of(a), a->host);
		a->want_read = false;
		return false;
	}
	if (!(level & (EV_IN | EV_ERR | EV_HUP)))
		world_fail(w, "#%u host %d: recv gives %ld but the socket was not readable", number_of(a), a->host,
			   (long)r);
	if (r < 0) {
		end_fails(a, (int)-r, "recv");
		return false;
	}
	w->progress_us = w->now;
	if (r == 0) {
		end_of_stream(a);
		return false;
	}
	check_received(a, (size_t)r);
	a->received += (uint64_t)r;
	w->bytes += (uint64_t)r;
	if (a->read_pause_us) {
		a->read_at_us = w->now + 1 + pick(w, a->read_pause_us);
		return false;
	}
	return true;
}

static void toggle_cork(struct app *a, struct sock *k)
{
	if (!(a->options & OPT_CORK) || !one_in(a->w, 3))
		return;
	a->cork = !a->cork;
	tcp_set_cork(a->w->host[a->host].e, k, a->cork, a->w->now);
}

/* One write. False: nothing more for now. */
static bool write_once(struct app *a, struct sock *k)
{
	struct world *w = a->w;
	struct engine *e = w->host[a->host].e;
	uint64_t left = a->to_send - a->sent;
	size_t n = 1 + pick(w, a->max_write), skip = one_in(w, 8) ? pick(w, 100) : 0;
	struct iovec iov[2];
	int flags = a->options & OPT_MORE && one_in(w, 3) ? TCP_F_MORE : 0;

	n = n > left ? (size_t)left : n;
	if (a->sent < a->urgent_at && n > a->urgent_at - a->sent)
		n = (size_t)(a->urgent_at - a->sent);
	if (a->sent == a->urgent_at || (a->options & OPT_URGENT_MANY && !pick_more(w, 16))) {
		n = 1;
		flags |= TCP_F_OOB;
	}
	n = n + skip > 65536 ? 65536 - skip : n;
	memset(scratch, 0xee, skip);
	app_pattern(a->stream, a->sent, scratch + skip, n);
	toggle_cork(a, k);

	ssize_t r = tcp_send(e, k, iov, cut_iov(w, iov, scratch, n + skip), skip, flags, w->now);

	if (r == -EAGAIN) {
		if (tcp_poll(e, k) & EV_OUT)
			world_fail(w, "#%u host %d: writable, but send gives EAGAIN", number_of(a), a->host);
		a->want_write = false;
		return false;
	}
	if (r < 0) {
		end_fails(a, (int)-r, "send");
		return false;
	}
	if (r == 0 || (size_t)r > n) {
		world_fail(w, "#%u host %d: send of %zu gives %zd", number_of(a), a->host, n, r);
		return false;
	}
	a->sent += (uint64_t)r;
	w->progress_us = w->now;
	if (a->write_pause_us) {
		a->write_at_us = w->now + 1 + pick(w, a->write_pause_us);
		return false;
	}
	return true;
}

/* All is sent: what this program does then. */
static void finish_writing(struct app *a, struct sock *k)
{
	struct world *w = a->w;
	struct engine *e = w->host[a->host].e;

	if (a->finish == FINISH_AFTER_SEND) {
		end_closes(a);
		return;
	}
	if (a->finish == FINISH_PEER_FIRST)
		return;
	if (a->finish == FINISH_ABORT) {
		end_aborts(a);
		return;
	}
	a->wr_shut = true;

	int r = tcp_shutdown(e, k, 1, w->now);

	world_say(w, "#%u host %d shuts down for writing: %d", number_of(a), a->host, r);
	if (r && r != -ENOTCONN)
		world_fail(w, "#%u host %d: shutdown gives %d", number_of(a), a->host, r);
}

/* connect()'s outcome, as a program asks for it with SO_ERROR once the socket is writable. */
static bool connect_outcome(struct app *a, struct sock *k)
{
	if (a->connected)
		return true;
	if (k->so_error) {
		int err = k->so_error;

		k->so_error = 0;
		end_fails(a, err, "connect");
		return false;
	}
	if (!(tcp_poll(a->w->host[a->host].e, k) & EV_OUT))
		return false;
	a->connected = a->want_read = a->want_write = true;
	a->w->progress_us = a->w->now;
	return true;
}

void app_run(struct world *w, struct conn *c, int end)
{
	struct app *a = &c->end[end];
	struct sock *k = a->open ? app_sock(a) : NULL;

	if (!k || !connect_outcome(a, k))
		return;
	if (a->finish == FINISH_ABORT && a->sent + a->received >= a->abort_at) {
		end_aborts(a);
		return;
	}
	for (int i = 0; i < 64 && !w->failed && a->open && a->want_write && w->now >= a->write_at_us; i++)
		if (a->sent == a->to_send || !write_once(a, k))
			break;
	if (a->open && a->sent == a->to_send && !a->wr_shut)
		finish_writing(a, k);
	for (int i = 0; i < 64 && !w->failed && a->open && a->want_read && w->now >= a->read_at_us; i++)
		if (!read_once(a, k))
			break;
	if (a->open && a->eof && (a->sent == a->to_send || a->finish == FINISH_PEER_FIRST) && !w->failed)
		end_closes(a);
}

uint64_t app_next(const struct app *a)
{
	uint64_t next = UINT64_MAX;

	if (!a->open || !a->connected)
		return next;
	if (a->want_read)
		next = a->read_at_us;
	if (a->want_write && a->sent < a->to_send && a->write_at_us < next)
		next = a->write_at_us;
	return next;
}

/* --- news and accepting --- */

void app_news(struct world *w, int host, uint32_t sock, uint32_t edges)
{
	if (sock == w->host[host].listener)
		return; /* the world accepts by its own clock */
	for (uint32_t i = 0; i < w->conns; i++)
		for (int e = 0; e < 2; e++) {
			struct app *a = &w->conn[i].end[e];

			if (!a->open || a->host != host || a->sock != sock)
				continue;
			if (edges & (EV_IN | EV_HUP | EV_ERR))
				a->want_read = !a->eof;
			if (edges & (EV_OUT | EV_HUP | EV_ERR))
				a->want_write = true;
			app_run(w, &w->conn[i], e);
			return;
		}
}

static void accepted(struct world *w, int host, struct sock *k)
{
	struct conn *c = app_of_ports(w, k->remote.port, SERVER_PORT);
	struct app *a = c ? &c->end[1] : NULL;

	if (!a || a->host != host || a->born) {
		world_fail(w, "host %d accepted a connection from port %u that nobody made", host, k->remote.port);
		return;
	}
	end_opens(a, k);
	a->connected = a->want_read = a->want_write = true;
	world_say(w, "#%u host %d accepts", number_of(a), host);
	apply_options(a, k);
	app_run(w, c, 1);
}

void app_accept(struct world *w, int host)
{
	struct host *h = &w->host[host];
	struct sock *l = sock_at(h->e->s, h->listener);

	if (!l || w->now < h->accept_at_us)
		return;
	while (!w->failed) {
		uint32_t pending = tcp_accept_pending(h->e, l);
		int r = tcp_accept(h->e, l);

		if ((r == -EAGAIN) != (pending == 0))
			world_fail(w, "host %d: %u pending, accept gives %d", host, pending, r);
		if (r == -EAGAIN)
			return;
		if (r <= 0 || !sock_at(h->e->s, (uint32_t)r)) {
			world_fail(w, "host %d: accept gives %d", host, r);
			return;
		}
		accepted(w, host, sock_at(h->e->s, (uint32_t)r));
		if (h->accept_pause_us) {
			h->accept_at_us = w->now + 1 + pick(w, h->accept_pause_us);
			return;
		}
	}
}
