/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Segments made by hand into connections in known states: RFC 9293 3.10.7, RFC 5961, RFC 7323, RFC 2883, RFC 6093.
 */
#include "peer.h"

struct conn {
	struct peer *p;
	struct sock *l, *k;
};

static struct conn open_conn(bool ts)
{
	struct conn c = {.p = peer_new()};

	c.l = peer_listen(c.p, 4);
	c.k = peer_open(c.p, c.l, true, ts);
	peer_edges(c.k);
	return c;
}

static void done(struct conn c)
{
	peer_free(c.p);
}

#define OPEN struct conn c = open_conn(false)
#define OPEN_TS struct conn c = open_conn(true)

static void in_order_data_takes_the_fast_path_and_is_read(void **state)
{
	OPEN;
	uint64_t before = c.p->e.s->counters[C_tcp_fast_path];

	(void)state;
	peer_data(c.p, TH_ACK | TH_PSH, 1000);
	peer_data(c.p, TH_ACK, 460);
	assert_int_equal(c.p->e.s->counters[C_tcp_fast_path], before + 2);
	assert_true(peer_edges(c.k) & EV_IN);
	assert_int_equal(peer_read(c.p, c.k, PEER_ISS + 1, 700), 700);
	assert_int_equal(peer_read(c.p, c.k, PEER_ISS + 701, 5000), 760);
	assert_int_equal(peer_read(c.p, c.k, 0, 10), -EAGAIN);
	done(c);
}

static void a_reset_counts_only_at_exactly_the_next_number(void **state)
{
	OPEN;

	(void)state;
	peer_send(c.p, 1, TH_RST, 0); /* in the window */
	assert_int_equal(c.k->tcp.state, TCP_ESTABLISHED);
	assert_int_equal(peer_last(c.p)->flags, TH_ACK); /* challenge */
	assert_int_equal(peer_last(c.p)->ack, c.p->seq);
	peer_send(c.p, -1, TH_RST, 0);
	peer_send(c.p, 1 << 20, TH_RST, 0); /* outside */
	assert_int_equal(c.k->tcp.state, TCP_ESTABLISHED);
	peer_send(c.p, 0, TH_RST, 0);
	assert_int_equal(c.k->tcp.state, TCP_CLOSED);
	assert_int_equal(c.k->so_error, ECONNRESET);
	assert_true(peer_edges(c.k) & EV_ERR);
	done(c);
}

static void data_received_before_a_reset_can_still_be_read(void **state)
{
	OPEN;

	(void)state;
	peer_data(c.p, TH_ACK, 10);
	peer_send(c.p, 0, TH_RST, 0);
	assert_int_equal(peer_read(c.p, c.k, PEER_ISS + 1, 100), 10);
	assert_int_equal(peer_read(c.p, c.k, 0, 100), -ECONNRESET);
	assert_int_equal(peer_read(c.p, c.k, 0, 100), 0);
	done(c);
}

static void a_syn_on_an_open_connection_gets_a_challenge(void **state)
{
	OPEN;
	uint32_t outs;

	(void)state;
	peer_send(c.p, 100, TH_SYN, 0);
	assert_int_equal(c.k->tcp.state, TCP_ESTABLISHED);
	assert_int_equal(peer_last(c.p)->flags, TH_ACK);
	outs = c.p->outs;
	for (int i = 0; i < 100; i++)
		peer_send(c.p, 100, TH_SYN, 0);
	assert_int_equal(c.p->outs, outs); /* rationed per socket */
	peer_wait(c.p, SECOND);
	peer_send(c.p, 100, TH_SYN | TH_ACK, 0);
	assert_int_equal(c.p->outs, outs + 1);
	done(c);
}

static void an_ack_of_what_was_never_sent_is_dropped(void **state)
{
	OPEN;

	(void)state;
	uint32_t outs = c.p->outs;

	c.p->ack++;
	peer_send(c.p, 0, TH_ACK, 100);
	assert_int_equal(c.k->rxq.bytes, 0);
	assert_int_equal(c.p->outs, outs);        /* without an answer, as in Linux */
	c.p->ack -= 1 + c.k->tcp.snd_max_wnd + 1; /* and so is a very old one, which is answered */
	peer_send(c.p, 0, TH_ACK, 100);
	assert_int_equal(c.p->outs, outs + 1);
	assert_int_equal(c.k->rxq.bytes, 0);
	assert_int_equal(c.p->e.s->counters[C_tcp_bad_ack], 2);
	done(c);
}

static void an_old_ack_within_the_window_does_not_stop_its_data(void **state)
{
	OPEN;

	(void)state;
	c.p->ack -= 100;
	peer_send(c.p, 0, TH_ACK, 100);
	assert_int_equal(c.k->rxq.bytes, 100);
	done(c);
}

static void segments_without_ack_null_and_xmas_change_nothing(void **state)
{
	OPEN;

	(void)state;
	peer_send(c.p, 0, 0, 10);
	peer_send(c.p, 0, TH_FIN | TH_PSH | TH_URG, 10);
	peer_send(c.p, 0, TH_FIN, 0);
	assert_int_equal(c.k->rxq.bytes, 0);
	assert_int_equal(c.k->tcp.state, TCP_ESTABLISHED);
	assert_int_equal(c.p->e.s->counters[C_tcp_no_ack_flag], 3);
	done(c);
}

static void duplicate_data_is_dropped_and_reported(void **state)
{
	OPEN;
	const struct out *o;

	(void)state;
	peer_data(c.p, TH_ACK, 1000);
	peer_send(c.p, -1000, TH_ACK, 600);
	o = peer_last(c.p);
	assert_int_equal(o->ack, c.p->seq);
	assert_int_equal(o->o.sacks, 1); /* D-SACK */
	assert_int_equal(o->o.sack[0].start, c.p->seq - 1000);
	assert_int_equal(o->o.sack[0].end, c.p->seq - 400);
	peer_send(c.p, -500, TH_ACK, 700); /* overlaps to the left: the new part counts */
	c.p->seq += 200;
	assert_int_equal(peer_read(c.p, c.k, PEER_ISS + 1, 9999), 1200);
	done(c);
}

static void a_gap_is_acked_at_once_and_its_filling_too(void **state)
{
	OPEN;
	const struct out *o;

	(void)state;
	peer_wait(c.p, SECOND);
	peer_send(c.p, 100, TH_ACK, 100);
	o = peer_last(c.p);
	assert_int_equal(o->ack, c.p->seq);
	assert_int_equal(o->o.sacks, 1);
	assert_int_equal(o->o.sack[0].start, c.p->seq + 100);
	assert_int_equal(o->o.sack[0].end, c.p->seq + 200);
	assert_int_equal(c.k->rxq.bytes, 0);
	peer_send(c.p, 0, TH_ACK, 100);
	o = peer_last(c.p);
	assert_int_equal(o->ack, c.p->seq + 200);
	assert_int_equal(o->o.sacks, 0);
	assert_int_equal(peer_read(c.p, c.k, c.p->seq, 999), 200);
	done(c);
}

static void a_fin_out_of_order_counts_when_the_gap_is_filled(void **state)
{
	OPEN;

	(void)state;
	peer_send(c.p, 50, TH_ACK | TH_FIN, 50);
	assert_int_equal(c.k->tcp.state, TCP_ESTABLISHED);
	peer_send(c.p, 0, TH_ACK, 50);
	assert_int_equal(c.k->tcp.state, TCP_CLOSE_WAIT);
	assert_true(peer_edges(c.k) & EV_RDHUP);
	assert_int_equal(peer_read(c.p, c.k, c.p->seq, 999), 100);
	assert_int_equal(peer_read(c.p, c.k, 0, 999), 0);
	done(c);
}

static void a_bare_fin_out_of_order_is_remembered(void **state)
{
	OPEN;

	(void)state;
	peer_send(c.p, 50, TH_ACK | TH_FIN, 0);
	assert_int_equal(c.k->tcp.state, TCP_ESTABLISHED);
	peer_send(c.p, 0, TH_ACK, 50);
	assert_int_equal(c.k->tcp.state, TCP_CLOSE_WAIT);
	done(c);
}

static void data_beyond_the_window_is_cut_or_dropped(void **state)
{
	OPEN;
	uint32_t wnd = c.k->tcp.rcv_adv - c.k->tcp.rcv_nxt;

	(void)state;
	peer_send(c.p, (int32_t)wnd, TH_ACK, 100);
	assert_int_equal(c.k->tcp.ooo_bytes, 0);
	wnd = c.k->tcp.rcv_adv - c.k->tcp.rcv_nxt; /* the ACK's window, scaled, offers a little more than the SYN's */
	peer_send(c.p, (int32_t)wnd - 30, TH_ACK | TH_FIN, 100);
	assert_int_equal(c.k->tcp.ooo_bytes, 30);
	assert_false(c.k->tcp.flags & TCPF_FIN_OOO); /* it lay behind what was cut off */
	done(c);
}

static void a_shut_window_refuses_data_but_takes_acks_and_answers_probes(void **state)
{
	OPEN;
	uint32_t outs, held;

	(void)state;
	while (c.k->tcp.rcv_adv != c.k->tcp.rcv_nxt) {
		uint32_t left = c.k->tcp.rcv_adv - c.k->tcp.rcv_nxt;

		peer_data(c.p, TH_ACK, left < 1460 ? left : 1460);
		peer_wait(c.p, 50 * MS);
	}
	assert_true(c.k->rxq.bytes <= c.k->rcvbuf + 32);
	assert_int_equal(peer_last(c.p)->wnd, 0);
	held = c.k->rxq.bytes;
	assert_true(held >= c.k->rcvbuf);
	outs = c.p->outs;
	peer_send(c.p, 0, TH_ACK, 1);
	assert_int_equal(c.p->outs, outs + 1);
	assert_int_equal(peer_last(c.p)->ack, c.p->seq);
	assert_int_equal(peer_write(c.p, c.k, 100), 100);
	c.p->ack += 100;
	peer_send(c.p, 0, TH_ACK, 0);
	assert_int_equal(c.k->tcp.snd_una, c.p->ack);
	assert_int_equal(peer_read(c.p, c.k, PEER_ISS + 1, 1 << 20), held); /* opens the window again */
	assert_true(peer_last(c.p)->wnd > 0);
	peer_data(c.p, TH_ACK, 1460);
	assert_int_equal(c.k->rxq.bytes, 1460);
	done(c);
}

static void the_window_never_shrinks(void **state)
{
	OPEN;
	uint32_t right = 0;

	(void)state;
	for (int i = 0; i < 3000; i++) {
		uint32_t left = c.k->tcp.rcv_adv - c.k->tcp.rcv_nxt, n = 1 + (uint32_t)i * 37 % 700;

		if (n > left)
			n = left;
		if (n)
			peer_data(c.p, TH_ACK, n);
		if (i % 5 == 0)
			peer_read(c.p, c.k, c.k->tcp.rcv_read, 1 + (size_t)i * 53 % 3000);
		peer_wait(c.p, 45 * MS);
		if (peer_last(c.p)->flags & TH_ACK) {
			uint32_t edge = peer_last(c.p)->ack + (peer_last(c.p)->wnd << c.k->tcp.rcv_wscale);

			/* but for less than one unit of the scale, when the buffer is full to the brim */
			if (right && seq_lt(edge, right))
				assert_true(right - edge < 1u << c.k->tcp.rcv_wscale);
			right = edge;
		}
	}
	done(c);
}

static void a_keepalive_probe_is_answered(void **state)
{
	OPEN;
	uint32_t outs;

	(void)state;
	peer_wait(c.p, SECOND);
	outs = c.p->outs;
	peer_send(c.p, -1, TH_ACK, 0);
	assert_int_equal(c.p->outs, outs + 1);
	assert_int_equal(peer_last(c.p)->ack, c.p->seq);
	done(c);
}

static void paws_drops_old_timestamps_before_anything_else(void **state)
{
	OPEN_TS;

	(void)state;
	peer_opt_ts(c.p, 2000);
	peer_data(c.p, TH_ACK, 10);
	assert_int_equal(c.k->tcp.ts_recent, 2000);
	peer_opt_ts(c.p, 1999);
	peer_send(c.p, 0, TH_ACK, 10);
	assert_int_equal(c.k->rxq.bytes, 10);
	assert_int_equal(peer_last(c.p)->flags, TH_ACK);
	assert_int_equal(c.p->e.s->counters[C_tcp_paws_dropped], 1);
	peer_opt_ts(c.p, 2001);
	peer_send(c.p, 500, TH_ACK, 10); /* beyond a gap: TS.Recent stays (RFC 7323 4.3) */
	assert_int_equal(c.k->tcp.ts_recent, 2000);
	peer_opt_ts(c.p, 1500);
	peer_send(c.p, 0, TH_RST, 0); /* RST is exempt */
	assert_int_equal(c.k->tcp.state, TCP_CLOSED);
	done(c);
}

static void an_idle_connection_forgets_its_timestamp_after_24_days(void **state)
{
	OPEN_TS;

	(void)state;
	c.p->e.s->now_us += 25ull * 86400 * SECOND;
	peer_opt_ts(c.p, 1000 - 5);
	peer_data(c.p, TH_ACK, 10);
	assert_int_equal(c.k->rxq.bytes, 10);
	done(c);
}

static void our_acks_echo_the_peers_timestamp(void **state)
{
	OPEN_TS;

	(void)state;
	peer_opt_ts(c.p, 7777);
	peer_data(c.p, TH_ACK, 1460);
	peer_data(c.p, TH_ACK, 1460);
	peer_wait(c.p, 50 * MS);
	assert_true(peer_last(c.p)->o.has_ts);
	assert_int_equal(peer_last(c.p)->o.ts_ecr, 7777);
	done(c);
}

static void data_after_close_is_answered_with_a_reset(void **state)
{
	OPEN;

	(void)state;
	tcp_close(&c.p->e, c.k, c.p->e.s->now_us);
	assert_int_equal(peer_last(c.p)->flags & TH_FIN, TH_FIN);
	c.p->ack++;
	peer_send(c.p, 0, TH_ACK, 10);
	assert_int_equal(peer_last(c.p)->flags & TH_RST, TH_RST);
	assert_int_equal(peer_last(c.p)->seq, c.p->ack);
	assert_int_equal(c.p->e.s->sock_pool.in_use, 1); /* the listener */
	done(c);
}

static void simultaneous_close_goes_through_closing(void **state)
{
	OPEN;

	(void)state;
	tcp_shutdown(&c.p->e, c.k, 1, c.p->e.s->now_us);
	assert_int_equal(c.k->tcp.state, TCP_FIN_WAIT_1);
	peer_data(c.p, TH_ACK | TH_FIN, 0); /* does not acknowledge ours */
	assert_int_equal(c.k->tcp.state, TCP_CLOSING);
	c.p->ack++;
	peer_send(c.p, 0, TH_ACK, 0);
	assert_int_equal(c.k->tcp.state, TCP_TIME_WAIT);
	done(c);
}

static void simultaneous_open_ends_established(void **state)
{
	struct peer *p = peer_new();
	struct sock *k = sock_alloc(&p->e, SOCK_TCP, 4);
	struct endpoint local = peer_addr(1, PORT), remote = peer_addr(2, PEER_PORT);

	(void)state;
	k->holders = 1;
	assert_int_equal(tcp_connect(&p->e, k, p->vnic, &local, &remote, p->e.s->now_us), 0);
	assert_int_equal(peer_last(p)->flags, TH_SYN);
	p->ack = peer_last(p)->seq + 1;
	peer_send(p, 0, TH_SYN, 0);
	assert_int_equal(k->tcp.state, TCP_SYN_RECEIVED);
	assert_int_equal(peer_last(p)->flags, TH_SYN | TH_ACK);
	assert_int_equal(peer_last(p)->seq, p->ack - 1);
	peer_send(p, 0, TH_SYN | TH_ACK, 0); /* as RFC 9293 figure 8 */
	assert_int_equal(k->tcp.state, TCP_ESTABLISHED);
	p->seq++;
	peer_data(p, TH_ACK, 10);
	assert_int_equal(k->rxq.bytes, 10);
	peer_free(p);
}

static void a_socket_can_connect_to_itself(void **state)
{
	struct peer *p = peer_new();
	struct sock *k = sock_alloc(&p->e, SOCK_TCP, 4);
	struct endpoint self = peer_addr(1, PORT);
	uint32_t i = 0;

	(void)state;
	k->holders = 1;
	self = peer_addr(2, PORT); /* the harness sends from host 2 to 1: give the socket both in turn */
	k->local = peer_addr(1, PORT);
	assert_int_equal(tcp_connect(&p->e, k, p->vnic, &k->local, &self, p->e.s->now_us), 0);
	for (; i < p->outs && i < 20; i++) { /* the wire brings back what it sent */
		const struct out *o = &p->out[i];

		p->wnd = (uint16_t)o->wnd;
		peer_raw(p, PORT, PORT, o->seq, o->ack, o->flags, 0, o->len);
	}
	assert_int_equal(k->tcp.state, TCP_ESTABLISHED);
	assert_true(i < 20);
	peer_free(p);
}

static void a_refusal_must_acknowledge_our_syn(void **state)
{
	struct peer *p = peer_new();
	struct sock *k = sock_alloc(&p->e, SOCK_TCP, 4);
	struct endpoint local = peer_addr(1, PORT), remote = peer_addr(2, PEER_PORT);

	(void)state;
	k->holders = 1;
	assert_int_equal(tcp_connect(&p->e, k, p->vnic, &local, &remote, p->e.s->now_us), 0);
	peer_send(p, 0, TH_RST, 0);
	assert_int_equal(k->tcp.state, TCP_SYN_SENT);
	p->ack = peer_last(p)->seq; /* not beyond iss */
	peer_send(p, 0, TH_RST | TH_ACK, 0);
	assert_int_equal(k->tcp.state, TCP_SYN_SENT);
	p->ack++;
	peer_send(p, 0, TH_RST | TH_ACK, 0);
	assert_int_equal(k->tcp.state, TCP_CLOSED);
	assert_int_equal(k->so_error, ECONNREFUSED);
	peer_free(p);
}

static void an_unanswered_syn_times_out(void **state)
{
	struct peer *p = peer_new();
	struct sock *k = sock_alloc(&p->e, SOCK_TCP, 4);
	struct endpoint local = peer_addr(1, PORT), remote = peer_addr(2, PEER_PORT);

	(void)state;
	k->holders = 1;
	assert_int_equal(tcp_connect(&p->e, k, p->vnic, &local, &remote, p->e.s->now_us), 0);
	peer_wait(p, 126 * SECOND);
	assert_int_equal(k->tcp.state, TCP_SYN_SENT);
	assert_int_equal(p->outs, 7);
	peer_wait(p, 3 * SECOND);
	assert_int_equal(k->tcp.state, TCP_CLOSED);
	assert_int_equal(k->so_error, ETIMEDOUT);
	peer_free(p);
}

static void every_second_full_segment_is_acked_at_once_and_one_after_40_ms(void **state)
{
	OPEN;
	uint32_t outs;

	(void)state;
	for (int i = 0; i < 64; i++) { /* past the quick ACKs of the start */
		peer_data(c.p, TH_ACK, 1460);
		peer_read(c.p, c.k, c.k->tcp.rcv_read, 1 << 16);
	}
	peer_wait(c.p, 50 * MS);
	outs = c.p->outs;
	peer_data(c.p, TH_ACK, 1460);
	assert_int_equal(c.p->outs, outs);
	peer_data(c.p, TH_ACK, 1460);
	assert_int_equal(c.p->outs, outs + 1);
	peer_data(c.p, TH_ACK, 1460);
	peer_wait(c.p, 30 * MS);
	assert_int_equal(c.p->outs, outs + 1);
	peer_wait(c.p, 12 * MS);
	assert_int_equal(c.p->outs, outs + 2);
	done(c);
}

static void reading_all_of_a_pushed_message_acks_it_at_once(void **state)
{
	OPEN;
	uint32_t outs;

	(void)state;
	for (int i = 0; i < 40; i++)
		peer_data(c.p, TH_ACK | TH_PSH, 10);
	peer_read(c.p, c.k, c.k->tcp.rcv_read, 9999);
	peer_wait(c.p, 50 * MS);
	outs = c.p->outs;
	peer_data(c.p, TH_ACK | TH_PSH, 10);
	assert_int_equal(c.p->outs, outs);
	peer_read(c.p, c.k, c.k->tcp.rcv_read, 9);
	assert_int_equal(c.p->outs, outs);
	peer_read(c.p, c.k, c.k->tcp.rcv_read, 9);
	assert_int_equal(c.p->outs, outs + 1); /* a peer with Nagle's algorithm waits for it */
	done(c);
}

static void urgent_pointers_that_lie_do_no_harm(void **state)
{
	static const uint16_t urg[] = {0, 1, 2, 100, 101, 1000, 65535};

	(void)state;
	for (size_t i = 0; i < sizeof(urg) / sizeof(urg[0]); i++)
		for (uint32_t len = 0; len <= 100; len += 100) {
			OPEN;
			ssize_t n, total = 0;

			peer_raw(c.p, PEER_PORT, PORT, c.p->seq, c.p->ack, TH_ACK | TH_URG | TH_FIN, urg[i], len);
			for (int turn = 0; turn < 10; turn++) {
				char buf[64];
				struct iovec iov = {.iov_base = buf, .iov_len = sizeof(buf)};

				n = tcp_recv(&c.p->e, c.k, &iov, 1, 0, 0, c.p->e.s->now_us);
				if (n <= 0)
					break;
				total += n;
			}
			assert_int_equal(n, 0);
			assert_true(total == (ssize_t)len || total + 1 == (ssize_t)len);
			done(c);
		}
}

static void an_urgent_byte_alone_is_not_readable(void **state)
{
	OPEN;
	uint8_t b;
	struct iovec iov = {&b, 1};

	(void)state;
	peer_raw(c.p, PEER_PORT, PORT, c.p->seq, c.p->ack, TH_ACK | TH_URG, 1, 1);
	c.p->seq++;
	assert_int_equal(tcp_poll(&c.p->e, c.k) & (EV_IN | EV_PRI), EV_PRI);
	assert_int_equal(tcp_recv(&c.p->e, c.k, &iov, 1, 0, TCP_F_OOB, c.p->e.s->now_us), 1);
	assert_int_equal(tcp_poll(&c.p->e, c.k) & (EV_IN | EV_PRI), 0); /* its place is there, but nothing to read */
	assert_int_equal(tcp_recv(&c.p->e, c.k, &iov, 1, 0, 0, c.p->e.s->now_us), -EAGAIN);
	peer_data(c.p, TH_ACK, 10);
	assert_true(tcp_poll(&c.p->e, c.k) & EV_IN);
	done(c);
}

static void a_later_urgent_byte_replaces_an_earlier_one(void **state)
{
	OPEN;
	char buf[100];
	struct iovec iov = {.iov_base = buf, .iov_len = sizeof(buf)};

	(void)state;
	peer_raw(c.p, PEER_PORT, PORT, c.p->seq, c.p->ack, TH_ACK | TH_URG, 5, 10);
	c.p->seq += 10;
	assert_true(tcp_poll(&c.p->e, c.k) & EV_PRI);
	assert_int_equal(tcp_inq(&c.p->e, c.k), 4);
	peer_raw(c.p, PEER_PORT, PORT, c.p->seq, c.p->ack, TH_ACK | TH_URG, 3, 10);
	c.p->seq += 10;
	assert_int_equal(tcp_recv(&c.p->e, c.k, &iov, 1, 0, TCP_F_OOB, c.p->e.s->now_us), 1);
	assert_int_equal((uint8_t)buf[0], (uint8_t)((c.p->seq - 8) * 7));
	assert_false(tcp_poll(&c.p->e, c.k) & EV_PRI);
	assert_int_equal(tcp_recv(&c.p->e, c.k, &iov, 1, 0, 0, c.p->e.s->now_us), 12);
	assert_true(tcp_atmark(&c.p->e, c.k));
	assert_int_equal(tcp_recv(&c.p->e, c.k, &iov, 1, 0, 0, c.p->e.s->now_us), 7);
	done(c);
}

static void urgent_data_in_line_is_read_like_any_other(void **state)
{
	OPEN;

	(void)state;
	c.k->flags |= SOCKF_OOBINLINE;
	peer_raw(c.p, PEER_PORT, PORT, c.p->seq, c.p->ack, TH_ACK | TH_URG, 5, 10);
	assert_int_equal(peer_read(c.p, c.k, c.p->seq, 100), 4); /* up to the mark */
	assert_true(tcp_atmark(&c.p->e, c.k));
	assert_int_equal(peer_read(c.p, c.k, c.p->seq + 4, 100), 6);
	done(c);
}

static void a_segment_for_nobody_gets_a_reset(void **state)
{
	struct peer *p = peer_new();

	(void)state;
	peer_raw(p, 1, 2, 100, 200, TH_ACK, 0, 10);
	assert_int_equal(peer_last(p)->flags, TH_RST);
	assert_int_equal(peer_last(p)->seq, 200);
	peer_raw(p, 1, 2, 100, 0, TH_SYN, 0, 10);
	assert_int_equal(peer_last(p)->flags, TH_RST | TH_ACK);
	assert_int_equal(peer_last(p)->ack, 111);
	peer_raw(p, 1, 2, 100, 0, TH_RST, 0, 0);
	assert_int_equal(p->outs, 2);
	peer_free(p);
}

static void a_listener_drops_null_fin_and_syn_with_fin(void **state)
{
	struct peer *p = peer_new();

	(void)state;
	peer_listen(p, 4);
	peer_send(p, 0, 0, 0);
	peer_send(p, 0, TH_FIN, 0);
	peer_send(p, 0, TH_SYN | TH_FIN, 0);
	peer_send(p, 0, TH_RST, 0);
	peer_send(p, 0, TH_SYN | TH_RST, 0);
	assert_int_equal(p->outs, 0);
	assert_int_equal(p->e.s->sock_pool.in_use, 1);
	peer_send(p, 0, TH_ACK, 0);
	assert_int_equal(peer_last(p)->flags, TH_RST);
	peer_free(p);
}

static void truncated_and_damaged_segments_are_dropped(void **state)
{
	OPEN;
	uint8_t frame[14 + 20 + 60] = {2, [12] = 8, [14] = 0x45, [17] = 40, [22] = 64, [23] = 6};
	struct tcp_header h = {.sport = be16(PEER_PORT),
			       .dport = be16(PORT),
			       .seq = be32(c.p->seq),
			       .ack = be32(c.p->ack),
			       .flags = TH_ACK | TH_RST};
	struct stack *s = c.p->e.s;

	(void)state;
	frame[26] = frame[30] = 10;
	frame[29] = 2;
	frame[33] = 1;
	for (int off = 0; off < 16; off++) {
		h.off = (uint8_t)(off << 4);
		if (off == 5)
			continue;
		memcpy(frame + 34, &h, sizeof(h));
		engine_input(&c.p->e, c.p->vnic, frame, 54, true, s->now_us); /* data offset below 5 or past the end */
	}
	assert_int_equal(s->counters[C_tcp_truncated], 15);
	h.off = 5 << 4;
	memcpy(frame + 34, &h, sizeof(h));
	for (uint8_t len = 20; len < 40; len++) {
		frame[17] = len;
		engine_input(&c.p->e, c.p->vnic, frame, 54, true, s->now_us);
	}
	assert_int_equal(s->counters[C_tcp_truncated], 35);
	frame[17] = 40;
	engine_input(&c.p->e, c.p->vnic, frame, 54, false, s->now_us); /* no checksum */
	assert_int_equal(c.k->tcp.state, TCP_ESTABLISHED);
	engine_input(&c.p->e, c.p->vnic, frame, 54, true, s->now_us);
	assert_int_equal(c.k->tcp.state, TCP_CLOSED); /* it would have been a good one */
	done(c);
}

static void what_comes_over_another_vnic_is_not_believed(void **state)
{
	OPEN;

	(void)state;
	c.k->vnic = c.p->vnic + 1;
	peer_send(c.p, 0, TH_RST, 0);
	peer_send(c.p, 0, TH_ACK, 10);
	assert_int_equal(c.k->tcp.state, TCP_ESTABLISHED);
	assert_int_equal(c.k->rxq.bytes, 0);
	c.k->vnic = c.p->vnic;
	done(c);
}

static void small_segments_before_a_slow_reader_share_buffers(void **state)
{
	OPEN;

	(void)state;
	for (int i = 0; i < 3000; i++)
		peer_data(c.p, TH_ACK | TH_PSH, 20);
	assert_int_equal(c.k->rxq.bytes, 60000);
	assert_true(c.p->e.s->pkt_pool.in_use < 64);
	assert_int_equal(peer_read(c.p, c.k, PEER_ISS + 1, 1 << 17), 60000);
	assert_int_equal(c.p->e.s->pkt_pool.in_use, 0);
	done(c);
}

static void a_lowat_delays_readiness(void **state)
{
	OPEN;

	(void)state;
	c.k->rcvlowat = 100;
	peer_data(c.p, TH_ACK, 99);
	assert_false(tcp_poll(&c.p->e, c.k) & EV_IN);
	assert_false(peer_edges(c.k) & EV_IN);
	peer_data(c.p, TH_ACK, 1);
	assert_true(tcp_poll(&c.p->e, c.k) & EV_IN);
	assert_true(peer_edges(c.k) & EV_IN);
	done(c);
}

int main(void)
{
#define T cmocka_unit_test
	const struct CMUnitTest tests[] = {
	    T(in_order_data_takes_the_fast_path_and_is_read),
	    T(a_reset_counts_only_at_exactly_the_next_number),
	    T(data_received_before_a_reset_can_still_be_read),
	    T(a_syn_on_an_open_connection_gets_a_challenge),
	    T(an_ack_of_what_was_never_sent_is_dropped),
	    T(an_old_ack_within_the_window_does_not_stop_its_data),
	    T(segments_without_ack_null_and_xmas_change_nothing),
	    T(duplicate_data_is_dropped_and_reported),
	    T(a_gap_is_acked_at_once_and_its_filling_too),
	    T(a_fin_out_of_order_counts_when_the_gap_is_filled),
	    T(a_bare_fin_out_of_order_is_remembered),
	    T(data_beyond_the_window_is_cut_or_dropped),
	    T(a_shut_window_refuses_data_but_takes_acks_and_answers_probes),
	    T(the_window_never_shrinks),
	    T(a_keepalive_probe_is_answered),
	    T(paws_drops_old_timestamps_before_anything_else),
	    T(an_idle_connection_forgets_its_timestamp_after_24_days),
	    T(our_acks_echo_the_peers_timestamp),
	    T(data_after_close_is_answered_with_a_reset),
	    T(simultaneous_close_goes_through_closing),
	    T(simultaneous_open_ends_established),
	    T(a_socket_can_connect_to_itself),
	    T(a_refusal_must_acknowledge_our_syn),
	    T(an_unanswered_syn_times_out),
	    T(every_second_full_segment_is_acked_at_once_and_one_after_40_ms),
	    T(reading_all_of_a_pushed_message_acks_it_at_once),
	    T(urgent_pointers_that_lie_do_no_harm),
	    T(an_urgent_byte_alone_is_not_readable),
	    T(a_later_urgent_byte_replaces_an_earlier_one),
	    T(urgent_data_in_line_is_read_like_any_other),
	    T(a_segment_for_nobody_gets_a_reset),
	    T(a_listener_drops_null_fin_and_syn_with_fin),
	    T(truncated_and_damaged_segments_are_dropped),
	    T(what_comes_over_another_vnic_is_not_believed),
	    T(small_segments_before_a_slow_reader_share_buffers),
	    T(a_lowat_delays_readiness),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
