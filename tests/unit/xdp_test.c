/* SPDX-License-Identifier: BSD-2-Clause */
/* The provider `xdp` over rings in memory: what the kernel may put there, honest or not. */
#include "rings.h"

struct nic {
	struct rings *r;
	struct vnic_state st;
	struct vnic v;
};

static const struct xdp_about about_nic = {
    .ifindex = 5, .mtu = 1500, .features = VNIC_FEAT_SCATTER, .mac = {2, 0, 0, 0, 0, 5}};

static struct nic *nic_new(void)
{
	struct nic *n = calloc(1, sizeof(*n));

	n->r = rings_new();
	assert_int_equal(xdp_attach(&n->v, &n->st, &n->r->port, &about_nic), 0);
	return n;
}

static void nic_free(struct nic *n)
{
	rings_free(n->r);
	free(n);
}

static int nic_poll(struct nic *n, struct vnic_desc *ev, int max)
{
	return n->v.ops->poll(&n->v, ev, max);
}

static void the_kernel_gets_every_receive_buffer_once(void **state)
{
	struct nic *n = nic_new();
	bool seen[RINGS_BUFS] = {false};

	(void)state;
	assert_int_equal(*n->r->port.fill.producer, RINGS_BUFS);
	for (uint32_t i = 0; i < RINGS_BUFS; i++) {
		uint64_t buf = n->r->fill[i] / RINGS_CHUNK;

		assert_true(buf < RINGS_BUFS && n->r->fill[i] % RINGS_CHUNK == 0 && !seen[buf]);
		seen[buf] = true;
	}
	assert_int_equal(n->st.rx_held, 0);
	nic_free(n);
}

static void a_frame_in_one_buffer_arrives(void **state)
{
	struct nic *n = nic_new();
	struct vnic_desc ev[VNIC_BURST];

	(void)state;
	assert_false(vnic_pending(&n->v));
	assert_int_equal(nic_poll(n, ev, VNIC_BURST), 0);
	assert_true(rings_give(n->r, (const uint8_t *)"hello", 5));
	assert_true(vnic_pending(&n->v));
	assert_int_equal(nic_poll(n, ev, VNIC_BURST), 1);
	assert_int_equal(ev[0].len, 5);
	assert_int_equal(ev[0].flags, 0);
	assert_memory_equal(vnic_rx_buf(&n->v, ev[0].buf) + ev[0].off, "hello", 5);
	assert_false(vnic_pending(&n->v));
	assert_int_equal(*n->r->port.rx.consumer, 1);
	nic_free(n);
}

static void a_frame_of_several_buffers_arrives_whole(void **state)
{
	static uint8_t frame[9000];
	struct nic *n = nic_new();
	struct vnic_desc ev[VNIC_BURST];

	(void)state;
	assert_true(rings_give(n->r, frame, sizeof(frame)));
	assert_int_equal(nic_poll(n, ev, VNIC_BURST), 3);
	assert_int_equal(ev[0].flags, VNIC_F_MORE);
	assert_int_equal(ev[1].flags, VNIC_F_MORE);
	assert_int_equal(ev[2].flags, 0);
	assert_int_equal(ev[0].len + ev[1].len + ev[2].len, sizeof(frame));
	for (int i = 0; i < 3; i++)
		n->v.ops->release(&n->v, ev[i].buf);
	/* Four of them don't fit into a burst of ten: the fourth comes with the next. */
	for (int i = 0; i < 4; i++)
		assert_true(rings_give(n->r, frame, sizeof(frame)));
	assert_int_equal(nic_poll(n, ev, 10), 9);
	assert_int_equal(n->st.rx_held, 9);
	assert_int_equal(nic_poll(n, ev, 10), 3);
	assert_int_equal(n->st.stats.rx_frames, 5);
	assert_int_equal(n->st.stats.bad_reuse, 0);
	nic_free(n);
}

static void released_buffers_go_back_to_the_kernel(void **state)
{
	struct nic *n = nic_new();
	struct vnic_desc ev[VNIC_BURST];
	int parts;

	(void)state;
	for (uint32_t round = 0; round < 20 * RINGS_BUFS; round++) {
		assert_true(rings_give(n->r, (const uint8_t *)"x", 1));
		parts = nic_poll(n, ev, VNIC_BURST);
		assert_int_equal(parts, 1);
		n->v.ops->release(&n->v, ev[0].buf);
	}
	vnic_arm(&n->v, VNIC_ARMED_HELPER); /* before it sleeps it gives back all */
	assert_int_equal(*n->r->port.fill.producer - n->r->fill_cons, RINGS_BUFS);
	nic_free(n);
}

static void sent_buffers_are_free_when_completed(void **state)
{
	struct nic *n = nic_new();
	struct vnic_desc d[2] = {{.off = 100, .len = 4}, {.off = 0, .len = 2}};
	uint8_t got[64];

	(void)state;
	for (int i = 0; i < 2; i++)
		d[i].buf = (uint32_t)vnic_tx_alloc(&n->v);
	memcpy(vnic_tx_buf(&n->v, d[0].buf) + 100, "head", 4);
	memcpy(vnic_tx_buf(&n->v, d[1].buf), "er", 2);
	assert_false(xdp_kick_due(&n->v));
	n->v.ops->post(&n->v, d, 2);
	assert_true(xdp_kick_due(&n->v));
	for (int i = 0; i < 2; i++)
		vnic_tx_free(&n->v, d[i].buf);
	assert_int_equal(n->st.free_top, RINGS_BUFS - 2);
	assert_true(vnic_tx_busy(&n->v, d[0].buf));
	assert_int_equal(rings_take(n->r, got, sizeof(got)), 6);
	assert_memory_equal(got, "header", 6);
	assert_false(xdp_kick_due(&n->v));
	nic_poll(n, d, 1);
	assert_int_equal(n->st.free_top, RINGS_BUFS);
	assert_int_equal(n->st.stats.bad_return, 0);
	nic_free(n);
}

static void a_fill_ring_that_sleeps_asks_for_a_kick(void **state)
{
	struct nic *n = nic_new();

	(void)state;
	*n->r->port.fill.flags = XDP_RING_NEED_WAKEUP;
	assert_true(xdp_kick_due(&n->v));
	nic_free(n);
}

static void another_process_goes_on_with_the_same_rings(void **state)
{
	struct nic *n = nic_new();
	struct vnic_desc ev[VNIC_BURST], d = {.off = 0, .len = 3};
	struct vnic child = {0};

	(void)state;
	assert_true(rings_give(n->r, (const uint8_t *)"one", 3));
	assert_int_equal(nic_poll(n, ev, VNIC_BURST), 1);
	n->v.ops->release(&n->v, ev[0].buf);
	assert_int_equal(xdp_reattach(&child, &n->st, &n->r->port), 0);
	assert_true(rings_give(n->r, (const uint8_t *)"two", 3));
	assert_int_equal(child.ops->poll(&child, ev, VNIC_BURST), 1);
	assert_memory_equal(vnic_rx_buf(&child, ev[0].buf) + ev[0].off, "two", 3);
	d.buf = (uint32_t)vnic_tx_alloc(&child);
	child.ops->post(&child, &d, 1);
	assert_int_equal(*n->r->port.tx.producer, 1);
	n->st.buf_size = 2048;
	assert_int_equal(xdp_reattach(&child, &n->st, &n->r->port), -EINVAL);
	nic_free(n);
}

static void rings_that_served_before_go_on_where_they_are(void **state)
{
	struct nic *n = nic_new();
	uint32_t pos = UINT32_MAX - 3;

	(void)state;
	for (int i = 0; i < 4; i++)
		n->r->index[i][0] = n->r->index[i][1] = pos; /* about to wrap */
	n->r->rx_prod = n->r->tx_cons = n->r->fill_cons = n->r->comp_prod = pos;
	assert_int_equal(xdp_attach(&n->v, &n->st, &n->r->port, &about_nic), 0);
	for (int i = 0; i < 300; i++) {
		struct vnic_desc ev[4], d = {.off = 0, .len = 1};
		uint8_t byte;

		assert_true(rings_give(n->r, (const uint8_t *)"x", 1));
		assert_int_equal(nic_poll(n, ev, 4), 1);
		n->v.ops->release(&n->v, ev[0].buf);
		d.buf = (uint32_t)vnic_tx_alloc(&n->v);
		n->v.ops->post(&n->v, &d, 1);
		vnic_tx_free(&n->v, d.buf);
		assert_int_equal(rings_take(n->r, &byte, 1), 1);
	}
	assert_int_equal(n->st.stats.bad_desc + n->st.stats.bad_return + n->st.stats.bad_reuse, 0);
	nic_free(n);
}

static void a_port_that_contradicts_itself_is_refused(void **state)
{
	struct rings *r = rings_new();
	struct vnic_state *st = calloc(1, sizeof(*st));
	struct xdp_about about = about_nic;
	struct vnic v = {0};
	struct xdp_port p;

	(void)state;
#define REFUSED(change)                                                                                                \
	do {                                                                                                           \
		p = r->port;                                                                                           \
		change;                                                                                                \
		assert_int_equal(xdp_attach(&v, st, &p, &about), -EINVAL);                                             \
	} while (0)
	REFUSED(p.chunk_size = 3000);
	REFUSED(p.chunk_size = 1024);
	REFUSED(p.chunk_size = 65536);
	REFUSED(p.tx_first = 1);                 /* overlaps what is received into */
	REFUSED(p.tx_first = RINGS_BUFS + 1);    /* beyond the umem */
	REFUSED(p.tx_first = UINT32_MAX);        /* the sum wraps */
	REFUSED(p.rx_count = 0);                 /* nothing to receive into */
	REFUSED(p.tx_count = VNIC_BUFS_MAX + 1); /* more than a state knows */
	REFUSED(p.tx.entries = RINGS_BUFS / 2);  /* could overflow */
	REFUSED(p.fill.entries = RINGS_BUFS + 1);
	REFUSED(p.comp.desc = NULL);
	REFUSED(p.umem = NULL);
	REFUSED(about.mtu = 0);
	about = about_nic;
	REFUSED(about.ifindex = 0);
	about = about_nic;
	REFUSED(about.vlan = 4095);
#undef REFUSED
	free(st);
	rings_free(r);
}

static void descriptors_out_of_our_buffers_are_ignored(void **state)
{
	static const struct xdp_desc bad[] = {
	    {.addr = RINGS_BUFS * RINGS_CHUNK, .len = 10},          /* a tx buffer */
	    {.addr = UINT64_MAX, .len = 10},                        /* nowhere */
	    {.addr = 1ull << 44, .len = 10},                        /* a multiple that wraps to 0 in 32 bits */
	    {.addr = RINGS_CHUNK - 5, .len = 10},                   /* over its end */
	    {.addr = 0, .len = 0},                                  /* empty */
	    {.addr = 0, .len = RINGS_CHUNK + 1},                    /* longer than any */
	    {.addr = 0, .len = 65536 + 10},                         /* that wraps to 10 in 16 bits */
	    {.addr = 0, .len = UINT32_MAX, .options = RINGS_CONTD}, /* all at once */
	};
	struct nic *n = nic_new();
	struct vnic_desc ev[VNIC_BURST];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		n->r->rx[n->r->rx_prod++ % RINGS_BUFS] = bad[i];
		*n->r->port.rx.producer = n->r->rx_prod;
		assert_int_equal(nic_poll(n, ev, VNIC_BURST), 0);
		assert_int_equal(n->st.stats.bad_desc, i + 1);
	}
	assert_int_equal(n->st.rx_held, 0);
	nic_free(n);
}

static void a_buffer_that_we_hold_is_not_taken_again(void **state)
{
	struct nic *n = nic_new();
	struct vnic_desc ev[VNIC_BURST];

	(void)state;
	assert_true(rings_give(n->r, (const uint8_t *)"x", 1));
	n->r->rx[1] = n->r->rx[0];
	*n->r->port.rx.producer = n->r->rx_prod = 2;
	assert_int_equal(nic_poll(n, ev, VNIC_BURST), 1);
	assert_int_equal(n->st.stats.bad_reuse, 1);
	nic_free(n);
}

static void positions_that_cannot_be_are_ignored(void **state)
{
	struct nic *n = nic_new();
	struct vnic_desc ev[VNIC_BURST], d = {.len = 1};

	(void)state;
	*n->r->port.rx.producer = RINGS_BUFS + 1;
	assert_int_equal(nic_poll(n, ev, VNIC_BURST), 0);
	*n->r->port.rx.producer = UINT32_MAX; /* behind us */
	assert_int_equal(nic_poll(n, ev, VNIC_BURST), 0);
	*n->r->port.rx.producer = 0;
	assert_int_equal(n->st.stats.bad_desc, 2);
	d.buf = (uint32_t)vnic_tx_alloc(&n->v);
	n->v.ops->post(&n->v, &d, 1);
	*n->r->port.comp.producer = UINT32_MAX;
	assert_int_equal(nic_poll(n, ev, VNIC_BURST), 0);
	assert_true(vnic_tx_busy(&n->v, d.buf));
	assert_int_equal(n->st.stats.bad_desc, 3);
	nic_free(n);
}

static void completions_of_what_was_not_sent_are_ignored(void **state)
{
	struct nic *n = nic_new();
	struct vnic_desc ev[VNIC_BURST], d = {.len = 1};

	(void)state;
	d.buf = (uint32_t)vnic_tx_alloc(&n->v);
	n->v.ops->post(&n->v, &d, 1);
	n->r->comp[0] = 0;                                     /* an rx buffer */
	n->r->comp[1] = UINT64_MAX;                            /* nowhere */
	n->r->comp[2] = (2ull * RINGS_BUFS - 1) * RINGS_CHUNK; /* one that is not out */
	n->r->comp[3] = n->r->comp[4] = n->r->tx[0].addr;      /* ours, twice */
	n->r->comp[5] = n->r->tx[0].addr + (1ull << 44);       /* wraps in 32 bits */
	*n->r->port.comp.producer = 6;
	assert_int_equal(nic_poll(n, ev, VNIC_BURST), 0);
	assert_int_equal(n->st.stats.bad_return, n->st.free_top == RINGS_BUFS ? 0 : 5);
	vnic_tx_free(&n->v, d.buf);
	assert_int_equal(n->st.free_top, RINGS_BUFS);
	nic_free(n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_kernel_gets_every_receive_buffer_once),
	    cmocka_unit_test(a_frame_in_one_buffer_arrives),
	    cmocka_unit_test(a_frame_of_several_buffers_arrives_whole),
	    cmocka_unit_test(released_buffers_go_back_to_the_kernel),
	    cmocka_unit_test(sent_buffers_are_free_when_completed),
	    cmocka_unit_test(a_fill_ring_that_sleeps_asks_for_a_kick),
	    cmocka_unit_test(another_process_goes_on_with_the_same_rings),
	    cmocka_unit_test(rings_that_served_before_go_on_where_they_are),
	    cmocka_unit_test(a_port_that_contradicts_itself_is_refused),
	    cmocka_unit_test(descriptors_out_of_our_buffers_are_ignored),
	    cmocka_unit_test(a_buffer_that_we_hold_is_not_taken_again),
	    cmocka_unit_test(positions_that_cannot_be_are_ignored),
	    cmocka_unit_test(completions_of_what_was_not_sent_are_ignored),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
