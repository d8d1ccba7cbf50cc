/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The bytes of a received frame. They lie in memory that the peer may write at any moment, so headers are judged only
 * by the copy in frame.hdr, read once; payload is copied once, to the program, and never judged.
 *
 * Payload is queued where it lies: the pkt takes the rx buffer over. It is copied to private buffers instead when
 * the peer would run out of buffers: when we hold more than half of them, small payloads already from an eighth on (one
 * byte pins 4 KiB). A 64-byte message that is read at once costs a copy less that way than if it were moved first.
 */
#include "engine/bytes.h"
#include "engine/engine.h"

#define SMALL_PAYLOAD 128u

/* The piece of the frame that starts at off: its address, and how many bytes follow there; which part it is in. */
static const uint8_t *piece_at(struct engine *e, const struct frame *f, uint32_t off, uint32_t *len, uint32_t *part)
{
	uint32_t start = 0;

	if (f->flat) {
		*len = f->total - off;
		*part = 0;
		return f->flat + off;
	}
	for (uint32_t i = 0; i < f->parts; i++) {
		const struct vnic_desc *d = &f->part[i];

		if (off < start + d->len) {
			*len = start + d->len - off;
			*part = i;
			return vnic_rx_buf(&e->vnic[f->vnic], d->buf) + d->off + (off - start);
		}
		start += d->len;
	}
	return NULL;
}

bool frame_copy(struct engine *e, const struct frame *f, uint32_t off, void *to, uint32_t len)
{
	uint8_t *out = to;

	if (off > f->total || len > f->total - off)
		return false;
	while (len) {
		uint32_t n, part;
		const uint8_t *from;

		if (off < f->hdr_len) {
			n = f->hdr_len - off;
			from = f->hdr + off;
		} else if (!(from = piece_at(e, f, off, &n, &part))) {
			return false;
		}
		if (n > len)
			n = len;
		memcpy(out, from, n);
		out += n;
		off += n;
		len -= n;
	}
	return true;
}

uint32_t frame_sum(struct engine *e, const struct frame *f, uint32_t off, uint32_t end, uint32_t sum)
{
	uint64_t total = sum;
	bool odd = false;

	if (end > f->total)
		end = f->total;
	if (off < end && end <= f->hdr_len)
		return csum_add(f->hdr + off, end - off, sum);
	while (off < end) {
		uint32_t n, part, s;
		const uint8_t *from;

		if (off < f->hdr_len) {
			n = f->hdr_len - off;
			from = f->hdr + off;
		} else if (!(from = piece_at(e, f, off, &n, &part))) {
			break;
		}
		if (n > end - off)
			n = end - off;
		s = (uint16_t)~csum_fold(csum_add(from, n, 0));
		total += odd ? __builtin_bswap16((uint16_t)s) : s; /* RFC 1071, 2(B) */
		odd ^= n & 1;
		off += n;
	}
	total = (total & 0xffffffffu) + (total >> 32);
	return (uint32_t)((total & 0xffffffffu) + (total >> 32));
}

/* Would keeping this much payload in place hurt the peer? `hold` is the share of its buffers that we may hold, in
 * sixteenths. */
static bool must_copy(const struct vnic_state *st, uint32_t len, uint32_t hold)
{
	return st->rx_held * 16 > st->rx_count * hold || (len <= SMALL_PAYLOAD && st->rx_held * 8 > st->rx_count);
}

/* What taking [off, off+len) costs. */
struct need {
	uint32_t pkts, private;
};

static struct need count_need(struct engine *e, const struct frame *f, uint32_t off, uint32_t len, bool copy)
{
	struct need need = {0, 0};

	while (len) {
		uint32_t n, part, bufs;

		if (!piece_at(e, f, off, &n, &part))
			break;
		if (n > len)
			n = len;
		bufs = (n + PRIVATE_BUF_SIZE - 1) / PRIVATE_BUF_SIZE;
		if (copy || f->flat || f->taken >> part & 1) {
			need.pkts += bufs;
			need.private += bufs;
		} else {
			need.pkts++;
		}
		off += n;
		len -= n;
	}
	return need;
}

static bool affordable(const struct stack *s, struct need n)
{
	return n.pkts < s->pkt_pool.limit - s->pkt_pool.in_use &&
	       n.private < s->private_pool.limit - s->private_pool.in_use;
}

static struct pkt *chain(struct stack *s, struct pkt **last, struct pkt *head, struct pkt *p)
{
	if (*last)
		(*last)->next = pkt_index(s, p);
	*last = p;
	return head ? head : p;
}

/* Copy a piece into as many private buffers as it takes. */
static struct pkt *copy_piece(struct engine *e, uint32_t vnic, const uint8_t *from, uint32_t len, struct pkt **last,
			      struct pkt *head)
{
	while (len) {
		struct pkt *p = pkt_alloc_private(e);

		if (!p)
			return head; /* not after affordable() */
		p->len = len < PRIVATE_BUF_SIZE ? len : PRIVATE_BUF_SIZE;
		p->vnic = (uint16_t)vnic;
		memcpy(pkt_data(e, p), from, p->len);
		from += p->len;
		len -= p->len;
		head = chain(e->s, last, head, p);
	}
	return head;
}

static struct pkt *take_slow(struct engine *e, struct frame *f, uint32_t off, uint32_t len)
{
	const struct vnic_state *st = stack_vnic(e->s, f->vnic);
	bool copy = f->flat || must_copy(st, len, 8);
	struct pkt *head = NULL, *last = NULL;

	if (!len || off > f->total || len > f->total - off)
		return NULL;
	if (!affordable(e->s, count_need(e, f, off, len, copy))) {
		/* Without private buffers, rather let the peer have few than lose what it sent. */
		copy = f->flat || must_copy(st, SMALL_PAYLOAD + 1, 14);
		if (!affordable(e->s, count_need(e, f, off, len, copy))) {
			count(e->s, C_pkt_none);
			return NULL;
		}
	}
	while (len) {
		uint32_t n, part;
		const uint8_t *from = piece_at(e, f, off, &n, &part);

		if (!from)
			break; /* can't be: total is the sum of the parts */
		if (n > len)
			n = len;
		if (copy || f->flat || f->taken >> part & 1) {
			head = copy_piece(e, f->vnic, from, n, &last, head);
		} else {
			const struct vnic_desc *d = &f->part[part];
			uint32_t at = (uint32_t)(from - vnic_rx_buf(&e->vnic[f->vnic], d->buf));

			head = chain(e->s, &last, head, pkt_alloc_rx(e->s, f->vnic, d->buf, at, n));
			f->taken |= 1u << part;
		}
		off += n;
		len -= n;
	}
	return head;
}

/* The usual frame of several parts: each part from off on becomes a pkt where it lies. */
static struct pkt *take_in_place(struct stack *s, struct frame *f, uint32_t off, uint32_t len)
{
	struct pkt *head = NULL, *last = NULL;

	for (uint32_t i = 0; i < f->parts && len; i++, off = 0) {
		const struct vnic_desc *d = &f->part[i];
		uint32_t n = d->len - off < len ? d->len - off : len;

		head = chain(s, &last, head, pkt_alloc_rx(s, f->vnic, d->buf, d->off + off, n));
		f->taken |= 1u << i;
		len -= n;
	}
	return head;
}

struct pkt *frame_take(struct engine *e, struct frame *f, uint32_t off, uint32_t len)
{
	const struct vnic_state *st = stack_vnic(e->s, f->vnic);
	struct pkt *p;

	if (__builtin_expect(f->parts != 1 || f->taken || !len || off > f->total || len > f->total - off ||
				 must_copy(st, len, 8),
			     0)) {
		if (f->parts > 1 && !f->taken && len && off < f->part[0].len && len <= f->total - off &&
		    !must_copy(st, len, 8) && affordable(e->s, (struct need){.pkts = f->parts}))
			return take_in_place(e->s, f, off, len);
		return take_slow(e, f, off, len);
	}
	p = pkt_alloc_rx(e->s, f->vnic, f->part[0].buf, f->part[0].off + off, len);
	f->taken = p ? 1 : 0;
	return p;
}
