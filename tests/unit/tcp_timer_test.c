/* SPDX-License-Identifier: BSD-2-Clause */
/* Timers and limits: when a connection is given up, keepalive, and that nobody is given up on a wire. */
#include "sender.h"

static void syn_is_sent_seven_times_in_127_seconds(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);
	uint64_t start = r->e.s->now_us;

	(void)state;
	r->t->state = TCP_SYN_SENT;
	r->t->snd_una = r->t->snd_nxt = r->t->snd_max = r->t->iss;
	r->t->rto_us = 1000000;
	tcp_send_syn(&r->e, r->k);
	sender_wait(r, 126 * SECOND);
	assert_int_equal(r->sents, 7);
	assert_int_equal(r->t->state, TCP_SYN_SENT);
	for (uint32_t i = 1; i < 7; i++)
		assert_in_range(r->sent[i].at - start, (1ull << i) * SECOND - SECOND,
				(1ull << i) * SECOND - SECOND + 20 * MS);
	sender_wait(r, 2 * SECOND);
	assert_int_equal(r->sents, 7);
	assert_int_equal(r->t->state, TCP_CLOSED);
	assert_int_equal(r->k->so_error, ETIMEDOUT);
	sender_free(r);
}

static void data_is_given_up_after_retries2(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);

	(void)state;
	sender_write(r, 100, 0);
	sender_wait(r, 900 * SECOND);
	assert_int_equal(r->t->state, TCP_ESTABLISHED);
	assert_in_range(r->sents, 14, 18);
	sender_wait(r, 200 * SECOND);
	assert_int_equal(r->t->state, TCP_CLOSED);
	assert_int_equal(r->k->so_error, ETIMEDOUT);
	sender_free(r);
}

static void a_user_timeout_is_kept(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);

	(void)state;
	r->t->user_timeout_ms = 3000;
	sender_write(r, 100, 0);
	sender_wait(r, 2900 * MS);
	assert_int_equal(r->t->state, TCP_ESTABLISHED);
	sender_wait(r, 4 * SECOND);
	assert_int_equal(r->t->state, TCP_CLOSED);
	sender_free(r);
}

static void unanswered_window_probes_end_a_connection(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);

	(void)state;
	r->t->snd_wnd = 0;
	sender_write(r, 100, 0);
	sender_wait(r, 1500 * SECOND);
	assert_int_equal(r->t->state, TCP_CLOSED);
	assert_int_equal(r->k->so_error, ETIMEDOUT);
	sender_free(r);
}

static void answered_window_probes_go_on_for_ever(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);

	(void)state;
	r->t->snd_wnd = 0;
	sender_write(r, 100, 0);
	for (int i = 0; i < 400; i++) {
		uint32_t sents = r->sents;

		sender_wait(r, 10 * SECOND);
		if (r->sents > sents)
			sender_ack(r, 0, 0, 0);
	}
	assert_int_equal(r->t->state, TCP_ESTABLISHED);
	assert_true(r->sents < 80); /* and at most each 120 s in the end */
	sender_free(r);
}

static void orphans_are_given_up_sooner(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);
	uint32_t slot = sock_index(r->e.s, r->k);

	(void)state;
	sender_write(r, 100, 0);
	r->k->holders = 0;
	r->k->flags |= SOCKF_ORPHAN;
	r->t->state = TCP_FIN_WAIT_1;
	r->t->flags |= TCPF_FIN_QUEUED;
	sender_wait(r, 240 * SECOND);
	assert_int_equal(sock_at(r->e.s, slot)->proto, SOCK_FREE);
	assert_int_equal(r->st->free_top, r->st->tx_count); /* with all it held */
	sender_free(r);
}

static void keepalive_probes_and_then_gives_up(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);

	(void)state;
	r->t->keep_idle_s = 10;
	r->t->keep_intvl_s = 2;
	r->t->keep_cnt = 3;
	r->t->last_rcv_us = r->e.s->now_us;
	tcp_set_keepalive(&r->e, r->k, true, r->e.s->now_us);
	sender_wait(r, 9900 * MS);
	assert_int_equal(r->sents, 0);
	sender_wait(r, 200 * MS);
	assert_int_equal(r->sents, 1);
	assert_int_equal(last_sent(r)->seq, DATA0 - 1);
	r->t->last_rcv_us = r->e.s->now_us; /* what tcp_input notes */
	sender_ack(r, 0, 1 << 16, 0);
	sender_wait(r, 9800 * MS);
	assert_int_equal(r->sents, 1);
	sender_wait(r, 300 * MS + 6 * SECOND);
	assert_int_equal(r->sents, 5); /* three probes and a reset */
	assert_true(last_sent(r)->flags & TH_RST);
	assert_int_equal(r->k->so_error, ETIMEDOUT);
	sender_free(r);
}

static void on_a_wire_a_silent_peer_is_not_given_up(void **state)
{
	struct sender *r = sender_new(WIRE_LIKE, 65483);

	(void)state;
	r->t->snd_wnd = 0;
	sender_write(r, 100, 0);
	sender_wait(r, 10000 * SECOND);
	assert_int_equal(r->t->state, TCP_ESTABLISHED);
	sender_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(syn_is_sent_seven_times_in_127_seconds),
	    cmocka_unit_test(data_is_given_up_after_retries2),
	    cmocka_unit_test(a_user_timeout_is_kept),
	    cmocka_unit_test(unanswered_window_probes_end_a_connection),
	    cmocka_unit_test(answered_window_probes_go_on_for_ever),
	    cmocka_unit_test(orphans_are_given_up_sooner),
	    cmocka_unit_test(keepalive_probes_and_then_gives_up),
	    cmocka_unit_test(on_a_wire_a_silent_peer_is_not_given_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
