/* SPDX-License-Identifier: BSD-2-Clause */
/* Passive open: queues and their bounds, SYN cookies, what children inherit, initial sequence numbers. */
#include "peer.h"

static void syn_from(struct peer *p, uint16_t port)
{
	peer_raw(p, port, PORT, p->seq, 0, TH_SYN, 0, 0);
}

static void ack_from(struct peer *p, uint16_t port, const struct out *syn_ack)
{
	peer_raw(p, port, PORT, p->seq + 1, syn_ack->seq + 1, TH_ACK, 0, 0);
}

static void the_accept_queue_holds_backlog_plus_one(void **state)
{
	struct peer *p = peer_new();
	struct sock *l = peer_listen(p, 2);
	struct out syn_ack[5];

	(void)state;
	for (uint16_t i = 0; i < 5; i++) {
		syn_from(p, (uint16_t)(4000 + i));
		syn_ack[i] = *peer_last(p);
	}
	assert_int_equal(l->tcp.embryo_count, 5);
	for (uint16_t i = 0; i < 5; i++)
		ack_from(p, (uint16_t)(4000 + i), &syn_ack[i]);
	assert_int_equal(tcp_accept_pending(&p->e, l), 3);
	assert_int_equal(l->tcp.embryo_count, 2); /* their ACKs were ignored */
	assert_int_equal(p->e.s->counters[C_tcp_listen_overflow], 2);
	syn_from(p, 5000);
	assert_int_equal(p->e.s->counters[C_tcp_syn_dropped], 1);
	assert_true(tcp_accept(&p->e, l) > 0);
	ack_from(p, 4003, &syn_ack[3]); /* again, as an answer to our SYN-ACK again */
	assert_int_equal(tcp_accept_pending(&p->e, l), 3);
	peer_free(p);
}

static void connections_are_accepted_in_the_order_of_their_handshakes(void **state)
{
	struct peer *p = peer_new();
	struct sock *l = peer_listen(p, 8);

	(void)state;
	for (uint16_t i = 0; i < 4; i++) {
		syn_from(p, (uint16_t)(4000 + i));
		ack_from(p, (uint16_t)(4000 + i), peer_last(p));
	}
	for (uint16_t i = 0; i < 4; i++) {
		int c = tcp_accept(&p->e, l);

		assert_true(c > 0);
		assert_int_equal(sock_at(p->e.s, (uint32_t)c)->remote.port, 4000 + i);
	}
	assert_int_equal(tcp_accept(&p->e, l), -EAGAIN);
	peer_free(p);
}

static void a_syn_flood_leaves_no_state_but_the_queue(void **state)
{
	struct peer *p = peer_new();
	struct sock *l = peer_listen(p, 4);

	(void)state;
	for (uint32_t i = 0; i < 1000; i++) {
		p->seq += 77777;
		syn_from(p, (uint16_t)(1024 + i));
		assert_int_equal(peer_last(p)->flags, TH_SYN | TH_ACK);
		assert_int_equal(peer_last(p)->ack, p->seq + 1);
	}
	assert_int_equal(l->tcp.embryo_count, 16);
	assert_int_equal(p->e.s->sock_pool.in_use, 17);
	assert_int_equal(p->e.s->counters[C_tcp_cookies_sent], 984);
	peer_wait(p, 130 * SECOND); /* the embryos give up */
	assert_int_equal(l->tcp.embryo_count, 0);
	assert_int_equal(p->e.s->sock_pool.in_use, 1);
	peer_free(p);
}

static struct peer *flooded(struct sock **l)
{
	struct peer *p = peer_new();

	*l = peer_listen(p, 4);
	for (uint16_t i = 0; i < 16; i++)
		syn_from(p, (uint16_t)(1024 + i));
	assert_int_equal((*l)->tcp.embryo_count, 16);
	return p;
}

static void a_cookie_keeps_mss_window_scale_sack_and_timestamps(void **state)
{
	struct sock *l, *k;
	struct peer *p = flooded(&l);

	(void)state;
	p->seq = 123456789;
	peer_opt_syn(p, true, true, true);
	syn_from(p, 9999);
	assert_true(peer_last(p)->o.has_wscale && peer_last(p)->o.sack_ok && peer_last(p)->o.has_ts);
	p->e.s->now_us += 10 * SECOND;
	peer_opt_ts(p, 1001);
	ack_from(p, 9999, peer_last(p));
	assert_int_equal(p->e.s->counters[C_tcp_cookies_good], 1);
	k = sock_at(p->e.s, (uint32_t)tcp_accept(&p->e, l));
	assert_non_null(k);
	assert_int_equal(k->tcp.state, TCP_ESTABLISHED);
	assert_int_equal(k->tcp.peer_mss, 1460);
	assert_int_equal(k->tcp.snd_wscale, 4); /* 5, rounded down to a class */
	assert_int_equal(k->tcp.flags & (TCPF_TS | TCPF_SACK | TCPF_WSCALE), TCPF_TS | TCPF_SACK | TCPF_WSCALE);
	assert_int_equal(k->tcp.ts_recent, 1001);
	k->holders = 1;
	p->seq++;
	p->ack = peer_last(p)->seq + 1;
	peer_raw(p, 9999, PORT, p->seq, k->tcp.snd_nxt, TH_ACK, 0, 500);
	assert_int_equal(peer_read(p, k, p->seq, 999), 500);
	peer_free(p);
}

static void a_forged_or_old_cookie_makes_nothing(void **state)
{
	struct sock *l;
	struct peer *p = flooded(&l);
	struct out syn_ack;

	(void)state;
	syn_from(p, 9999);
	syn_ack = *peer_last(p);
	for (uint32_t bit = 0; bit < 32; bit++) {
		struct out forged = syn_ack;

		forged.seq ^= 1u << bit;
		ack_from(p, 9999, &forged);
		assert_int_equal(peer_last(p)->flags, TH_RST);
	}
	ack_from(p, 9998, &syn_ack); /* another's */
	assert_int_equal(peer_last(p)->flags, TH_RST);
	p->e.s->now_us += 33 * SECOND;
	syn_from(p, 7777); /* the flood goes on, so ACKs are looked at */
	ack_from(p, 9999, &syn_ack);
	assert_int_equal(peer_last(p)->flags, TH_RST);
	assert_int_equal(p->e.s->counters[C_tcp_cookies_good], 0);
	assert_int_equal(p->e.s->counters[C_tcp_cookies_bad], 34);
	assert_int_equal(tcp_accept_pending(&p->e, l), 0);
	peer_free(p);
}

static void without_a_flood_no_ack_passes_for_a_cookie(void **state)
{
	struct sock *l;
	struct peer *p = flooded(&l);
	struct out syn_ack;

	(void)state;
	syn_from(p, 9999);
	syn_ack = *peer_last(p);
	p->e.s->now_us += 100 * SECOND;
	ack_from(p, 9999, &syn_ack);
	assert_int_equal(peer_last(p)->flags, TH_RST);
	assert_int_equal(p->e.s->counters[C_tcp_cookies_bad], 0);
	peer_free(p);
}

static void an_embryo_repeats_its_syn_ack_and_gives_up(void **state)
{
	struct peer *p = peer_new();

	(void)state;
	peer_listen(p, 4);
	syn_from(p, 4000);
	assert_int_equal(p->outs, 1);
	syn_from(p, 4000); /* our SYN-ACK was lost: the same answer */
	assert_int_equal(p->outs, 2);
	assert_int_equal(p->out[0].seq, p->out[1].seq);
	peer_wait(p, 200 * SECOND);
	assert_int_equal(p->e.s->sock_pool.in_use, 1);
	assert_int_equal(p->outs, 2 + 5); /* and synack_retries */
	peer_free(p);
}

static void a_reset_drops_an_embryo_and_a_bad_ack_is_reset(void **state)
{
	struct peer *p = peer_new();
	struct sock *l = peer_listen(p, 4);

	(void)state;
	syn_from(p, 4000);
	peer_raw(p, 4000, PORT, p->seq + 1, peer_last(p)->seq + 77, TH_ACK, 0, 0);
	assert_int_equal(peer_last(p)->flags, TH_RST);
	assert_int_equal(l->tcp.embryo_count, 1);
	peer_raw(p, 4000, PORT, p->seq + 1, 0, TH_RST, 0, 0);
	assert_int_equal(l->tcp.embryo_count, 0);
	assert_int_equal(p->e.s->sock_pool.in_use, 1);
	peer_free(p);
}

static void a_connection_reset_in_the_queue_is_accepted_and_says_so(void **state)
{
	struct peer *p = peer_new();
	struct sock *l = peer_listen(p, 4), *k;

	(void)state;
	syn_from(p, 4000);
	ack_from(p, 4000, peer_last(p));
	peer_raw(p, 4000, PORT, p->seq + 1, 0, TH_RST, 0, 0);
	assert_int_equal(tcp_accept_pending(&p->e, l), 1);
	k = sock_at(p->e.s, (uint32_t)tcp_accept(&p->e, l));
	assert_non_null(k);
	assert_int_equal(peer_read(p, k, 0, 10), -ECONNRESET);
	peer_free(p);
}

static void data_with_the_last_ack_is_there_at_accept(void **state)
{
	struct peer *p = peer_new();
	struct sock *l = peer_listen(p, 4), *k;

	(void)state;
	syn_from(p, 4000);
	peer_raw(p, 4000, PORT, p->seq + 1, peer_last(p)->seq + 1, TH_ACK | TH_FIN, 0, 300);
	k = sock_at(p->e.s, (uint32_t)tcp_accept(&p->e, l));
	assert_non_null(k);
	assert_int_equal(peer_read(p, k, p->seq + 1, 999), 300);
	assert_int_equal(peer_read(p, k, 0, 999), 0);
	peer_free(p);
}

static void data_on_a_syn_is_left_to_come_again(void **state)
{
	struct peer *p = peer_new();

	(void)state;
	peer_listen(p, 4);
	peer_raw(p, 4000, PORT, p->seq, 0, TH_SYN, 0, 100);
	assert_int_equal(peer_last(p)->flags, TH_SYN | TH_ACK);
	assert_int_equal(peer_last(p)->ack, p->seq + 1);
	peer_free(p);
}

static void defer_accept_waits_for_data(void **state)
{
	struct peer *p = peer_new();
	struct sock *l = peer_listen(p, 4);

	(void)state;
	l->tcp.defer_accept_s = 5;
	syn_from(p, 4000);
	ack_from(p, 4000, peer_last(p));
	assert_int_equal(tcp_accept_pending(&p->e, l), 0);
	peer_raw(p, 4000, PORT, p->seq + 1, p->out[0].seq + 1, TH_ACK, 0, 10);
	assert_int_equal(tcp_accept_pending(&p->e, l), 1);
	peer_free(p);
}

static void children_inherit_what_was_set_on_the_listener(void **state)
{
	struct peer *p = peer_new();
	struct sock *l = peer_listen(p, 4), *k;

	(void)state;
	l->flags |= SOCKF_KEEPALIVE | SOCKF_LINGER | SOCKF_RCVBUF_SET | SOCKF_NONBLOCK;
	l->tcp.flags |= TCPF_NODELAY;
	l->linger_s = 3;
	l->rcvbuf = 20000;
	l->sndbuf = 30000;
	l->tos = 0x10;
	l->tcp.keep_idle_s = 11;
	l->tcp.user_timeout_ms = 12;
	k = peer_open(p, l, true, false);
	assert_int_equal(k->flags & (SOCKF_KEEPALIVE | SOCKF_LINGER | SOCKF_RCVBUF_SET),
			 SOCKF_KEEPALIVE | SOCKF_LINGER | SOCKF_RCVBUF_SET);
	assert_false(k->flags & SOCKF_NONBLOCK); /* as Linux's accept */
	assert_true(k->tcp.flags & TCPF_NODELAY);
	assert_int_equal(k->linger_s, 3);
	assert_int_equal(k->rcvbuf, 20000);
	assert_int_equal(k->sndbuf, 30000);
	assert_int_equal(k->tos, 0x10);
	assert_int_equal(k->tcp.keep_idle_s, 11);
	assert_int_equal(k->tcp.user_timeout_ms, 12);
	assert_true(k->tcp.timer[TIMER_KEEP].deadline_us > 0);
	peer_free(p);
}

static void closing_the_listener_resets_who_waits(void **state)
{
	struct peer *p = peer_new();
	struct sock *l = peer_listen(p, 4);
	uint32_t rsts = 0;

	(void)state;
	syn_from(p, 4000);
	ack_from(p, 4000, peer_last(p));
	syn_from(p, 4001);
	tcp_close(&p->e, l, p->e.s->now_us);
	for (uint32_t i = 0; i < p->outs; i++)
		rsts += (p->out[i].flags & TH_RST) != 0;
	assert_int_equal(rsts, 2);
	assert_int_equal(p->e.s->sock_pool.in_use, 0);
	peer_free(p);
}

static void shutdown_for_reading_ends_listening(void **state)
{
	struct peer *p = peer_new();
	struct sock *l = peer_listen(p, 4);

	(void)state;
	assert_int_equal(tcp_shutdown(&p->e, l, 1, p->e.s->now_us), 0);
	assert_int_equal(l->tcp.state, TCP_LISTEN);
	assert_int_equal(tcp_shutdown(&p->e, l, 0, p->e.s->now_us), 0);
	assert_int_equal(l->tcp.state, TCP_CLOSED);
	assert_int_equal(tcp_accept(&p->e, l), -EINVAL);
	assert_int_equal(tcp_listen(&p->e, l, 4), 0); /* and it can begin again */
	syn_from(p, 4000);
	assert_int_equal(peer_last(p)->flags, TH_SYN | TH_ACK);
	peer_free(p);
}

static void initial_sequence_numbers_differ_by_connection_and_grow_with_time(void **state)
{
	struct peer *p = peer_new();
	struct endpoint local = peer_addr(1, PORT), remote = peer_addr(2, 4000);
	uint32_t first = tcp_new_isn(&p->e, &local, &remote), seen[256] = {0};

	(void)state;
	p->e.s->now_us += 4000;
	assert_int_equal(tcp_new_isn(&p->e, &local, &remote) - first, 1000);
	for (uint32_t i = 0; i < 25600; i++) {
		remote.port = (uint16_t)i;
		seen[tcp_new_isn(&p->e, &local, &remote) >> 24]++;
	}
	for (int i = 0; i < 256; i++)
		assert_in_range(seen[i], 50, 150); /* 100 expected, standard deviation 10 */
	peer_free(p);
}

int main(void)
{
#define T cmocka_unit_test
	const struct CMUnitTest tests[] = {
	    T(the_accept_queue_holds_backlog_plus_one),
	    T(connections_are_accepted_in_the_order_of_their_handshakes),
	    T(a_syn_flood_leaves_no_state_but_the_queue),
	    T(a_cookie_keeps_mss_window_scale_sack_and_timestamps),
	    T(a_forged_or_old_cookie_makes_nothing),
	    T(without_a_flood_no_ack_passes_for_a_cookie),
	    T(an_embryo_repeats_its_syn_ack_and_gives_up),
	    T(a_reset_drops_an_embryo_and_a_bad_ack_is_reset),
	    T(a_connection_reset_in_the_queue_is_accepted_and_says_so),
	    T(data_with_the_last_ack_is_there_at_accept),
	    T(data_on_a_syn_is_left_to_come_again),
	    T(defer_accept_waits_for_data),
	    T(children_inherit_what_was_set_on_the_listener),
	    T(closing_the_listener_resets_who_waits),
	    T(shutdown_for_reading_ends_listening),
	    T(initial_sequence_numbers_differ_by_connection_and_grow_with_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
