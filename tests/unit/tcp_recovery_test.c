/* SPDX-License-Identifier: BSD-2-Clause */
/* Loss recovery, ACK by ACK: what is sent again, when, how much of it, and when it was needless. */
#include "sender.h"

/* n segments of 1000 bytes in flight with a round trip of 20 ms known, and n more waiting behind them. */
static struct sender *in_flight(uint32_t n, bool sack)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);

	if (!sack)
		r->t->flags &= ~TCPF_SACK;
	sender_write(r, 1000, 0);
	sender_wait(r, 20 * MS);
	sender_ack(r, 1000, 1 << 20, 0);
	r->t->cwnd = n * 1000;
	r->k->sndbuf = 1 << 20;
	assert_int_equal(sender_write(r, 2 * n * 1000, 0), 2 * n * 1000);
	assert_int_equal(r->sents, n + 1);
	sender_wait(r, 20 * MS);
	r->sents = 0;
	return r;
}

static void three_duplicates_bring_a_fast_retransmit(void **state)
{
	struct sender *r = in_flight(10, false);

	(void)state;
	sender_ack(r, 1000, 1 << 20, 0);
	sender_ack(r, 1000, 1 << 20, 0);
	assert_false(was_sent(r, 0, 1000));
	assert_int_equal(r->sents, 2); /* limited transmit: a new segment for each (RFC 3042) */
	assert_int_equal(r->sent[0].seq, DATA0 + 11000);
	sender_ack(r, 1000, 1 << 20, 0);
	assert_true(was_sent(r, 0, 1000));
	assert_int_equal(r->t->ca_state, TCP_CA_RECOVERY);
	assert_int_equal(r->t->ssthresh, 5000);
	sender_free(r);
}

static void newreno_sends_one_hole_per_partial_ack(void **state)
{
	struct sender *r = in_flight(10, false);

	(void)state;
	for (int i = 0; i < 6; i++)
		sender_ack(r, 1000, 1 << 20, 0);
	assert_true(was_sent(r, 0, 1000));
	assert_false(was_sent(r, 0, 4000));
	sender_wait(r, 20 * MS);
	sender_ack(r, 4000, 1 << 20, 0);
	assert_true(was_sent(r, 0, 4000));
	sender_ack(r, r->t->snd_max - DATA0, 1 << 20, 0);
	assert_int_equal(r->t->ca_state, TCP_CA_OPEN);
	assert_int_equal(r->e.s->counters[C_tcp_rto], 0);
	sender_free(r);
}

static void sack_repairs_several_holes_in_one_round_trip(void **state)
{
	struct sender *r = in_flight(10, true);

	(void)state;
	sender_ack(r, 1000, 1 << 20, 1, 2000u, 3000u);
	sender_ack(r, 1000, 1 << 20, 2, 4000u, 5000u, 2000u, 3000u);
	assert_false(was_sent(r, 0, 1000));
	sender_ack(r, 1000, 1 << 20, 3, 6000u, 7000u, 4000u, 5000u, 2000u, 3000u);
	assert_true(was_sent(r, 0, 1000));
	assert_int_equal(r->t->ca_state, TCP_CA_RECOVERY);
	sender_ack(r, 1000, 1 << 20, 3, 6000u, 9000u, 4000u, 5000u, 2000u, 3000u);
	sender_ack(r, 1000, 1 << 20, 3, 6000u, 11000u, 4000u, 5000u, 2000u, 3000u);
	assert_true(was_sent(r, 0, 3000));
	assert_true(was_sent(r, 0, 5000));
	sender_check(r);
	sender_wait(r, 20 * MS);
	sender_ack(r, r->t->snd_max - DATA0, 1 << 20, 0);
	assert_int_equal(r->t->ca_state, TCP_CA_OPEN);
	assert_int_equal(r->t->cwnd, 5000);
	assert_int_equal(r->e.s->counters[C_tcp_rto], 0);
	sender_free(r);
}

static void recovery_halves_what_leaves(void **state)
{
	struct sender *r = in_flight(20, true);
	uint32_t before;

	(void)state;
	for (uint32_t i = 2; i <= 4; i++)
		sender_ack(r, 1000, 1 << 20, 1, 2000u, i * 1000);
	for (uint32_t i = 5; i <= 6; i++)
		sender_ack(r, 1000, 1 << 20, 1, 2000u, i * 1000);
	before = r->sents;
	for (uint32_t i = 7; i <= 16; i++)
		sender_ack(r, 1000, 1 << 20, 1, 2000u, i * 1000);
	assert_in_range(r->sents - before, 4, 6); /* one for every two (RFC 6937) */
	sender_free(r);
}

static void one_late_segment_is_reordering_not_loss(void **state)
{
	struct sender *r = in_flight(10, true);

	(void)state;
	sender_ack(r, 1000, 1 << 20, 1, 2000u, 3000u);
	sender_ack(r, 3000, 1 << 20, 0);
	assert_false(was_sent(r, 0, 1000));
	assert_int_equal(r->t->ca_state, TCP_CA_OPEN);
	assert_int_equal(r->t->reord_seen, 1);
	assert_int_equal(r->t->cwnd >= 10000, 1);
	sender_free(r);
}

/* One hole, with few SACKs behind it, in `sent` bytes that went out 20 ms ago: is it sent again within `us`? */
static bool taken_for_lost(struct sender *r, uint32_t una, uint64_t us)
{
	uint32_t before = r->sents;

	sender_ack(r, una, 1 << 20, 1, una + 1000, una + 2000);
	sender_wait(r, us);
	return was_sent(r, before, una);
}

static void a_dsack_lengthens_the_reordering_window(void **state)
{
	struct sender *r = in_flight(10, true);

	(void)state;
	r->t->reord_seen = 1;
	sender_ack(r, 1000, 1 << 20, 1, 0u, 1000u);    /* the first segment came twice */
	assert_false(taken_for_lost(r, 2000, 8 * MS)); /* a quarter of the round trip is over */
	sender_wait(r, 4 * MS);
	assert_true(was_sent(r, 0, 2000)); /* a half */
	sender_free(r);
}

static void a_probe_that_comes_twice_does_not_lengthen_it(void **state)
{
	struct sender *r = in_flight(10, true);

	(void)state;
	r->t->reord_seen = 1;
	r->t->tlp_out = 2;
	r->t->tlp_end = r->t->snd_nxt + 1;
	sender_ack(r, 1000, 1 << 20, 1, 0u, 1000u);
	assert_true(taken_for_lost(r, 2000, 8 * MS));
	sender_free(r);
}

static void recoveries_without_a_dsack_shorten_it_again(void **state)
{
	struct sender *r = in_flight(10, true);
	uint32_t una;

	(void)state;
	r->t->reord_seen = 1;
	sender_ack(r, 1000, 1 << 20, 1, 0u, 1000u);
	for (int i = 0; i < 16; i++) {
		r->t->cwnd = 10000;
		sender_write(r, 10000, 0);
		sender_wait(r, 20 * MS);
		una = r->t->snd_una - DATA0;
		assert_int_equal(r->t->reo_more, 1);
		assert_true(taken_for_lost(r, una, 14 * MS));
		assert_int_equal(r->t->ca_state, TCP_CA_RECOVERY);
		sender_wait(r, 20 * MS);
		sender_ack(r, r->t->snd_nxt - DATA0, 1 << 20, 0);
	}
	assert_int_equal(r->t->reo_more, 0);
	sender_free(r);
}

static void a_lost_segment_is_found_by_time_when_few_follow(void **state)
{
	struct sender *r = in_flight(2, true);

	(void)state;
	sender_ack(r, 1000, 1 << 20, 1, 2000u, 3000u); /* only one segment came after it */
	assert_false(was_sent(r, 0, 1000));
	sender_wait(r, 30 * MS);
	assert_true(was_sent(r, 0, 1000));
	assert_int_equal(r->e.s->counters[C_tcp_rto], 0);
	sender_free(r);
}

static void a_lost_tail_is_probed_before_the_timeout(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);

	(void)state;
	sender_write(r, 1000, 0);
	sender_wait(r, 20 * MS);
	sender_ack(r, 1000, 1 << 20, 0);
	sender_write(r, 3000, 0);
	r->sents = 0;
	sender_wait(r, 50 * MS);
	assert_true(was_sent(r, 0, 3000)); /* the last one, after two round trips */
	assert_int_equal(r->sents, 1);
	assert_int_equal(r->e.s->counters[C_tcp_tlp], 1);
	sender_wait(r, 20 * MS);
	sender_ack(r, 1000, 1 << 20, 1, 3000u, 4000u);
	sender_wait(r, 10 * MS);
	assert_true(was_sent(r, 1, 1000));
	sender_ack(r, 2000, 1 << 20, 1, 3000u, 4000u);
	assert_true(was_sent(r, 1, 2000));
	assert_int_equal(r->e.s->counters[C_tcp_rto], 0);
	sender_free(r);
}

/* The retransmission timeout, as if the probe's turn had passed. */
static void time_out(struct sender *r)
{
	r->t->tlp_out = 1;
	r->t->tlp_end = r->t->snd_nxt;
	tcp_arm_rto(&r->e, r->k);
	sender_wait(r, r->t->rto_us + 5 * MS);
}

static void a_timeout_sends_everything_again_in_slow_start(void **state)
{
	struct sender *r = in_flight(4, true);
	uint64_t first;

	(void)state;
	time_out(r);
	assert_int_equal(r->sents, 1);
	assert_int_equal(r->sent[0].seq, DATA0 + 1000);
	assert_int_equal(r->t->cwnd, 1000);
	assert_int_equal(r->t->ca_state, TCP_CA_LOSS);
	first = r->sent[0].at;
	sender_wait(r, 4 * r->t->rto_us);
	assert_true(r->sents >= 2);
	assert_in_range(r->sent[1].at - first, 2 * r->t->rto_us - 5 * MS, 2 * r->t->rto_us + 5 * MS);
	sender_check(r);
	sender_free(r);
}

static void a_spurious_timeout_is_undone_by_new_data(void **state)
{
	struct sender *r = in_flight(8, true);

	(void)state;
	time_out(r);
	assert_int_equal(r->t->ca_state, TCP_CA_LOSS);
	r->sents = 0;
	sender_ack(r, 2000, 1 << 20, 0);    /* might be the retransmission's */
	assert_false(was_sent(r, 0, 2000)); /* F-RTO sends new data first */
	assert_true(was_sent(r, 0, 9000));
	sender_ack(r, 3000, 1 << 20, 0); /* that one was not sent again: nothing was lost */
	assert_int_equal(r->t->ca_state, TCP_CA_OPEN);
	assert_true(r->t->cwnd >= 8000);
	assert_int_equal(r->t->lost, 0);
	assert_int_equal(r->e.s->counters[C_tcp_undo], 1);
	sender_check(r);
	sender_free(r);
}

static void a_real_timeout_is_not_undone(void **state)
{
	struct sender *r = in_flight(8, true);

	(void)state;
	time_out(r);
	r->sents = 0;
	sender_ack(r, 2000, 1 << 20, 0);
	sender_ack(r, 2000, 1 << 20, 1, 9000u, 10000u); /* the new data came, the old did not */
	assert_true(was_sent(r, 0, 2000));
	assert_int_equal(r->t->ca_state, TCP_CA_LOSS);
	assert_int_equal(r->e.s->counters[C_tcp_undo], 0);
	sender_check(r);
	sender_free(r);
}

static void dsack_for_all_that_was_sent_again_undoes(void **state)
{
	struct sender *r = in_flight(10, true);

	(void)state;
	for (uint32_t i = 3; i <= 5; i++)
		sender_ack(r, 1000, 1 << 20, 1, 2000u, i * 1000);
	assert_int_equal(r->t->ca_state, TCP_CA_RECOVERY);
	assert_true(was_sent(r, 0, 1000));
	sender_ack(r, 5000, 1 << 20, 0); /* the original was only late */
	sender_ack(r, 5000, 1 << 20, 1, 1000u, 2000u);
	assert_int_equal(r->t->ca_state, TCP_CA_OPEN);
	assert_true(r->t->cwnd >= 10000);
	assert_int_equal(r->e.s->counters[C_tcp_undo], 1);
	sender_free(r);
}

static void an_older_timestamp_echo_undoes(void **state)
{
	struct sender *r = in_flight(10, true);
	struct segment g = {.seq = PEER0, .ack = DATA0 + 5000, .wnd = 65535, .flags = TH_ACK};
	uint32_t before = tcp_ts_now(&r->e, r->k);

	(void)state;
	r->t->flags |= TCPF_TS;
	sender_wait(r, 5 * MS);
	for (uint32_t i = 3; i <= 5; i++)
		sender_ack(r, 1000, 1 << 20, 1, 2000u, i * 1000);
	assert_int_equal(r->t->ca_state, TCP_CA_RECOVERY);
	g.o.has_ts = true;
	g.o.ts_ecr = before;
	tcp_ack(&r->e, r->k, &g);
	assert_true(r->t->ca_state <= TCP_CA_DISORDER);
	assert_int_equal(r->e.s->counters[C_tcp_undo], 1);
	sender_free(r);
}

static void reneging_is_noticed_at_the_timeout(void **state)
{
	struct sender *r = in_flight(4, true);

	(void)state;
	sender_ack(r, 1000, 1 << 20, 1, 2000u, 5000u);
	sender_ack(r, 2000, 1 << 20, 0); /* the peer threw away what it had SACKed, or it would be acknowledged */
	r->sents = 0;
	for (int i = 0; i < 8; i++) {
		sender_wait(r, SECOND);
		sender_check(r);
	}
	assert_true(r->e.s->counters[C_tcp_sack_reneged] > 0);
	assert_true(was_sent(r, 0, 2000));
	sender_free(r);
}

static void without_a_network_losses_do_not_shrink_anything(void **state)
{
	struct sender *r = sender_new(WIRE_LIKE, 65483);

	(void)state;
	r->t->cwnd = 1;
	tcp_set_nodelay(&r->e, r->k, true, r->e.s->now_us);
	assert_int_equal(sender_write(r, 60000, 0), 60000);
	assert_int_equal(sender_write(r, 5000, 0), 5000);
	assert_int_equal(r->t->snd_nxt, DATA0 + 65000);
	sender_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(three_duplicates_bring_a_fast_retransmit),
	    cmocka_unit_test(newreno_sends_one_hole_per_partial_ack),
	    cmocka_unit_test(sack_repairs_several_holes_in_one_round_trip),
	    cmocka_unit_test(recovery_halves_what_leaves),
	    cmocka_unit_test(one_late_segment_is_reordering_not_loss),
	    cmocka_unit_test(a_dsack_lengthens_the_reordering_window),
	    cmocka_unit_test(a_probe_that_comes_twice_does_not_lengthen_it),
	    cmocka_unit_test(recoveries_without_a_dsack_shorten_it_again),
	    cmocka_unit_test(a_lost_segment_is_found_by_time_when_few_follow),
	    cmocka_unit_test(a_lost_tail_is_probed_before_the_timeout),
	    cmocka_unit_test(a_timeout_sends_everything_again_in_slow_start),
	    cmocka_unit_test(a_spurious_timeout_is_undone_by_new_data),
	    cmocka_unit_test(a_real_timeout_is_not_undone),
	    cmocka_unit_test(dsack_for_all_that_was_sent_again_undoes),
	    cmocka_unit_test(an_older_timestamp_echo_undoes),
	    cmocka_unit_test(reneging_is_noticed_at_the_timeout),
	    cmocka_unit_test(without_a_network_losses_do_not_shrink_anything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
