/* SPDX-License-Identifier: BSD-2-Clause */
/* See capture.h. All with the stack's lock. */
#include <string.h>

#include "engine/capture.h"

/* The area, if a tool still wants frames. */
static struct capture *wanted(struct engine *e)
{
	struct capture *c = stack_capture(e->s);
	uint32_t until = __atomic_load_n(&e->s->capture, __ATOMIC_RELAXED);

	if (c && (int32_t)(until - capture_clock(e->s->now_us)) >= 0 && until - capture_clock(e->s->now_us) <= 64)
		return c;
	__atomic_store_n(&e->s->capture, 0, __ATOMIC_RELAXED);
	return NULL;
}

static void put_bytes(struct capture *c, uint64_t at, const void *from, uint32_t len)
{
	uint32_t off = (uint32_t)at & (CAPTURE_RING - 1), first = CAPTURE_RING - off;

	if (first > len)
		first = len;
	memcpy(c->ring + off, from, first);
	memcpy(c->ring, (const uint8_t *)from + first, len - first);
}

/* True if the descriptor lies within the vNIC's buffers: it was read from memory that others may write. */
static bool part_valid(const struct vnic_desc *d, uint32_t count, uint32_t buf_size)
{
	return d->buf < count && (uint32_t)d->off + d->len <= buf_size;
}

/* One frame of n parts at base. */
static void record(struct engine *e, struct capture *c, uint32_t vnic, bool sent, const struct vnic_desc *part, int n)
{
	const struct vnic *v = &e->vnic[vnic];
	const uint8_t *base = sent ? v->tx_bufs : v->rx_bufs;
	uint32_t snap = __atomic_load_n(&c->snap, __ATOMIC_RELAXED), left;
	struct capture_record r = {.gen = v->st->gen, .us = e->s->now_us, .vnic = (uint16_t)vnic, .sent = sent};
	uint64_t head = c->head & ~7ull, at = head + sizeof(r);
	uint64_t used = head - __atomic_load_n(&c->tail, __ATOMIC_ACQUIRE);

	for (int i = 0; i < n; i++)
		r.len += part[i].len;
	snap = snap && snap < CAPTURE_SNAP_MAX ? snap : CAPTURE_SNAP_MAX;
	r.caplen = r.len < snap ? r.len : snap;
	r.size = (uint32_t)(sizeof(r) + r.caplen + 7) & ~7u;
	if (used > CAPTURE_RING || CAPTURE_RING - used < r.size) {
		c->dropped++;
		return;
	}
	put_bytes(c, head, &r, sizeof(r));
	left = r.caplen;
	for (int i = 0; i < n && left; i++) {
		uint32_t len = part[i].len < left ? part[i].len : left;

		put_bytes(c, at, base + (size_t)part[i].buf * v->st->buf_size + part[i].off, len);
		at += len;
		left -= len;
	}
	__atomic_store_n(&c->head, head + r.size, __ATOMIC_RELEASE);
}

/* A new capture: what has been posted so far is not part of it. */
static void begin(struct engine *e, struct capture *c)
{
	for (uint32_t i = 0; i < VNIC_MAX; i++) {
		c->sent[i].gen = stack_vnic(e->s, i)->gen;
		c->sent[i].next = stack_vnic(e->s, i)->tx_prod;
	}
	c->seen = __atomic_load_n(&c->epoch, __ATOMIC_RELAXED);
}

/* The first position of the tx ring to look at. */
static uint32_t first_unseen(struct engine *e, struct capture *c, uint32_t vnic)
{
	const struct vnic_state *st = stack_vnic(e->s, vnic);
	uint32_t next;

	if (c->seen != __atomic_load_n(&c->epoch, __ATOMIC_RELAXED))
		begin(e, c);
	if (c->sent[vnic].gen != st->gen) /* made since: all that it posted */
		next = st->one_ring ? 0 : st->tx_prod - (uint32_t)st->stats.tx_frames;
	else
		next = c->sent[vnic].next;
	if (st->tx_prod - next > st->tx_entries)
		next = st->tx_prod - st->tx_entries;
	c->sent[vnic].gen = st->gen;
	c->sent[vnic].next = st->tx_prod;
	return next;
}

void capture_sent(struct engine *e, uint32_t vnic)
{
	struct vnic *v = &e->vnic[vnic];
	struct capture *c = wanted(e);
	struct vnic_desc part[FRAME_PARTS];
	int n = 0;

	if (!c || !v->ops || !v->ops->posted || v->gen != v->st->gen)
		return;
	for (uint32_t at = first_unseen(e, c, vnic); at != v->st->tx_prod; at++) {
		part[n] = v->ops->posted(v, at);
		if (part[n].type != VNIC_DESC_FRAME)
			continue;
		if (!part_valid(&part[n], v->st->tx_count, v->st->buf_size)) {
			n = 0;
			continue;
		}
		n++;
		if (!(part[n - 1].flags & VNIC_F_MORE) || n == (int)FRAME_PARTS) {
			record(e, c, vnic, true, part, n);
			n = 0;
		}
	}
}

void capture_received(struct engine *e, uint32_t vnic, const struct vnic_desc *part, int n)
{
	struct capture *c = wanted(e);
	int first = 0;

	if (!c)
		return;
	if (c->seen != __atomic_load_n(&c->epoch, __ATOMIC_RELAXED))
		begin(e, c);
	for (int i = 0; i < n; i++) {
		if (part[i].flags & VNIC_F_MORE && i + 1 < n)
			continue;
		record(e, c, vnic, false, part + first, i + 1 - first);
		first = i + 1;
	}
}
