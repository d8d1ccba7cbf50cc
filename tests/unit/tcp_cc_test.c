/* SPDX-License-Identifier: BSD-2-Clause */
/* Congestion control: initial window, slow start, NewReno's and CUBIC's growth and decrease, HyStart++, idle restart.
 */
#include "sender.h"

#define MSS 1000u

static struct sender *with_cc(const char *name)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, MSS);

	assert_int_equal(tcp_set_cc(&r->e, r->k, "reno"), 0);
	assert_int_equal(tcp_set_cc(&r->e, r->k, name), 0);
	r->k->sndbuf = 4 << 20;
	r->k->flags |= SOCKF_SNDBUF_SET;
	return r;
}

/* Keep the window full for one round trip of rtt: each segment gets its ACK. */
static void round_trip(struct sender *r, uint64_t rtt)
{
	uint32_t end;

	while (r->t->snd_end - r->t->snd_nxt < 2 * r->t->cwnd + 2 * MSS && sender_write(r, 2 * MSS, 0) > 0)
		;
	end = r->t->snd_nxt;
	sender_wait(r, rtt);
	while (seq_lt(r->t->snd_una, end))
		sender_ack(r, r->t->snd_una - DATA0 + MSS, 1 << 22, 0);
}

static void lose_one(struct sender *r)
{
	uint32_t at = r->t->snd_una - DATA0;

	sender_ack(r, at, 1 << 22, 1, at + MSS, at + 4 * MSS);
	assert_int_equal(r->t->ca_state, TCP_CA_RECOVERY);
	sender_ack(r, r->t->snd_max - DATA0, 1 << 22, 0);
	assert_int_equal(r->t->ca_state, TCP_CA_OPEN);
}

static void the_initial_window_is_ten_segments(void **state)
{
	struct sender *r = with_cc("cubic");

	(void)state;
	sender_write(r, 100 * MSS, 0);
	assert_int_equal(r->sents, 10);
	sender_free(r);
}

static void slow_start_doubles_each_round_trip(void **state)
{
	struct sender *r = with_cc("reno");

	(void)state;
	for (uint32_t want = 20; want <= 160; want *= 2) {
		round_trip(r, 50 * MS);
		assert_int_equal(r->t->cwnd, want * MSS);
	}
	sender_free(r);
}

static void reno_halves_and_then_adds_one_segment_a_round_trip(void **state)
{
	struct sender *r = with_cc("reno");
	uint32_t cwnd;

	(void)state;
	for (int i = 0; i < 4; i++)
		round_trip(r, 50 * MS);
	cwnd = r->t->cwnd;
	lose_one(r);
	assert_int_equal(r->t->ssthresh, cwnd / 2);
	assert_int_equal(r->t->cwnd, cwnd / 2);
	cwnd = r->t->cwnd;
	for (int i = 0; i < 8; i++)
		round_trip(r, 50 * MS);
	assert_in_range(r->t->cwnd, cwnd + 6 * MSS, cwnd + 9 * MSS);
	sender_free(r);
}

static void cubic_falls_to_seven_tenths(void **state)
{
	struct sender *r = with_cc("cubic");
	uint32_t cwnd;

	(void)state;
	for (int i = 0; i < 5; i++)
		round_trip(r, 50 * MS);
	cwnd = r->t->cwnd;
	lose_one(r);
	assert_in_range(r->t->ssthresh, cwnd / 10 * 7 - MSS, cwnd / 10 * 7 + MSS);
	sender_free(r);
}

/* RFC 9438 figure 1: concave up to W_max, which is reached at K, a plateau there, convex beyond. */
static void cubic_is_back_at_w_max_after_k(void **state)
{
	struct sender *r = with_cc("cubic");
	uint32_t w_max, at[60] = {0}, k;
	double seconds;

	(void)state;
	while (r->t->cwnd < 400 * MSS)
		round_trip(r, 100 * MS);
	w_max = r->t->cwnd;
	lose_one(r);
	for (int i = 0; i < 100; i++) { /* K = cbrt(0.3 * W_max / 0.4) s */
		round_trip(r, 100 * MS);
		if (i < 60)
			at[i] = r->t->cwnd;
		if (r->t->cwnd >= w_max - w_max / 50)
			break;
	}
	seconds = 0;
	for (k = 0; k < 60 && at[k] < w_max - w_max / 50; k++)
		seconds += 0.1;
	assert_true(seconds > 2.5 && seconds < 7.0); /* K is 6.7 s for 400 segments; 2 % below it is reached earlier */
	assert_true(at[5] - at[0] > at[k > 8 ? k - 1 : 7] - at[k > 8 ? k - 6 : 2]); /* steeper at first */
	sender_free(r);
}

static void a_window_that_is_not_used_does_not_grow(void **state)
{
	struct sender *r = with_cc("cubic");
	uint32_t cwnd = r->t->cwnd;

	(void)state;
	for (int i = 0; i < 50; i++) {
		sender_write(r, MSS, 0);
		sender_wait(r, 10 * MS);
		sender_ack(r, r->t->snd_max - DATA0, 1 << 22, 0);
	}
	assert_int_equal(r->t->cwnd, cwnd);
	sender_free(r);
}

static void idleness_brings_cwnd_back_to_the_initial_window(void **state)
{
	struct sender *r = with_cc("cubic");

	(void)state;
	for (int i = 0; i < 5; i++)
		round_trip(r, 50 * MS);
	while (r->t->snd_una != r->t->snd_end)
		sender_ack(r, r->t->snd_max - DATA0, 1 << 22, 0);
	assert_true(r->t->cwnd > 100 * MSS);
	sender_wait(r, 30 * SECOND);
	r->sents = 0;
	sender_write(r, 100 * MSS, 0);
	assert_int_equal(r->sents, 10);
	sender_free(r);
}

static void a_growing_round_trip_ends_slow_start(void **state)
{
	struct sender *r = with_cc("cubic");
	uint64_t rtt = 50 * MS;

	(void)state;
	for (int i = 0; i < 4; i++)
		round_trip(r, rtt);
	assert_int_equal(r->t->ssthresh, TCP_INFINITE_SSTHRESH);
	for (int i = 0; i < 9 && r->t->ssthresh == TCP_INFINITE_SSTHRESH; i++) {
		rtt += 10 * MS; /* a queue fills */
		round_trip(r, rtt);
	}
	assert_true(r->t->ssthresh < TCP_INFINITE_SSTHRESH); /* without a loss */
	sender_free(r);
}

static void a_steady_round_trip_does_not_end_slow_start(void **state)
{
	struct sender *r = with_cc("cubic");

	(void)state;
	for (int i = 0; i < 7; i++)
		round_trip(r, 50 * MS + (uint64_t)(i % 3) * MS);
	assert_int_equal(r->t->ssthresh, TCP_INFINITE_SSTHRESH);
	sender_free(r);
}

static void names_are_those_of_linux(void **state)
{
	struct sender *r = with_cc("cubic");

	(void)state;
	assert_string_equal(tcp_cc_name(r->k), "cubic");
	assert_int_equal(tcp_set_cc(&r->e, r->k, "reno"), 0);
	assert_string_equal(tcp_cc_name(r->k), "reno");
	assert_int_equal(tcp_set_cc(&r->e, r->k, "bbr"), -ENOENT);
	assert_string_equal(tcp_cc_name(r->k), "reno");
	sender_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_initial_window_is_ten_segments),
	    cmocka_unit_test(slow_start_doubles_each_round_trip),
	    cmocka_unit_test(reno_halves_and_then_adds_one_segment_a_round_trip),
	    cmocka_unit_test(cubic_falls_to_seven_tenths),
	    cmocka_unit_test(cubic_is_back_at_w_max_after_k),
	    cmocka_unit_test(a_window_that_is_not_used_does_not_grow),
	    cmocka_unit_test(idleness_brings_cwnd_back_to_the_initial_window),
	    cmocka_unit_test(a_growing_round_trip_ends_slow_start),
	    cmocka_unit_test(a_steady_round_trip_does_not_end_slow_start),
	    cmocka_unit_test(names_are_those_of_linux),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
