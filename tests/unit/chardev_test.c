/* SPDX-License-Identifier: BSD-2-Clause */
/* The provider `chardev` over a region in memory: headers and descriptors that the kernel's driver would not write, and
 * those that it does. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vnic/chardev.h"
#include "vnic/ring.h"

#define BUFS 16u
#define BUF 2048u
#define TX_OFF 4096u
#define RX_OFF (TX_OFF + 256u)
#define EVQ_OFF (RX_OFF + 256u)
#define BUFS_OFF 8192u
#define RX_BUFS_OFF (BUFS_OFF + BUFS * BUF)
#define SIZE (RX_BUFS_OFF + BUFS * BUF)
#define EVQ_ENTRIES 64u

static const struct chardev_about about = {.ifindex = 5, .mtu = 1500, .mac = {2, 0, 0, 0, 0, 5}};

struct nic {
	uint8_t *mem;
	struct vnic_header *h;
	struct vnic_state st;
	struct vnic v;
	uint32_t evq_at;
};

static struct nic *nic_new(void)
{
	struct nic *n = calloc(1, sizeof(*n));

	n->mem = aligned_alloc(4096, SIZE);
	memset(n->mem, 0, SIZE);
	n->h = (struct vnic_header *)(void *)n->mem;
	*n->h = (struct vnic_header){.magic = VNIC_MAGIC,
				     .version = VNIC_VERSION,
				     .header_size = sizeof(*n->h),
				     .total_size = SIZE,
				     .ends = 1,
				     .end = {{.tx_off = TX_OFF,
					      .rx_off = RX_OFF,
					      .evq_off = EVQ_OFF,
					      .ctrl_off = 1024,
					      .bufs_off = BUFS_OFF,
					      .tx_entries = BUFS,
					      .rx_entries = BUFS,
					      .evq_entries = EVQ_ENTRIES,
					      .buf_size = BUF,
					      .buf_count = BUFS,
					      .features = VNIC_FEAT_SCATTER | VNIC_FEAT_CSUM_TX | VNIC_FEAT_LOSSLESS},
					     {.bufs_off = RX_BUFS_OFF, .buf_size = BUF, .buf_count = BUFS}}};
	return n;
}

static int attach(struct nic *n)
{
	return chardev_attach(&n->v, &n->st, n->mem, SIZE, &about);
}

static struct nic *nic_attached(void)
{
	struct nic *n = nic_new();

	assert_int_equal(attach(n), 0);
	return n;
}

static void nic_free(struct nic *n)
{
	free(n->mem);
	free(n);
}

/* As the driver: write one event. */
static void event(struct nic *n, struct vnic_desc d)
{
	ring_write((struct vnic_desc *)(void *)(n->mem + EVQ_OFF), n->evq_at++, EVQ_ENTRIES, &d);
}

static struct vnic_desc frame(uint32_t buf, uint16_t len, uint8_t flags)
{
	return (struct vnic_desc){.buf = buf, .len = len, .type = VNIC_DESC_FRAME, .flags = flags};
}

static int nic_poll(struct nic *n, struct vnic_desc *ev)
{
	return n->v.ops->poll(&n->v, ev, VNIC_BURST);
}

static void a_header_that_contradicts_itself_is_refused(void **state)
{
	(void)state;
#define REFUSED(field, value)                                                                                          \
	do {                                                                                                           \
		struct nic *n = nic_new();                                                                             \
		n->h->field = (value);                                                                                 \
		assert_int_equal(attach(n), -EPROTO);                                                                  \
		nic_free(n);                                                                                           \
	} while (0)
	REFUSED(magic, 0);
	REFUSED(version, VNIC_VERSION + 1);
	REFUSED(header_size, 8);
	REFUSED(total_size, SIZE + 1);
	REFUSED(ends, 2);
	REFUSED(end[0].tx_off, SIZE);
	REFUSED(end[0].tx_off, UINT64_MAX - 63);
	REFUSED(end[0].tx_off, TX_OFF + 8);
	REFUSED(end[0].tx_entries, 0);
	REFUSED(end[0].tx_entries, BUFS - 1);
	REFUSED(end[0].tx_entries, BUFS / 2);
	REFUSED(end[0].tx_entries, 1u << 31);
	REFUSED(end[0].rx_off, SIZE - 64);
	REFUSED(end[0].rx_entries, 24);
	REFUSED(end[0].evq_entries, BUFS);
	REFUSED(end[0].evq_off, UINT64_MAX & ~63ull);
	REFUSED(end[0].ctrl_off, SIZE - 64);
	REFUSED(end[0].ctrl_off, 1025);
	REFUSED(end[0].bufs_off, SIZE - 64);
	REFUSED(end[0].buf_count, 0);
	REFUSED(end[0].buf_count, VNIC_BUFS_MAX + 1);
	REFUSED(end[0].buf_size, 0);
	REFUSED(end[0].buf_size, BUF + 1);
	REFUSED(end[1].buf_size, BUF / 2);
	REFUSED(end[1].bufs_off, RX_BUFS_OFF + 64);
	REFUSED(end[1].buf_count, BUFS + 1);
#undef REFUSED
}

static void a_network_is_never_taken_for_lossless(void **state)
{
	struct nic *n = nic_attached();

	(void)state;
	assert_int_equal(n->st.features, VNIC_FEAT_SCATTER | VNIC_FEAT_CSUM_TX);
	assert_true(vnic_is_network(&n->st));
	nic_free(n);
}

static void a_frame_of_two_buffers_arrives_and_goes_back(void **state)
{
	struct nic *n = nic_attached();
	struct vnic_desc ev[VNIC_BURST];
	struct vnic_taken *taken = (struct vnic_taken *)(void *)(n->mem + 1024 + VNIC_LINE);

	(void)state;
	assert_false(vnic_pending(&n->v));
	event(n, frame(3, BUF, VNIC_F_MORE | VNIC_F_CSUM_OK));
	event(n, frame(9, 100, VNIC_F_CSUM_OK));
	assert_true(vnic_pending(&n->v));
	assert_int_equal(nic_poll(n, ev), 2);
	assert_int_equal(ev[0].flags, VNIC_F_MORE | VNIC_F_CSUM_OK);
	assert_int_equal(ev[1].flags, VNIC_F_CSUM_OK);
	assert_ptr_equal(vnic_rx_buf(&n->v, 9), n->mem + RX_BUFS_OFF + 9 * BUF);
	assert_int_equal(taken->evq, 2);
	assert_int_equal(n->st.rx_held, 2);
	n->v.ops->release(&n->v, 9);
	n->v.ops->release(&n->v, 9);
	assert_int_equal(n->st.rx_held, 1);
	assert_int_equal(n->v.rx[0].buf, 9);
	assert_int_equal(n->v.rx[0].turn, 1);
	assert_int_equal(n->v.rx[1].turn, 0);
	nic_free(n);
}

static void events_that_make_no_sense_are_counted_and_ignored(void **state)
{
	struct nic *n = nic_attached();
	struct vnic_desc ev[VNIC_BURST];

	(void)state;
	event(n, frame(BUFS, 100, 0));
	event(n, frame(1, 0, 0));
	event(n, frame(1, BUF + 1, 0));
	event(n, (struct vnic_desc){.type = 77});
	event(n, (struct vnic_desc){.type = VNIC_DESC_RETURN, .buf = 4});
	event(n, (struct vnic_desc){.type = VNIC_DESC_RETURN, .buf = UINT32_MAX});
	event(n, frame(2, 60, VNIC_F_OPEN));
	event(n, frame(2, 60, 0)); /* we hold it */
	assert_int_equal(nic_poll(n, ev), 1);
	assert_int_equal(ev[0].flags, 0);
	assert_int_equal(n->st.stats.bad_desc, 4);
	assert_int_equal(n->st.stats.bad_return, 2);
	assert_int_equal(n->st.stats.bad_reuse, 1);
	nic_free(n);
}

static void a_change_of_the_link_reaches_the_engine(void **state)
{
	struct nic *n = nic_attached();
	struct vnic_desc ev[VNIC_BURST];

	(void)state;
	event(n, (struct vnic_desc){.type = VNIC_DESC_LINK, .len = 1});
	assert_int_equal(nic_poll(n, ev), 1);
	assert_int_equal(ev[0].type, VNIC_DESC_LINK);
	assert_int_equal(ev[0].len, 1);
	assert_int_equal(n->st.stats.rx_frames, 0);
	nic_free(n);
}

static void a_posted_frame_is_told_of_once_and_its_buffers_come_back(void **state)
{
	struct nic *n = nic_attached();
	struct vnic_desc ev[VNIC_BURST], parts[2];
	int first = vnic_tx_alloc(&n->v), second = vnic_tx_alloc(&n->v);

	(void)state;
	assert_false(chardev_kick_due(&n->v));
	parts[0] = frame((uint32_t)first, 54, VNIC_F_CSUM_TX);
	parts[1] = frame((uint32_t)second, 500, VNIC_F_CSUM_TX | VNIC_F_OPEN);
	n->v.ops->post(&n->v, parts, 2);
	assert_true(chardev_kick_due(&n->v));
	chardev_kicked(&n->v);
	assert_false(chardev_kick_due(&n->v));
	assert_int_equal(n->v.tx[0].flags, VNIC_F_CSUM_TX | VNIC_F_MORE);
	assert_int_equal(n->v.tx[1].flags, VNIC_F_CSUM_TX);
	assert_int_equal(n->v.tx[1].turn, 1);
	vnic_tx_free(&n->v, (uint32_t)first);
	vnic_tx_free(&n->v, (uint32_t)second);
	assert_int_equal(n->st.free_top, BUFS - 2);
	event(n, (struct vnic_desc){.type = VNIC_DESC_RETURN, .buf = (uint32_t)first});
	event(n, (struct vnic_desc){.type = VNIC_DESC_RETURN, .buf = (uint32_t)second});
	assert_int_equal(nic_poll(n, ev), 0);
	assert_int_equal(n->st.free_top, BUFS);
	nic_free(n);
}

static void while_the_driver_looks_by_itself_it_is_not_told(void **state)
{
	struct nic *n = nic_attached();
	struct vnic_taken *taken = (struct vnic_taken *)(void *)(n->mem + 1024 + VNIC_LINE);
	struct vnic_desc part = frame((uint32_t)vnic_tx_alloc(&n->v), 54, VNIC_F_CSUM_TX);

	(void)state;
	taken->polling = 1;
	n->v.ops->post(&n->v, &part, 1);
	assert_false(chardev_kick_due(&n->v));
	taken->polling = 0; /* it has looked once more since, and found that one */
	assert_false(chardev_kick_due(&n->v));
	part = frame((uint32_t)vnic_tx_alloc(&n->v), 54, VNIC_F_CSUM_TX);
	n->v.ops->post(&n->v, &part, 1);
	assert_true(chardev_kick_due(&n->v));
	nic_free(n);
}

static void a_frame_is_not_split_between_two_polls(void **state)
{
	struct nic *n = nic_attached();
	struct vnic_desc ev[VNIC_BURST];

	(void)state;
	event(n, frame(0, 60, 0));
	event(n, frame(1, BUF, VNIC_F_MORE));
	event(n, frame(2, 60, 0));
	assert_int_equal(n->v.ops->poll(&n->v, ev, 2), 1);
	assert_int_equal(n->v.ops->poll(&n->v, ev, 2), 2);
	assert_int_equal(ev[0].buf, 1);
	assert_int_equal(n->st.rx_held, 3);
	nic_free(n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_header_that_contradicts_itself_is_refused),
	    cmocka_unit_test(a_network_is_never_taken_for_lossless),
	    cmocka_unit_test(a_frame_of_two_buffers_arrives_and_goes_back),
	    cmocka_unit_test(events_that_make_no_sense_are_counted_and_ignored),
	    cmocka_unit_test(a_change_of_the_link_reaches_the_engine),
	    cmocka_unit_test(a_posted_frame_is_told_of_once_and_its_buffers_come_back),
	    cmocka_unit_test(while_the_driver_looks_by_itself_it_is_not_told),
	    cmocka_unit_test(a_frame_is_not_split_between_two_polls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
