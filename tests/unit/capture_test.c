/* SPDX-License-Identifier: BSD-2-Clause */
/* Captures: every frame is recorded once, in order, whole; and no tool, dead, slow or hostile, can hurt the stack. */
#include "engine/capture.h"
#include "pair.h"

/* Both stacks with room for captures, a listener at end 1, and a capture at end `who`. */
static struct pair *capture_pair(int who)
{
	struct stack_config cfg = test_config();
	struct pair *p;

	cfg.capture = 1;
	p = pair_new(&cfg);
	stack_capture(p->e[who].s)->epoch = 7;
	p->e[who].s->capture = capture_clock(p->now) + CAPTURE_LEASE;
	return p;
}

/* The tool's half: the next record, or false. Its bytes are put together in `frame`. */
static bool next_record(struct stack *s, struct capture_record *r, uint8_t frame[CAPTURE_SNAP_MAX])
{
	struct capture *c = stack_capture(s);
	uint8_t *to = (uint8_t *)r;

	if (c->tail == c->head)
		return false;
	for (uint32_t i = 0; i < sizeof(*r); i++)
		to[i] = c->ring[(c->tail + i) % CAPTURE_RING];
	assert_true(r->size >= sizeof(*r) + r->caplen && r->size % 8 == 0 && r->caplen <= r->len);
	assert_true(r->caplen <= CAPTURE_SNAP_MAX);
	for (uint32_t i = 0; i < r->caplen; i++)
		frame[i] = c->ring[(c->tail + sizeof(*r) + i) % CAPTURE_RING];
	c->tail += r->size;
	return true;
}

static uint8_t frame[CAPTURE_SNAP_MAX];

/* What the door does after each call. */
static void record_sent(struct pair *p)
{
	for (int i = 0; i < 2; i++)
		if (capture_on(p->e[i].s))
			capture_sent(&p->e[i], p->vnic[i]);
}

/* A connection is opened and 100 bytes go from end 0 to end 1. */
static void talk(struct pair *p)
{
	struct endpoint server = pair_addr(1, 80), client = pair_addr(0, 4000);
	struct sock *l = sock_alloc(&p->e[1], SOCK_TCP, 4), *k = sock_alloc(&p->e[0], SOCK_TCP, 4);
	uint8_t data[100];

	memset(data, 'x', sizeof(data));
	record_sent(p); /* a capture begins with what is posted after its first look */
	l->local = server;
	assert_int_equal(tcp_listen(&p->e[1], l, 5), 0);
	assert_int_equal(tcp_connect(&p->e[0], k, p->vnic[0], &client, &server, p->now), 0);
	record_sent(p);
	pair_run(p);
	assert_int_equal(tcp_send(&p->e[0], k, &(struct iovec){data, sizeof(data)}, 1, 0, 0, p->now), sizeof(data));
	pair_run(p);
	record_sent(p);
}

static void every_frame_of_a_connection_is_recorded_once_in_order(void **state)
{
	(void)state;
	for (int who = 0; who < 2; who++) {
		struct pair *p = capture_pair(who);
		struct stack *s = p->e[who].s;
		const struct vnic_state *st = stack_vnic(s, p->vnic[who]);
		struct capture_record r;
		uint32_t sent = 0, received = 0, data = 0;

		talk(p);
		while (next_record(s, &r, frame)) {
			assert_int_equal(r.vnic, p->vnic[who]);
			assert_int_equal(r.gen, st->gen);
			assert_int_equal(r.caplen, r.len);
			assert_int_equal(frame[12] << 8 | frame[13], 0x0800);
			/* the first of all is the SYN, from the client */
			if (!sent && !received)
				assert_true(frame[14 + 20 + 13] == 2 && r.sent == (who == 0));
			sent += r.sent;
			received += !r.sent;
			if (r.len >= 100 && frame[r.len - 1] == 'x') {
				data++;
				assert_int_equal(r.sent, who == 0);
			}
		}
		assert_int_equal(sent, st->stats.tx_frames);
		assert_int_equal(received, st->stats.rx_frames);
		assert_int_equal(data, 1);
		assert_int_equal(stack_capture(s)->dropped, 0);
		pair_check(p);
		pair_free(p);
	}
}

static void frames_are_cut_to_what_the_tool_wants(void **state)
{
	struct pair *p = capture_pair(1);
	struct capture_record r;
	uint32_t n = 0;

	(void)state;
	stack_capture(p->e[1].s)->snap = 60;
	talk(p);
	for (; next_record(p->e[1].s, &r, frame); n += r.len > 60)
		assert_true(r.caplen <= 60 && (r.caplen == 60 || r.caplen == r.len));
	assert_true(n > 0);
	pair_free(p);
}

static void what_was_sent_before_is_not_recorded(void **state)
{
	struct stack_config cfg = test_config();
	struct capture_record r;
	struct pair *p;

	(void)state;
	cfg.capture = 1;
	p = pair_new(&cfg);
	talk(p);
	stack_capture(p->e[0].s)->epoch = 1;
	p->e[0].s->capture = capture_clock(p->now) + CAPTURE_LEASE;
	capture_sent(&p->e[0], p->vnic[0]);
	assert_false(next_record(p->e[0].s, &r, frame));
	pair_free(p);
}

static void a_tool_that_does_not_read_costs_frames_of_the_capture_only(void **state)
{
	struct pair *p = capture_pair(1);
	struct capture *c = stack_capture(p->e[1].s);

	(void)state;
	c->tail = c->head - CAPTURE_RING;
	talk(p);
	assert_int_equal(c->head, 0);
	assert_true(c->dropped > 0);
	c->tail = c->head + 12345; /* nonsense: ahead of the head */
	capture_sent(&p->e[1], p->vnic[1]);
	pair_check(p);
	pair_free(p);
}

static void positions_that_a_hostile_tool_writes_stay_in_the_ring(void **state)
{
	static const uint64_t heads[] = {UINT64_MAX, 1, CAPTURE_RING - 8, 1ull << 40 | 5};

	(void)state;
	for (unsigned i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
		struct pair *p = capture_pair(1);
		struct capture *c = stack_capture(p->e[1].s);

		c->head = c->tail = heads[i];
		c->snap = UINT32_MAX;
		memset(c->sent, 0xee, sizeof(c->sent));
		c->seen = c->epoch; /* so the nonsense is believed to be ours */
		talk(p);            /* the memory ends at a page that can't be touched */
		pair_check(p);
		pair_free(p);
	}
}

static void descriptors_that_a_peer_rewrote_are_not_followed(void **state)
{
	struct pair *p = capture_pair(0);
	struct capture_record r;
	struct vnic *v = &p->e[0].vnic[p->vnic[0]];
	struct endpoint server = pair_addr(1, 80), client = pair_addr(0, 4000);
	struct sock *k = sock_alloc(&p->e[0], SOCK_TCP, 4);

	(void)state;
	capture_sent(&p->e[0], p->vnic[0]); /* begins */
	assert_int_equal(tcp_connect(&p->e[0], k, p->vnic[0], &client, &server, p->now), 0);
	v->tx[0].buf = 0x7fffffff; /* the ring lies in memory that the peer may write */
	capture_sent(&p->e[0], p->vnic[0]);
	assert_false(next_record(p->e[0].s, &r, frame));
	pair_free(p);
}

static void a_capture_whose_tool_is_gone_ends_by_itself(void **state)
{
	struct pair *p = capture_pair(1);
	struct capture_record r;

	(void)state;
	p->now += 10 * SECOND;
	talk(p);
	assert_int_equal(p->e[1].s->capture, 0);
	assert_false(next_record(p->e[1].s, &r, frame));
	p->e[1].s->capture = 0x40000000; /* nobody may ask for years */
	engine_poll(&p->e[1], p->now, 1);
	capture_sent(&p->e[1], p->vnic[1]);
	assert_int_equal(p->e[1].s->capture, 0);
	pair_free(p);
}

static void a_stack_without_room_for_captures_has_none(void **state)
{
	struct stack_config cfg = test_config();
	struct pair *p = pair_new(&cfg);

	(void)state;
	assert_null(stack_capture(p->e[0].s));
	p->e[0].s->capture = capture_clock(p->now) + 1;
	talk(p);
	assert_int_equal(p->e[0].s->capture, 0);
	pair_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_frame_of_a_connection_is_recorded_once_in_order),
	    cmocka_unit_test(frames_are_cut_to_what_the_tool_wants),
	    cmocka_unit_test(what_was_sent_before_is_not_recorded),
	    cmocka_unit_test(a_tool_that_does_not_read_costs_frames_of_the_capture_only),
	    cmocka_unit_test(positions_that_a_hostile_tool_writes_stay_in_the_ring),
	    cmocka_unit_test(descriptors_that_a_peer_rewrote_are_not_followed),
	    cmocka_unit_test(a_capture_whose_tool_is_gone_ends_by_itself),
	    cmocka_unit_test(a_stack_without_room_for_captures_has_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
