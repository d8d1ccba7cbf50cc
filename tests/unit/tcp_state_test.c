/* SPDX-License-Identifier: BSD-2-Clause */
/* A connection's end: TIME-WAIT, orphans, readiness as Linux shows it, the death of a vNIC, ICMP. */
#include "peer.h"

struct conn {
	struct peer *p;
	struct sock *l, *k;
};

static struct conn open_with(uint32_t features, bool ts)
{
	struct stack_config cfg = peer_config();
	struct conn c = {.p = peer_new_with(&cfg, features)};

	c.l = peer_listen(c.p, 4);
	c.k = peer_open(c.p, c.l, true, ts);
	return c;
}

/* We close first, the peer answers: TIME-WAIT. */
static void into_time_wait(struct conn c)
{
	tcp_close(&c.p->e, c.k, c.p->e.s->now_us);
	c.p->ack++;
	peer_send(c.p, 0, TH_ACK, 0);
	peer_data(c.p, TH_ACK | TH_FIN, 0);
}

static void time_wait_lasts_a_minute_and_answers_a_fin_again(void **state)
{
	struct conn c = open_with(0, false);
	uint32_t outs;

	(void)state;
	into_time_wait(c);
	assert_int_equal(c.k->tcp.state, TCP_TIME_WAIT);
	assert_int_equal(c.p->e.s->tw_count, 1);
	outs = c.p->outs;
	peer_wait(c.p, 30 * SECOND);
	peer_send(c.p, -1, TH_ACK | TH_FIN, 0);
	assert_int_equal(c.p->outs, outs + 1);
	assert_int_equal(peer_last(c.p)->ack, c.p->seq);
	peer_wait(c.p, 61 * SECOND);
	assert_int_equal(c.p->e.s->sock_pool.in_use, 1);
	assert_int_equal(c.p->e.s->orphan_count, 0);
	peer_free(c.p);
}

static void a_reset_does_not_end_time_wait(void **state)
{
	struct conn c = open_with(0, false);

	(void)state;
	into_time_wait(c);
	peer_send(c.p, 0, TH_RST, 0);
	assert_int_equal(c.p->e.s->tw_count, 1); /* RFC 1337 */
	peer_free(c.p);
}

static void a_newer_syn_takes_over_from_time_wait(void **state)
{
	struct conn c = open_with(0, false);
	uint32_t old;

	(void)state;
	into_time_wait(c);
	old = c.p->ack;
	peer_send(c.p, -100, TH_SYN, 0); /* an old one does not */
	assert_int_equal(c.p->e.s->tw_count, 1);
	peer_send(c.p, 1000, TH_SYN, 0);
	assert_int_equal(c.p->e.s->tw_count, 0);
	assert_int_equal(peer_last(c.p)->flags, TH_SYN | TH_ACK);
	assert_int_equal(peer_last(c.p)->ack, c.p->seq + 1001);
	assert_true(seq_gt(peer_last(c.p)->seq, old + 65535));
	peer_free(c.p);
}

static void a_newer_timestamp_takes_over_whatever_the_number(void **state)
{
	struct conn c = open_with(0, true);

	(void)state;
	into_time_wait(c);
	peer_opt_ts(c.p, 5000);
	peer_send(c.p, -100000, TH_SYN, 0); /* RFC 6191 */
	assert_int_equal(peer_last(c.p)->flags, TH_SYN | TH_ACK);
	assert_int_equal(c.p->e.s->tw_count, 0);
	peer_free(c.p);
}

static void a_lossless_vnic_needs_no_time_wait(void **state)
{
	struct conn c = open_with(VNIC_FEAT_LOSSLESS, false);

	(void)state;
	into_time_wait(c);
	assert_int_equal(peer_last(c.p)->flags, TH_ACK);
	assert_int_equal(peer_last(c.p)->ack, c.p->seq); /* the last ACK went out */
	assert_int_equal(c.p->e.s->sock_pool.in_use, 1);
	peer_free(c.p);
}

static void time_wait_is_bounded_and_gives_way(void **state)
{
	struct peer *p = peer_new();
	struct sock *l = peer_listen(p, 4);
	uint32_t base = p->seq;

	(void)state;
	for (uint16_t i = 0; i < 200; i++) {
		int c;

		p->seq = base;
		peer_raw(p, (uint16_t)(2000 + i), PORT, p->seq, 0, TH_SYN, 0, 0);
		p->ack = peer_last(p)->seq + 1;
		peer_raw(p, (uint16_t)(2000 + i), PORT, p->seq + 1, p->ack, TH_ACK, 0, 0);
		c = tcp_accept(&p->e, l);
		assert_true(c > 0);
		tcp_close(&p->e, sock_at(p->e.s, (uint32_t)c), p->e.s->now_us);
		peer_raw(p, (uint16_t)(2000 + i), PORT, p->seq + 1, p->ack + 1, TH_ACK | TH_FIN, 0, 0);
	}
	assert_int_equal(p->e.s->tw_count, 64 / 4);
	assert_int_equal(p->e.s->counters[C_tcp_time_wait_recycled], 200 - 16);
	assert_int_equal(p->e.s->orphan_count, 16);
	peer_wait(p, 70 * SECOND);
	assert_int_equal(p->e.s->sock_pool.in_use, 1);
	peer_free(p);
}

static void an_orphan_does_not_wait_for_the_peers_fin_for_ever(void **state)
{
	struct conn c = open_with(0, false);

	(void)state;
	tcp_close(&c.p->e, c.k, c.p->e.s->now_us);
	c.p->ack++;
	peer_send(c.p, 0, TH_ACK, 0);
	assert_int_equal(c.k->tcp.state, TCP_FIN_WAIT_2);
	peer_wait(c.p, 59 * SECOND);
	assert_int_equal(c.p->e.s->sock_pool.in_use, 2);
	peer_wait(c.p, 2 * SECOND);
	assert_int_equal(c.p->e.s->sock_pool.in_use, 1);
	peer_free(c.p);
}

static void a_half_closed_socket_that_is_held_waits_as_long_as_it_takes(void **state)
{
	struct conn c = open_with(0, false);

	(void)state;
	tcp_shutdown(&c.p->e, c.k, 1, c.p->e.s->now_us);
	c.p->ack++;
	peer_send(c.p, 0, TH_ACK, 0);
	peer_wait(c.p, 600 * SECOND);
	assert_int_equal(c.k->tcp.state, TCP_FIN_WAIT_2);
	peer_data(c.p, TH_ACK, 100);
	assert_int_equal(peer_read(c.p, c.k, PEER_ISS + 1, 999), 100);
	peer_free(c.p);
}

static void an_orphan_whose_peer_is_silent_gives_up(void **state)
{
	struct conn c = open_with(0, false);

	(void)state;
	assert_int_equal(peer_write(c.p, c.k, 1000), 1000);
	tcp_close(&c.p->e, c.k, c.p->e.s->now_us);
	peer_wait(c.p, 300 * SECOND);
	assert_int_equal(c.p->e.s->sock_pool.in_use, 1);
	assert_int_equal(c.p->e.s->pkt_pool.in_use, 0);
	peer_free(c.p);
}

static void an_orphan_before_a_shut_window_gives_up_after_keepalive_probes_too(void **state)
{
	struct conn c = open_with(0, false);

	(void)state;
	c.k->tcp.keep_idle_s = 10;
	tcp_set_keepalive(&c.p->e, c.k, true, c.p->e.s->now_us);
	peer_wait(c.p, 12 * SECOND);
	assert_true(c.k->tcp.probes > 0);
	c.k->tcp.snd_wnd = 0;
	assert_int_equal(peer_write(c.p, c.k, 1000), 1000);
	tcp_close(&c.p->e, c.k, c.p->e.s->now_us);
	peer_wait(c.p, 3600 * SECOND);
	assert_int_equal(c.p->e.s->sock_pool.in_use, 1);
	peer_free(c.p);
}

static void closing_resets_when_too_many_orphans_wait(void **state)
{
	struct conn c = open_with(0, false);

	(void)state;
	c.p->e.s->orphan_count = 64;
	tcp_close(&c.p->e, c.k, c.p->e.s->now_us);
	assert_int_equal(peer_last(c.p)->flags & TH_RST, TH_RST);
	assert_int_equal(c.p->e.s->orphan_count, 64);
	c.p->e.s->orphan_count = 0;
	peer_free(c.p);
}

static uint32_t ready(struct conn c)
{
	return tcp_poll(&c.p->e, c.k) & (EV_IN | EV_OUT | EV_HUP | EV_RDHUP | EV_ERR | EV_PRI);
}

static void readiness_follows_the_state_as_linux_shows_it(void **state)
{
	struct conn c = open_with(0, false);
	struct sock *fresh = sock_alloc(&c.p->e, SOCK_TCP, 4);

	(void)state;
	assert_int_equal(tcp_poll(&c.p->e, fresh) & ~(EV_WRNORM | EV_RDNORM), EV_OUT | EV_HUP);
	tcp_free(&c.p->e, fresh);
	assert_int_equal(tcp_poll(&c.p->e, c.l), 0);
	assert_int_equal(ready(c), EV_OUT);
	peer_data(c.p, TH_ACK, 10);
	assert_int_equal(ready(c), EV_OUT | EV_IN);
	peer_read(c.p, c.k, c.k->tcp.rcv_read, 10);
	peer_data(c.p, TH_ACK | TH_FIN, 0);
	assert_int_equal(ready(c), EV_OUT | EV_IN | EV_RDHUP);
	tcp_shutdown(&c.p->e, c.k, 1, c.p->e.s->now_us);
	assert_int_equal(ready(c), EV_OUT | EV_IN | EV_RDHUP | EV_HUP);
	c.p->ack++;
	peer_send(c.p, 0, TH_ACK, 0);
	assert_int_equal(c.k->tcp.state, TCP_CLOSED);
	assert_int_equal(ready(c), EV_OUT | EV_IN | EV_RDHUP | EV_HUP);
	peer_free(c.p);
}

static void shutdown_for_reading_ends_the_stream_here_only(void **state)
{
	struct conn c = open_with(0, false);

	(void)state;
	assert_int_equal(tcp_shutdown(&c.p->e, c.k, 0, c.p->e.s->now_us), 0);
	assert_int_equal(ready(c), EV_OUT | EV_IN | EV_RDHUP);
	assert_int_equal(peer_read(c.p, c.k, 0, 10), 0);
	assert_int_equal(c.k->tcp.state, TCP_ESTABLISHED);
	peer_data(c.p, TH_ACK, 10); /* Linux still takes and shows it */
	assert_int_equal(peer_read(c.p, c.k, PEER_ISS + 1, 10), 10);
	peer_free(c.p);
}

static void calls_in_the_wrong_state_are_refused(void **state)
{
	struct peer *p = peer_new();
	struct sock *k = sock_alloc(&p->e, SOCK_TCP, 4);
	struct endpoint local = peer_addr(1, PORT), remote = peer_addr(2, PEER_PORT);
	char byte;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};

	(void)state;
	assert_int_equal(tcp_shutdown(&p->e, k, 1, p->e.s->now_us), -ENOTCONN);
	assert_int_equal(tcp_recv(&p->e, k, &iov, 1, 0, 0, p->e.s->now_us), -ENOTCONN);
	assert_int_equal(tcp_accept(&p->e, k), -EINVAL);
	assert_int_equal(tcp_connect(&p->e, k, p->vnic, &local, &remote, p->e.s->now_us), 0);
	assert_int_equal(tcp_connect(&p->e, k, p->vnic, &local, &remote, p->e.s->now_us), -EALREADY);
	assert_int_equal(tcp_listen(&p->e, k, 1), -EINVAL);
	assert_int_equal(tcp_recv(&p->e, k, &iov, 1, 0, 0, p->e.s->now_us), -EAGAIN);
	peer_free(p);
}

static void a_name_in_use_cannot_connect_again(void **state)
{
	struct conn c = open_with(0, false);
	struct sock *k = sock_alloc(&c.p->e, SOCK_TCP, 4);
	struct endpoint local = peer_addr(1, PORT), remote = peer_addr(2, PEER_PORT);
	uint64_t now = c.p->e.s->now_us;

	(void)state;
	assert_int_equal(tcp_connect(&c.p->e, k, c.p->vnic, &local, &remote, now), -EADDRNOTAVAIL);
	into_time_wait(c);
	assert_int_equal(tcp_connect(&c.p->e, k, c.p->vnic, &local, &remote, now), -EADDRNOTAVAIL);
	peer_free(c.p);
}

static void a_dead_vnic_shows_as_the_kernel_shows_a_dead_peer(void **state)
{
	struct conn c = open_with(VNIC_FEAT_LOSSLESS, false);

	(void)state;
	peer_data(c.p, TH_ACK, 10);
	tcp_vnic_dead(&c.p->e, c.k, c.p->e.s->now_us); /* nothing of ours was outstanding: end of stream */
	assert_int_equal(ready(c), EV_OUT | EV_IN | EV_RDHUP);
	assert_int_equal(peer_read(c.p, c.k, PEER_ISS + 1, 99), 10);
	assert_int_equal(peer_read(c.p, c.k, 0, 99), 0);
	assert_int_equal(peer_write(c.p, c.k, 0), 0);
	assert_int_equal(peer_write(c.p, c.k, 1), 1); /* this provokes the reset */
	assert_true((ready(c) & (EV_ERR | EV_HUP)) == (EV_ERR | EV_HUP));
	assert_int_equal(peer_write(c.p, c.k, 1), -EPIPE);
	assert_int_equal(peer_write(c.p, c.k, 1), -EPIPE);
	assert_int_equal(peer_read(c.p, c.k, 0, 99), 0);
	peer_free(c.p);

	c = open_with(VNIC_FEAT_LOSSLESS, false);
	peer_data(c.p, TH_ACK, 10);
	tcp_vnic_dead(&c.p->e, c.k, c.p->e.s->now_us);
	assert_int_equal(peer_write(c.p, c.k, 1), 1);
	assert_int_equal(peer_read(c.p, c.k, PEER_ISS + 1, 99), 10); /* what came before stays readable */
	assert_int_equal(peer_read(c.p, c.k, 0, 99), 0);
	peer_free(c.p);

	c = open_with(VNIC_FEAT_LOSSLESS, false);
	assert_int_equal(peer_write(c.p, c.k, 100), 100);
	tcp_vnic_dead(&c.p->e, c.k, c.p->e.s->now_us); /* it never saw that */
	assert_true(ready(c) & EV_ERR);
	assert_int_equal(peer_read(c.p, c.k, 0, 99), -ECONNRESET);
	peer_free(c.p);
}

static void icmp_is_soft_on_an_open_connection_and_hard_while_connecting(void **state)
{
	struct conn c = open_with(0, false);
	struct sock *k = sock_alloc(&c.p->e, SOCK_TCP, 4);
	struct endpoint local = peer_addr(1, 999), remote = peer_addr(2, PEER_PORT);
	uint32_t iss;

	(void)state;
	assert_int_equal(peer_write(c.p, c.k, 100), 100);
	tcp_icmp_error(&c.p->e, c.k, c.k->tcp.snd_max, EHOSTUNREACH, false); /* not in flight */
	assert_int_equal(c.k->tcp.soft_error, 0);
	tcp_icmp_error(&c.p->e, c.k, c.k->tcp.snd_una, EHOSTUNREACH, true);
	assert_int_equal(c.k->tcp.state, TCP_ESTABLISHED);
	assert_int_equal(c.k->so_error, 0);
	c.k->flags |= SOCKF_RECVERR; /* who has set IP_RECVERR hears at once, and the connection goes on */
	tcp_icmp_error(&c.p->e, c.k, c.k->tcp.snd_una, ENETUNREACH, false);
	assert_true(ready(c) & EV_ERR);
	assert_int_equal(peer_read(c.p, c.k, 0, 1), -ENETUNREACH);
	assert_int_equal(c.k->tcp.state, TCP_ESTABLISHED);
	c.k->flags &= ~SOCKF_RECVERR;
	peer_wait(c.p, 1100 * SECOND);
	assert_int_equal(c.k->so_error, EHOSTUNREACH); /* instead of ETIMEDOUT */

	assert_int_equal(tcp_connect(&c.p->e, k, c.p->vnic, &local, &remote, c.p->e.s->now_us), 0);
	iss = k->tcp.iss;
	tcp_icmp_error(&c.p->e, k, iss + 5, ECONNREFUSED, true);
	assert_int_equal(k->tcp.state, TCP_SYN_SENT);
	tcp_icmp_error(&c.p->e, k, iss, EHOSTUNREACH, false);
	assert_int_equal(k->so_error, EHOSTUNREACH);
	peer_free(c.p);
}

static void a_smaller_path_mtu_is_taken_down_to_a_floor(void **state)
{
	struct conn c = open_with(0, false);

	(void)state;
	assert_int_equal(peer_write(c.p, c.k, 5000), 5000);
	tcp_icmp_mtu(&c.p->e, c.k, c.k->tcp.snd_max + 1, 1000);
	assert_int_equal(c.k->tcp.mss, 1460);
	tcp_icmp_mtu(&c.p->e, c.k, c.k->tcp.snd_una, 9000);
	assert_int_equal(c.k->tcp.mss, 1460);
	tcp_icmp_mtu(&c.p->e, c.k, c.k->tcp.snd_una, 1000);
	assert_int_equal(c.k->tcp.mss, 960);
	peer_check(c.p);
	for (uint32_t i = 0; i < c.p->outs; i++)
		if (i >= 8)
			assert_true(c.p->out[i].len <= 960);
	tcp_icmp_mtu(&c.p->e, c.k, c.k->tcp.snd_una, 68);
	assert_int_equal(c.k->tcp.mss, 552 - 40);
	peer_free(c.p);
}

static void the_receive_buffer_grows_with_what_is_read_in_a_round_trip(void **state)
{
	struct conn c = open_with(0, false);
	uint32_t start = c.k->rcvbuf;

	(void)state;
	for (int i = 0; i < 3000; i++) {
		uint32_t left = c.k->tcp.rcv_adv - c.k->tcp.rcv_nxt;

		c.p->e.s->now_us += 20;
		peer_data(c.p, TH_ACK, left < 1460 ? left : 1460);
		peer_read(c.p, c.k, c.k->tcp.rcv_read, 1 << 20);
	}
	assert_true(c.k->rcvbuf > start);
	assert_true(c.k->rcvbuf <= c.p->e.s->cfg.defaults.rcvbuf_max);
	peer_free(c.p);
}

int main(void)
{
#define T cmocka_unit_test
	const struct CMUnitTest tests[] = {
	    T(time_wait_lasts_a_minute_and_answers_a_fin_again),
	    T(a_reset_does_not_end_time_wait),
	    T(a_newer_syn_takes_over_from_time_wait),
	    T(a_newer_timestamp_takes_over_whatever_the_number),
	    T(a_lossless_vnic_needs_no_time_wait),
	    T(time_wait_is_bounded_and_gives_way),
	    T(an_orphan_does_not_wait_for_the_peers_fin_for_ever),
	    T(a_half_closed_socket_that_is_held_waits_as_long_as_it_takes),
	    T(an_orphan_whose_peer_is_silent_gives_up),
	    T(an_orphan_before_a_shut_window_gives_up_after_keepalive_probes_too),
	    T(closing_resets_when_too_many_orphans_wait),
	    T(readiness_follows_the_state_as_linux_shows_it),
	    T(shutdown_for_reading_ends_the_stream_here_only),
	    T(calls_in_the_wrong_state_are_refused),
	    T(a_name_in_use_cannot_connect_again),
	    T(a_dead_vnic_shows_as_the_kernel_shows_a_dead_peer),
	    T(icmp_is_soft_on_an_open_connection_and_hard_while_connecting),
	    T(a_smaller_path_mtu_is_taken_down_to_a_floor),
	    T(the_receive_buffer_grows_with_what_is_read_in_a_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
