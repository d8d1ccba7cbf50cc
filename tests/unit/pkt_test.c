/* SPDX-License-Identifier: BSD-2-Clause */
/* Packet descriptors, their buffers, and taking over what a frame brought. */
#include "engine_pair.h"

static void pools_reuse_what_was_freed_last_before_they_touch_new_memory(void **state)
{
	struct pair *t = *state;
	struct engine *e = t->e[0];
	struct pkt *a = pkt_alloc_private(e), *b = pkt_alloc_private(e), *c;
	uint32_t buf = b->buf;

	assert_int_equal(pkt_index(e->s, a), 1);
	assert_int_equal(e->s->pkt_pool.mark, 3);
	pkt_free(e, b);
	c = pkt_alloc_private(e);
	assert_ptr_equal(c, b);
	assert_int_equal(c->buf, buf);
	assert_int_equal(c->len, 0);
	assert_int_equal(pkt_room(e, c), PRIVATE_BUF_SIZE);
	assert_int_equal(e->s->pkt_pool.mark, 3);
	for (size_t i = 0; i < 50 * sizeof(struct pkt); i++) /* beyond the mark nothing was ever written */
		assert_int_equal(((uint8_t *)pkt_at(e->s, 3))[i], 0);
	pkt_free(e, a);
	pkt_free(e, c);
	assert_quiet(t);
}

static void exhausted_pools_say_no_and_recover(void **state)
{
	struct stack_config cfg = pair_config();
	struct pkt *p[100];
	struct pair *t;
	int n = 0;

	(void)state;
	cfg.max_pkts = 12;
	cfg.max_private = 8;
	t = pair_make(&cfg);
	while ((p[n] = pkt_alloc_private(t->e[0])))
		n++;
	assert_int_equal(n, 7);
	assert_true(COUNTED(t->e[0], pkt_no_private) > 0);
	while ((p[n] = pkt_alloc_tx(t->e[0], 0)))
		n++;
	assert_int_equal(n, 11);
	assert_true(COUNTED(t->e[0], pkt_none) > 0);
	while (n--)
		pkt_free(t->e[0], p[n]);
	assert_non_null(p[0] = pkt_alloc_private(t->e[0]));
	pkt_free(t->e[0], p[0]);
	assert_quiet(t);
	pair_free(t);
}

static void data_leaves_tx_buffers_for_acknowledgements(void **state)
{
	struct pair *t = *state;
	struct pkt_queue q = {0};
	struct pkt *p;

	while ((p = pkt_alloc_tx(t->e[0], 0)))
		pkt_push_tail(t->e[0]->s, &q, p);
	assert_int_equal(q.count, WIRE_BUFS - TXWAIT_RESERVE);
	assert_int_equal(t->e[0]->vnic[0].st->stats.tx_no_buffer, 1);
	assert_true(vnic_tx_alloc(&t->e[0]->vnic[0]) >= 0);
	pkt_queue_free(t->e[0], &q);
	assert_int_equal(q.count, 0);
	assert_null(pkt_alloc_tx(t->e[0], 3)); /* not mapped */
	assert_null(pkt_alloc_tx(t->e[0], VNIC_NONE));
	assert_int_equal(t->e[0]->vnic[0].st->free_top, WIRE_BUFS - 1);
	assert_int_equal(t->e[0]->s->pkt_pool.in_use, 0);
}

static void freeing_twice_is_counted_and_harmless(void **state)
{
	struct pair *t = *state;
	struct pkt *p = pkt_alloc_tx(t->e[0], 0);

	pkt_free(t->e[0], p);
	pkt_free(t->e[0], p);
	assert_int_equal(COUNTED(t->e[0], pkt_double_free), 1);
	assert_quiet(t);
}

static void queues_keep_order_count_and_bytes(void **state)
{
	struct pair *t = *state;
	struct stack *s = t->e[0]->s;
	uint64_t seed = test_seed();
	struct pkt *model[200];
	struct pkt_queue q = {0};
	uint32_t n = 0, bytes = 0;

	for (int step = 0; step < 20000; step++) {
		uint32_t at = random_below(&seed, n + 1), what = random_below(&seed, 5);

		if (what < 3 && n < 200) {
			struct pkt *p = pkt_alloc_empty(s);

			p->len = random_below(&seed, 5000);
			bytes += p->len;
			at = what ? at : n;
			if (what)
				pkt_insert_after(s, &q, at ? model[at - 1] : NULL, p);
			else
				pkt_push_tail(s, &q, p);
			memmove(&model[at + 1], &model[at], (n - at) * sizeof(model[0]));
			model[at] = p;
			n++;
		} else if (at < n) {
			bytes -= model[at]->len;
			pkt_unlink(s, &q, model[at]);
			pkt_free(t->e[0], model[at]);
			n--;
			memmove(&model[at], &model[at + 1], (n - at) * sizeof(model[0]));
		}
		assert_int_equal(q.count, n);
		assert_int_equal(q.bytes, bytes);
		assert_int_equal(q.head, n ? pkt_index(s, model[0]) : 0);
		assert_int_equal(q.tail, n ? pkt_index(s, model[n - 1]) : 0);
		for (uint32_t i = 0; i < n; i++) {
			assert_int_equal(model[i]->prev, i ? pkt_index(s, model[i - 1]) : 0);
			assert_int_equal(model[i]->next, i + 1 < n ? pkt_index(s, model[i + 1]) : 0);
		}
	}
	pkt_queue_free(t->e[0], &q);
	assert_quiet(t);
}

/* --- taking over a frame's payload --- */

/* Post a frame of these parts from stack 0, full of a pattern, and pick it up in stack 1 as engine_poll would. */
static void receive(struct pair *t, struct frame *f, const uint32_t *lens, uint32_t n)
{
	struct vnic_desc d[FRAME_PARTS] = {0}, ev[VNIC_BURST];
	uint32_t at = 0;

	for (uint32_t i = 0; i < n; i++) {
		int buf = vnic_tx_alloc(&t->e[0]->vnic[0]);
		uint8_t *p;

		assert_true(buf >= 0);
		d[i] =
		    (struct vnic_desc){.buf = (uint32_t)buf, .off = (uint16_t)(i ? 0 : 100), .len = (uint16_t)lens[i]};
		p = vnic_tx_buf(&t->e[0]->vnic[0], (uint32_t)buf) + d[i].off;
		for (uint32_t j = 0; j < lens[i]; j++)
			p[j] = (uint8_t)(at++ * 31 >> 3);
	}
	t->e[0]->vnic[0].ops->post(&t->e[0]->vnic[0], d, (int)n);
	for (uint32_t i = 0; i < n; i++)
		vnic_tx_free(&t->e[0]->vnic[0], d[i].buf);
	assert_int_equal(t->e[1]->vnic[0].ops->poll(&t->e[1]->vnic[0], ev, VNIC_BURST), n);
	*f = (struct frame){.vnic = 0, .parts = n, .total = at};
	memcpy(f->part, ev, n * sizeof(ev[0]));
	f->hdr_len = ev[0].len < FRAME_HDR ? ev[0].len : FRAME_HDR;
	memcpy(f->hdr, vnic_rx_buf(&t->e[1]->vnic[0], ev[0].buf) + ev[0].off, f->hdr_len);
}

static void finish(struct pair *t, struct frame *f)
{
	for (uint32_t i = 0; i < f->parts; i++)
		if (!(f->taken >> i & 1))
			t->e[1]->vnic[0].ops->release(&t->e[1]->vnic[0], f->part[i].buf);
}

/* The chain holds exactly [off, off + len) of the pattern; it is freed. Returns how many of its pkts are copies. */
static uint32_t check_chain(struct pair *t, struct pkt *p, uint32_t off, uint32_t len)
{
	uint32_t copies = 0;

	while (p) {
		struct pkt *next = pkt_at(t->e[1]->s, p->next);
		const uint8_t *data = pkt_data(t->e[1], p);

		assert_non_null(data);
		assert_true(p->len && p->len <= len);
		for (uint32_t i = 0; i < p->len; i++, off++)
			assert_int_equal(data[i], (uint8_t)(off * 31 >> 3));
		len -= p->len;
		copies += p->kind == PKT_PRIVATE;
		pkt_free(t->e[1], p);
		p = next;
	}
	assert_int_equal(len, 0);
	return copies;
}

static void payload_is_taken_in_place_even_when_trimmed(void **state)
{
	struct pair *t = *state;
	struct frame f;
	struct pkt *p;

	receive(t, &f, (uint32_t[]){1000}, 1);
	p = frame_take(t->e[1], &f, 54, 700);
	assert_int_equal(p->kind, PKT_RX);
	assert_int_equal(p->off, 154);
	assert_int_equal(f.taken, 1);
	finish(t, &f);
	assert_int_equal(check_chain(t, p, 54, 700), 0);
	assert_quiet(t);
}

static void any_range_of_any_frame_comes_out_right(void **state)
{
	struct pair *t = *state;
	uint64_t seed = test_seed();
	uint8_t *buf = malloc(1 << 17);

	for (int round = 0; round < 3000; round++) {
		uint32_t n = 1 + random_below(&seed, FRAME_PARTS), lens[FRAME_PARTS], off, len, twice;
		struct frame f;
		struct pkt *p, *again;

		for (uint32_t i = 0; i < n; i++)
			lens[i] = 1 + random_below(&seed, random_below(&seed, 2) ? 3900 : 10);
		receive(t, &f, lens, n);
		off = random_below(&seed, f.total);
		len = 1 + random_below(&seed, f.total - off);
		assert_true(frame_copy(t->e[1], &f, off, buf, len));
		for (uint32_t i = 0; i < len; i++)
			assert_int_equal(buf[i], (uint8_t)((off + i) * 31 >> 3));
		p = frame_take(t->e[1], &f, off, len);
		assert_non_null(p);
		twice = random_below(&seed, len);
		again = frame_take(t->e[1], &f, off + twice, len - twice); /* its buffers have owners: copies */
		finish(t, &f);
		assert_int_equal(check_chain(t, p, off, len), 0);
		assert_true(check_chain(t, again, off + twice, len - twice) > 0);
		pair_poll(t, 0);
		if (round % 500 == 0)
			assert_quiet(t);
	}
	free(buf);
	assert_quiet(t);
}

static void ranges_beyond_the_frame_are_refused(void **state)
{
	struct pair *t = *state;
	struct frame f;
	uint8_t buf[8];

	receive(t, &f, (uint32_t[]){300, 50}, 2);
	assert_null(frame_take(t->e[1], &f, 0, 351));
	assert_null(frame_take(t->e[1], &f, 351, 1));
	assert_null(frame_take(t->e[1], &f, 350, 1));
	assert_null(frame_take(t->e[1], &f, 1, UINT32_MAX));
	assert_null(frame_take(t->e[1], &f, 10, 0));
	assert_false(frame_copy(t->e[1], &f, 349, buf, 2));
	assert_false(frame_copy(t->e[1], &f, UINT32_MAX, buf, 2));
	assert_false(frame_copy(t->e[1], &f, 2, buf, UINT32_MAX));
	assert_int_equal(f.taken, 0);
	finish(t, &f);
	assert_quiet(t);
}

static void holding_many_buffers_turns_to_copying(void **state)
{
	struct pair *t = *state;
	struct pkt_queue q = {0};
	struct frame f;

	for (uint32_t i = 0; i < 1200; i++) {
		struct pkt *p;

		receive(t, &f, (uint32_t[]){1500}, 1);
		p = frame_take(t->e[1], &f, 100, 1400);
		assert_non_null(p);
		assert_int_equal(p->kind, i < WIRE_BUFS / 2 ? PKT_RX : PKT_PRIVATE);
		pkt_push_tail(t->e[1]->s, &q, p);
		finish(t, &f);
		pair_poll(t, 0);
	}
	pkt_queue_free(t->e[1], &q);
	assert_quiet(t);
}

static void without_private_buffers_the_peer_has_fewer_but_loses_nothing(void **state)
{
	struct stack_config cfg = pair_config();
	struct pkt_queue q = {0};
	struct pair *t;
	struct frame f;
	uint32_t kept = 0;

	(void)state;
	cfg.max_private = 4;
	t = pair_make(&cfg);
	for (uint32_t i = 0; i < 1900; i++) {
		struct pkt *p;

		receive(t, &f, (uint32_t[]){1500}, 1);
		p = frame_take(t->e[1], &f, 100, 1400);
		if (p) {
			pkt_push_tail(t->e[1]->s, &q, p);
			kept++;
		}
		finish(t, &f);
		pair_poll(t, 0);
	}
	assert_in_range(kept, WIRE_BUFS * 14 / 16, WIRE_BUFS * 14 / 16 + 10); /* there the taking ends */
	pkt_queue_free(t->e[1], &q);
	assert_quiet(t);
	pair_free(t);
}

/* --- another process of the tree --- */

static void a_process_without_the_mapping_can_let_go_of_buffers(void **state)
{
	struct pair *t = *state;
	struct engine *child = calloc(1, sizeof(*child));
	struct pkt *rx, *tx;
	struct frame f;

	engine_attach(child, t->e[1]->s);
	receive(t, &f, (uint32_t[]){1000}, 1);
	rx = frame_take(t->e[1], &f, 0, 1000);
	tx = pkt_alloc_tx(t->e[1], 0);
	assert_null(pkt_data(child, rx));
	assert_null(pkt_data(child, tx));
	pkt_free(child, rx);
	pkt_free(child, tx);
	assert_int_equal(stack_audit(t->e[1]), 0);
	assert_int_equal(t->e[1]->vnic[0].st->rx_held, 1); /* it waits for somebody who can reach the ring */
	pair_poll(t, 1);
	assert_int_equal(t->e[1]->vnic[0].st->rx_held, 0);
	free(child);
	assert_quiet(t);
}

static void a_buffer_of_an_earlier_vnic_is_not_touched(void **state)
{
	struct pair *t = *state;
	struct pkt *p;
	struct frame f;

	receive(t, &f, (uint32_t[]){1000}, 1);
	p = frame_take(t->e[1], &f, 0, 1000);
	p->vnic_gen--; /* as if the slot had been used again since */
	assert_null(pkt_data(t->e[1], p));
	pkt_free(t->e[1], p);
	assert_int_equal(t->e[1]->vnic[0].st->rx_held, 1);
	assert_int_equal(t->e[1]->s->pkt_pool.in_use, 0);
}

/* --- the audit itself must notice --- */

static void the_audit_notices_lost_pkts_and_buffers(void **state)
{
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v4(2, 2000), NULL);
	uint8_t f[64];
	struct pkt *p;

	engine_input(t->e[1], 0, f, make_udp4(f, "x", 1), true, t->now);
	assert_int_equal(stack_audit(t->e[1]), 0);
	k->rxq.bytes++;
	assert_int_not_equal(stack_audit(t->e[1]), 0);
	k->rxq.bytes--;
	k->rxq.count++;
	assert_int_not_equal(stack_audit(t->e[1]), 0);
	k->rxq.count--;
	p = pkt_alloc_private(t->e[1]); /* in no queue */
	assert_int_not_equal(stack_audit(t->e[1]), 0);
	pkt_free(t->e[1], p);
	vnic_tx_alloc(&t->e[1]->vnic[0]); /* of no pkt */
	assert_int_not_equal(stack_audit(t->e[1]), 0);
	vnic_tx_free(&t->e[1]->vnic[0], 0);
	t->e[1]->vnic[0].st->rx_held++;
	assert_int_not_equal(stack_audit(t->e[1]), 0);
	t->e[1]->vnic[0].st->rx_held--;
	assert_int_equal(stack_audit(t->e[1]), 0);
}

int main(void)
{
#define ON_PAIR(test) cmocka_unit_test_setup_teardown(test, pair_setup, pair_teardown)
	const struct CMUnitTest tests[] = {
	    ON_PAIR(pools_reuse_what_was_freed_last_before_they_touch_new_memory),
	    cmocka_unit_test(exhausted_pools_say_no_and_recover),
	    ON_PAIR(data_leaves_tx_buffers_for_acknowledgements),
	    ON_PAIR(freeing_twice_is_counted_and_harmless),
	    ON_PAIR(queues_keep_order_count_and_bytes),
	    ON_PAIR(payload_is_taken_in_place_even_when_trimmed),
	    ON_PAIR(any_range_of_any_frame_comes_out_right),
	    ON_PAIR(ranges_beyond_the_frame_are_refused),
	    ON_PAIR(holding_many_buffers_turns_to_copying),
	    cmocka_unit_test(without_private_buffers_the_peer_has_fewer_but_loses_nothing),
	    ON_PAIR(a_process_without_the_mapping_can_let_go_of_buffers),
	    ON_PAIR(a_buffer_of_an_earlier_vnic_is_not_touched),
	    ON_PAIR(the_audit_notices_lost_pkts_and_buffers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
