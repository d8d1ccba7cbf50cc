/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whole connections over a wire between two stacks: both halves of TCP together.
 */
#include "pair.h"

static uint8_t pattern(uint64_t at)
{
	return (uint8_t)(at * 131 + (at >> 8) * 7);
}

static int set_up(void **state)
{
	struct stack_config c = test_config();

	*state = pair_new(&c);
	return 0;
}

static int tear_down(void **state)
{
	pair_free(*state);
	return 0;
}

static void close_all(struct pair *p, struct sock *l, struct sock *c, struct sock *s)
{
	tcp_close(&p->e[0], c, p->now);
	pair_run(p);
	tcp_close(&p->e[1], s, p->now);
	pair_run(p);
	tcp_close(&p->e[1], l, p->now);
	assert_clean(p);
	assert_int_equal(p->e[0].s->sock_pool.in_use, 0);
	assert_int_equal(p->e[1].s->sock_pool.in_use, 0);
}

static void a_connection_opens_carries_a_message_each_way_and_closes(void **state)
{
	struct pair *p = *state;
	struct sock *c, *s, *l = pair_open(p, &c, &s);
	char buf[64];

	assert_int_equal(pair_send(p, 0, c, "hello", 5, 0), 5);
	pair_run(p);
	assert_true(tcp_poll(&p->e[1], s) & EV_IN);
	assert_int_equal(tcp_inq(&p->e[1], s), 5);
	assert_int_equal(pair_recv(p, 1, s, buf, sizeof(buf), 0), 5);
	assert_memory_equal(buf, "hello", 5);
	assert_int_equal(pair_recv(p, 1, s, buf, sizeof(buf), 0), -EAGAIN);
	assert_int_equal(pair_send(p, 1, s, "world!", 6, 0), 6);
	pair_run(p);
	assert_int_equal(pair_recv(p, 0, c, buf, sizeof(buf), 0), 6);
	assert_memory_equal(buf, "world!", 6);
	close_all(p, l, c, s);
}

static void window_scale_and_sack_are_negotiated_and_timestamps_are_not_on_a_wire(void **state)
{
	struct pair *p = *state;
	struct sock *c, *s, *l = pair_open(p, &c, &s);

	assert_int_equal(c->tcp.flags & (TCPF_WSCALE | TCPF_SACK | TCPF_TS), TCPF_WSCALE | TCPF_SACK);
	assert_int_equal(s->tcp.flags & (TCPF_WSCALE | TCPF_SACK | TCPF_TS), TCPF_WSCALE | TCPF_SACK);
	assert_int_equal(c->tcp.snd_wscale, s->tcp.rcv_wscale);
	assert_int_equal(c->tcp.mss, 65535 - 40);
	close_all(p, l, c, s);
}

/* Move `total` bytes from end `from` with writes of `wsize` and reads of `rsize`, verifying each byte. */
static void transfer(struct pair *p, int from, struct sock *tx, struct sock *rx, uint64_t total, size_t wsize,
		     size_t rsize)
{
	uint8_t *out = malloc(wsize), *in = malloc(rsize);
	uint64_t sent = 0, got = 0;
	int stuck = 0;

	while (got < total) {
		bool moved = false;
		ssize_t n = 0;

		while (sent < total) {
			size_t want = total - sent < wsize ? (size_t)(total - sent) : wsize;

			for (size_t i = 0; i < want; i++)
				out[i] = pattern(sent + i);
			n = pair_send(p, from, tx, out, want, 0);
			if (n < 0) {
				assert_int_equal(n, -EAGAIN);
				break;
			}
			sent += (uint64_t)n;
			moved = true;
		}
		pair_run(p);
		while ((n = pair_recv(p, !from, rx, in, rsize, 0)) > 0) {
			for (ssize_t i = 0; i < n; i++)
				if (in[i] != pattern(got + (uint64_t)i))
					fail_msg("byte %llu is wrong", (unsigned long long)got + (unsigned long long)i);
			got += (uint64_t)n;
			moved = true;
		}
		assert_int_equal(n, -EAGAIN);
		pair_run(p);
		if (!moved) {
			assert_true(++stuck < 20);
			pair_wait(p, 50 * MS); /* Nagle, delayed ACK */
		}
	}
	free(out);
	free(in);
}

static void bulk_data_arrives_unaltered_both_ways(void **state)
{
	struct pair *p = *state;
	struct sock *c, *s, *l = pair_open(p, &c, &s);
	uint64_t start = p->now;

	transfer(p, 0, c, s, 20 << 20, 65536, 65536);
	transfer(p, 1, s, c, 20 << 20, 100000, 9000);
	assert_true(p->now - start < 500 * MS); /* it never waited for a retransmission */
	assert_int_equal(p->e[0].s->counters[C_tcp_retrans], 0);
	assert_int_equal(p->e[1].s->counters[C_tcp_retrans], 0);
	close_all(p, l, c, s);
}

static void small_writes_with_nodelay_arrive_unaltered(void **state)
{
	struct pair *p = *state;
	struct sock *c, *s, *l = pair_open(p, &c, &s);

	tcp_set_nodelay(&p->e[0], c, true, p->now);
	transfer(p, 0, c, s, 300000, 1, 4096);
	transfer(p, 0, c, s, 3000000, 64, 65536);
	close_all(p, l, c, s);
}

static void a_reader_that_stands_still_stops_the_writer_and_then_gets_everything(void **state)
{
	struct pair *p = *state;
	struct sock *c, *s, *l = pair_open(p, &c, &s);
	uint8_t block[4096];
	uint64_t sent = 0, got = 0;
	ssize_t n;

	memset(block, 3, sizeof(block));
	for (int i = 0; i < 100; i++) {
		while ((n = pair_send(p, 0, c, block, sizeof(block), 0)) > 0)
			sent += (uint64_t)n;
		pair_run(p);
		pair_wait(p, 300 * MS);
	}
	assert_true(sent > 131072 && sent < 1 << 20);
	assert_true(s->rxq.bytes <= s->rcvbuf + 1024);
	while (got < sent) {
		n = pair_recv(p, 1, s, block, sizeof(block), 0);
		if (n > 0)
			got += (uint64_t)n;
		else
			pair_wait(p, 300 * MS);
		pair_run(p);
	}
	close_all(p, l, c, s);
}

static void half_close_leaves_the_other_direction_open(void **state)
{
	struct pair *p = *state;
	struct sock *c, *s, *l = pair_open(p, &c, &s);
	char buf[64];

	assert_int_equal(pair_send(p, 0, c, "last words", 10, 0), 10);
	assert_int_equal(tcp_shutdown(&p->e[0], c, 1, p->now), 0);
	pair_run(p);
	assert_int_equal(s->tcp.state, TCP_CLOSE_WAIT);
	assert_int_equal(tcp_poll(&p->e[1], s) & (EV_IN | EV_RDHUP | EV_HUP | EV_OUT), EV_IN | EV_RDHUP | EV_OUT);
	assert_int_equal(pair_recv(p, 1, s, buf, sizeof(buf), 0), 10);
	assert_int_equal(pair_recv(p, 1, s, buf, sizeof(buf), 0), 0);
	assert_int_equal(pair_send(p, 0, c, "x", 1, 0), -EPIPE);
	pair_wait(p, 50 * MS);
	assert_int_equal(c->tcp.state, TCP_FIN_WAIT_2);
	transfer(p, 1, s, c, 1 << 20, 30000, 50000);
	assert_int_equal(tcp_shutdown(&p->e[1], s, 1, p->now), 0);
	pair_run(p);
	assert_int_equal(pair_recv(p, 0, c, buf, sizeof(buf), 0), 0);
	assert_true(tcp_poll(&p->e[0], c) & EV_HUP);
	close_all(p, l, c, s);
}

static void connecting_where_nobody_listens_is_refused(void **state)
{
	struct pair *p = *state;
	struct sock *c = pair_connect(p, 0, 4000, 81);

	assert_int_equal(tcp_poll(&p->e[0], c) & (EV_IN | EV_OUT | EV_ERR), 0);
	pair_run(p);
	assert_int_equal(c->so_error, ECONNREFUSED);
	assert_int_equal(c->tcp.state, TCP_CLOSED);
	assert_int_equal(tcp_poll(&p->e[0], c) & (EV_OUT | EV_ERR | EV_HUP), EV_OUT | EV_ERR | EV_HUP);
	tcp_close(&p->e[0], c, p->now);
	assert_clean(p);
}

static void a_refused_socket_can_connect_again(void **state)
{
	struct pair *p = *state;
	struct sock *c = pair_connect(p, 0, 4000, 80), *l, *s;
	struct endpoint local = pair_addr(0, 4000), remote = pair_addr(1, 80);

	pair_run(p);
	assert_int_equal(c->so_error, ECONNREFUSED);
	l = pair_listen(p, 1, 80, 1);
	assert_int_equal(tcp_connect(&p->e[0], c, p->vnic[0], &local, &remote, p->now), 0);
	pair_run(p);
	assert_int_equal(c->so_error, 0);
	s = pair_accept(p, 1, l);
	assert_non_null(s);
	close_all(p, l, c, s);
}

static void closing_with_unread_data_resets_the_peer(void **state)
{
	struct pair *p = *state;
	struct sock *c, *s, *l = pair_open(p, &c, &s);
	char buf[8];

	assert_int_equal(pair_send(p, 0, c, "unread", 6, 0), 6);
	pair_run(p);
	tcp_close(&p->e[1], s, p->now);
	pair_run(p);
	assert_true(tcp_poll(&p->e[0], c) & EV_ERR);
	assert_int_equal(pair_recv(p, 0, c, buf, sizeof(buf), 0), -ECONNRESET);
	assert_int_equal(pair_recv(p, 0, c, buf, sizeof(buf), 0), 0);
	assert_int_equal(pair_send(p, 0, c, "x", 1, 0), -EPIPE);
	tcp_close(&p->e[0], c, p->now);
	tcp_close(&p->e[1], l, p->now);
	assert_clean(p);
}

static void writing_to_a_closed_peer_resets_the_connection(void **state)
{
	struct pair *p = *state;
	struct sock *c, *s, *l = pair_open(p, &c, &s);

	tcp_close(&p->e[1], s, p->now);
	pair_run(p);
	assert_int_equal(c->tcp.state, TCP_CLOSE_WAIT);
	assert_int_equal(pair_send(p, 0, c, "x", 1, 0), 1);
	pair_run(p);
	assert_int_equal(c->so_error, EPIPE); /* as Linux: reset in CLOSE-WAIT */
	assert_int_equal(pair_send(p, 0, c, "x", 1, 0), -EPIPE);
	tcp_close(&p->e[0], c, p->now);
	tcp_close(&p->e[1], l, p->now);
	assert_clean(p);
}

static void linger_zero_resets(void **state)
{
	struct pair *p = *state;
	struct sock *c, *s, *l = pair_open(p, &c, &s);
	char buf[8];

	c->flags |= SOCKF_LINGER;
	c->linger_s = 0;
	tcp_close(&p->e[0], c, p->now);
	pair_run(p);
	assert_int_equal(pair_recv(p, 1, s, buf, sizeof(buf), 0), -ECONNRESET);
	tcp_close(&p->e[1], s, p->now);
	tcp_close(&p->e[1], l, p->now);
	assert_clean(p);
}

static void the_same_port_connects_again_at_once(void **state)
{
	struct pair *p = *state;
	struct sock *l = pair_listen(p, 1, 80, 8);

	for (int i = 0; i < 2000; i++) {
		struct sock *c = pair_connect(p, 0, 4000, 80), *s;

		pair_run(p);
		s = pair_accept(p, 1, l);
		assert_non_null(s);
		assert_int_equal(pair_send(p, 0, c, "q", 1, 0), 1);
		if (i & 1) { /* either side may be the first to close */
			tcp_close(&p->e[0], c, p->now);
			pair_run(p);
			assert_int_equal(pair_recv(p, 1, s, &(char){0}, 1, 0), 1);
			tcp_close(&p->e[1], s, p->now);
		} else {
			pair_run(p);
			assert_int_equal(pair_recv(p, 1, s, &(char){0}, 1, 0), 1);
			tcp_close(&p->e[1], s, p->now);
			pair_run(p);
			tcp_close(&p->e[0], c, p->now);
		}
		pair_run(p);
	}
	tcp_close(&p->e[1], l, p->now);
	assert_clean(p);
	assert_int_equal(p->e[0].s->sock_pool.in_use, 0);
	assert_int_equal(p->e[1].s->sock_pool.in_use, 0);
}

static void urgent_data_is_one_byte_read_out_of_band(void **state)
{
	struct pair *p = *state;
	struct sock *c, *s, *l = pair_open(p, &c, &s);
	char buf[16];

	assert_int_equal(pair_send(p, 0, c, "abc", 3, 0), 3);
	assert_int_equal(pair_send(p, 0, c, "de!", 3, TCP_F_OOB), 3);
	assert_int_equal(pair_send(p, 0, c, "fg", 2, 0), 2);
	pair_wait(p, 300 * MS);
	assert_true(tcp_poll(&p->e[1], s) & EV_PRI);
	assert_false(tcp_atmark(&p->e[1], s));
	assert_int_equal(pair_recv(p, 1, s, buf, sizeof(buf), 0), 5); /* stops at the mark */
	assert_memory_equal(buf, "abcde", 5);
	assert_true(tcp_atmark(&p->e[1], s));
	assert_int_equal(pair_recv(p, 1, s, buf, 1, TCP_F_OOB), 1);
	assert_int_equal(buf[0], '!');
	assert_int_equal(pair_recv(p, 1, s, buf, 1, TCP_F_OOB), -EINVAL);
	assert_int_equal(pair_recv(p, 1, s, buf, sizeof(buf), 0), 2);
	assert_memory_equal(buf, "fg", 2);
	close_all(p, l, c, s);
}

static void peek_leaves_the_bytes_and_trunc_discards_them(void **state)
{
	struct pair *p = *state;
	struct sock *c, *s, *l = pair_open(p, &c, &s);
	char buf[16];

	assert_int_equal(pair_send(p, 0, c, "0123456789", 10, 0), 10);
	pair_run(p);
	assert_int_equal(pair_recv(p, 1, s, buf, 4, TCP_F_PEEK), 4);
	assert_int_equal(pair_recv(p, 1, s, buf, 16, TCP_F_PEEK), 10);
	assert_memory_equal(buf, "0123456789", 10);
	assert_int_equal(pair_recv(p, 1, s, NULL, 3, TCP_F_TRUNC), 3);
	assert_int_equal(pair_recv(p, 1, s, buf, 16, 0), 7);
	assert_memory_equal(buf, "3456789", 7);
	close_all(p, l, c, s);
}

static void closing_a_listener_resets_its_children(void **state)
{
	struct pair *p = *state;
	struct sock *l = pair_listen(p, 1, 80, 8), *c = pair_connect(p, 0, 4000, 80);

	pair_run(p);
	assert_int_equal(c->tcp.state, TCP_ESTABLISHED);
	tcp_close(&p->e[1], l, p->now);
	pair_run(p);
	assert_int_equal(c->so_error, ECONNRESET);
	tcp_close(&p->e[0], c, p->now);
	assert_clean(p);
	assert_int_equal(p->e[1].s->sock_pool.in_use, 0);
}

/* A forked process has the stack, but not the wire: it can send no SYN-ACK again, and must not count it as sent. */
static void who_waits_for_a_full_queue_is_not_forgotten_by_a_process_without_the_wire(void **state)
{
	struct pair *p = *state;
	struct sock *l = pair_listen(p, 1, 80, 0), *c[2], *s;
	struct engine *relative = calloc(1, sizeof(*relative));

	for (int i = 0; i < 2; i++)
		c[i] = pair_connect(p, 0, (uint16_t)(4000 + i), 80);
	pair_run(p);
	assert_int_equal(l->tcp.embryo_count,
			 1); /* its client believes it is connected, and waits for our first word */
	assert_int_equal(c[1]->tcp.state, TCP_ESTABLISHED);
	engine_attach(relative, p->e[1].s);
	for (int i = 0; i < 300; i++) {
		p->now += SECOND;
		engine_tick(relative, p->now);
	}
	assert_int_equal(l->tcp.embryo_count, 1);
	for (int i = 0; i < 2; i++) {
		s = pair_accept(p, 1, l);
		assert_non_null(s);
		tcp_close(&p->e[1], s, p->now);
		pair_wait(p, SECOND);
		tcp_close(&p->e[0], c[i], p->now);
	}
	tcp_close(&p->e[1], l, p->now);
	assert_clean(p);
	free(relative);
}

static void a_full_accept_queue_holds_back_and_then_lets_in(void **state)
{
	struct pair *p = *state;
	struct sock *l = pair_listen(p, 1, 80, 1), *c[6], *s;
	int accepted = 0;

	for (int i = 0; i < 6; i++) {
		c[i] = pair_connect(p, 0, (uint16_t)(4000 + i), 80);
		pair_run(p);
	}
	assert_int_equal(tcp_accept_pending(&p->e[1], l), 2); /* backlog + 1 */
	for (int turn = 0; turn < 40 && accepted < 6; turn++) {
		while ((s = pair_accept(p, 1, l))) {
			accepted++;
			tcp_close(&p->e[1], s, p->now);
		}
		pair_wait(p, SECOND);
	}
	assert_int_equal(accepted, 6);
	for (int i = 0; i < 6; i++)
		tcp_close(&p->e[0], c[i], p->now);
	pair_run(p);
	tcp_close(&p->e[1], l, p->now);
	assert_clean(p);
}

static void a_ping_pong_carries_its_acks_with_the_data(void **state)
{
	struct pair *p = *state;
	struct sock *c, *s, *l = pair_open(p, &c, &s);
	uint64_t before = 0;
	char buf[64] = {0};

	for (int i = 0; i < 1100; i++) {
		if (i == 100)
			before = c->tcp.segs_out + s->tcp.segs_out;
		p->now += 1;
		assert_int_equal(pair_send(p, 0, c, buf, 64, 0), 64);
		pair_run(p);
		assert_int_equal(pair_recv(p, 1, s, buf, 64, 0), 64);
		assert_int_equal(pair_send(p, 1, s, buf, 64, 0), 64);
		pair_run(p);
		assert_int_equal(pair_recv(p, 0, c, buf, 64, 0), 64);
	}
	assert_int_equal(c->tcp.segs_out + s->tcp.segs_out - before, 2000);
	close_all(p, l, c, s);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
	    T(a_connection_opens_carries_a_message_each_way_and_closes),
	    T(window_scale_and_sack_are_negotiated_and_timestamps_are_not_on_a_wire),
	    T(bulk_data_arrives_unaltered_both_ways),
	    T(small_writes_with_nodelay_arrive_unaltered),
	    T(a_reader_that_stands_still_stops_the_writer_and_then_gets_everything),
	    T(half_close_leaves_the_other_direction_open),
	    T(connecting_where_nobody_listens_is_refused),
	    T(a_refused_socket_can_connect_again),
	    T(closing_with_unread_data_resets_the_peer),
	    T(writing_to_a_closed_peer_resets_the_connection),
	    T(linger_zero_resets),
	    T(the_same_port_connects_again_at_once),
	    T(urgent_data_is_one_byte_read_out_of_band),
	    T(peek_leaves_the_bytes_and_trunc_discards_them),
	    T(closing_a_listener_resets_its_children),
	    T(who_waits_for_a_full_queue_is_not_forgotten_by_a_process_without_the_wire),
	    T(a_full_accept_queue_holds_back_and_then_lets_in),
	    T(a_ping_pong_carries_its_acks_with_the_data),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
