/* SPDX-License-Identifier: BSD-2-Clause */
/* What ACKs do to the queue, the scoreboard, the round trip time and the window; and ACKs that lie. */
#include "sender.h"

static struct sender *with_segments(uint32_t n)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);

	r->t->cwnd = 1 << 20;
	assert_int_equal(sender_write(r, n * 1000, 0), n * 1000);
	assert_int_equal(r->sents, n);
	return r;
}

static void a_cumulative_ack_frees_what_it_covers(void **state)
{
	struct sender *r = with_segments(5);

	(void)state;
	sender_ack(r, 3000, 1 << 16, 0);
	assert_int_equal(r->t->txq.count, 2);
	assert_int_equal(r->t->snd_una, DATA0 + 3000);
	assert_int_equal(r->t->bytes_acked, 3000);
	assert_int_equal(r->st->free_top, r->st->tx_count - 2);
	sender_check(r);
	sender_free(r);
}

static void a_partial_ack_trims_a_pkt(void **state)
{
	struct sender *r = with_segments(2);

	(void)state;
	sender_ack(r, 1300, 1 << 16, 0);
	assert_int_equal(r->t->txq.count, 1);
	assert_int_equal(r->t->txq.bytes, 700);
	sender_check(r);
	sender_wait(r, 5 * SECOND);
	assert_true(was_sent(r, 2, 1300)); /* the rest is sent again, and only the rest */
	assert_false(was_sent(r, 2, 1000));
	sender_free(r);
}

static void an_ack_of_what_was_not_sent_changes_nothing(void **state)
{
	struct sender *r = with_segments(2);

	(void)state;
	sender_ack(r, 2001, 1 << 16, 0);
	assert_int_equal(r->t->snd_una, DATA0);
	assert_int_equal(r->t->txq.count, 2);
	sender_free(r);
}

static void sack_marks_whole_pkts_only(void **state)
{
	struct sender *r = with_segments(5);

	(void)state;
	sender_ack(r, 0, 1 << 16, 1, 1000u, 2500u);
	assert_int_equal(r->t->sacked, 1000);
	sender_ack(r, 0, 1 << 16, 1, 1000u, 3000u);
	assert_int_equal(r->t->sacked, 2000);
	sender_check(r);
	sender_free(r);
}

static void sack_outside_of_what_was_sent_is_ignored(void **state)
{
	struct sender *r = with_segments(3);

	(void)state;
	sender_ack(r, 0, 1 << 16, 1, 1000u, 9000u);
	sender_ack(r, 0, 1 << 16, 1, 2000u, 1000u);
	sender_ack(r, 0, 1 << 16, 1, (uint32_t)-3000, (uint32_t)-2000);
	assert_int_equal(r->t->sacked, 0);
	assert_true(r->e.s->counters[C_tcp_sack_bad] >= 2);
	sender_check(r);
	sender_free(r);
}

static void a_storm_of_sacks_keeps_the_scoreboard_right(void **state)
{
	struct sender *r = with_segments(60);
	uint64_t random = 7;

	(void)state;
	for (int i = 0; i < 3000; i++) {
		uint32_t b[8];

		for (int j = 0; j < 8; j++)
			b[j] = (uint32_t)((random = random * 6364136223846793005ull + 1442695040888963407ull) >> 33) %
			       61000;
		sender_ack(r, 0, 1 << 16, 4, b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]);
		sender_check(r);
		r->e.s->now_us += 50;
	}
	sender_ack(r, 60000, 1 << 16, 0);
	assert_int_equal(r->t->txq.count, 0);
	assert_int_equal(r->t->sacked + r->t->lost + r->t->retrans, 0);
	sender_free(r);
}

static void the_round_trip_is_smoothed(void **state)
{
	struct sender *r = with_segments(1);

	(void)state;
	sender_wait(r, 30 * MS);
	sender_ack(r, 1000, 1 << 16, 0);
	assert_int_equal(r->t->srtt_us, 30000);
	assert_int_equal(r->t->rttvar_us, 15000);
	assert_int_equal(r->t->rto_us, 30000 + 200000);
	sender_write(r, 1000, 0);
	sender_wait(r, 110 * MS);
	sender_ack(r, 2000, 1 << 16, 0);
	assert_int_equal(r->t->srtt_us, 40000); /* 7/8 * 30 + 1/8 * 110 */
	sender_free(r);
}

static void what_was_sent_again_gives_no_sample(void **state)
{
	struct sender *r = with_segments(1);

	(void)state;
	sender_wait(r, 210 * MS);
	assert_int_equal(r->sents, 2);
	sender_wait(r, 5 * MS);
	sender_ack(r, 1000, 1 << 16, 0);
	assert_int_equal(r->t->srtt_us, 0); /* Karn */
	assert_int_equal(r->t->backoff, 1); /* and the backoff stays until there is one (RFC 6298 5.7) */
	sender_write(r, 1000, 0);
	sender_wait(r, 5 * MS);
	sender_ack(r, 2000, 1 << 16, 0);
	assert_int_equal(r->t->srtt_us, 5000);
	assert_int_equal(r->t->backoff, 0);
	sender_free(r);
}

static void a_forged_timestamp_does_not_poison_the_round_trip(void **state)
{
	struct sender *r = with_segments(1);
	struct segment g = {.seq = PEER0, .ack = DATA0 + 1000, .wnd = 65535, .flags = TH_ACK};

	(void)state;
	r->t->flags |= TCPF_TS;
	sender_wait(r, 210 * MS); /* sent again: only the timestamp could tell */
	g.o.has_ts = true;
	g.o.ts_ecr = tcp_ts_now(&r->e, r->k) + 1000;
	tcp_ack(&r->e, r->k, &g);
	assert_int_equal(r->t->srtt_us, 0);
	sender_free(r);
}

static void an_old_segment_does_not_move_the_window(void **state)
{
	struct sender *r = with_segments(3);
	struct segment old = {.seq = PEER0 - 10, .ack = DATA0, .wnd = 5, .flags = TH_ACK};

	(void)state;
	r->t->snd_wl1 = PEER0;
	tcp_ack(&r->e, r->k, &old);
	assert_int_equal(r->t->snd_wnd, 1 << 20);
	sender_ack(r, 1000, 5000, 0);
	assert_int_equal(r->t->snd_wnd, 5000);
	sender_free(r);
}

static void split_acks_grow_cwnd_no_faster(void **state)
{
	struct sender *a = sender_new(VNIC_FEAT_CSUM_TX, 1000), *b = sender_new(VNIC_FEAT_CSUM_TX, 1000);

	(void)state;
	sender_write(a, 20000, 0);
	sender_write(b, 20000, 0);
	sender_ack(a, 1000, 1 << 16, 0);
	for (uint32_t i = 1; i <= 1000; i++)
		sender_ack(b, i, 1 << 16, 0);
	assert_true(b->t->cwnd <= a->t->cwnd);
	sender_free(a);
	sender_free(b);
}

static void sndbuf_grows_with_cwnd(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);

	(void)state;
	r->t->cwnd = 200000;
	sender_write(r, 1000, 0);
	sender_ack(r, 1000, 1 << 16, 0);
	assert_int_equal(r->k->sndbuf, r->e.s->cfg.defaults.sndbuf); /* nobody has waited for space */
	r->t->flags |= TCPF_NOSPACE;
	sender_write(r, 1000, 0);
	sender_ack(r, 2000, 1 << 16, 0);
	assert_int_equal(r->k->sndbuf,
			 2 * (int)(r->t->cwnd / 1000) * (2048 + 256)); /* a segment costs Linux that much */
	r->t->cwnd = 1 << 28;
	r->t->flags |= TCPF_NOSPACE;
	sender_write(r, 1000, 0);
	sender_ack(r, 3000, 1 << 16, 0);
	assert_int_equal(r->k->sndbuf, r->e.s->cfg.defaults.sndbuf_max);
	sender_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_cumulative_ack_frees_what_it_covers),
	    cmocka_unit_test(a_partial_ack_trims_a_pkt),
	    cmocka_unit_test(an_ack_of_what_was_not_sent_changes_nothing),
	    cmocka_unit_test(sack_marks_whole_pkts_only),
	    cmocka_unit_test(sack_outside_of_what_was_sent_is_ignored),
	    cmocka_unit_test(a_storm_of_sacks_keeps_the_scoreboard_right),
	    cmocka_unit_test(the_round_trip_is_smoothed),
	    cmocka_unit_test(what_was_sent_again_gives_no_sample),
	    cmocka_unit_test(a_forged_timestamp_does_not_poison_the_round_trip),
	    cmocka_unit_test(an_old_segment_does_not_move_the_window),
	    cmocka_unit_test(split_acks_grow_cwnd_no_faster),
	    cmocka_unit_test(sndbuf_grows_with_cwnd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
