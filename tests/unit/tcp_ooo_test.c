/* SPDX-License-Identifier: BSD-2-Clause */
/* The out-of-order queue: whatever order segments come in, the stream is right, the work and the memory bounded. */
#include "peer.h"

struct conn {
	struct peer *p;
	struct sock *l, *k;
};

static struct conn open_conn(void)
{
	struct stack_config cfg = peer_config();
	struct conn c;

	cfg.defaults.rcvbuf = 1 << 19;
	c.p = peer_new_with(&cfg, 0);
	c.l = peer_listen(c.p, 4);
	c.k = peer_open(c.p, c.l, true, false);
	return c;
}

static uint32_t next_random(uint64_t *x)
{
	*x = *x * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(*x >> 33);
}

/* Segments that overlap in every way, against a map of what has come. */
static void random_overlapping_segments_give_the_stream(void **state)
{
	static uint8_t have[40000];

	(void)state;
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct conn c = open_conn();
		uint32_t base = c.p->seq, front = 0, longest = seed % 3 == 0 ? 3 : seed % 3 == 1 ? 1400 : 4000;
		uint32_t size = longest == 3 ? 1500 : sizeof(have); /* tiny ones would exceed TCP_OOO_MAX */
		uint64_t x = seed;

		memset(have, 0, sizeof(have));
		while (front < size) {
			uint32_t at = next_random(&x) % size, len = 1 + next_random(&x) % longest;

			if (longest == 3 || next_random(&x) % 4 == 0) /* press on, lest it takes for ever */
				at = front + next_random(&x) % 40 % (size - front);
			if (at + len > size)
				len = size - at;
			peer_raw(c.p, PEER_PORT, PORT, base + at, c.p->ack, TH_ACK, 0, len);
			memset(have + at, 1, len);
			while (front < size && have[front])
				front++;
			assert_int_equal(c.k->tcp.rcv_nxt, base + front);
		}
		assert_int_equal(c.p->e.s->counters[C_tcp_ooo_dropped], 0);
		assert_int_equal(c.k->tcp.ooo_count, 0);
		assert_int_equal(peer_read(c.p, c.k, base, 1 << 20), size);
		assert_int_equal(c.p->e.s->pkt_pool.in_use, 0);
		peer_free(c.p);
	}
}

static void a_storm_of_one_byte_segments_is_bounded(void **state)
{
	struct conn c = open_conn();

	(void)state;
	for (uint32_t i = 1; i <= 3000; i++) /* a hole before each: no two can be merged */
		peer_raw(c.p, PEER_PORT, PORT, c.p->seq + i * 2, c.p->ack, TH_ACK, 0, 1);
	assert_true(c.k->tcp.ooo_count <= TCP_OOO_MAX);
	assert_true(c.p->e.s->counters[C_tcp_ooo_dropped] >= 3000 - TCP_OOO_MAX);
	peer_data(c.p, TH_ACK, 6002); /* covers all */
	assert_int_equal(c.k->tcp.ooo_count, 0);
	assert_int_equal(peer_read(c.p, c.k, PEER_ISS + 1, 1 << 20), 6002);
	peer_free(c.p);
}

static void contiguous_one_byte_segments_share_a_buffer(void **state)
{
	struct conn c = open_conn();

	(void)state;
	for (uint32_t i = 1; i <= 20000; i++)
		peer_raw(c.p, PEER_PORT, PORT, c.p->seq + i, c.p->ack, TH_ACK, 0, 1);
	assert_true(c.k->tcp.ooo_count <= 20000 / PRIVATE_BUF_SIZE + 1);
	peer_data(c.p, TH_ACK, 1);
	assert_int_equal(peer_read(c.p, c.k, PEER_ISS + 1, 1 << 20), 20001);
	peer_free(c.p);
}

static void the_newest_block_is_reported_first(void **state)
{
	struct conn c = open_conn();
	const struct tcp_opts *o;

	(void)state;
	for (uint32_t i = 1; i <= 5; i++)
		peer_send(c.p, (int32_t)i * 1000, TH_ACK, 100);
	o = &peer_last(c.p)->o;
	assert_int_equal(o->sacks, 4);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(o->sack[i].start, c.p->seq + (5 - i) * 1000);
		assert_int_equal(o->sack[i].end, c.p->seq + (5 - i) * 1000 + 100);
	}
	peer_send(c.p, 2100, TH_ACK, 100); /* an old one grows */
	o = &peer_last(c.p)->o;
	assert_int_equal(o->sack[0].start, c.p->seq + 2000);
	assert_int_equal(o->sack[0].end, c.p->seq + 2200);
	assert_int_equal(o->sack[1].start, c.p->seq + 5000);
	peer_free(c.p);
}

static void blocks_that_grow_together_are_one(void **state)
{
	struct conn c = open_conn();
	const struct tcp_opts *o;

	(void)state;
	peer_send(c.p, 1000, TH_ACK, 100);
	peer_send(c.p, 1200, TH_ACK, 100);
	peer_send(c.p, 1100, TH_ACK, 100);
	o = &peer_last(c.p)->o;
	assert_int_equal(o->sacks, 1);
	assert_int_equal(o->sack[0].start, c.p->seq + 1000);
	assert_int_equal(o->sack[0].end, c.p->seq + 1300);
	peer_free(c.p);
}

static void a_duplicate_above_a_gap_is_reported_with_its_block(void **state)
{
	struct conn c = open_conn();
	const struct tcp_opts *o;

	(void)state;
	peer_send(c.p, 1000, TH_ACK, 500);
	peer_send(c.p, 1100, TH_ACK, 100);
	o = &peer_last(c.p)->o; /* RFC 2883 4.2: the duplicate, then the block that contains it */
	assert_int_equal(o->sacks, 2);
	assert_int_equal(o->sack[0].start, c.p->seq + 1100);
	assert_int_equal(o->sack[0].end, c.p->seq + 1200);
	assert_int_equal(o->sack[1].start, c.p->seq + 1000);
	assert_int_equal(o->sack[1].end, c.p->seq + 1500);
	peer_send(c.p, 3000, TH_ACK, 10); /* reported once */
	assert_int_equal(peer_last(c.p)->o.sack[0].start, c.p->seq + 3000);
	peer_free(c.p);
}

static void what_waits_is_freed_with_the_connection(void **state)
{
	struct conn c = open_conn();

	(void)state;
	for (uint32_t i = 1; i <= 200; i++)
		peer_send(c.p, (int32_t)i * 1000, TH_ACK, 700);
	peer_send(c.p, 0, TH_RST, 0);
	assert_int_equal(c.p->e.s->pkt_pool.in_use, 0);
	assert_int_equal(c.p->e.s->private_pool.in_use, 0);
	peer_free(c.p);
}

static void without_buffers_segments_are_dropped_and_nothing_breaks(void **state)
{
	struct stack_config cfg = peer_config();
	struct peer *p;
	struct sock *l, *k;

	(void)state;
	cfg.max_private = 8;
	p = peer_new_with(&cfg, 0);
	l = peer_listen(p, 4);
	k = peer_open(p, l, true, false);
	for (uint32_t i = 1; i <= 30; i++)
		peer_send(p, (int32_t)i * 60, TH_ACK, 10); /* a buffer each */
	assert_true(p->e.s->counters[C_tcp_ooo_dropped] > 0);
	for (int i = 0; i < 30; i++)
		peer_send(p, 0, TH_ACK, 1000); /* no room for this either, until the queue is read */
	assert_int_equal(k->tcp.state, TCP_ESTABLISHED);
	peer_free(p);
}

int main(void)
{
#define T cmocka_unit_test
	const struct CMUnitTest tests[] = {
	    T(random_overlapping_segments_give_the_stream), T(a_storm_of_one_byte_segments_is_bounded),
	    T(contiguous_one_byte_segments_share_a_buffer), T(the_newest_block_is_reported_first),
	    T(blocks_that_grow_together_are_one),           T(a_duplicate_above_a_gap_is_reported_with_its_block),
	    T(what_waits_is_freed_with_the_connection),     T(without_buffers_segments_are_dropped_and_nothing_breaks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
