/* SPDX-License-Identifier: BSD-2-Clause */
/* Opening at once over a wire: what is promised is kept, and nobody gets more than that. */
#include "pair.h"

#include <errno.h>

#include "engine/tcp_open.h"

#define COUNTED(p, end, name) ((p)->e[end].s->counters[C_##name])

static struct pair *make(void)
{
	struct stack_config cfg = test_config();

	return pair_new(&cfg);
}

/* A listener to which one connection was made, and accepted, in the usual way: from now on it offers. */
static struct sock *offering(struct pair *p, int backlog, struct sock **c, struct sock **s)
{
	struct sock *l = pair_listen(p, 1, 80, backlog);

	*c = pair_connect(p, 0, 4000, 80);
	assert_int_equal((*c)->tcp.state, TCP_SYN_SENT);
	pair_run(p);
	*s = pair_accept(p, 1, l);
	assert_non_null(*s);
	return l;
}

static uint32_t left(struct pair *p)
{
	return p->e[0].vnic[p->vnic[0]].peer_ctrl->open_limit - stack_vnic(p->e[0].s, p->vnic[0])->open_used;
}

static void talk(struct pair *p, struct sock *c, struct sock *s)
{
	char text[4096], got[4096];

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i * 7);
	for (int end = 0; end < 2; end++) {
		struct sock *from = end ? s : c, *to = end ? c : s;
		size_t done = 0;

		assert_int_equal(pair_send(p, end, from, text, sizeof(text), 0), sizeof(text));
		for (int turn = 0; done < sizeof(text) && turn < 10; turn++) {
			ssize_t n;

			pair_run(p);
			n = pair_recv(p, !end, to, got + done, sizeof(got) - done, 0);
			done += n > 0 ? (size_t)n : 0;
			tcp_flush_acks(&p->e[!end]);
		}
		assert_int_equal(done, sizeof(text));
		assert_memory_equal(text, got, sizeof(text));
	}
}

static void close_both(struct pair *p, struct sock *c, struct sock *s)
{
	tcp_close(&p->e[0], c, p->now);
	tcp_close(&p->e[1], s, p->now);
	pair_run(p);
}

static void the_first_connection_waits_and_the_next_does_not(void **state)
{
	struct pair *p = make();
	struct sock *c[2], *s[2], *l = offering(p, 64, &c[0], &s[0]);

	(void)state;
	c[1] = pair_connect(p, 0, 4001, 80);
	assert_int_equal(c[1]->tcp.state, TCP_ESTABLISHED);
	assert_int_equal(pair_send(p, 0, c[1], "hello", 5, 0), 5);
	pair_run(p);
	s[1] = pair_accept(p, 1, l);
	assert_non_null(s[1]);
	assert_int_equal(s[1]->remote.port, 4001);
	assert_int_equal(tcp_inq(&p->e[1], s[1]), 5);
	assert_int_equal(pair_recv(p, 1, s[1], (char[5]){0}, 5, 0), 5);
	assert_int_equal(COUNTED(p, 0, tcp_opened_at_once), 1);
	assert_int_equal(c[1]->tcp.snd_wscale, s[1]->tcp.rcv_wscale);
	assert_int_equal(c[1]->tcp.rcv_wscale, s[1]->tcp.snd_wscale);
	assert_int_equal(c[1]->tcp.mss, c[0]->tcp.mss);
	for (int i = 0; i < 2; i++)
		talk(p, c[i], s[i]);
	for (int i = 0; i < 2; i++)
		close_both(p, c[i], s[i]);
	assert_clean(p);
	pair_free(p);
}

static void no_more_is_offered_than_a_quarter_of_the_backlog(void **state)
{
	struct pair *p = make();
	struct sock *c, *s, *l = offering(p, 8, &c, &s);

	(void)state;
	assert_int_equal(left(p), 2);
	assert_int_equal(pair_connect(p, 0, 4001, 80)->tcp.state, TCP_ESTABLISHED);
	assert_int_equal(pair_connect(p, 0, 4002, 80)->tcp.state, TCP_ESTABLISHED);
	assert_int_equal(pair_connect(p, 0, 4003, 80)->tcp.state, TCP_SYN_SENT);
	pair_run(p);
	assert_int_equal(left(p), 0); /* three wait to be accepted */
	assert_int_equal(tcp_accept_pending(&p->e[1], l), 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pair_accept(p, 1, l)->remote.port, 4001 + i);
	assert_int_equal(left(p), 2);
	pair_free(p);
}

static void a_small_backlog_offers_nothing(void **state)
{
	struct pair *p = make();
	struct sock *c, *s;

	(void)state;
	offering(p, 3, &c, &s);
	assert_int_equal(left(p), 0);
	assert_int_equal(pair_connect(p, 0, 4001, 80)->tcp.state, TCP_SYN_SENT);
	pair_free(p);
}

static void a_listener_that_defers_accept_offers_nothing(void **state)
{
	struct pair *p = make();
	struct sock *c, *l = pair_listen(p, 1, 80, 64);

	(void)state;
	l->tcp.defer_accept_s = 5;
	c = pair_connect(p, 0, 4000, 80);
	pair_run(p);
	assert_int_equal(pair_send(p, 0, c, "x", 1, 0), 1);
	pair_run(p);
	assert_non_null(pair_accept(p, 1, l));
	assert_int_equal(left(p), 0);
	pair_free(p);
}

static void places_that_are_offered_count_as_taken(void **state)
{
	struct pair *p = make();
	struct sock *c, *s, *l = offering(p, 8, &c, &s);
	uint32_t most = 0;

	(void)state;
	for (uint16_t i = 0; i < 20; i++) {
		pair_connect(p, 0, (uint16_t)(5000 + i), 80);
		pair_run(p);
		if (l->tcp.accept_count > most)
			most = l->tcp.accept_count;
		assert_true(l->tcp.accept_count + l->tcp.open_offered <= l->tcp.backlog + 1);
	}
	assert_int_equal(most, 9);
	pair_free(p);
}

static void a_listener_that_closes_resets_who_had_opened(void **state)
{
	struct pair *p = make();
	struct sock *c, *s, *l = offering(p, 64, &c, &s), *late = pair_connect(p, 0, 4001, 80);

	(void)state;
	assert_int_equal(late->tcp.state, TCP_ESTABLISHED);
	tcp_close(&p->e[1], l, p->now);
	assert_int_equal(left(p), 0xffffffffu); /* one more was used than it stands by */
	pair_run(p);
	assert_int_equal(late->tcp.state, TCP_CLOSED);
	assert_int_equal(late->so_error, ECONNRESET);
	assert_int_equal(COUNTED(p, 1, tcp_open_refused), 1);
	late = pair_connect(p, 0, 4002, 80);
	assert_int_equal(late->tcp.state, TCP_SYN_SENT);
	pair_run(p);
	assert_int_equal(late->so_error, ECONNREFUSED);
	pair_free(p);
}

static void the_next_listener_offers_anew(void **state)
{
	struct pair *p = make();
	struct sock *c, *s, *l = offering(p, 64, &c, &s);

	(void)state;
	pair_connect(p, 0, 4001, 80);
	tcp_close(&p->e[1], l, p->now);
	pair_run(p);
	l = pair_listen(p, 1, 80, 64);
	c = pair_connect(p, 0, 4002, 80);
	pair_run(p);
	s = pair_accept(p, 1, l);
	assert_non_null(s);
	talk(p, c, s);
	c = pair_connect(p, 0, 4003, 80);
	assert_int_equal(c->tcp.state, TCP_ESTABLISHED);
	pair_run(p);
	assert_non_null(pair_accept(p, 1, l));
	pair_free(p);
}

static void who_takes_more_than_was_offered_is_refused(void **state)
{
	struct pair *p = make();
	struct sock *c, *s, *l = offering(p, 8, &c, &s), *k[6];

	(void)state;
	for (uint16_t i = 0; i < 6; i++) {
		p->e[1].vnic[p->vnic[1]].ctrl->open_limit += i >= 2; /* a client that does not care */
		k[i] = pair_connect(p, 0, (uint16_t)(4001 + i), 80);
		assert_int_equal(k[i]->tcp.state, TCP_ESTABLISHED);
	}
	pair_run(p);
	assert_int_equal(tcp_accept_pending(&p->e[1], l), 2);
	for (int i = 0; i < 6; i++)
		assert_int_equal(k[i]->so_error, i < 2 ? 0 : ECONNRESET);
	assert_int_equal(l->tcp.open_offered, 0);
	pair_free(p);
}

static void an_offer_for_another_address_or_port_is_not_taken(void **state)
{
	struct pair *p = make();
	struct sock *c, *s;
	struct vnic_ctrl *ctrl = p->e[1].vnic[p->vnic[1]].ctrl;

	(void)state;
	offering(p, 64, &c, &s);
	assert_int_equal(pair_connect(p, 0, 4001, 81)->tcp.state, TCP_SYN_SENT);
	ctrl->open_addr[15] ^= 1;
	assert_int_equal(pair_connect(p, 0, 4002, 80)->tcp.state, TCP_SYN_SENT);
	ctrl->open_addr[15] ^= 1;
	ctrl->open_limit += 1000; /* nor one that can't be meant */
	assert_int_equal(pair_connect(p, 0, 4003, 80)->tcp.state, TCP_SYN_SENT);
	pair_free(p);
}

/* Two wires to one process, where the later one is looked at first. */
static void what_opens_over_another_wire_does_not_overtake(void **state)
{
	struct pair *p = make();
	void *wire = test_wire_new(NULL);
	uint32_t second[2] = {test_wire_join(wire, 0, &p->e[0]), test_wire_join(wire, 1, &p->e[1])}, first = p->vnic[0];
	struct sock *c, *s, *l = offering(p, 64, &c, &s), *other = pair_listen(p, 1, 81, 64);

	(void)state;
	p->vnic[0] = second[0];
	pair_connect(p, 0, 4000, 81);
	pair_run(p);
	assert_non_null(pair_accept(p, 1, other));
	assert_int_equal(pair_connect(p, 0, 4001, 81)->tcp.state, TCP_ESTABLISHED);
	p->vnic[0] = first;
	assert_int_equal(pair_connect(p, 0, 4002, 80)->tcp.state, TCP_SYN_SENT);
	pair_run(p);
	assert_int_equal(pair_connect(p, 0, 4003, 80)->tcp.state, TCP_ESTABLISHED);
	pair_run(p);
	for (int i = 0; i < 2; i++)
		assert_non_null(pair_accept(p, 1, l));
	pair_free(p);
	test_wire_free(wire);
}

/* The client has given its connection up and takes the port again; the server's end still stands. */
static void a_connection_of_the_same_name_gives_way(void **state)
{
	struct pair *p = make();
	struct sock *c, *s, *l = offering(p, 64, &c, &s), *again;

	(void)state;
	sock_unhash(p->e[0].s, c);
	again = pair_connect(p, 0, 4000, 80);
	assert_int_equal(again->tcp.state, TCP_ESTABLISHED);
	pair_run(p);
	assert_int_equal(s->so_error, ECONNRESET);
	s = pair_accept(p, 1, l);
	assert_non_null(s);
	talk(p, again, s);
	pair_free(p);
}

static void a_dead_wire_resets_who_was_never_heard_of(void **state)
{
	struct pair *p = make();
	struct sock *c, *s, *late, *l = offering(p, 64, &c, &s);

	(void)state;
	late = pair_connect(p, 0, 4001, 80);
	engine_vnic_dead(&p->e[0], p->vnic[0], p->now);
	assert_int_equal(late->so_error, ECONNRESET);
	assert_int_equal(c->so_error, 0);
	assert_true(l->tcp.open_offered > 0);
	engine_vnic_dead(&p->e[1], p->vnic[1], p->now);
	assert_int_equal(l->tcp.open_offered, 0);
	pair_free(p);
}

static void without_a_buffer_for_the_syn_nothing_opens(void **state)
{
	struct pair *p = make();
	struct vnic_state *st = stack_vnic(p->e[0].s, p->vnic[0]);
	struct sock *c, *s, *l = offering(p, 64, &c, &s);
	uint32_t free_top = st->free_top, before = left(p);

	(void)state;
	st->free_top = 0;
	c = pair_connect(p, 0, 4001, 80);
	st->free_top = free_top;
	assert_int_equal(c->tcp.state, TCP_SYN_SENT);
	assert_int_equal(left(p), before);
	pair_wait(p, 2 * SECOND);
	assert_int_equal(c->tcp.state, TCP_ESTABLISHED);
	assert_non_null(pair_accept(p, 1, l));
	pair_free(p);
}

static void a_socket_is_kept_for_each_that_is_offered(void **state)
{
	struct pair *p = make();
	struct sock *c, *s, *l = offering(p, 64, &c, &s);
	uint32_t offer = left(p), taken = 0;

	(void)state;
	assert_int_not_equal(offer, 0);
	while (sock_alloc(&p->e[1], SOCK_UDP, 4))
		taken++;
	assert_int_not_equal(taken, 0);
	for (uint32_t i = 0; i < offer; i++)
		assert_int_equal(pair_connect(p, 0, (uint16_t)(4001 + i), 80)->tcp.state, TCP_ESTABLISHED);
	pair_run(p);
	assert_int_equal(COUNTED(p, 1, tcp_open_refused), 0);
	assert_int_equal(tcp_accept_pending(&p->e[1], l), offer);
	assert_int_equal(left(p), 0); /* nothing is offered that is not there */
	pair_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_first_connection_waits_and_the_next_does_not),
	    cmocka_unit_test(no_more_is_offered_than_a_quarter_of_the_backlog),
	    cmocka_unit_test(a_small_backlog_offers_nothing),
	    cmocka_unit_test(a_listener_that_defers_accept_offers_nothing),
	    cmocka_unit_test(places_that_are_offered_count_as_taken),
	    cmocka_unit_test(a_listener_that_closes_resets_who_had_opened),
	    cmocka_unit_test(the_next_listener_offers_anew),
	    cmocka_unit_test(who_takes_more_than_was_offered_is_refused),
	    cmocka_unit_test(an_offer_for_another_address_or_port_is_not_taken),
	    cmocka_unit_test(what_opens_over_another_wire_does_not_overtake),
	    cmocka_unit_test(a_connection_of_the_same_name_gives_way),
	    cmocka_unit_test(a_dead_wire_resets_who_was_never_heard_of),
	    cmocka_unit_test(without_a_buffer_for_the_syn_nothing_opens),
	    cmocka_unit_test(a_socket_is_kept_for_each_that_is_offered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
