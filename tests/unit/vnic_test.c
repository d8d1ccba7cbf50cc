/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vNICs without an engine: the rings' rules, who owns which buffer, what a hostile other end can do, doorbells,
 * and the simulated link.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/test_stack.h"
#include "vnic/ring.h"

struct pair {
	struct vnic v[2];
	struct vnic_state st[2];
	void *mem;
};

static int wire_up(void **state)
{
	struct pair *p = calloc(1, sizeof(*p));

	p->mem = test_wire_new(NULL);
	for (int i = 0; i < 2; i++)
		wire_attach(&p->v[i], &p->st[i], p->mem, i);
	*state = p;
	return 0;
}

static int wire_down(void **state)
{
	struct pair *p = *state;

	test_wire_free(p->mem);
	free(p);
	return 0;
}

/* One frame of len bytes of value `fill` in n parts; the buffers stay with the caller's "pkt" until freed here. */
static void send_parts(struct vnic *v, int n, uint16_t len, uint8_t fill)
{
	struct vnic_desc d[32] = {0};

	for (int i = 0; i < n; i++) {
		int buf = vnic_tx_alloc(v);

		assert_true(buf >= 0);
		memset(vnic_tx_buf(v, (uint32_t)buf) + 64, fill, len);
		d[i] = (struct vnic_desc){.buf = (uint32_t)buf, .off = 64, .len = len};
	}
	v->ops->post(v, d, n);
	for (int i = 0; i < n; i++)
		vnic_tx_free(v, d[i].buf);
}

static uint32_t tx_busy(const struct vnic_state *st)
{
	uint32_t busy = 0;

	for (uint32_t i = 0; i < st->tx_count; i++)
		busy += st->tx_state[i] != 0;
	return busy;
}

static void a_frame_arrives_in_place_and_its_buffer_comes_back(void **state)
{
	struct pair *p = *state;
	struct vnic_desc ev[4] = {0};

	assert_false(vnic_pending(&p->v[1]));
	send_parts(&p->v[0], 1, 100, 0x5a);
	assert_true(vnic_pending(&p->v[1]));
	assert_int_equal(p->v[1].ops->poll(&p->v[1], ev, 4), 1);
	assert_int_equal(ev[0].len, 100);
	assert_int_equal(vnic_rx_buf(&p->v[1], ev[0].buf)[ev[0].off], 0x5a);
	assert_true(ev[0].flags & VNIC_F_CSUM_OK);
	assert_int_equal(p->st[1].rx_held, 1);
	assert_true(vnic_tx_busy(&p->v[0], ev[0].buf));
	assert_int_equal(p->st[0].free_top, WIRE_BUFS - 1);

	p->v[1].ops->release(&p->v[1], ev[0].buf);
	vnic_arm(&p->v[1], VNIC_ARMED_HELPER); /* before it sleeps, nothing stays back */
	assert_int_equal(p->v[0].ops->poll(&p->v[0], ev, 4), 0);
	assert_int_equal(p->st[0].free_top, WIRE_BUFS);
	assert_int_equal(tx_busy(&p->st[0]), 0);
	assert_int_equal(p->st[1].rx_held, 0);
}

static void returns_travel_with_the_next_frame_behind_it(void **state)
{
	struct pair *p = *state;
	struct vnic_desc ev[4] = {0}, d = {0};

	send_parts(&p->v[0], 1, 64, 1);
	assert_int_equal(p->v[1].ops->poll(&p->v[1], ev, 4), 1);
	p->v[1].ops->release(&p->v[1], ev[0].buf);
	assert_false(vnic_pending(&p->v[0]));
	send_parts(&p->v[1], 1, 64, 2);
	assert_true(ring_read(p->v[1].tx, 0, WIRE_RING, &d));
	assert_int_equal(d.type, VNIC_DESC_FRAME);
	assert_true(ring_read(p->v[1].tx, 1, WIRE_RING, &d));
	assert_int_equal(d.type, VNIC_DESC_RETURN);
	assert_int_equal(p->v[0].ops->poll(&p->v[0], ev, 4), 1);
	assert_int_equal(p->st[0].free_top, WIRE_BUFS);
}

static void returns_do_not_wait_for_ever_for_a_polling_end(void **state)
{
	struct pair *p = *state;
	struct vnic_desc ev[4] = {0};

	send_parts(&p->v[0], 1, 64, 1);
	assert_int_equal(p->v[1].ops->poll(&p->v[1], ev, 4), 1);
	p->v[1].ops->release(&p->v[1], ev[0].buf);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(p->v[1].ops->poll(&p->v[1], ev, 4), 0);
	assert_int_equal(p->v[0].ops->poll(&p->v[0], ev, 4), 0);
	assert_int_equal(p->st[0].free_top, WIRE_BUFS);
}

static void a_buffer_is_free_only_when_pkt_and_peer_have_let_go(void **state)
{
	struct pair *p = *state;
	struct vnic_desc ev[4] = {0}, d = {0};
	int buf = vnic_tx_alloc(&p->v[0]);

	d = (struct vnic_desc){.buf = (uint32_t)buf, .len = 10};
	p->v[0].ops->post(&p->v[0], &d, 1);
	p->v[1].ops->poll(&p->v[1], ev, 4);
	p->v[1].ops->release(&p->v[1], ev[0].buf);
	p->v[1].ops->flush(&p->v[1]);
	p->v[0].ops->poll(&p->v[0], ev, 4);
	assert_false(vnic_tx_busy(&p->v[0], (uint32_t)buf));
	assert_int_equal(p->st[0].free_top, WIRE_BUFS - 1); /* the pkt still has it */
	vnic_tx_free(&p->v[0], (uint32_t)buf);
	vnic_tx_free(&p->v[0], (uint32_t)buf); /* twice does no harm */
	vnic_tx_free(&p->v[0], WIRE_BUFS + 5);
	assert_int_equal(p->st[0].free_top, WIRE_BUFS);
}

static void every_buffer_can_be_out_and_the_ring_does_not_overflow(void **state)
{
	struct pair *p = *state;
	struct vnic_desc ev[32] = {0};
	uint32_t got = 0;

	for (int lap = 0; lap < 5; lap++) {
		for (int i = 0; i < (int)WIRE_BUFS; i++)
			send_parts(&p->v[0], 1, 64, (uint8_t)lap);
		assert_int_equal(vnic_tx_alloc(&p->v[0]), -1);
		for (int n; (n = p->v[1].ops->poll(&p->v[1], ev, 32)) > 0;)
			for (int i = 0; i < n; i++, got++)
				p->v[1].ops->release(&p->v[1], ev[i].buf);
		p->v[1].ops->flush(&p->v[1]);
		assert_int_equal(p->v[0].ops->poll(&p->v[0], ev, 32), 0);
		assert_int_equal(p->st[0].free_top, WIRE_BUFS);
	}
	assert_int_equal(got, 5 * WIRE_BUFS);
	assert_int_equal(p->st[0].stats.tx_no_buffer, 5);
	assert_int_equal(p->st[0].stats.bad_return + p->st[1].stats.bad_desc + p->st[1].stats.bad_reuse, 0);
}

static void a_frame_is_not_split_between_two_polls(void **state)
{
	struct pair *p = *state;
	struct vnic_desc ev[8] = {0};

	send_parts(&p->v[0], 5, 200, 1);
	send_parts(&p->v[0], 6, 200, 2);
	assert_int_equal(p->v[1].ops->poll(&p->v[1], ev, 8), 5);
	assert_false(ev[4].flags & VNIC_F_MORE);
	assert_true(ev[3].flags & VNIC_F_MORE);
	assert_int_equal(p->st[1].rx_held, 5);
	assert_int_equal(p->v[1].ops->poll(&p->v[1], ev, 8), 6);
	assert_int_equal(vnic_rx_buf(&p->v[1], ev[0].buf)[ev[0].off], 2);
	assert_int_equal(p->st[1].rx_held, 11);
	assert_int_equal(p->st[1].stats.rx_frames, 2);
	assert_int_equal(p->st[1].stats.bad_reuse, 0);
}

/* Put a descriptor of any content into the ring that end 1 reads, as a hostile end 0 would. */
/* A burst that ends inside a frame goes back to that frame's start, not to before the returns that preceded it: taken
 * twice, they would free buffers that are out again by then. */
static void returns_before_a_frame_that_did_not_fit_are_taken_once(void **state)
{
	struct pair *p = *state;
	struct vnic_desc ev[4] = {0};

	send_parts(&p->v[1], 1, 64, 1);
	send_parts(&p->v[1], 1, 64, 2);
	assert_int_equal(p->v[0].ops->poll(&p->v[0], ev, 4), 2);
	p->v[0].ops->release(&p->v[0], ev[0].buf);
	p->v[0].ops->release(&p->v[0], ev[1].buf);
	send_parts(&p->v[0], 1, 64, 3); /* and the two returns behind it */
	send_parts(&p->v[0], 2, 64, 4);

	assert_int_equal(p->v[1].ops->poll(&p->v[1], ev, 2), 1);
	assert_int_equal(p->st[1].free_top, WIRE_BUFS);
	send_parts(&p->v[1], 2, 64, 5); /* the same buffers are out again */
	assert_int_equal(p->v[1].ops->poll(&p->v[1], ev, 2), 2);
	assert_int_equal(vnic_rx_buf(&p->v[1], ev[1].buf)[ev[1].off], 4);
	assert_int_equal(p->st[1].stats.bad_return, 0);
	assert_int_equal(p->st[1].free_top, WIRE_BUFS - 2);
}

static void inject(struct pair *p, uint32_t *at, struct vnic_desc d)
{
	ring_write(p->v[0].tx, (*at)++, WIRE_RING, &d);
}

static void descriptors_out_of_range_are_counted_and_ignored(void **state)
{
	static const struct vnic_desc bad[] = {
	    {.buf = WIRE_BUFS, .len = 64, .type = VNIC_DESC_FRAME},
	    {.buf = 0xffffffff, .len = 64, .type = VNIC_DESC_FRAME},
	    {.buf = 1, .off = 1, .len = WIRE_BUF_SIZE, .type = VNIC_DESC_FRAME},
	    {.buf = 1, .off = 0xffff, .len = 0xffff, .type = VNIC_DESC_FRAME},
	    {.buf = 1, .off = 0, .len = 0, .type = VNIC_DESC_FRAME},
	    {.buf = 1, .len = 64, .type = VNIC_DESC_LINK},
	    {.buf = 1, .len = 64, .type = 0},
	    {.buf = 1, .len = 64, .type = 255},
	};
	struct pair *p = *state;
	struct vnic_desc ev[4] = {0};
	uint32_t at = 0;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		inject(p, &at, bad[i]);
	assert_int_equal(p->v[1].ops->poll(&p->v[1], ev, 4), 0);
	assert_int_equal(p->st[1].stats.bad_desc, sizeof(bad) / sizeof(bad[0]));
	assert_int_equal(p->st[1].rx_held, 0);
	inject(p, &at, (struct vnic_desc){.buf = 1, .off = 64, .len = WIRE_BUF_SIZE - 64, .type = VNIC_DESC_FRAME});
	assert_int_equal(p->v[1].ops->poll(&p->v[1], ev, 4), 1);
}

static void a_buffer_that_we_hold_cannot_be_sent_again(void **state)
{
	struct pair *p = *state;
	struct vnic_desc ev[4] = {0};
	uint32_t at = 0;

	inject(p, &at, (struct vnic_desc){.buf = 7, .len = 64, .type = VNIC_DESC_FRAME});
	inject(p, &at, (struct vnic_desc){.buf = 7, .len = 64, .type = VNIC_DESC_FRAME});
	assert_int_equal(p->v[1].ops->poll(&p->v[1], ev, 4), 1);
	assert_int_equal(p->st[1].stats.bad_reuse, 1);
	assert_int_equal(p->st[1].rx_held, 1);
	p->v[1].ops->release(&p->v[1], 7);
	p->v[1].ops->release(&p->v[1], 7); /* twice does no harm */
	p->v[1].ops->release(&p->v[1], 0xffffffff);
	assert_int_equal(p->st[1].rx_held, 0);
	assert_int_equal(p->st[1].ret_count, 1);
}

static void returns_of_what_is_not_out_free_nothing(void **state)
{
	struct pair *p = *state;
	struct vnic_desc ev[4] = {0};
	uint32_t at = 0;
	int ours = vnic_tx_alloc(&p->v[1]);

	inject(p, &at, (struct vnic_desc){.buf = (uint32_t)ours, .type = VNIC_DESC_RETURN}); /* taken, never sent */
	inject(p, &at, (struct vnic_desc){.buf = 3, .type = VNIC_DESC_RETURN});
	inject(p, &at, (struct vnic_desc){.buf = WIRE_BUFS, .type = VNIC_DESC_RETURN});
	inject(p, &at, (struct vnic_desc){.buf = 0xffffffff, .type = VNIC_DESC_RETURN});
	assert_int_equal(p->v[1].ops->poll(&p->v[1], ev, 4), 0);
	assert_int_equal(p->st[1].stats.bad_return, 4);
	assert_int_equal(p->st[1].free_top, WIRE_BUFS - 1);
	assert_int_equal(p->st[1].tx_state[ours], VNIC_TX_PKT);
}

static void one_poll_looks_at_one_lap_at_most(void **state)
{
	struct pair *p = *state;
	struct vnic_desc ev[4] = {0};

	/* Slots that are full for this lap: each is consumed once, then they are of an old lap. */
	for (uint32_t at = 0; at < WIRE_RING;)
		inject(p, &at, (struct vnic_desc){.type = VNIC_DESC_RETURN, .buf = at});
	assert_int_equal(p->v[1].ops->poll(&p->v[1], ev, 4), 0);
	assert_int_equal(p->st[1].evq_cons, WIRE_RING);
	assert_false(vnic_pending(&p->v[1]));
}

static void a_frame_that_never_ends_is_delivered_cut(void **state)
{
	struct pair *p = *state;
	struct vnic_desc ev[4] = {0};

	for (uint32_t at = 0; at < 10;)
		inject(p, &at, (struct vnic_desc){.type = VNIC_DESC_FRAME, .flags = VNIC_F_MORE, .len = 64, .buf = at});
	for (int left = 10; left > 0; left -= 4)
		assert_int_equal(p->v[1].ops->poll(&p->v[1], ev, 4), left < 4 ? left : 4);
	assert_int_equal(p->v[1].ops->poll(&p->v[1], ev, 4), 0);
}

static void a_sleep_gets_one_doorbell_of_the_kind_it_asked_for(void **state)
{
	struct pair *p = *state;

	assert_int_equal(vnic_take_armed(&p->v[0]), VNIC_ARMED_NO);
	vnic_arm(&p->v[1], VNIC_ARMED_THREAD);
	assert_int_equal(vnic_take_armed(&p->v[0]), VNIC_ARMED_THREAD);
	assert_int_equal(vnic_take_armed(&p->v[0]), VNIC_ARMED_NO);
	vnic_arm(&p->v[1], VNIC_ARMED_HELPER);
	assert_int_equal(vnic_take_armed(&p->v[0]), VNIC_ARMED_HELPER);
	p->v[1].ctrl->armed = 77; /* a hostile end */
	assert_int_equal(vnic_take_armed(&p->v[0]), VNIC_ARMED_NO);
	assert_int_equal(p->st[0].stats.doorbells, 2);
}

static void a_sender_without_buffers_is_told_of_returns(void **state)
{
	struct pair *p = *state;
	struct vnic_desc ev[32] = {0};

	for (int i = 0; i < (int)WIRE_BUFS; i++)
		send_parts(&p->v[0], 1, 64, 0);
	for (int n; (n = p->v[1].ops->poll(&p->v[1], ev, 32)) > 0;)
		for (int i = 0; i < n; i++)
			p->v[1].ops->release(&p->v[1], ev[i].buf);
	assert_true(p->st[1].posted > 0);

	/* A few alone are not worth a wake-up. */
	p->st[1].posted = 0;
	vnic_arm(&p->v[1], VNIC_ARMED_HELPER);
	p->v[0].ops->poll(&p->v[0], ev, 32);
	send_parts(&p->v[0], 1, 64, 0);
	p->v[1].ops->poll(&p->v[1], ev, 32);
	p->v[1].ops->release(&p->v[1], ev[0].buf);
	p->v[1].ops->flush(&p->v[1]);
	assert_int_equal(p->st[1].posted, 0);
}

static void nothing_is_posted_to_a_dead_peer(void **state)
{
	struct pair *p = *state;
	struct vnic_desc ev[4] = {0};

	send_parts(&p->v[1], 1, 64, 1);
	send_parts(&p->v[0], 1, 64, 1);
	p->st[0].dead = 1;
	assert_int_equal(p->v[0].ops->poll(&p->v[0], ev, 4), 1); /* what was here still counts */
	p->v[0].ops->release(&p->v[0], ev[0].buf);
	p->v[0].ops->flush(&p->v[0]);
	uint32_t prod = p->st[0].tx_prod;

	send_parts(&p->v[0], 2, 64, 2);
	assert_int_equal(p->st[0].tx_prod, prod);
	assert_int_equal(vnic_take_armed(&p->v[0]), VNIC_ARMED_NO);
	assert_int_equal(p->st[0].free_top, WIRE_BUFS - 1); /* only what was sent before is away */
}

static void a_foreign_or_truncated_header_is_refused(void **state)
{
	struct pair *p = *state;
	struct vnic_header *h = p->mem, good = *h;

	assert_int_equal(wire_check(p->mem, wire_size()), 0);
	assert_int_equal(wire_check(p->mem, wire_size() - 1), -EPROTO);
	assert_int_equal(wire_check(p->mem, 0), -EPROTO);
	for (size_t i = 0; i < sizeof(good); i++) {
		((uint8_t *)p->mem)[i] ^= 0x40;
		assert_int_equal(wire_check(p->mem, wire_size()), -EPROTO);
		*h = good;
	}
	assert_int_equal(wire_check(p->mem, wire_size()), 0);
}

static void reattaching_keeps_the_state(void **state)
{
	struct pair *p = *state;
	struct vnic again = {0};
	struct vnic_desc ev[4] = {0};

	send_parts(&p->v[0], 1, 64, 9);
	wire_reattach(&again, &p->st[1], p->mem);
	assert_int_equal(again.ops->poll(&again, ev, 4), 1);
	assert_int_equal(vnic_rx_buf(&again, ev[0].buf)[ev[0].off], 9);
	assert_int_equal(p->v[1].ops->poll(&p->v[1], ev, 4), 0);
}

/* --- sim --- */

static struct sim_config sim_defaults(void)
{
	return (struct sim_config){
	    .seed = 1, .mtu = 1500, .buf_size = 2048, .tx_bufs = 16, .rx_bufs = 8, .flights = 64};
}

struct link {
	struct pair p;
	struct sim *s;
};

static void link_up(struct link *l, const struct sim_config *cfg)
{
	memset(l, 0, sizeof(*l));
	l->s = test_link_new(cfg);
	for (int i = 0; i < 2; i++)
		sim_attach(l->s, i, &l->p.v[i], &l->p.st[i]);
}

static void sim_delivers_after_its_delay_and_completes_the_buffer(void **state)
{
	struct sim_config cfg = sim_defaults();
	struct vnic_desc ev[4] = {0};
	struct link l;

	(void)state;
	cfg.dir[0].delay_us = 100;
	link_up(&l, &cfg);
	send_parts(&l.p.v[0], 1, 300, 0x33);
	sim_step(l.s, 50);
	assert_int_equal(sim_next(l.s), 150);
	assert_int_equal(l.p.v[1].ops->poll(&l.p.v[1], ev, 4), 0);
	assert_int_equal(l.p.v[0].ops->poll(&l.p.v[0], ev, 4), 0);
	assert_int_equal(l.p.st[0].free_top, 16);
	sim_step(l.s, 150);
	assert_int_equal(sim_next(l.s), UINT64_MAX);
	assert_int_equal(l.p.v[1].ops->poll(&l.p.v[1], ev, 4), 1);
	assert_int_equal(ev[0].len, 300);
	assert_int_equal(vnic_rx_buf(&l.p.v[1], ev[0].buf)[ev[0].off + 299], 0x33);
	test_link_free(l.s);
}

static void sim_keeps_to_its_rate_queue_mtu_and_rx_buffers(void **state)
{
	struct sim_config cfg = sim_defaults();
	struct link l;

	(void)state;
	cfg.dir[0].rate = 1000000; /* a byte per us */
	cfg.dir[0].queue_bytes = 2000;
	link_up(&l, &cfg);
	for (int i = 0; i < 4; i++)
		send_parts(&l.p.v[0], 1, 1000, 1);
	sim_step(l.s, 0);
	assert_int_equal(sim_statistics(l.s)->queue_drops, 1); /* the last would find 3000 before it */
	assert_int_equal(sim_next(l.s), 1000);
	sim_step(l.s, 10000);
	assert_int_equal(sim_statistics(l.s)->delivered, 3);
	send_parts(&l.p.v[1], 1, 1515, 1); /* 1500 and an Ethernet header are 1514 */
	sim_step(l.s, 10001);
	assert_int_equal(sim_statistics(l.s)->too_long, 1);
	sim_direction(l.s, 0)->rate = 0;
	for (int i = 0; i < 8; i++)
		send_parts(&l.p.v[0], 1, 100, 1);
	sim_step(l.s, 20000);
	assert_int_equal(sim_statistics(l.s)->no_rx_buffer, 3); /* 8 buffers, none given back */
	test_link_free(l.s);
}

static void sim_notices_a_buffer_rewritten_while_it_is_out(void **state)
{
	struct sim_config cfg = sim_defaults();
	struct link l;

	(void)state;
	cfg.dir[0].hold_us = 10;
	link_up(&l, &cfg);
	send_parts(&l.p.v[0], 1, 100, 1);
	sim_step(l.s, 0);
	l.p.v[0].tx_bufs[l.p.st[0].tx_free[l.p.st[0].free_top] * 2048u + 64] ^= 1;
	sim_step(l.s, 10);
	assert_int_equal(sim_statistics(l.s)->rewritten, 1);
	test_link_free(l.s);
}

/* What the link does to 10,000 frames, as a digest. */
static uint64_t sim_digest(uint64_t seed, struct sim_stats *stats)
{
	struct sim_config cfg = sim_defaults();
	struct vnic_desc ev[4] = {0};
	struct link l;
	uint64_t digest = 0;

	cfg.seed = seed;
	cfg.dir[0] = (struct sim_dir){.delay_us = 10,
				      .jitter_us = 50,
				      .loss_ppm = 50000,
				      .burst_ppm = 5000,
				      .burst_len = 5,
				      .dup_ppm = 30000,
				      .reorder_ppm = 40000,
				      .reorder_us = 300,
				      .corrupt_ppm = 20000};
	link_up(&l, &cfg);
	for (uint64_t now = 0; now < 200000; now += 10) {
		if (now < 100000)
			send_parts(&l.p.v[0], 1, 100, (uint8_t)(now / 10));
		sim_step(l.s, now);
		for (int n; (n = l.p.v[1].ops->poll(&l.p.v[1], ev, 4)) > 0;)
			for (int i = 0; i < n; i++) {
				digest = digest * 31 + now + vnic_rx_buf(&l.p.v[1], ev[i].buf)[ev[i].off];
				l.p.v[1].ops->release(&l.p.v[1], ev[i].buf);
			}
		l.p.v[0].ops->poll(&l.p.v[0], ev, 4);
	}
	*stats = *sim_statistics(l.s);
	assert_int_equal(tx_busy(&l.p.st[0]), 0);
	test_link_free(l.s);
	return digest;
}

static void sim_is_a_function_of_its_seed(void **state)
{
	struct sim_stats a, b, c;

	(void)state;
	uint64_t first = sim_digest(42, &a);

	assert_true(first == sim_digest(42, &b));
	assert_memory_equal(&a, &b, sizeof(a));
	assert_true(first != sim_digest(43, &c));
	assert_int_equal(a.frames, 10000);
	assert_in_range(a.lost, 400, 900);
	assert_in_range(a.duplicated, 200, 400);
	assert_in_range(a.reordered, 250, 600);
	assert_in_range(a.corrupted, 100, 320);
	assert_int_equal(a.delivered + a.lost + a.no_rx_buffer, a.frames + a.duplicated);
	assert_int_equal(a.rewritten + a.bad_desc, 0);
}

static void sim_refuses_a_bad_configuration(void **state)
{
	struct sim_config cfg = sim_defaults();
	uint8_t small[256] __attribute__((aligned(64)));

	(void)state;
	assert_null(sim_create(small, sizeof(small), &cfg));
	cfg.tx_bufs = VNIC_BUFS_MAX + 1;
	assert_int_equal(sim_size(&cfg), 0);
	cfg = sim_defaults();
	cfg.buf_size = 100;
	assert_int_equal(sim_size(&cfg), 0);
	cfg = sim_defaults();
	cfg.mtu = 70000;
	assert_int_equal(sim_size(&cfg), 0);
}

#define ON_WIRE(f) cmocka_unit_test_setup_teardown(f, wire_up, wire_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    ON_WIRE(a_frame_arrives_in_place_and_its_buffer_comes_back),
	    ON_WIRE(returns_travel_with_the_next_frame_behind_it),
	    ON_WIRE(returns_do_not_wait_for_ever_for_a_polling_end),
	    ON_WIRE(a_buffer_is_free_only_when_pkt_and_peer_have_let_go),
	    ON_WIRE(every_buffer_can_be_out_and_the_ring_does_not_overflow),
	    ON_WIRE(a_frame_is_not_split_between_two_polls),
	    ON_WIRE(returns_before_a_frame_that_did_not_fit_are_taken_once),
	    ON_WIRE(descriptors_out_of_range_are_counted_and_ignored),
	    ON_WIRE(a_buffer_that_we_hold_cannot_be_sent_again),
	    ON_WIRE(returns_of_what_is_not_out_free_nothing),
	    ON_WIRE(one_poll_looks_at_one_lap_at_most),
	    ON_WIRE(a_frame_that_never_ends_is_delivered_cut),
	    ON_WIRE(a_sleep_gets_one_doorbell_of_the_kind_it_asked_for),
	    ON_WIRE(a_sender_without_buffers_is_told_of_returns),
	    ON_WIRE(nothing_is_posted_to_a_dead_peer),
	    ON_WIRE(a_foreign_or_truncated_header_is_refused),
	    ON_WIRE(reattaching_keeps_the_state),
	    cmocka_unit_test(sim_delivers_after_its_delay_and_completes_the_buffer),
	    cmocka_unit_test(sim_keeps_to_its_rate_queue_mtu_and_rx_buffers),
	    cmocka_unit_test(sim_notices_a_buffer_rewritten_while_it_is_out),
	    cmocka_unit_test(sim_is_a_function_of_its_seed),
	    cmocka_unit_test(sim_refuses_a_bad_configuration),
	};

	return cmocka_run_group_tests_name("vnic", tests, NULL, NULL);
}
