// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * A vNIC's memory: single pages, mapped in a row for the kernel, and for the program when it asks.
 *
 *   page 0    header; control line at 1024; vnic_taken behind it
 *   page 1    tx ring, rx ring, event queue, each on a line of its own
 *   ...       tx buffers, from a page's start; receive buffers, from a page's start
 *
 * The pages count against the cgroup of whoever allocates (GFP_KERNEL_ACCOUNT) and, unless he may
 * lock any amount (CAP_IPC_LOCK), against his user's RLIMIT_MEMLOCK, as an AF_XDP umem's do.
 */
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/user.h>
#include <linux/vmalloc.h>

#include "driver.h"

#define CTRL_OFF 1024u
#define LINK_EVENTS 64u /* that may lie in the event queue besides one for each buffer */

struct layout {
	size_t tx_off, rx_off, evq_off, tx_bufs_off, rx_bufs_off, size;
	u32 tx_entries, rx_entries, evq_entries;
};

static size_t ring_bytes(u32 entries)
{
	return (size_t)entries * sizeof(struct vnic_desc);
}

/* -EINVAL: the event queue asked for is too short. */
static int lay_out(const struct viaduct_alloc *want, struct layout *l)
{
	l->tx_entries = roundup_pow_of_two(want->tx_bufs);
	l->rx_entries = roundup_pow_of_two(want->rx_bufs);
	l->evq_entries = roundup_pow_of_two(want->tx_bufs + want->rx_bufs + LINK_EVENTS);
	if (want->evq_entries && want->evq_entries < l->evq_entries)
		return -EINVAL;
	if (want->evq_entries)
		l->evq_entries = want->evq_entries;
	l->tx_off = PAGE_SIZE;
	l->rx_off = l->tx_off + ring_bytes(l->tx_entries);
	l->evq_off = l->rx_off + ring_bytes(l->rx_entries);
	l->tx_bufs_off = PAGE_ALIGN(l->evq_off + ring_bytes(l->evq_entries));
	l->rx_bufs_off = PAGE_ALIGN(l->tx_bufs_off + (size_t)want->tx_bufs * want->buf_size);
	l->size = PAGE_ALIGN(l->rx_bufs_off + (size_t)want->rx_bufs * want->buf_size);
	return 0;
}

static int account(struct vd_vnic *v, unsigned long count)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT, before, after;

	if (capable(CAP_IPC_LOCK))
		return 0;
	v->user = get_uid(current_user());
	do {
		before = atomic_long_read(&v->user->locked_vm);
		after = before + count;
		if (after > limit) {
			free_uid(v->user);
			v->user = NULL;
			return -ENOBUFS;
		}
	} while (atomic_long_cmpxchg(&v->user->locked_vm, before, after) != before);
	return 0;
}

static int get_pages(struct vd_region *r, unsigned long count)
{
	r->pages = kvcalloc(count, sizeof(*r->pages), GFP_KERNEL_ACCOUNT);
	if (!r->pages)
		return -ENOMEM;
	while (r->count < count) {
		struct page *page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_NOWARN);

		if (!page)
			return -ENOMEM;
		r->pages[r->count++] = page;
		if (fatal_signal_pending(current))
			return -EINTR;
	}
	r->base = vmap(r->pages, r->count, VM_MAP, PAGE_KERNEL);
	return r->base ? 0 : -ENOMEM;
}

static void write_header(struct vd_vnic *v, const struct viaduct_alloc *want,
			 const struct layout *l, u32 mtu)
{
	struct vnic_header *h = (struct vnic_header *)v->region.base;

	*h = (struct vnic_header){.magic = VNIC_MAGIC,
				  .version = VNIC_VERSION,
				  .header_size = sizeof(*h),
				  .total_size = l->size,
				  .ends = 1};
	h->end[0] = (struct vnic_end){.tx_off = l->tx_off,
				      .rx_off = l->rx_off,
				      .evq_off = l->evq_off,
				      .ctrl_off = CTRL_OFF,
				      .bufs_off = l->tx_bufs_off,
				      .tx_entries = l->tx_entries,
				      .rx_entries = l->rx_entries,
				      .evq_entries = l->evq_entries,
				      .buf_size = want->buf_size,
				      .buf_count = want->tx_bufs,
				      .mtu = mtu,
				      .features = VNIC_FEAT_SCATTER | VNIC_FEAT_CSUM_TX};
	h->end[1].bufs_off = l->rx_bufs_off;
	h->end[1].buf_size = want->buf_size;
	h->end[1].buf_count = want->rx_bufs;
}

static void point_into(struct vd_vnic *v, const struct viaduct_alloc *want, const struct layout *l)
{
	u8 *base = v->region.base;

	v->ctrl = (struct vnic_ctrl *)(base + CTRL_OFF);
	v->taken = (struct vnic_taken *)(base + CTRL_OFF + VNIC_LINE);
	v->tx = (struct vd_ring){.slots = (u64 *)(base + l->tx_off), .entries = l->tx_entries};
	v->rx = (struct vd_ring){.slots = (u64 *)(base + l->rx_off), .entries = l->rx_entries};
	v->evq = (struct vd_ring){.slots = (u64 *)(base + l->evq_off), .entries = l->evq_entries};
	v->tx_bufs = base + l->tx_bufs_off;
	v->rx_bufs = base + l->rx_bufs_off;
	v->tx_count = want->tx_bufs;
	v->rx_count = want->rx_bufs;
	v->buf_size = want->buf_size;
}

/* Which receive buffers are ours: all. */
static int make_lists(struct vd_vnic *v)
{
	v->rx_free = kvcalloc(v->rx_count, sizeof(*v->rx_free), GFP_KERNEL_ACCOUNT);
	v->rx_out = bitmap_zalloc(v->rx_count, GFP_KERNEL_ACCOUNT);
	if (!v->rx_free || !v->rx_out)
		return -ENOMEM;
	for (u32 i = 0; i < v->rx_count; i++)
		v->rx_free[i] = v->rx_count - 1 - i;
	v->rx_free_count = v->rx_count;
	return 0;
}

int vd_region_make(struct vd_vnic *v, const struct viaduct_alloc *want, u32 mtu)
{
	struct layout l;
	int ret = lay_out(want, &l);

	if (ret < 0)
		return ret;
	ret = account(v, l.size >> PAGE_SHIFT);
	if (ret < 0)
		return ret;
	ret = get_pages(&v->region, l.size >> PAGE_SHIFT);
	if (ret == 0) {
		write_header(v, want, &l, mtu);
		point_into(v, want, &l);
		ret = make_lists(v);
	}
	if (ret < 0) {
		if (v->user)
			atomic_long_sub((l.size >> PAGE_SHIFT) - v->region.count,
					&v->user->locked_vm);
		vd_region_free(v);
	}
	return ret;
}

/* The program's mapping holds a reference of the file, so there is none any more. */
void vd_region_free(struct vd_vnic *v)
{
	struct vd_region *r = &v->region;

	if (r->base)
		vunmap(r->base);
	for (unsigned long i = 0; i < r->count; i++)
		__free_page(r->pages[i]);
	kvfree(r->pages);
	if (v->user) {
		atomic_long_sub(r->count, &v->user->locked_vm);
		free_uid(v->user);
	}
	*r = (struct vd_region){};
	v->user = NULL;
	kvfree(v->rx_free);
	bitmap_free(v->rx_out);
	v->rx_free = NULL;
	v->rx_out = NULL;
}
