/* SPDX-License-Identifier: BSD-2-Clause */
/* ACKs that wait until the program has answered, or has nothing to do, where whoever runs the engine tells it so. */
#include "peer.h"

static struct peer *flushing(struct sock **k)
{
	struct peer *p = peer_new();

	p->e.flushes = true;
	*k = peer_open(p, peer_listen(p, 8), true, false);
	p->outs = 0;
	return p;
}

static void a_requests_ack_goes_with_the_answer(void **state)
{
	struct sock *k;
	struct peer *p = flushing(&k);

	(void)state;
	peer_data(p, TH_ACK | TH_PSH, 100);
	assert_int_equal(peer_read(p, k, p->seq - 100, 1000), 100);
	assert_int_equal(p->outs, 0);
	assert_int_equal(peer_write(p, k, 10), 10);
	assert_int_equal(p->outs, 1);
	assert_int_equal(peer_last(p)->ack, p->seq);
	tcp_flush_acks(&p->e);
	assert_int_equal(p->outs, 1);
	peer_free(p);
}

static void a_program_that_has_nothing_to_say_acknowledges_when_it_waits(void **state)
{
	struct sock *k;
	struct peer *p = flushing(&k);

	(void)state;
	peer_data(p, TH_ACK | TH_PSH, 100);
	tcp_flush_acks(&p->e);
	assert_int_equal(p->outs, 1);
	assert_int_equal(peer_last(p)->ack, p->seq);
	assert_int_equal(peer_last(p)->len, 0);
	peer_free(p);
}

static void a_program_that_does_not_come_back_acknowledges_by_the_timer(void **state)
{
	struct sock *k;
	struct peer *p = flushing(&k);

	(void)state;
	peer_data(p, TH_ACK | TH_PSH, 100);
	assert_int_equal(p->outs, 0);
	peer_wait(p, 50 * MS);
	assert_int_equal(p->outs, 1);
	assert_int_equal(peer_last(p)->ack, p->seq);
	peer_free(p);
}

static void full_segments_are_acknowledged_at_once(void **state)
{
	struct sock *k;
	struct peer *p = flushing(&k);

	(void)state;
	peer_data(p, TH_ACK, 1460);
	peer_data(p, TH_ACK, 1460);
	assert_true(p->outs > 0);
	assert_int_equal(peer_last(p)->ack, p->seq);
	peer_free(p);
}

static void the_ack_of_an_end_goes_with_ours(void **state)
{
	struct sock *k;
	struct peer *p = flushing(&k);

	(void)state;
	peer_data(p, TH_ACK | TH_PSH | TH_FIN, 100);
	assert_int_equal(peer_read(p, k, p->seq - 101, 1000), 100);
	assert_int_equal(p->outs, 0);
	k->holders = 0;
	tcp_close(&p->e, k, p->e.s->now_us);
	assert_int_equal(p->outs, 1);
	assert_int_equal(peer_last(p)->flags & (TH_FIN | TH_ACK), TH_FIN | TH_ACK);
	assert_int_equal(peer_last(p)->ack, p->seq);
	peer_free(p);
}

static void a_socket_that_begins_anew_is_in_the_list_once(void **state)
{
	struct sock *k, *first;
	struct peer *p = flushing(&first);

	(void)state;
	k = first;
	peer_data(p, TH_ACK | TH_PSH, 100);
	assert_int_equal(p->e.s->ack_soon, sock_index(p->e.s, k));
	tcp_disconnect(&p->e, k, p->e.s->now_us);
	assert_int_equal(p->e.s->ack_soon, 0);
	assert_int_equal(k->so_error, ECONNRESET);
	assert_int_equal(k->remote.port, 0);
	tcp_ack_soon(p->e.s, k);
	tcp_ack_soon(p->e.s, k);
	assert_int_equal(k->tcp.ack_soon_next, 0);
	peer_free(p);
}

static void without_that_a_first_request_is_acknowledged_at_once(void **state)
{
	struct sock *k;
	struct peer *p = flushing(&k);

	(void)state;
	p->e.flushes = false;
	peer_data(p, TH_ACK | TH_PSH, 100);
	assert_int_equal(p->outs, 1);
	peer_free(p);
}

/* The peer's answer to our SYN. */
static struct sock *connecting(struct peer *p)
{
	struct endpoint local = peer_addr(1, PORT), remote = peer_addr(2, PEER_PORT);
	struct sock *k = sock_alloc(&p->e, SOCK_TCP, 4);

	k->holders = 1;
	assert_int_equal(tcp_connect(&p->e, k, p->vnic, &local, &remote, p->e.s->now_us), 0);
	p->ack = peer_last(p)->seq + 1;
	peer_opt_syn(p, true, true, false);
	peer_send(p, 0, TH_SYN | TH_ACK, 0);
	p->opts_len = 0;
	p->seq++;
	assert_int_equal(k->tcp.state, TCP_ESTABLISHED);
	return k;
}

static void the_handshakes_last_ack_goes_with_the_first_request(void **state)
{
	struct peer *p = peer_new();
	struct sock *k;

	(void)state;
	p->e.flushes = true;
	k = connecting(p);
	assert_int_equal(p->outs, 1);
	assert_int_equal(peer_write(p, k, 10), 10);
	assert_int_equal(p->outs, 2);
	assert_int_equal(peer_last(p)->len, 10);
	assert_int_equal(peer_last(p)->ack, p->seq);
	peer_free(p);
}

static void a_client_that_lets_the_server_speak_completes_the_handshake_when_it_waits(void **state)
{
	struct peer *p = peer_new();

	(void)state;
	p->e.flushes = true;
	connecting(p);
	tcp_flush_acks(&p->e);
	assert_int_equal(p->outs, 2);
	assert_int_equal(peer_last(p)->ack, p->seq);
	peer_free(p);
}

static void one_that_does_not_wait_completes_it_by_the_timer(void **state)
{
	struct peer *p = peer_new();

	(void)state;
	p->e.flushes = true;
	connecting(p);
	peer_wait(p, 50 * MS);
	assert_int_equal(p->outs, 2);
	peer_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_requests_ack_goes_with_the_answer),
	    cmocka_unit_test(a_program_that_has_nothing_to_say_acknowledges_when_it_waits),
	    cmocka_unit_test(a_program_that_does_not_come_back_acknowledges_by_the_timer),
	    cmocka_unit_test(full_segments_are_acknowledged_at_once),
	    cmocka_unit_test(the_ack_of_an_end_goes_with_ours),
	    cmocka_unit_test(a_socket_that_begins_anew_is_in_the_list_once),
	    cmocka_unit_test(without_that_a_first_request_is_acknowledged_at_once),
	    cmocka_unit_test(the_handshakes_last_ack_goes_with_the_first_request),
	    cmocka_unit_test(a_client_that_lets_the_server_speak_completes_the_handshake_when_it_waits),
	    cmocka_unit_test(one_that_does_not_wait_completes_it_by_the_timer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
