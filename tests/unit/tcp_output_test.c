/* SPDX-License-Identifier: BSD-2-Clause */
/* Which segment goes when: Nagle, CORK, windows, buffers, FIN, urgent data, resets. */
#include "sender.h"

static void nagle_holds_a_small_segment_behind_a_small_one(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1460);

	(void)state;
	assert_int_equal(sender_write(r, 64, 0), 64);
	assert_int_equal(r->sents, 1);
	assert_int_equal(last_sent(r)->len, 64);
	assert_true(last_sent(r)->flags & TH_PSH);
	for (int i = 0; i < 10; i++)
		assert_int_equal(sender_write(r, 64, 0), 64);
	assert_int_equal(r->sents, 1);
	sender_ack(r, 64, 1 << 16, 0);
	assert_int_equal(r->sents, 2);
	assert_int_equal(last_sent(r)->seq, DATA0 + 64);
	assert_int_equal(last_sent(r)->len, 640);
	sender_check(r);
	sender_free(r);
}

static void a_full_segment_does_not_wait_for_nagle(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1460);

	(void)state;
	sender_write(r, 64, 0);
	sender_write(r, 2000, 0);
	assert_int_equal(r->sents, 2);
	assert_int_equal(last_sent(r)->len, 1460);
	sender_free(r);
}

/* snd_sml is 0 until a small segment was sent, and stays behind in a long transfer: it may look as if it lay ahead. */
static void a_small_segment_of_long_ago_holds_nothing(void **state)
{
	struct sender *r = sender_new(0, 1000);

	(void)state;
	r->t->snd_sml = DATA0 + 0x40000000u;
	sender_write(r, 1000, 0);
	assert_int_equal(r->sents, 1);
	sender_write(r, 100, 0); /* only a full one is in flight */
	assert_int_equal(r->sents, 2);
	sender_write(r, 100, 0);
	assert_int_equal(r->sents, 2);
	sender_free(r);
}

static void nodelay_sends_each_write(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1460);

	(void)state;
	sender_write(r, 64, 0);
	sender_write(r, 10, 0);
	assert_int_equal(r->sents, 1);
	tcp_set_nodelay(&r->e, r->k, true, r->e.s->now_us);
	assert_int_equal(r->sents, 2); /* what waited goes at once */
	sender_write(r, 10, 0);
	assert_int_equal(r->sents, 3);
	sender_free(r);
}

static void cork_holds_for_200_ms_at_most(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1460);

	(void)state;
	tcp_set_cork(&r->e, r->k, true, r->e.s->now_us);
	sender_write(r, 100, 0);
	sender_wait(r, 190 * MS);
	assert_int_equal(r->sents, 0);
	sender_wait(r, 20 * MS);
	assert_int_equal(r->sents, 1);
	assert_int_equal(last_sent(r)->len, 100);
	sender_ack(r, 100, 1 << 16, 0);
	sender_write(r, 1500, 0);
	assert_int_equal(last_sent(r)->len, 1460); /* full segments pass a cork */
	assert_int_equal(r->sents, 2);
	tcp_set_cork(&r->e, r->k, false, r->e.s->now_us);
	assert_int_equal(r->sents, 3);
	assert_int_equal(last_sent(r)->len, 40);
	sender_free(r);
}

static void more_joins_the_next_write(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1460);

	(void)state;
	sender_write(r, 100, TCP_F_MORE);
	assert_int_equal(r->sents, 0);
	sender_write(r, 50, 0);
	assert_int_equal(r->sents, 1);
	assert_int_equal(last_sent(r)->len, 150);
	sender_free(r);
}

static void nothing_goes_beyond_the_window(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);

	(void)state;
	sender_ack(r, 0, 65536, 0);
	r->t->snd_wnd = 3500;
	r->t->cwnd = 1 << 20;
	assert_int_equal(sender_write(r, 10000, 0), 10000);
	assert_int_equal(r->sents, 3); /* 500 more would be silly (RFC 9293 3.8.6.2.1) */
	sender_ack(r, 3000, 3000, 0);
	assert_int_equal(r->sents, 6);
	for (uint32_t i = 0; i < r->sents; i++)
		assert_true(r->sent[i].seq + r->sent[i].len - DATA0 <= 6000);
	sender_check(r);
	sender_free(r);
}

static void a_shut_window_is_probed_more_and_more_rarely(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);
	uint64_t gap = 0;

	(void)state;
	r->t->snd_wnd = 0;
	assert_int_equal(sender_write(r, 100, 0), 100);
	assert_int_equal(r->sents, 0);
	sender_wait(r, 30 * SECOND);
	assert_in_range(r->sents, 5, 9);
	for (uint32_t i = 0; i < r->sents; i++) {
		assert_int_equal(r->sent[i].seq, DATA0 - 1); /* out of the window, so it must be answered */
		assert_int_equal(r->sent[i].len, 0);
		if (i) {
			assert_true(r->sent[i].at - r->sent[i - 1].at > gap);
			gap = r->sent[i].at - r->sent[i - 1].at;
		}
	}
	sender_ack(r, 0, 5000, 0);
	assert_int_equal(last_sent(r)->seq, DATA0);
	assert_int_equal(last_sent(r)->len, 100);
	sender_free(r);
}

static void a_probe_sends_what_a_small_window_takes(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);

	(void)state;
	r->t->snd_wnd = 70;
	assert_int_equal(sender_write(r, 100, 0), 100);
	assert_int_equal(r->sents, 0);
	sender_wait(r, 300 * MS);
	assert_int_equal(r->sents, 1);
	assert_int_equal(last_sent(r)->len, 70);
	sender_check(r);
	sender_free(r);
}

static void a_wire_takes_64k_in_one_segment(void **state)
{
	struct sender *r = sender_new(WIRE_LIKE, 65483);

	(void)state;
	assert_int_equal(sender_write(r, 65536, 0), 65536);
	assert_int_equal(r->sents, 2);
	assert_int_equal(r->sent[0].len, 16 * (4096 - PKT_HEADROOM));
	assert_int_equal(r->sent[0].parts, 16);
	assert_int_equal(r->sent[0].len + r->sent[1].len, 65536);
	sender_ack(r, 65536, 1 << 20, 0);
	assert_int_equal(r->t->txq.count, 0);
	assert_int_equal(r->st->free_top, r->st->tx_count);
	sender_free(r);
}

static void what_the_peer_still_has_is_not_sent_again(void **state)
{
	struct sender *r = sender_new(WIRE_LIKE, 65483);

	(void)state;
	r->dev.hold = true;
	sender_write(r, 5000, 0);
	assert_int_equal(r->sents, 1);
	sender_wait(r, 3600 * SECOND);
	assert_int_equal(r->sents, 1);
	assert_int_equal(r->t->state, TCP_ESTABLISHED); /* a peer that is only slow is not given up */
	r->dev.hold = false;
	for (uint32_t b = 0; b < r->st->tx_count; b++)
		if (r->st->tx_state[b] & VNIC_TX_NIC)
			vnic_take_return(r->st, b);
	sender_wait(r, 300 * SECOND);
	assert_true(r->sents > 1); /* returned and not acknowledged: now it is lost */
	sender_free(r);
}

static void fin_rides_on_the_last_data(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1460);

	(void)state;
	sender_write(r, 64, 0);
	sender_write(r, 36, 0); /* Nagle holds it */
	r->t->flags |= TCPF_FIN_QUEUED;
	r->t->state = TCP_FIN_WAIT_1;
	tcp_output(&r->e, r->k);
	assert_int_equal(r->sents, 2);
	assert_int_equal(last_sent(r)->len, 36);
	assert_true(last_sent(r)->flags & TH_FIN);
	assert_int_equal(r->t->snd_nxt, DATA0 + 101);
	sender_wait(r, 250 * MS); /* all of it again */
	assert_true(was_sent(r, 2, 0));
	sender_ack(r, 64, 1 << 16, 0);
	assert_true(last_sent(r)->flags & TH_FIN);
	assert_int_equal(last_sent(r)->seq, DATA0 + (last_sent(r)->len ? 64 : 100));
	assert_int_equal(sender_write(r, 1, 0), -EPIPE);
	sender_free(r);
}

static void a_lone_fin_is_sent_again(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1460);

	(void)state;
	r->t->flags |= TCPF_FIN_QUEUED;
	r->t->state = TCP_FIN_WAIT_1;
	tcp_output(&r->e, r->k);
	assert_int_equal(r->sents, 1);
	assert_int_equal(last_sent(r)->flags, TH_FIN | TH_ACK);
	sender_wait(r, 210 * MS);
	assert_int_equal(r->sents, 2);
	assert_int_equal(last_sent(r)->flags, TH_FIN | TH_ACK);
	assert_int_equal(last_sent(r)->seq, DATA0);
	sender_free(r);
}

static void an_urgent_byte_that_fills_a_segment_is_marked(void **state)
{
	struct sender *r = sender_new(0, 1000);

	(void)state;
	r->t->snd_wnd = r->t->snd_max_wnd = 2000;
	sender_write(r, 999, TCP_F_MORE);
	assert_int_equal(r->sents, 0);
	sender_write(r, 1, TCP_F_OOB);
	assert_int_equal(r->sents, 1);
	assert_true(last_sent(r)->flags & TH_URG);
	assert_int_equal(last_sent(r)->urg, 1000);
	sender_free(r);
}

static void the_urgent_pointer_points_behind_the_byte(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1460);

	(void)state;
	sender_write(r, 10, TCP_F_OOB);
	assert_true(last_sent(r)->flags & TH_URG);
	assert_int_equal(last_sent(r)->urg, 10);
	sender_ack(r, 10, 1 << 16, 0);
	sender_write(r, 10, 0);
	assert_false(last_sent(r)->flags & TH_URG);
	sender_free(r);
}

static void a_writer_hears_of_space_only_after_a_refusal(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);

	(void)state;
	r->k->flags |= SOCKF_SNDBUF_SET;
	r->k->sndbuf = 9000;
	r->t->snd_max_wnd = 6000; /* bursts, which are not broken off, are of half of that */
	sender_write(r, 3000, 0);
	sender_ack(r, 3000, 6000, 0);
	assert_false(sender_edges(r) & EV_OUT);
	assert_int_equal(sender_write(r, 20000, 0), 9000);
	assert_int_equal(sender_write(r, 1, 0), -EAGAIN);
	assert_false(tcp_writable(&r->e, r->k));
	sender_ack(r, 5000, 6000, 0);
	assert_false(sender_edges(r) & EV_OUT); /* 7000 of 9000 are in use: less than a third is free */
	sender_ack(r, 6000, 6000, 0);
	assert_true(sender_edges(r) & EV_OUT);
	assert_true(tcp_writable(&r->e, r->k));
	sender_free(r);
}

static void running_out_of_buffers_is_back_pressure(void **state)
{
	struct sender *r = sender_new(WIRE_LIKE, 65483);
	ssize_t n = 0, got;

	(void)state;
	r->k->flags |= SOCKF_SNDBUF_SET;
	r->k->sndbuf = 64 << 20;
	r->dev.hold = true;
	r->t->snd_wnd = r->t->snd_max_wnd = 1 << 30;
	while ((got = sender_write(r, 65536, 0)) > 0)
		n += got;
	assert_int_equal(got, -EAGAIN);
	assert_true(r->st->free_top >= r->st->tx_count / 2 - 1); /* half is left to others */
	assert_false(tcp_writable(&r->e, r->k));
	sender_edges(r);
	r->dev.hold = false;
	for (uint32_t b = 0; b < r->st->tx_count; b++)
		if (r->st->tx_state[b] & VNIC_TX_NIC)
			vnic_take_return(r->st, b);
	sender_ack(r, (uint32_t)n, 1 << 30, 0);
	txwait_run(&r->e, r->k->vnic);
	assert_true(sender_edges(r) & EV_OUT);
	assert_true(sender_write(r, 65536, 0) == 65536);
	sender_free(r);
}

static void without_a_single_buffer_an_ack_is_owed_until_there_is_one(void **state)
{
	struct sender *r = sender_new(WIRE_LIKE, 65483);
	uint32_t taken[1024], n = 0;

	(void)state;
	while (r->st->free_top)
		taken[n++] = (uint32_t)vnic_tx_alloc(&r->e.vnic[r->k->vnic]);
	tcp_send_ack(&r->e, r->k);
	assert_int_equal(r->sents, 0);
	while (n)
		vnic_tx_free(&r->e.vnic[r->k->vnic], taken[--n]);
	txwait_run(&r->e, r->k->vnic);
	assert_int_equal(r->sents, 1);
	assert_int_equal(last_sent(r)->ack, PEER0);
	sender_free(r);
}

static void resets_take_the_forms_of_the_rfc(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1460);
	struct frame f = {.vnic = r->k->vnic, .family = 4, .src = r->k->remote, .dst = r->k->local};
	struct segment g = {.f = &f, .seq = 77, .ack = 99, .len = 5, .flags = TH_ACK};

	(void)state;
	tcp_reply_rst(&r->e, &g);
	assert_int_equal(last_sent(r)->flags, TH_RST);
	assert_int_equal(last_sent(r)->seq, 99);
	g.flags = TH_SYN | TH_FIN;
	tcp_reply_rst(&r->e, &g);
	assert_int_equal(last_sent(r)->flags, TH_RST | TH_ACK);
	assert_int_equal(last_sent(r)->seq, 0);
	assert_int_equal(last_sent(r)->ack, 77 + 5 + 2);
	g.flags = TH_RST;
	tcp_reply_rst(&r->e, &g); /* never in answer to one */
	assert_int_equal(r->sents, 2);
	sender_free(r);
}

static void a_smaller_mss_cuts_what_is_queued(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1400);
	uint32_t from;

	(void)state;
	sender_write(r, 4200, 0);
	assert_int_equal(r->sents, 3);
	r->t->mss = 500;
	from = r->sents;
	sender_wait(r, 5 * SECOND);
	for (uint32_t i = from; i < r->sents; i++)
		assert_true(r->sent[i].len <= 500);
	sender_ack(r, 1400, 1 << 16, 0);
	sender_check(r);
	sender_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(nagle_holds_a_small_segment_behind_a_small_one),
	    cmocka_unit_test(a_full_segment_does_not_wait_for_nagle),
	    cmocka_unit_test(a_small_segment_of_long_ago_holds_nothing),
	    cmocka_unit_test(nodelay_sends_each_write),
	    cmocka_unit_test(cork_holds_for_200_ms_at_most),
	    cmocka_unit_test(more_joins_the_next_write),
	    cmocka_unit_test(nothing_goes_beyond_the_window),
	    cmocka_unit_test(a_shut_window_is_probed_more_and_more_rarely),
	    cmocka_unit_test(a_probe_sends_what_a_small_window_takes),
	    cmocka_unit_test(a_wire_takes_64k_in_one_segment),
	    cmocka_unit_test(what_the_peer_still_has_is_not_sent_again),
	    cmocka_unit_test(fin_rides_on_the_last_data),
	    cmocka_unit_test(a_lone_fin_is_sent_again),
	    cmocka_unit_test(an_urgent_byte_that_fills_a_segment_is_marked),
	    cmocka_unit_test(the_urgent_pointer_points_behind_the_byte),
	    cmocka_unit_test(a_writer_hears_of_space_only_after_a_refusal),
	    cmocka_unit_test(running_out_of_buffers_is_back_pressure),
	    cmocka_unit_test(without_a_single_buffer_an_ack_is_owed_until_there_is_one),
	    cmocka_unit_test(resets_take_the_forms_of_the_rfc),
	    cmocka_unit_test(a_smaller_mss_cuts_what_is_queued),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
