/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where the engine is driven from: bursts of events in, timers, doorbells, and the lives of vNICs.
 *
 * engine_poll looks only at vNIC slots in use (a bitmap), and beyond a vNIC's rings only when its bit in
 * vnic_attention is set: it then has a frame whose end has not come, or buffers to give back for another process.
 *
 * A frame of several buffers may break off at the end of a burst. Its parts then stay in struct iface, in the shared
 * region, and whichever process polls next goes on with it. A peer gains nothing by never finishing: it ties up
 * FRAME_PARTS of its own buffers; what comes after too many parts is thrown away to the frame's end.
 */
#include <errno.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/capture.h"
#include "engine/tcp_open.h"
#include "vnic/wire.h"

void engine_attach(struct engine *e, struct stack *s)
{
	memset(e, 0, sizeof(*e));
	e->s = s;
}

/* --- frames in --- */

/* The start of the frame, read once. Whole lines at a time where the buffer is that long: sizes known to the compiler.
 */
static inline void read_header(struct frame *f, const uint8_t *from, uint32_t len, uint32_t room)
{
	uint32_t n = len < FRAME_HDR ? len : FRAME_HDR;

	f->hdr_len = n;
	if (n <= 64 && room >= 64)
		memcpy(f->hdr, from, 64);
	else if (n <= 128 && room >= 128)
		memcpy(f->hdr, from, 128);
	else if (room >= FRAME_HDR)
		memcpy(f->hdr, from, FRAME_HDR);
	else
		memcpy(f->hdr, from, n);
}

static inline void prefetch_part(const struct vnic *v, const struct vnic_desc *d)
{
	const uint8_t *p = vnic_rx_buf(v, d->buf) + d->off;

	__builtin_prefetch(p);
	__builtin_prefetch(p + 64);
	__builtin_prefetch(p + 128);
}

/* A whole frame: through the layers; what they did not take goes back. */
static void deliver(struct engine *e, struct vnic *v, struct frame *f)
{
	const struct vnic_desc *d = &f->part[0];

	f->taken = 0;
	f->off = 0;
	f->end = f->total;
	read_header(f, vnic_rx_buf(v, d->buf) + d->off, d->len, v->st->buf_size - d->off);
	frame_input(e, f);
	for (uint32_t i = 0; i < f->parts; i++)
		if (!(f->taken >> i & 1))
			v->ops->release(v, f->part[i].buf);
	f->parts = 0;
	f->total = 0;
}

static void release_parts(struct vnic *v, const struct vnic_desc *part, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		v->ops->release(v, part[i].buf);
}

/* Take up what struct iface kept since the last burst. */
static void resume(struct iface *ifc, struct frame *f, bool *skip)
{
	f->parts = ifc->parts <= FRAME_PARTS ? ifc->parts : 0;
	f->total = ifc->total;
	memcpy(f->part, ifc->part, f->parts * sizeof(f->part[0]));
	*skip = ifc->skip;
	ifc->parts = ifc->total = ifc->skip = 0;
}

static void keep(struct engine *e, uint32_t i, const struct frame *f, bool skip)
{
	struct iface *ifc = stack_iface(e->s, i);

	ifc->parts = f->parts;
	ifc->total = f->total;
	ifc->skip = skip;
	memcpy(ifc->part, f->part, f->parts * sizeof(f->part[0]));
	e->s->vnic_attention[i / 64] |= 1ull << i % 64;
}

/* Make frames of one burst's parts. Returns the number of frames. */
static int take_burst(struct engine *e, struct vnic *v, uint32_t i, const struct vnic_desc *ev, int n, struct frame *f,
		      bool *skip)
{
	bool network = vnic_is_network(v->st);
	int frames = 0;

	for (int j = 0; j < n; j++) {
		const struct vnic_desc *d = &ev[j];
		bool more = d->flags & VNIC_F_MORE;

		if (j + 1 < n && ev[j + 1].type == VNIC_DESC_FRAME)
			prefetch_part(v, &ev[j + 1]);
		if (__builtin_expect(d->type == VNIC_DESC_LINK, 0)) {
			stack_iface(e->s, i)->link_down = !d->len;
			continue;
		}
		if (__builtin_expect(*skip || f->parts == FRAME_PARTS, 0)) {
			if (!*skip) {
				count(e->s, C_frame_too_many_parts);
				release_parts(v, f->part, f->parts);
				f->parts = f->total = 0;
			}
			v->ops->release(v, d->buf);
			*skip = more;
			continue;
		}
		f->part[f->parts++] = *d;
		f->total += d->len;
		if (more)
			continue;
		f->csum_ok = d->flags & VNIC_F_CSUM_OK;
		e->s->burst_more = network && j + 1 < n;
		deliver(e, v, f);
		frames++;
	}
	e->s->burst_more = 0;
	if (e->s->burst_ack)
		tcp_burst_end(e);
	return frames;
}

static inline bool attention(const struct stack *s, uint32_t i)
{
	return s->vnic_attention[i / 64] >> i % 64 & 1;
}

/* A burst of frames that have come over a wire in one buffer each, one by one. Their number; 0: there was none. */
static int poll_wire(struct engine *e, struct vnic *v, uint32_t i, struct frame *f)
{
	struct vnic_desc *d = &f->part[0];
	int n = 0;

	while (n < VNIC_BURST && wire_take_one(v, d)) {
		wire_prefetch_next(v);
		n++;
		if (tcp_fast_input(e, i, d))
			continue;
		f->parts = 1;
		f->total = d->len;
		f->csum_ok = true;
		deliver(e, v, f);
	}
	if (n)
		v->st->idle_polls = 0;
	return n;
}

/* One burst of one vNIC. *parts grows by what came; the number of frames is returned. */
static int poll_vnic(struct engine *e, uint32_t i, int *parts)
{
	struct vnic *v = &e->vnic[i];
	struct vnic_desc ev[VNIC_BURST];
	struct frame f;
	bool skip = false, captured = capture_on(e->s);
	int n, frames;

	if (!v->ops || v->gen != v->st->gen)
		return 0;
	e->s->lock.vnic = i + 1;
	f.vnic = i;
	f.flat = NULL;
	f.parts = f.total = 0;
	if (captured)
		capture_sent(e, i);
	if (__builtin_expect(attention(e->s, i), 0)) {
		if (stack_iface(e->s, i)->deferred)
			pkt_release_deferred(e, i);
	} else if (!captured && v->st->provider == VNIC_PROV_LOCAL && (n = poll_wire(e, v, i, &f)) > 0) {
		txwait_run(e, i);
		*parts += n;
		return n;
	}
	n = v->ops->poll(v, ev, VNIC_BURST);
	if (n <= 0) {
		txwait_run(e, i);
		return 0;
	}
	if (captured)
		capture_received(e, i, ev, n);
	if (__builtin_expect(attention(e->s, i), 0)) {
		resume(stack_iface(e->s, i), &f, &skip);
		e->s->vnic_attention[i / 64] &= ~(1ull << i % 64);
	}
	frames = take_burst(e, v, i, ev, n, &f, &skip);
	if (__builtin_expect(f.parts || skip, 0))
		keep(e, i, &f, skip);
	txwait_run(e, i);
	*parts += n;
	return frames;
}

int engine_poll(struct engine *e, uint64_t now_us, int budget)
{
	struct stack *s = e->s;
	uint32_t first = s->poll_next % VNIC_MAX, words = (s->vnic_high + 63) / 64;
	uint64_t low = (1ull << first % 64) - 1; /* bits before `first`: they come last */
	int frames = 0;
	int most;

	s->now_us = now_us;
	if (words > VNIC_WORDS || first / 64 >= words)
		words = VNIC_WORDS;
	do {
		most = 0;
		/* Once around, beginning with `first`: its word comes twice, first the bits from it on. */
		for (uint32_t n = 0, w = first / 64; n < words || (n == words && low);
		     n++, w = w + 1 == words ? 0 : w + 1) {
			uint64_t bits = s->vnic_used[w];

			if (n == 0)
				bits &= ~low;
			else if (n == words)
				bits &= low;
			for (; bits; bits &= bits - 1) {
				uint32_t i = w * 64 + (uint32_t)__builtin_ctzll(bits);
				int parts = 0;

				if (frames >= budget) {
					s->poll_next = i;
					return frames;
				}
				frames += poll_vnic(e, i, &parts);
				most = parts > most ? parts : most;
			}
		}
		/* A burst that was nearly full may have left a frame behind that did not fit. */
	} while (most > VNIC_BURST - (int)FRAME_PARTS && frames < budget);
	return frames;
}

int engine_poll_vnic(struct engine *e, uint32_t vnic, uint64_t now_us, int budget)
{
	int frames = 0, parts;

	e->s->now_us = now_us;
	do {
		parts = 0;
		frames += poll_vnic(e, vnic, &parts);
	} while (parts > VNIC_BURST - (int)FRAME_PARTS && frames < budget);
	return frames;
}

void engine_input(struct engine *e, uint32_t vnic, const void *frame, uint32_t len, bool csum_ok, uint64_t now_us)
{
	struct frame f;

	e->s->now_us = now_us;
	if (!stack_vnic(e->s, vnic))
		return;
	f.vnic = vnic;
	f.flat = frame;
	f.parts = 0;
	f.taken = 0;
	f.total = f.end = len;
	f.off = 0;
	f.csum_ok = csum_ok;
	read_header(&f, frame, len, len);
	frame_input(e, &f);
}

/* --- time, doorbells --- */

void engine_tick(struct engine *e, uint64_t now_us)
{
	e->s->now_us = now_us;
	timer_run(e, now_us);
	if (__builtin_expect(e->s->path_waiters && now_us >= e->s->path_retry_us, 0))
		tcp_path_retry(e);
}

uint64_t engine_deadline(const struct engine *e)
{
	uint64_t next = timer_next(e);

	return e->s->path_waiters && e->s->path_retry_us < next ? e->s->path_retry_us : next;
}

/* --- lives of vNICs --- */

int engine_vnic_alloc(struct engine *e)
{
	struct stack *s = e->s;

	for (uint32_t w = 0; w < VNIC_WORDS; w++) {
		uint32_t i;
		struct vnic_state *st;

		if (!~s->vnic_used[w])
			continue;
		i = w * 64 + (uint32_t)__builtin_ctzll(~s->vnic_used[w]);
		st = stack_vnic(s, i);
		st->gen++;
		st->dead = 0;
		*stack_iface(s, i) = (struct iface){0};
		memset(&e->vnic[i], 0, sizeof(e->vnic[i]));
		e->large_fd[i] = 0;
		s->vnic_used[w] |= 1ull << i % 64;
		s->vnic_attention[w] &= ~(1ull << i % 64);
		if (i >= s->vnic_high)
			s->vnic_high = i + 1;
		return (int)i;
	}
	count(s, C_vnic_none);
	return -ENOBUFS;
}

static bool vnic_used(const struct stack *s, uint32_t i)
{
	return i < VNIC_MAX && (s->vnic_used[i / 64] >> i % 64 & 1);
}

/* Give an rx buffer back; where this process can't reach the ring, only stop counting it (the vNIC is dead). */
static void let_go(struct vnic *v, struct vnic_state *st, uint32_t buf)
{
	if (v->ops) {
		v->ops->release(v, buf);
	} else if (st->rx_state[buf]) {
		st->rx_state[buf] = 0;
		st->rx_held--;
	}
}

/* Let the parts of a frame that never came to its end go. */
static void drop_unfinished(struct engine *e, uint32_t i)
{
	struct iface *ifc = stack_iface(e->s, i);

	if (!ifc->parts)
		return;
	count(e->s, C_frame_unfinished);
	for (uint32_t p = 0; p < ifc->parts && p < FRAME_PARTS; p++)
		let_go(&e->vnic[i], stack_vnic(e->s, i), ifc->part[p].buf % VNIC_BUFS_MAX);
	ifc->parts = ifc->total = 0;
}

void engine_vnic_dead(struct engine *e, uint32_t vnic, uint64_t now_us)
{
	struct stack *s = e->s;
	struct vnic_state *st = stack_vnic(s, vnic);
	uint32_t left;
	int parts;

	if (!vnic_used(s, vnic) || st->dead)
		return;
	s->now_us = now_us;
	__atomic_store_n(&st->dead, 1, __ATOMIC_RELAXED); /* vnic_take_armed looks at it without the lock */
	/* What a dead peer left is at most a ring; one that lives on may not keep us here. */
	left = st->evq_entries + 1;
	do {
		parts = 0;
		poll_vnic(e, vnic, &parts);
	} while (parts && --left);
	drop_unfinished(e, vnic);
	tcp_open_vnic_dead(e, vnic);
	for (uint32_t i = 1; i < s->sock_pool.mark; i++) {
		struct sock *k = sock_at(s, i);

		if (k->proto == SOCK_FREE || k->vnic != vnic || k->vnic_gen != st->gen)
			continue;
		if (k->proto == SOCK_UDP)
			udp_vnic_dead(e, k);
		else if (k->tcp.state != TCP_CLOSED && k->tcp.state != TCP_LISTEN)
			tcp_vnic_dead(e, k, now_us);
	}
	for (struct sock *k; (k = sock_at(s, st->txwait_head ? st->txwait_head : st->txheld_head));) {
		txwait_remove(e, k);
		sock_notify(e, k, EV_OUT);
	}
}

static bool tx_in_use(const struct vnic_state *st)
{
	for (uint32_t i = 0; i < st->tx_count; i++)
		if (st->tx_state[i] & VNIC_TX_PKT)
			return true;
	return false;
}

int engine_vnic_free(struct engine *e, uint32_t vnic)
{
	struct stack *s = e->s;
	struct vnic_state *st = stack_vnic(s, vnic);
	struct vnic *v = &e->vnic[vnic % VNIC_MAX];

	if (!vnic_used(s, vnic))
		return -EINVAL;
	drop_unfinished(e, vnic);
	pkt_release_deferred(e, vnic);
	if (st->rx_held || tx_in_use(st) || st->txwait_head | st->txheld_head)
		return -EBUSY;
	st->provider = VNIC_PROV_NONE;
	__atomic_store_n(&st->dead, 1, __ATOMIC_RELAXED); /* vnic_take_armed looks at it without the lock */
	st->gen++;                                        /* other processes' mappings of it are stale from here on */
	s->vnic_used[vnic / 64] &= ~(1ull << vnic % 64);
	s->vnic_attention[vnic / 64] &= ~(1ull << vnic % 64);
	v->ops = NULL;
	return 0;
}
