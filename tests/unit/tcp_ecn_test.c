/* SPDX-License-Identifier: BSD-2-Clause */
/* Explicit congestion notification (RFC 3168): who asks and answers, what is marked, and what a mark does. */
#include "peer.h"

#define ECN_SYN (TH_SYN | TH_ECE | TH_CWR)
#define MSS 1460u

static struct peer *peer_with(uint32_t use, uint32_t features)
{
	struct stack_config c = peer_config();

	c.defaults.ecn = use;
	return peer_new_with(&c, features);
}

/* The flags of our answer to a SYN with these. */
static uint8_t answer_to(uint32_t use, uint32_t features, uint8_t syn, uint8_t tos)
{
	struct peer *p = peer_with(use, features);
	struct sock *l = peer_listen(p, 4);
	uint8_t flags;

	peer_opt_syn(p, true, true, false);
	p->tos = tos;
	peer_send(p, 0, syn, 0);
	flags = peer_last(p)->flags;
	assert_int_equal(peer_last(p)->tos, 0);
	tcp_close(&p->e, l, p->e.s->now_us);
	peer_free(p);
	return flags;
}

static void a_syn_that_asks_is_answered(void **state)
{
	(void)state;
	assert_int_equal(answer_to(TCP_ECN_ANSWER, 0, ECN_SYN, 0), TH_SYN | TH_ACK | TH_ECE);
	assert_int_equal(answer_to(TCP_ECN_ASK, 0, ECN_SYN, 0), TH_SYN | TH_ACK | TH_ECE);
	assert_int_equal(answer_to(TCP_ECN_NEVER, 0, ECN_SYN, 0), TH_SYN | TH_ACK);
	assert_int_equal(answer_to(TCP_ECN_ANSWER, 0, TH_SYN, 0), TH_SYN | TH_ACK);
	assert_int_equal(answer_to(TCP_ECN_ANSWER, 0, TH_SYN | TH_ECE, 0), TH_SYN | TH_ACK);
	assert_int_equal(answer_to(TCP_ECN_ANSWER, 0, TH_SYN | TH_CWR, 0), TH_SYN | TH_ACK);
}

static void a_syn_with_ect_is_taken_for_mangled(void **state)
{
	(void)state;
	for (uint8_t tos = 1; tos < 4; tos++)
		assert_int_equal(answer_to(TCP_ECN_ANSWER, 0, ECN_SYN, tos), TH_SYN | TH_ACK);
}

static void a_lossless_vnic_has_nothing_to_mark(void **state)
{
	(void)state;
	assert_int_equal(answer_to(TCP_ECN_ANSWER, VNIC_FEAT_LOSSLESS, ECN_SYN, 0), TH_SYN | TH_ACK);
}

static struct sock *connecting(struct peer *p)
{
	struct sock *k = sock_alloc(&p->e, SOCK_TCP, 4);
	struct endpoint local = peer_addr(1, PORT), remote = peer_addr(2, PEER_PORT);

	k->holders = 1;
	assert_int_equal(tcp_connect(&p->e, k, p->vnic, &local, &remote, p->e.s->now_us), 0);
	return k;
}

static void our_syn_asks_only_where_it_was_told_to(void **state)
{
	struct peer *p = peer_new();

	(void)state;
	connecting(p);
	assert_int_equal(peer_last(p)->flags, TH_SYN);
	peer_free(p);
	p = peer_with(TCP_ECN_ASK, VNIC_FEAT_LOSSLESS);
	connecting(p);
	assert_int_equal(peer_last(p)->flags, TH_SYN);
	peer_free(p);
}

/* The peer's SYN-ACK has these flags, too. Is it agreed on? */
static bool agreed_on(uint8_t flags, bool repeated)
{
	struct peer *p = peer_with(TCP_ECN_ASK, 0);
	struct sock *k = connecting(p);
	bool yes;

	assert_int_equal(peer_last(p)->flags, ECN_SYN);
	assert_int_equal(peer_last(p)->tos, 0);
	if (repeated) {
		peer_wait(p, 1100 * MS);
		assert_int_equal(peer_last(p)->flags, TH_SYN); /* perhaps such SYNs are dropped */
	}
	peer_opt_syn(p, true, true, false);
	peer_raw(p, PEER_PORT, PORT, PEER_ISS, peer_last(p)->seq + 1, TH_SYN | TH_ACK | flags, 0, 0);
	assert_int_equal(k->tcp.state, TCP_ESTABLISHED);
	yes = k->tcp.flags & TCPF_ECN;
	peer_free(p);
	return yes;
}

static void the_answer_to_our_syn_decides(void **state)
{
	(void)state;
	assert_true(agreed_on(TH_ECE, false));
	assert_true(agreed_on(TH_ECE, true)); /* of the first SYN */
	assert_false(agreed_on(0, false));
	assert_false(agreed_on(TH_ECE | TH_CWR, false)); /* a reflection */
	assert_false(agreed_on(TH_CWR, false));
}

static void what_nobody_asked_for_is_not_agreed_on(void **state)
{
	struct peer *p = peer_new();
	struct sock *k = connecting(p);

	(void)state;
	peer_opt_syn(p, true, true, false);
	peer_raw(p, PEER_PORT, PORT, PEER_ISS, peer_last(p)->seq + 1, TH_SYN | TH_ACK | TH_ECE, 0, 0);
	assert_false(k->tcp.flags & TCPF_ECN);
	peer_free(p);
}

static void both_ask_at_once(void **state)
{
	struct peer *p = peer_with(TCP_ECN_ASK, 0);
	struct sock *k = connecting(p);

	(void)state;
	peer_opt_syn(p, true, true, false);
	peer_raw(p, PEER_PORT, PORT, PEER_ISS, 0, ECN_SYN, 0, 0);
	assert_int_equal(peer_last(p)->flags, TH_SYN | TH_ACK | TH_ECE);
	assert_true(k->tcp.flags & TCPF_ECN);
	peer_free(p);
}

/* An open connection that has agreed on it. */
static struct sock *open_ecn(struct peer *p)
{
	struct sock *l = peer_listen(p, 4);
	int i;

	peer_opt_syn(p, true, true, false);
	peer_send(p, 0, ECN_SYN, 0);
	p->seq++;
	p->ack = peer_last(p)->seq + 1;
	p->opts_len = 0;
	peer_send(p, 0, TH_ACK, 0);
	i = tcp_accept(&p->e, l);
	assert_true(i > 0);
	sock_at(p->e.s, (uint32_t)i)->holders = 1;
	assert_true(sock_at(p->e.s, (uint32_t)i)->tcp.flags & TCPF_ECN);
	return sock_at(p->e.s, (uint32_t)i);
}

static void data_from_peer(struct peer *p, uint8_t tos, uint8_t flags, uint32_t len)
{
	p->tos = tos;
	peer_data(p, TH_ACK | flags, len);
	p->tos = 0;
}

static void a_mark_is_echoed_until_the_peer_says_cwr(void **state)
{
	struct peer *p = peer_new();
	struct sock *k = open_ecn(p);
	uint32_t outs;

	(void)state;
	data_from_peer(p, TOS_ECT0, 0, 100);
	peer_wait(p, 100 * MS);
	assert_int_equal(peer_last(p)->flags, TH_ACK);
	outs = p->outs;
	k->tcp.quick_acks = 0;
	data_from_peer(p, TOS_CE, 0, 100);
	assert_int_equal(p->outs, outs + 1); /* at once */
	assert_int_equal(peer_last(p)->flags, TH_ACK | TH_ECE);
	data_from_peer(p, TOS_ECT0, 0, 100);
	peer_wait(p, 100 * MS);
	assert_int_equal(peer_last(p)->flags, TH_ACK | TH_ECE);
	peer_write(p, k, 10);
	assert_true(peer_last(p)->len == 10 && peer_last(p)->flags & TH_ECE); /* data says it, too */
	data_from_peer(p, TOS_ECT0, TH_CWR, 100);
	peer_wait(p, 100 * MS);
	assert_int_equal(peer_last(p)->flags, TH_ACK);
	data_from_peer(p, TOS_CE, TH_CWR, 100); /* CWR of the last mark, and a new one */
	assert_int_equal(peer_last(p)->flags, TH_ACK | TH_ECE);
	assert_int_equal(p->e.s->counters[C_tcp_ecn_ce], 2);
	peer_free(p);
}

static void marks_without_new_data_in_the_window_say_nothing(void **state)
{
	struct peer *p = peer_new();
	struct sock *k = open_ecn(p);

	(void)state;
	data_from_peer(p, TOS_ECT0, 0, 100);
	p->tos = TOS_CE;
	peer_send(p, 0, TH_ACK, 0);         /* a pure ACK */
	peer_send(p, -100, TH_ACK, 100);    /* what has come before */
	peer_send(p, 1 << 24, TH_ACK, 100); /* far off */
	peer_wait(p, 100 * MS);
	assert_false(k->tcp.ecn & TCP_ECN_ECHO);
	assert_false(peer_last(p)->flags & TH_ECE);
	peer_send(p, 1000, TH_ACK, 100); /* ahead of its turn: it counts */
	assert_true(peer_last(p)->flags & TH_ECE);
	peer_free(p);
}

static void without_agreement_a_mark_says_nothing(void **state)
{
	struct peer *p = peer_new();
	struct sock *k = peer_open(p, peer_listen(p, 4), true, false);

	(void)state;
	data_from_peer(p, TOS_CE, 0, 100);
	peer_wait(p, 100 * MS);
	assert_int_equal(peer_last(p)->flags, TH_ACK);
	peer_write(p, k, 100);
	assert_int_equal(peer_last(p)->tos, 0);
	p->ack += 100;
	peer_send(p, 0, TH_ACK | TH_ECE, 0);
	assert_int_equal(k->tcp.ca_state, TCP_CA_OPEN);
	peer_free(p);
}

static void only_new_data_is_ect(void **state)
{
	struct peer *p = peer_new();
	struct sock *k = open_ecn(p);

	(void)state;
	k->tos = 0x2b; /* a program's ECN bits are not its own */
	peer_write(p, k, 100);
	assert_int_equal(peer_last(p)->tos, 0x28 | TOS_ECT0);
	peer_wait(p, SECOND);
	assert_int_equal(peer_last(p)->len, 100); /* again */
	assert_int_equal(peer_last(p)->tos, 0x28);
	p->ack += 100;
	data_from_peer(p, 0, 0, 100);
	peer_wait(p, 100 * MS);
	assert_int_equal(peer_last(p)->len, 0);
	assert_int_equal(peer_last(p)->tos, 0x28);
	tcp_shutdown(&p->e, k, 1, p->e.s->now_us);
	assert_true(peer_last(p)->flags & TH_FIN);
	assert_int_equal(peer_last(p)->tos, 0x28);
	peer_free(p);
}

/* How many of the segments from `from` on have CWR. */
static uint32_t cwr_since(const struct peer *p, uint32_t from)
{
	uint32_t n = 0;

	for (; from < p->outs; from++)
		n += (p->out[from % 1024].flags & TH_CWR) != 0;
	return n;
}

static void an_echo_halves_the_window_once_a_window(void **state)
{
	struct peer *p = peer_new();
	struct sock *k = open_ecn(p);
	struct tcb *t = &k->tcp;
	uint32_t cwnd = t->cwnd, outs, end;

	(void)state;
	peer_write(p, k, 8 * MSS);
	peer_wait(p, 20 * MS);
	for (int i = 0; i < 8; i++) { /* all that was in flight says it */
		p->ack += MSS;
		peer_send(p, 0, TH_ACK | TH_ECE, 0);
		assert_int_equal(t->ca_state, TCP_CA_CWR);
		assert_int_equal(t->ssthresh, cwnd / 2);
	}
	assert_true(t->cwnd <= cwnd / 2); /* step by step (RFC 6937) */
	assert_int_equal(p->e.s->counters[C_tcp_ecn_reductions], 1);
	outs = p->outs;
	peer_write(p, k, 3 * MSS);
	end = t->snd_nxt;
	assert_int_equal(cwr_since(p, outs), 1);
	assert_true(p->out[outs % 1024].flags & TH_CWR); /* the first */
	p->ack += MSS;
	peer_send(p, 0, TH_ACK, 0);
	assert_int_equal(t->ca_state, TCP_CA_OPEN);
	assert_int_equal(t->cwnd, cwnd / 2);
	p->ack = end;
	peer_send(p, 0, TH_ACK | TH_ECE, 0); /* a mark in the next window */
	assert_int_equal(t->ssthresh, cwnd / 4);
	assert_int_equal(p->e.s->counters[C_tcp_ecn_reductions], 2);
	peer_free(p);
}

static void an_echo_never_stops_the_sender(void **state)
{
	struct peer *p = peer_new();
	struct sock *k = open_ecn(p);

	(void)state;
	for (int i = 0; i < 30; i++) { /* a peer that always says it */
		uint32_t before = p->ack;

		peer_write(p, k, MSS);
		peer_wait(p, 10 * MS);
		p->ack = k->tcp.snd_nxt;
		assert_int_equal(p->ack, before + MSS);
		peer_send(p, 0, TH_ACK | TH_ECE, 0);
		assert_true(k->tcp.ssthresh >= 2 * MSS);
	}
	peer_free(p);
}

static void a_loss_is_told_of_with_cwr(void **state)
{
	struct peer *p = peer_new();
	struct sock *k = open_ecn(p);
	uint32_t outs;

	(void)state;
	peer_write(p, k, MSS);
	peer_wait(p, 3 * SECOND); /* timeouts: what goes again has no CWR */
	assert_int_equal(cwr_since(p, 0), 0);
	assert_true(p->e.s->counters[C_tcp_rto] > 0);
	p->ack = k->tcp.snd_nxt;
	peer_send(p, 0, TH_ACK, 0);
	outs = p->outs;
	peer_write(p, k, 100);
	assert_int_equal(cwr_since(p, outs), 1);
	peer_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_syn_that_asks_is_answered),
	    cmocka_unit_test(a_syn_with_ect_is_taken_for_mangled),
	    cmocka_unit_test(a_lossless_vnic_has_nothing_to_mark),
	    cmocka_unit_test(our_syn_asks_only_where_it_was_told_to),
	    cmocka_unit_test(the_answer_to_our_syn_decides),
	    cmocka_unit_test(what_nobody_asked_for_is_not_agreed_on),
	    cmocka_unit_test(both_ask_at_once),
	    cmocka_unit_test(a_mark_is_echoed_until_the_peer_says_cwr),
	    cmocka_unit_test(marks_without_new_data_in_the_window_say_nothing),
	    cmocka_unit_test(without_agreement_a_mark_says_nothing),
	    cmocka_unit_test(only_new_data_is_ect),
	    cmocka_unit_test(an_echo_halves_the_window_once_a_window),
	    cmocka_unit_test(an_echo_never_stops_the_sender),
	    cmocka_unit_test(a_loss_is_told_of_with_cwr),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
