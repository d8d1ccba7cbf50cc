/* SPDX-License-Identifier: BSD-2-Clause */
/* Large segments: what is gathered into one, what is not, and what the kernel is told of it. */
#include "engine/large.h"
#include "sender.h"

#define HEADERS (14u + 20u + 20u)

/* A connection whose segments of 1000 bytes may be gathered, `cwnd` of them in flight. */
static struct sender *large_new(uint32_t cwnd)
{
	struct sender *r = sender_new(0, 1000);

	r->e.large = calloc(1, sizeof(struct large));
	r->e.large_fd[r->k->vnic] = 1;
	r->t->cwnd = cwnd * 1000;
	r->k->sndbuf = 1 << 20;
	return r;
}

static void large_free(struct sender *r)
{
	free(r->e.large);
	r->e.large = NULL;
	sender_free(r);
}

/* What the socket layer does after the lock's release. */
static void taken_away(struct sender *r)
{
	r->e.large->frames = r->e.large->used = 0;
	r->e.large->full = false;
}

static uint16_t word(const struct large *g, uint32_t at)
{
	uint16_t w;

	memcpy(&w, g->bytes + at, 2);
	return w;
}

static void consecutive_segments_leave_as_one(void **state)
{
	struct sender *r = large_new(10);
	const struct large *g = r->e.large;
	const uint8_t *payload = g->bytes + LARGE_LEAD + HEADERS;

	(void)state;
	assert_int_equal(sender_write(r, 4500, 0), 4500);
	assert_int_equal(r->sents, 0);
	assert_int_equal(g->frames, 1);
	assert_int_equal(g->frame[0].segments, 5);
	assert_int_equal(g->frame[0].len, LARGE_LEAD + HEADERS + 4500);
	assert_false(g->frame[0].open); /* a short one, with PSH, is the last */
	assert_memory_equal(payload, r->pattern, 4500);
	assert_true(payload[-20 + 13] & TH_PSH);
	assert_int_equal(r->t->snd_nxt, DATA0 + 4500);
	assert_int_equal(r->t->txq.count, 5);
	large_free(r);
}

static void the_kernel_is_told_where_to_cut_and_to_sum(void **state)
{
	struct sender *r = large_new(10);
	struct large *g = r->e.large;
	uint8_t *ip = g->bytes + LARGE_LEAD + 14;
	uint16_t partial;

	(void)state;
	sender_write(r, 3000, 0);
	large_finish(g, 0);
	assert_int_equal(g->bytes[0], 1);      /* NEEDS_CSUM */
	assert_int_equal(g->bytes[1], 1);      /* TCPV4 */
	assert_int_equal(word(g, 2), HEADERS); /* hdr_len */
	assert_int_equal(word(g, 4), 1000);    /* gso_size */
	assert_int_equal(word(g, 6), 34);      /* csum_start */
	assert_int_equal(word(g, 8), 16);      /* csum_offset */
	assert_int_equal(ip[2] << 8 | ip[3], 3040);
	assert_int_equal(csum_fold(csum_add(ip, 20, 0)), 0);
	partial = (uint16_t)~csum_fold(csum_pseudo(4, r->k->local.addr, r->k->remote.addr, 6, 3020));
	assert_int_equal(word(g, LARGE_LEAD + 34 + 16), partial);
	large_free(r);
}

static void a_segment_alone_goes_over_the_ring(void **state)
{
	struct sender *r = large_new(10);

	(void)state;
	sender_write(r, 100, 0);
	assert_int_equal(r->sents, 1);
	assert_int_equal(r->e.large->frames, 0);
	large_free(r);
}

static void what_comes_after_stays_behind(void **state)
{
	struct sender *r = large_new(10);
	const struct large *g = r->e.large;

	(void)state;
	r->t->flags |= TCPF_NODELAY;
	sender_write(r, 3000, 0);
	sender_write(r, 100, 0); /* would overtake, over the ring */
	assert_int_equal(r->sents, 0);
	assert_int_equal(g->frames, 2);
	assert_int_equal(g->frame[1].segments, 1);
	assert_int_equal(g->frame[1].len, LARGE_LEAD + HEADERS + 100);
	large_free(r);
}

static void another_acknowledgement_begins_another(void **state)
{
	struct sender *r = large_new(40);
	struct large *g = r->e.large;

	(void)state;
	sender_write(r, 10000, TCP_F_MORE);
	assert_int_equal(g->frames, 1);
	g->frame[0].open = true; /* although PSH ended the burst */
	r->t->rcv_nxt += 7;
	sender_write(r, 10000, TCP_F_MORE);
	assert_int_equal(g->frames, 2);
	assert_int_equal(g->frame[1].segments, 10);
	large_free(r);
}

static void no_packet_is_longer_than_ip_allows(void **state)
{
	struct sender *r = large_new(200);
	const struct large *g = r->e.large;
	uint32_t bytes = 0;

	(void)state;
	assert_int_equal(sender_write(r, 150000, 0), 150000);
	for (uint32_t i = 0; i < g->frames; i++) {
		assert_true(g->frame[i].len - LARGE_LEAD - 14 <= 65535);
		bytes += g->frame[i].len - LARGE_LEAD - HEADERS;
	}
	assert_int_equal(bytes, 150000);
	large_free(r);
}

static void what_finds_no_room_goes_over_the_ring(void **state)
{
	struct sender *r = large_new(400);
	const struct large *g = r->e.large;
	uint32_t bytes = 0;

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(sender_write(r, 100000, 0), 100000);
	for (uint32_t i = 0; i < g->frames; i++)
		bytes += g->frame[i].len - LARGE_LEAD - HEADERS;
	assert_true(g->full);
	assert_true(g->used <= LARGE_BYTES);
	assert_true(bytes >= 3 * 60000);
	assert_true(r->sents > 0);
	assert_int_equal(r->sent[0].seq, DATA0 + bytes); /* in order: what is gathered is sent first then */
	assert_int_equal(r->t->snd_nxt, DATA0 + 400000);
	large_free(r);
}

static void a_part_that_is_lost_is_sent_again_by_itself(void **state)
{
	struct sender *r = large_new(10);

	(void)state;
	sender_write(r, 10000, 0);
	assert_int_equal(r->sents, 0);
	taken_away(r);
	sender_wait(r, 20 * MS);
	sender_ack(r, 3000, 1 << 20, 1, 4000u, 10000u);
	assert_true(was_sent(r, 0, 3000));
	assert_int_equal(last_sent(r)->len, 1000);
	assert_int_equal(r->t->bytes_retrans, 1000);
	large_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(consecutive_segments_leave_as_one),
	    cmocka_unit_test(the_kernel_is_told_where_to_cut_and_to_sum),
	    cmocka_unit_test(a_segment_alone_goes_over_the_ring),
	    cmocka_unit_test(what_comes_after_stays_behind),
	    cmocka_unit_test(another_acknowledgement_begins_another),
	    cmocka_unit_test(no_packet_is_longer_than_ip_allows),
	    cmocka_unit_test(what_finds_no_room_goes_over_the_ring),
	    cmocka_unit_test(a_part_that_is_lost_is_sent_again_by_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
