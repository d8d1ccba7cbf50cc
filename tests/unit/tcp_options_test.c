/* SPDX-License-Identifier: BSD-2-Clause */
/* TCP options: what is malformed is survived, what is sent is what was agreed on. */
#include "peer.h"

static struct tcp_opts parse(const uint8_t *p, uint32_t n)
{
	/* An exact allocation: a read past its end is the sanitizer's. */
	uint8_t *copy = malloc(n ? n : 1);
	struct tcp_opts o;

	memcpy(copy, p, n);
	tcp_parse_options(copy, n, &o);
	free(copy);
	return o;
}

#define PARSE(...) parse((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void the_usual_syn_is_understood(void **state)
{
	struct tcp_opts o = PARSE(2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7);

	(void)state;
	assert_true(o.has_mss && o.sack_ok && o.has_ts && o.has_wscale);
	assert_int_equal(o.mss, 1460);
	assert_int_equal(o.wscale, 7);
	assert_int_equal(o.ts_val, 0x01020304);
	assert_int_equal(o.ts_ecr, 0x05060708);
}

static void lengths_that_lie_end_the_parsing(void **state)
{
	(void)state;
	assert_false(PARSE(2).has_mss);
	assert_false(PARSE(2, 0, 5, 0xb4).has_mss);
	assert_false(PARSE(2, 1, 5, 0xb4).has_mss);
	assert_false(PARSE(2, 4, 5).has_mss);
	assert_false(PARSE(8, 10, 1, 2, 3, 4).has_ts);
	assert_false(PARSE(99, 200, 2, 4, 5, 0xb4).has_mss);
	assert_false(PARSE(1, 1, 1, 5).sacks);
}

static void an_option_of_the_wrong_length_is_ignored_alone(void **state)
{
	struct tcp_opts o = PARSE(2, 3, 5, 3, 4, 7, 0, 4, 3, 0, 5, 9, 0, 0, 0, 0, 0, 0, 0, 4, 2);

	(void)state;
	assert_false(o.has_mss || o.has_wscale || o.sacks);
	assert_true(o.sack_ok);
}

static void junk_behind_the_end_is_not_read(void **state)
{
	(void)state;
	assert_false(PARSE(0, 2, 4, 5, 0xb4).has_mss);
}

static void forty_nops_and_unknown_options_are_passed_over(void **state)
{
	uint8_t nops[40];
	struct tcp_opts o;

	(void)state;
	memset(nops, 1, sizeof(nops));
	o = parse(nops, sizeof(nops));
	assert_false(o.has_mss || o.sacks);
	assert_int_equal(PARSE(253, 4, 1, 2, 2, 4, 5, 0xb4).mss, 1460);
}

static void a_window_scale_above_fourteen_is_fourteen(void **state)
{
	(void)state;
	assert_int_equal(PARSE(3, 3, 14).wscale, 14);
	assert_int_equal(PARSE(3, 3, 15).wscale, 14);
	assert_int_equal(PARSE(3, 3, 255).wscale, 14);
}

static void every_prefix_of_random_bytes_is_survived(void **state)
{
	uint8_t junk[40];
	uint32_t x = 1;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		for (size_t i = 0; i < sizeof(junk); i++) {
			x = x * 1103515245 + 12345;
			junk[i] = (uint8_t)(x >> 16 & (round & 1 ? 0xff : 0x0f));
		}
		assert_true(parse(junk, (uint32_t)round % 41).sacks <= 4);
	}
}

static void a_syn_ack_confirms_only_what_the_syn_offered(void **state)
{
	static const struct {
		bool wscale, sack, ts;
	} syn[] = {{0, 0, 0}, {1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {1, 1, 1}};

	(void)state;
	for (size_t i = 0; i < sizeof(syn) / sizeof(syn[0]); i++) {
		struct peer *p = peer_new();
		const struct tcp_opts *o;

		peer_listen(p, 4);
		peer_opt_syn(p, syn[i].wscale, syn[i].sack, syn[i].ts);
		peer_send(p, 0, TH_SYN, 0);
		o = &peer_last(p)->o;
		assert_int_equal(o->mss, 1460);
		assert_int_equal(o->has_wscale, syn[i].wscale);
		assert_int_equal(o->sack_ok, syn[i].sack);
		assert_int_equal(o->has_ts, syn[i].ts);
		if (syn[i].ts)
			assert_int_equal(o->ts_ecr, 1000);
		peer_free(p);
	}
}

static void a_lossless_vnic_needs_no_timestamps(void **state)
{
	struct stack_config c = peer_config();
	struct peer *p = peer_new_with(&c, VNIC_FEAT_LOSSLESS);

	(void)state;
	peer_listen(p, 4);
	peer_opt_syn(p, true, true, true);
	peer_send(p, 0, TH_SYN, 0);
	assert_false(peer_last(p)->o.has_ts);
	assert_true(peer_last(p)->o.has_wscale && peer_last(p)->o.sack_ok);
	peer_free(p);
}

static void a_tiny_mss_is_raised_to_the_floor(void **state)
{
	struct peer *p = peer_new();
	struct sock *l = peer_listen(p, 4), *k;

	(void)state;
	memcpy(p->opts, (uint8_t[]){2, 4, 0, 8}, 4);
	p->opts_len = 4;
	peer_send(p, 0, TH_SYN, 0);
	p->seq++;
	p->ack = peer_last(p)->seq + 1;
	p->opts_len = 0;
	peer_send(p, 0, TH_ACK, 0);
	k = sock_at(p->e.s, (uint32_t)tcp_accept(&p->e, l));
	assert_int_equal(k->tcp.mss, TCP_MSS_FLOOR);
	peer_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_usual_syn_is_understood),
	    cmocka_unit_test(lengths_that_lie_end_the_parsing),
	    cmocka_unit_test(an_option_of_the_wrong_length_is_ignored_alone),
	    cmocka_unit_test(junk_behind_the_end_is_not_read),
	    cmocka_unit_test(forty_nops_and_unknown_options_are_passed_over),
	    cmocka_unit_test(a_window_scale_above_fourteen_is_fourteen),
	    cmocka_unit_test(every_prefix_of_random_bytes_is_survived),
	    cmocka_unit_test(a_syn_ack_confirms_only_what_the_syn_offered),
	    cmocka_unit_test(a_lossless_vnic_needs_no_timestamps),
	    cmocka_unit_test(a_tiny_mss_is_raised_to_the_floor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
