/* SPDX-License-Identifier: BSD-2-Clause */
/* The stack's region, its sockets and their news, and the engine's comings and goings: polling, doorbells, vNICs. */
#include "engine_pair.h"

#include <sys/mman.h>

static void a_formatted_stack_is_recognised_and_a_damaged_one_is_not(void **state)
{
	struct stack_config cfg = pair_config();
	size_t len = stack_size(&cfg);
	struct stack *s = test_memory(len);
	uint64_t *field[] = {&s->magic,    &s->total_size,  &s->off_vnics,  &s->off_socks,  &s->off_pkts,
			     &s->off_hash, &s->off_private, &s->off_fdinfo, &s->off_ifaces, &s->off_routes};

	(void)state;
	assert_int_equal(stack_check(s, len), -EPROTO);
	assert_int_equal(stack_format(s, len, &cfg), 0);
	assert_int_equal(stack_check(s, len), 0);
	assert_int_equal(stack_check(s, len - 1), -EPROTO);
	assert_int_equal(stack_check(s, 100), -EPROTO);
	for (size_t i = 0; i < sizeof(field) / sizeof(field[0]); i++)
		for (int bit = 0; bit < 64; bit += 7) {
			*field[i] ^= 1ull << bit;
			assert_int_equal(stack_check(s, len), -EPROTO);
			*field[i] ^= 1ull << bit;
		}
	s->version++;
	assert_int_equal(stack_check(s, len), -EPROTO);
	s->version--;
	s->cfg.max_socks++;
	assert_int_equal(stack_check(s, len), -EPROTO);
	s->cfg.max_socks = UINT32_MAX;
	assert_int_equal(stack_check(s, len), -EPROTO);
	test_memory_free(s, len);
}

static void impossible_configurations_are_refused(void **state)
{
	struct stack_config good = pair_config(), bad;
	static _Alignas(64) uint8_t small[4096];

	(void)state;
	assert_int_equal(stack_format(small, sizeof(small), &good), -EINVAL);
	bad = good;
	bad.hash_buckets = 1000;
	assert_int_equal(stack_size(&bad), 0);
	assert_int_equal(stack_format(small, SIZE_MAX, &bad), -EINVAL);
	bad = good;
	bad.max_socks = 1u << 25; /* a handle has 24 bits for it */
	assert_int_equal(stack_size(&bad), 0);
	bad = good;
	bad.max_pkts = 0;
	assert_int_equal(stack_size(&bad), 0);
}

/* A large stack must cost only what is used of it. */
static void formatting_touches_only_a_little_memory(void **state)
{
	struct stack_config cfg = pair_config();
	size_t len, resident = 0;
	unsigned char *vec;
	void *mem;

	(void)state;
	cfg.max_socks = 1u << 20;
	cfg.max_pkts = 1u << 20;
	cfg.max_private = 1u << 18;
	cfg.hash_buckets = 1u << 20;
	len = stack_size(&cfg);
	mem = test_memory(len);
	assert_int_equal(stack_format(mem, len, &cfg), 0);
	vec = malloc(len / 4096 + 1);
	assert_int_equal(mincore(mem, len, vec), 0);
	for (size_t i = 0; i < len / 4096; i++)
		resident += vec[i] & 1;
	assert_true(resident <= 4);
	free(vec);
	test_memory_free(mem, len);
}

static void a_slot_used_again_has_another_generation(void **state)
{
	struct engine *e = ((struct pair *)*state)->e[0];
	struct sock *a = sock_alloc(e, SOCK_UDP, 4), *b;
	uint32_t gen = a->gen;

	a->so_error = 5;
	sock_free(e, a);
	b = sock_alloc(e, SOCK_UDP, 6);
	assert_ptr_equal(a, b);
	assert_int_not_equal(b->gen, gen);
	assert_int_equal(b->so_error, 0);
	assert_int_equal(b->family, 6);
	assert_int_equal(b->vnic, VNIC_NONE);
	assert_int_equal(b->rcvbuf, 212992);
	b->gen = UINT32_MAX;
	sock_free(e, b);
	assert_int_not_equal(sock_alloc(e, SOCK_UDP, 6)->gen, 0); /* 0 would look like no socket */
}

/* --- news --- */

static void each_holder_hears_of_a_socket_once_until_it_has_looked(void **state)
{
	struct engine *e = ((struct pair *)*state)->e[0];
	struct sock *k = sock_alloc(e, SOCK_UDP, 4);
	struct stack_proc *p = e->s->proc;

	sock_notify(e, k, EV_IN); /* nobody holds it */
	assert_int_equal(k->edges, 0);
	k->holders = 1ull << 3 | 1ull << 63;
	sock_notify(e, k, EV_IN);
	sock_notify(e, k, EV_OUT | EV_RDHUP);
	assert_int_equal(p[3].dirty_tail, 1);
	assert_int_equal(p[63].dirty_tail, 1);
	assert_int_equal(p[0].dirty_tail, 0);
	assert_int_equal(p[3].dirty[0], sock_index(e->s, k));
	assert_int_equal(k->edges, EV_IN | EV_OUT);
	assert_int_equal(k->edge_rdhup, 1);
	p[3].dirty_head = 1; /* process 3 has looked */
	k->dirty_mask &= ~(1ull << 3);
	sock_notify(e, k, EV_IN);
	assert_int_equal(p[3].dirty_tail, 2);
	assert_int_equal(p[63].dirty_tail, 1);
}

static void a_full_ring_of_news_says_so(void **state)
{
	struct stack_config cfg = pair_config();
	struct pair *t;
	struct stack_proc *p;

	(void)state;
	cfg.max_socks = DIRTY_RING + 10;
	t = pair_make(&cfg);
	p = &t->e[0]->s->proc[0];
	for (uint32_t i = 0; i < DIRTY_RING + 1; i++) {
		struct sock *k = sock_alloc(t->e[0], SOCK_UDP, 4);

		k->holders = 1;
		assert_int_equal(p->dirty_overflow, 0);
		sock_notify(t->e[0], k, EV_IN);
		assert_int_equal(k->edges, EV_IN); /* whoever looks at all sockets finds it */
	}
	assert_int_equal(p->dirty_overflow, 1);
	assert_int_equal(p->dirty_tail - p->dirty_head, DIRTY_RING);
	assert_int_equal(COUNTED(t->e[0], sock_dirty_overflow), 1);
	pair_free(t);
}

/* --- frames of several buffers --- */

/* Make a UDP frame and cut it into n parts; posts all but the last when `unfinished`. Bypasses the provider's rule that
 * a frame is posted whole, as a hostile peer can. */
static void post_parts(struct pair *t, uint32_t n, bool unfinished)
{
	struct vnic *v = &t->e[0]->vnic[0];
	uint8_t f[1024];
	uint32_t len = make_udp4(f, memset((uint8_t[600]){0}, 7, 600), 600), at = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t take = i + 1 == n ? len - at : i ? 3 : 80;
		struct vnic_desc *slot = &v->tx[v->st->tx_prod % WIRE_RING];
		int buf = vnic_tx_alloc(v);

		assert_true(buf >= 0);
		memcpy(vnic_tx_buf(v, (uint32_t)buf), f + at, take);
		at += take;
		if (unfinished && i + 1 == n) {
			vnic_tx_free(v, (uint32_t)buf);
			break;
		}
		v->st->tx_state[buf] = VNIC_TX_NIC;
		slot->buf = (uint32_t)buf;
		slot->off = 0;
		slot->len = (uint16_t)take;
		slot->type = VNIC_DESC_FRAME;
		slot->flags = i + 1 < n ? VNIC_F_MORE : 0;
		__atomic_store_n(&slot->turn, v->st->tx_prod++ / WIRE_RING + 1, __ATOMIC_RELEASE);
	}
}

static void post_last_part(struct pair *t, uint32_t n)
{
	struct vnic *v = &t->e[0]->vnic[0];
	struct vnic_desc *slot = &v->tx[v->st->tx_prod % WIRE_RING];
	uint32_t len = 642 - (80 + 3 * (n - 2));
	int buf = vnic_tx_alloc(v);

	memset(vnic_tx_buf(v, (uint32_t)buf), 7, len);
	v->st->tx_state[buf] = VNIC_TX_NIC;
	*slot = (struct vnic_desc){.buf = (uint32_t)buf,
				   .len = (uint16_t)len,
				   .type = VNIC_DESC_FRAME,
				   .turn = v->st->tx_prod++ / WIRE_RING + 1};
}

static void assert_datagram(struct pair *t, struct sock *k)
{
	uint8_t buf[700];

	assert_int_equal(recv_bytes(t->e[1], k, buf, sizeof(buf), NULL), 600);
	for (int i = 0; i < 600; i++)
		assert_int_equal(buf[i], 7);
}

static void frames_of_up_to_the_limit_of_parts_are_put_together(void **state)
{
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v4(2, 2000), NULL);

	for (uint32_t n = 1; n <= FRAME_PARTS; n++) {
		post_parts(t, n, false);
		assert_int_equal(pair_poll(t, 1), 1);
		assert_datagram(t, k);
	}
	assert_quiet(t);
}

static void too_many_parts_are_dropped_and_the_next_frame_is_not(void **state)
{
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v4(2, 2000), NULL);

	for (uint32_t n = FRAME_PARTS + 1; n < 120; n++) {
		post_parts(t, n, false);
		post_parts(t, 2, false);
		while (pair_poll(t, 1))
			;
		pair_poll(t, 1);
		assert_int_equal(COUNTED(t->e[1], frame_too_many_parts), n - FRAME_PARTS);
		assert_int_equal(k->rxq.count, 1);
		assert_datagram(t, k);
		t->e[1]->vnic[0].ops->flush(&t->e[1]->vnic[0]);
		pair_poll(t, 0);
	}
	assert_quiet(t);
}

static void a_frame_broken_off_is_finished_by_whoever_polls_next(void **state)
{
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v4(2, 2000), NULL);
	struct engine *child = calloc(1, sizeof(*child));

	engine_attach(child, t->e[1]->s);
	wire_reattach(&child->vnic[0], stack_vnic(child->s, 0), t->wire);
	for (uint32_t n = 2; n <= FRAME_PARTS; n++) {
		post_parts(t, n, true);
		assert_int_equal(pair_poll(t, 1), 0);
		assert_int_equal(stack_audit(t->e[1]), 0);
		assert_int_equal(t->e[1]->vnic[0].st->rx_held, n - 1);
		post_last_part(t, n);
		assert_int_equal(engine_poll(child, t->now, 100), 1);
		assert_datagram(t, k);
	}
	free(child);
	assert_quiet(t);
}

static void a_frame_never_finished_is_let_go_with_its_vnic(void **state)
{
	struct pair *t = *state;

	post_parts(t, 5, true);
	pair_poll(t, 1);
	engine_vnic_dead(t->e[1], 0, t->now);
	assert_int_equal(COUNTED(t->e[1], frame_unfinished), 1);
	assert_int_equal(stack_vnic(t->e[1]->s, 0)->rx_held, 0);
	assert_int_equal(engine_vnic_free(t->e[1], 0), 0);
}

static void header_bytes_are_read_right_at_the_very_end_of_a_buffer(void **state)
{
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v4(2, 2000), NULL);
	struct vnic *v = &t->e[0]->vnic[0];
	uint8_t buf[300];

	for (uint32_t len = 0; len < 250; len++) {
		int b = vnic_tx_alloc(v);
		uint32_t n = make_udp4(buf, memset((uint8_t[250]){0}, (int)len, 250), len);
		struct vnic_desc d = {.buf = (uint32_t)b, .off = (uint16_t)(WIRE_BUF_SIZE - n), .len = (uint16_t)n};

		memcpy(vnic_tx_buf(v, (uint32_t)b) + d.off, buf, n);
		v->ops->post(v, &d, 1);
		vnic_tx_free(v, (uint32_t)b);
		assert_int_equal(pair_poll(t, 1), 1);
		assert_int_equal(recv_bytes(t->e[1], k, buf, sizeof(buf), NULL), len);
		for (uint32_t i = 0; i < len; i++)
			assert_int_equal(buf[i], (uint8_t)len);
	}
	assert_quiet(t);
}

/* --- polling many vNICs --- */

static void only_vnics_in_use_are_looked_at_and_none_is_forgotten(void **state)
{
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v4(2, 2000), NULL);
	uint8_t *wire[VNIC_MAX];
	struct vnic far_end[3];
	struct vnic_state *far_st = calloc(3, sizeof(*far_st));
	uint32_t slots[3] = {63, 64, 255};

	for (uint32_t i = 1; i < VNIC_MAX; i++)
		assert_int_equal(engine_vnic_alloc(t->e[1]), i);
	assert_int_equal(engine_vnic_alloc(t->e[1]), -ENOBUFS);
	memset(far_end, 0, sizeof(far_end));
	for (int j = 0; j < 3; j++) {
		wire[j] = test_wire_new(NULL);
		wire_attach(&t->e[1]->vnic[slots[j]], stack_vnic(t->e[1]->s, slots[j]), wire[j], 1);
		wire_attach(&far_end[j], &far_st[j], wire[j], 0);
	}
	for (uint32_t start = 0; start < VNIC_MAX; start++) {
		t->e[1]->s->poll_next = start;
		for (int j = 0; j < 3; j++) {
			int b = vnic_tx_alloc(&far_end[j]);
			uint32_t n = make_udp4(vnic_tx_buf(&far_end[j], (uint32_t)b), "x", 1);
			struct vnic_desc d = {.buf = (uint32_t)b, .len = (uint16_t)n};

			far_end[j].ops->post(&far_end[j], &d, 1);
			vnic_tx_free(&far_end[j], (uint32_t)b);
		}
		assert_int_equal(pair_poll(t, 1), 3);
		while (k->rxq.count)
			assert_int_equal(recv_bytes(t->e[1], k, NULL, 0, NULL), 0);
		t->e[1]->s->poll_next = start;
	}
	for (int j = 0; j < 3; j++)
		test_wire_free(wire[j]);
	free(far_st);
}

static void a_budget_is_kept_but_for_the_last_burst_and_the_rest_follows(void **state)
{
	struct pair *t = *state;
	struct sock *a = udp_socket(t->e[0], v4(1, 1000), NULL), *b = udp_socket(t->e[1], v4(2, 2000), NULL);
	int got = 0, n;

	for (int i = 0; i < 200; i++)
		assert_int_equal(send_bytes(t, 0, a, v4(2, 2000), "x", 1), 1);
	while ((n = engine_poll(t->e[1], t->now, 40)) > 0) {
		assert_true(n <= 40 + VNIC_BURST);
		got += n;
	}
	assert_int_equal(got, 200);
	assert_int_equal(b->rxq.count, 200);
	udp_close(t->e[1], b);
	assert_quiet(t);
}

/* --- doorbells --- */

static void a_doorbell_is_due_once_for_an_armed_peer(void **state)
{
	struct pair *t = *state;
	struct sock *a = udp_socket(t->e[0], v4(1, 1000), NULL);
	struct vnic *mine = &t->e[0]->vnic[0];

	send_bytes(t, 0, a, v4(2, 2000), "x", 1);
	assert_int_equal(vnic_take_armed(mine), VNIC_ARMED_NO); /* it polls */
	vnic_arm(&t->e[1]->vnic[0], VNIC_ARMED_THREAD);
	send_bytes(t, 0, a, v4(2, 2000), "x", 1);
	assert_int_equal(vnic_take_armed(mine), VNIC_ARMED_THREAD);
	send_bytes(t, 0, a, v4(2, 2000), "x", 1);
	assert_int_equal(vnic_take_armed(mine), VNIC_ARMED_NO); /* one sleep, one doorbell */
}

/* --- the lives of vNICs --- */

static void a_slot_is_free_again_only_when_nothing_refers_to_its_buffers(void **state)
{
	struct pair *t = *state;
	struct engine *e = t->e[1];
	struct pkt *p = pkt_alloc_tx(e, 0);
	uint32_t gen = stack_vnic(e->s, 0)->gen;

	engine_vnic_dead(e, 0, t->now);
	assert_int_equal(engine_vnic_free(e, 0), -EBUSY);
	pkt_free(e, p);
	assert_int_equal(engine_vnic_free(e, 0), 0);
	assert_int_equal(engine_vnic_free(e, 0), -EINVAL);
	assert_int_equal(engine_vnic_free(e, VNIC_NONE), -EINVAL);
	assert_null(pkt_alloc_tx(e, 0));
	assert_int_equal(engine_vnic_alloc(e), 0);
	assert_true(stack_vnic(e->s, 0)->gen != gen);
	wire_attach(&e->vnic[0], stack_vnic(e->s, 0), t->wire, 1);
	p = pkt_alloc_tx(e, 0);
	assert_non_null(pkt_data(e, p));
	pkt_free(e, p);
}

static void a_process_without_the_mapping_can_free_a_dead_vnic(void **state)
{
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v4(2, 2000), NULL);
	struct engine *child = calloc(1, sizeof(*child));

	engine_attach(child, t->e[1]->s);
	post_parts(t, 1, false);
	post_parts(t, 4, true);
	pair_poll(t, 1);
	engine_vnic_dead(child, 0, t->now);
	assert_int_equal(engine_vnic_free(child, 0), -EBUSY); /* a datagram is unread */
	udp_close(child, k);
	assert_int_equal(engine_vnic_free(child, 0), 0);
	assert_int_equal(stack_audit(child), 0);
	assert_int_equal(stack_vnic(child->s, 0)->rx_held, 0);
	free(child);
}

static void a_stale_mapping_of_another_process_is_not_polled(void **state)
{
	struct pair *t = *state;
	struct engine *child = calloc(1, sizeof(*child));
	uint8_t *wire = test_wire_new(NULL);

	engine_attach(child, t->e[1]->s);
	wire_reattach(&child->vnic[0], stack_vnic(child->s, 0), t->wire);
	engine_vnic_dead(t->e[1], 0, t->now);
	assert_int_equal(engine_vnic_free(t->e[1], 0), 0);
	assert_int_equal(engine_vnic_alloc(t->e[1]), 0);
	wire_attach(&t->e[1]->vnic[0], stack_vnic(t->e[1]->s, 0), wire, 1);
	post_parts(t, 1, false); /* on the old wire */
	assert_int_equal(engine_poll(child, t->now, 100), 0);
	assert_int_equal(t->e[1]->vnic[0].st->stats.rx_frames, 0);
	free(child);
	test_wire_free(wire);
}

int main(void)
{
#define ON_PAIR(test) cmocka_unit_test_setup_teardown(test, pair_setup, pair_teardown)
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_formatted_stack_is_recognised_and_a_damaged_one_is_not),
	    cmocka_unit_test(impossible_configurations_are_refused),
	    cmocka_unit_test(formatting_touches_only_a_little_memory),
	    ON_PAIR(a_slot_used_again_has_another_generation),
	    ON_PAIR(each_holder_hears_of_a_socket_once_until_it_has_looked),
	    cmocka_unit_test(a_full_ring_of_news_says_so),
	    ON_PAIR(frames_of_up_to_the_limit_of_parts_are_put_together),
	    ON_PAIR(too_many_parts_are_dropped_and_the_next_frame_is_not),
	    ON_PAIR(a_frame_broken_off_is_finished_by_whoever_polls_next),
	    ON_PAIR(a_frame_never_finished_is_let_go_with_its_vnic),
	    ON_PAIR(header_bytes_are_read_right_at_the_very_end_of_a_buffer),
	    ON_PAIR(only_vnics_in_use_are_looked_at_and_none_is_forgotten),
	    ON_PAIR(a_budget_is_kept_but_for_the_last_burst_and_the_rest_follows),
	    ON_PAIR(a_doorbell_is_due_once_for_an_armed_peer),
	    ON_PAIR(a_slot_is_free_again_only_when_nothing_refers_to_its_buffers),
	    ON_PAIR(a_process_without_the_mapping_can_free_a_dead_vnic),
	    ON_PAIR(a_stale_mapping_of_another_process_is_not_polled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
