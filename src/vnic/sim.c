/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The simulated link. A frame that an end posts becomes a flight: a copy of its bytes, the tx buffers to complete,
 * and a count of what is still to happen to it. What is to happen stands in a binary heap ordered by time, then by
 * order of creation: completions (the sender gets its buffers back) and deliveries (none when lost, two when
 * duplicated). The copy is taken when the frame is posted; if the buffer differs from it at completion, the
 * sender has written to memory that the device owned, which is counted.
 *
 * A link with VNIC_FEAT_LOSSLESS waits, and keeps the order, where another would drop for want of room.
 */
#include "vnic/ring.h"
#include "vnic/sim.h"

#define SIM_PARTS 40u    /* buffers of one frame at most */
#define SIM_LINK_HDR 18u /* Ethernet header with a tag: what a frame has beyond the MTU */
#define SIM_MTU_MAX 65535u
#define SIM_FLIGHTS_MAX 65536u
#define RETRY_US 10u /* a link that says it is lossless waits for rx buffers */
#define SIM_MILLION 1000000u

enum event_kind { EVENT_COMPLETE, EVENT_DELIVER };

struct event {
	uint64_t due_us, order;
	uint32_t flight;
	uint8_t kind; /* enum event_kind */
	uint8_t corrupt, mark;
};

struct flight {
	uint32_t next; /* free list, plus 1 */
	uint32_t refs; /* events that refer to it */
	uint32_t len;
	uint32_t parts;
	uint8_t from;
	struct vnic_desc part[SIM_PARTS]; /* tx buffers */
};

/* The device's side of one end. */
struct port {
	struct vnic_desc *tx, *rx, *evq;
	struct vnic_ctrl *ctrl;
	uint8_t *tx_bufs, *rx_bufs;
	uint32_t tx_cons, rx_cons, evq_prod;
	uint32_t free_top;
	uint16_t rx_free[VNIC_BUFS_MAX];
	uint8_t rx_out[VNIC_BUFS_MAX]; /* 1: with the stack */
	uint64_t busy_until_ns;        /* the transmitter's, for the rate */
	uint64_t last_due_us;          /* order of deliveries is kept up to here */
	uint32_t burst_left;
	uint64_t wait_until_us; /* lossless: no delivery to this end before */
};

struct sim {
	struct sim_config cfg;
	struct sim_stats stats;
	uint64_t random, order;
	uint32_t entries; /* of each ring */
	uint32_t events;  /* in the heap */
	uint32_t free_flight;
	uint32_t frame_max;
	struct event *heap;
	struct flight *flight;
	uint8_t *bytes; /* frame_max for each flight */
	sim_tap tap;
	void *tap_arg;
	sim_middlebox box;
	void *box_arg;
	struct port port[2];
};

uint64_t sim_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

uint32_t sim_below(uint64_t *state, uint32_t n)
{
	return n ? (uint32_t)((sim_random(state) >> 32) * n >> 32) : 0;
}

static bool chance(struct sim *s, uint32_t ppm)
{
	return ppm && sim_below(&s->random, SIM_MILLION) < ppm;
}

/* --- memory --- */

static size_t round_line(size_t n)
{
	return (n + VNIC_LINE - 1) / VNIC_LINE * VNIC_LINE;
}

static uint32_t ring_entries(const struct sim_config *cfg)
{
	uint32_t entries = 4;

	while (entries < cfg->tx_bufs + cfg->rx_bufs)
		entries *= 2;
	return entries;
}

static bool config_valid(const struct sim_config *cfg)
{
	return cfg->mtu && cfg->mtu <= SIM_MTU_MAX && cfg->buf_size && cfg->buf_size % VNIC_LINE == 0 &&
	       cfg->buf_size <= 65536 - VNIC_LINE && cfg->tx_bufs && cfg->tx_bufs <= VNIC_BUFS_MAX && cfg->rx_bufs &&
	       cfg->rx_bufs <= VNIC_BUFS_MAX && cfg->flights && cfg->flights <= SIM_FLIGHTS_MAX;
}

/* Hand out n bytes of the memory; with mem NULL only the offset moves. */
static void *carve(uint8_t *mem, size_t *at, size_t n)
{
	uint8_t *p = mem ? mem + *at : NULL;

	*at += round_line(n);
	return p;
}

static size_t layout(uint8_t *mem, const struct sim_config *cfg)
{
	size_t at = 0;
	struct sim *s = carve(mem, &at, sizeof(*s)), none;
	uint32_t entries = ring_entries(cfg);

	if (!s)
		s = &none;
	s->frame_max = cfg->mtu + SIM_LINK_HDR;
	s->heap = carve(mem, &at, 3 * cfg->flights * sizeof(struct event));
	s->flight = carve(mem, &at, cfg->flights * sizeof(struct flight));
	s->bytes = carve(mem, &at, (size_t)cfg->flights * s->frame_max);
	for (int i = 0; i < 2; i++) {
		struct port *p = &s->port[i];

		p->ctrl = carve(mem, &at, sizeof(struct vnic_ctrl));
		p->tx = carve(mem, &at, entries * sizeof(struct vnic_desc));
		p->rx = carve(mem, &at, entries * sizeof(struct vnic_desc));
		p->evq = carve(mem, &at, entries * sizeof(struct vnic_desc));
		p->tx_bufs = carve(mem, &at, (size_t)cfg->tx_bufs * cfg->buf_size);
		p->rx_bufs = carve(mem, &at, (size_t)cfg->rx_bufs * cfg->buf_size);
	}
	return at;
}

size_t sim_size(const struct sim_config *cfg)
{
	return config_valid(cfg) ? layout(NULL, cfg) : 0;
}

static void port_init(struct sim *s, struct port *p)
{
	size_t ring = s->entries * sizeof(struct vnic_desc);

	memset(p->tx, 0, ring);
	memset(p->rx, 0, ring);
	memset(p->evq, 0, ring);
	memset(p->ctrl, 0, sizeof(*p->ctrl));
	for (uint32_t i = 0; i < s->cfg.rx_bufs; i++)
		p->rx_free[i] = (uint16_t)i;
	p->free_top = s->cfg.rx_bufs;
}

struct sim *sim_create(void *mem, size_t len, const struct sim_config *cfg)
{
	struct sim *s = mem;

	if (!sim_size(cfg) || len < sim_size(cfg))
		return NULL;
	memset(s, 0, sizeof(*s));
	layout(mem, cfg);
	s->cfg = *cfg;
	s->random = cfg->seed;
	s->entries = ring_entries(cfg);
	for (uint32_t i = 0; i < cfg->flights; i++)
		s->flight[i].next = i + 2 <= cfg->flights ? i + 2 : 0;
	s->free_flight = 1;
	port_init(s, &s->port[0]);
	port_init(s, &s->port[1]);
	return s;
}

/* --- the heap --- */

static bool before(const struct event *a, const struct event *b)
{
	return a->due_us != b->due_us ? a->due_us < b->due_us : a->order < b->order;
}

static void heap_put(struct sim *s, struct event ev)
{
	uint32_t i = s->events++;

	while (i && before(&ev, &s->heap[(i - 1) / 2])) {
		s->heap[i] = s->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	s->heap[i] = ev;
}

static void heap_push(struct sim *s, struct event ev)
{
	ev.order = s->order++;
	heap_put(s, ev);
}

static struct event heap_pop(struct sim *s)
{
	struct event top = s->heap[0], last = s->heap[--s->events];
	uint32_t i = 0;

	for (uint32_t child = 1; child < s->events; child = 2 * i + 1) {
		if (child + 1 < s->events && before(&s->heap[child + 1], &s->heap[child]))
			child++;
		if (!before(&s->heap[child], &last))
			break;
		s->heap[i] = s->heap[child];
		i = child;
	}
	s->heap[i] = last;
	return top;
}

/* --- frames on their way --- */

static uint8_t *flight_bytes(struct sim *s, uint32_t flight)
{
	return s->bytes + (size_t)flight * s->frame_max;
}

static void tap(struct sim *s, uint64_t now_us, int from, const uint8_t *frame, uint32_t len, enum sim_fate fate)
{
	if (s->tap)
		s->tap(s->tap_arg, now_us, from, frame, len, fate);
}

static void event_post(struct sim *s, struct port *p, struct vnic_desc d)
{
	ring_write(p->evq, p->evq_prod++, s->entries, &d);
}

static void complete_parts(struct sim *s, struct port *p, const struct vnic_desc *part, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		event_post(s, p, (struct vnic_desc){.buf = part[i].buf, .type = VNIC_DESC_RETURN});
}

static void complete(struct sim *s, uint32_t flight)
{
	struct flight *f = &s->flight[flight];
	struct port *p = &s->port[f->from];
	const uint8_t *copy = flight_bytes(s, flight);

	for (uint32_t i = 0; i < f->parts; i++) {
		const struct vnic_desc *d = &f->part[i];

		if (memcmp(copy, p->tx_bufs + (size_t)d->buf * s->cfg.buf_size + d->off, d->len))
			s->stats.rewritten++;
		copy += d->len;
	}
	complete_parts(s, p, f->part, f->parts);
}

/* A run of at most 15 bits changes; the Internet checksum sees each of those. */
static void corrupt(struct sim *s, uint8_t *frame, uint32_t len)
{
	uint32_t pattern = 1 + sim_below(&s->random, 0x7fff), bit = sim_below(&s->random, len * 8);

	for (uint32_t i = 0; i < 15; i++)
		if ((pattern >> i & 1) && bit + i < len * 8)
			frame[(bit + i) / 8] ^= (uint8_t)(0x80 >> (bit + i) % 8);
	s->stats.corrupted++;
}

/* CE into a packet that is ECT (RFC 3168 5), the IPv4 header's checksum with it (RFC 1624). */
static void mark_ce(struct sim *s, uint8_t *frame, uint32_t len)
{
	uint8_t *ip = frame + 14;
	uint32_t sum, old = (uint32_t)ip[0] << 8 | ip[1];

	if (len >= 34 && ip[0] >> 4 == 4 && (ip[1] & 3) % 3) {
		sum = (~((uint32_t)ip[10] << 8 | ip[11]) & 0xffff) + (~old & 0xffff) + (old | 3);
		ip[1] |= 3;
		sum = (sum & 0xffff) + (sum >> 16);
		sum = ~((sum & 0xffff) + (sum >> 16));
		ip[10] = (uint8_t)(sum >> 8);
		ip[11] = (uint8_t)sum;
		s->stats.marked++;
	} else if (len >= 54 && ip[0] >> 4 == 6 && (ip[1] >> 4 & 3) % 3) {
		ip[1] |= 0x30;
		s->stats.marked++;
	}
}

static bool lossless(const struct sim *s)
{
	return s->cfg.features & VNIC_FEAT_LOSSLESS;
}

static uint32_t rx_buffers_for(const struct sim *s, const struct flight *f)
{
	return (f->len + s->cfg.buf_size - 1) / s->cfg.buf_size;
}

/* On a lossless link: the delivery, and all that come after it, have to wait for rx buffers. */
static bool must_wait(struct sim *s, const struct flight *f, uint64_t now_us)
{
	struct port *p = &s->port[1 - f->from];

	if (!lossless(s))
		return false;
	if (now_us >= p->wait_until_us && rx_buffers_for(s, f) > p->free_top)
		p->wait_until_us = now_us + RETRY_US;
	return now_us < p->wait_until_us;
}

static void deliver(struct sim *s, const struct event *ev, uint64_t now_us)
{
	struct flight *f = &s->flight[ev->flight];
	struct port *p = &s->port[1 - f->from];
	uint8_t frame[SIM_MTU_MAX + SIM_LINK_HDR];

	memcpy(frame, flight_bytes(s, ev->flight), f->len);
	if (ev->mark)
		mark_ce(s, frame, f->len);
	if (s->box)
		s->box(s->box_arg, f->from, frame, f->len);
	if (ev->corrupt)
		corrupt(s, frame, f->len);
	if (rx_buffers_for(s, f) > p->free_top) {
		s->stats.no_rx_buffer++;
		tap(s, now_us, f->from, frame, f->len, SIM_NO_BUFFER);
		return;
	}
	for (uint32_t at = 0; at < f->len;) {
		uint16_t buf = p->rx_free[--p->free_top];
		uint32_t n = f->len - at < s->cfg.buf_size ? f->len - at : s->cfg.buf_size;

		memcpy(p->rx_bufs + (size_t)buf * s->cfg.buf_size, frame + at, n);
		at += n;
		p->rx_out[buf] = 1;
		event_post(s, p,
			   (struct vnic_desc){.buf = buf,
					      .len = (uint16_t)n,
					      .type = VNIC_DESC_FRAME,
					      .flags = at < f->len ? VNIC_F_MORE : 0});
	}
	s->stats.delivered++;
	tap(s, now_us, f->from, frame, f->len, SIM_DELIVERED);
}

static void run_event(struct sim *s, uint64_t now_us)
{
	struct event ev = heap_pop(s);
	struct flight *f = &s->flight[ev.flight];

	if (ev.kind == EVENT_DELIVER && must_wait(s, f, now_us)) {
		ev.due_us = s->port[1 - f->from].wait_until_us;
		heap_put(s, ev); /* with its place in the order */
		return;
	}
	if (ev.kind == EVENT_COMPLETE)
		complete(s, ev.flight);
	else
		deliver(s, &ev, now_us);
	if (--f->refs == 0) {
		f->next = s->free_flight;
		s->free_flight = ev.flight + 1;
	}
}

/* --- a frame is posted --- */

static bool lost(struct sim *s, struct port *p, const struct sim_dir *d)
{
	if (p->burst_left) {
		p->burst_left--;
		return true;
	}
	if (chance(s, d->burst_ppm))
		p->burst_left = sim_below(&s->random, d->burst_len);
	return p->burst_left || chance(s, d->loss_ppm);
}

static void schedule_delivery(struct sim *s, struct port *p, const struct sim_dir *d, uint32_t flight, uint64_t left_us)
{
	struct event ev = {.flight = flight,
			   .kind = EVENT_DELIVER,
			   .corrupt = chance(s, d->corrupt_ppm),
			   .mark = chance(s, d->ce_ppm)};

	ev.due_us = left_us + d->delay_us + sim_below(&s->random, d->jitter_us + 1);
	if (chance(s, d->reorder_ppm)) {
		ev.due_us += sim_below(&s->random, d->reorder_us + 1);
		s->stats.reordered++;
	} else {
		if (ev.due_us < p->last_due_us)
			ev.due_us = p->last_due_us;
		p->last_due_us = ev.due_us;
	}
	s->flight[flight].refs++;
	heap_push(s, ev);
}

/* When the frame has left the transmitter, or UINT64_MAX if its queue is full. */
static uint64_t depart(struct port *p, const struct sim_dir *d, uint32_t len, uint64_t now_us)
{
	uint64_t now_ns = now_us * 1000, start = p->busy_until_ns > now_ns ? p->busy_until_ns : now_ns;

	if (!d->rate)
		return now_us;
	if (d->queue_bytes && (start - now_ns) * d->rate / 1000000000u > d->queue_bytes)
		return UINT64_MAX;
	p->busy_until_ns = start + len * 1000000000ull / d->rate;
	return p->busy_until_ns / 1000;
}

static uint32_t take_flight(struct sim *s, int from, const struct vnic_desc *part, uint32_t n, uint32_t len)
{
	uint32_t i = s->free_flight - 1;
	struct flight *f = &s->flight[i];
	uint8_t *to = flight_bytes(s, i);

	s->free_flight = f->next;
	*f = (struct flight){.len = len, .parts = n, .from = (uint8_t)from};
	for (uint32_t k = 0; k < n; k++) {
		f->part[k] = part[k];
		memcpy(to, s->port[from].tx_bufs + (size_t)part[k].buf * s->cfg.buf_size + part[k].off, part[k].len);
		to += part[k].len;
	}
	return i;
}

static void send_frame(struct sim *s, int from, const struct vnic_desc *part, uint32_t n, uint64_t now_us)
{
	struct port *p = &s->port[from];
	const struct sim_dir *d = &s->cfg.dir[from];
	const uint8_t *first = p->tx_bufs + (size_t)part[0].buf * s->cfg.buf_size + part[0].off;
	uint32_t len = 0;

	for (uint32_t i = 0; i < n; i++)
		len += part[i].len;
	s->stats.frames++;
	if (len > s->cfg.mtu + 14) {
		s->stats.too_long++;
		tap(s, now_us, from, first, part[0].len, SIM_TOO_LONG);
		complete_parts(s, p, part, n);
		return;
	}

	uint64_t left_us = depart(p, d, len, now_us);

	if (left_us == UINT64_MAX || !s->free_flight) {
		s->stats.queue_drops++;
		tap(s, now_us, from, first, part[0].len, SIM_QUEUE_FULL);
		complete_parts(s, p, part, n);
		return;
	}

	uint32_t flight = take_flight(s, from, part, n, len);
	bool gone = lost(s, p, d);

	tap(s, now_us, from, flight_bytes(s, flight), len, gone ? SIM_LOST : SIM_SENT);
	s->flight[flight].refs = 1;
	heap_push(s, (struct event){.due_us = left_us + d->hold_us, .flight = flight, .kind = EVENT_COMPLETE});
	if (gone) {
		s->stats.lost++;
		return;
	}
	schedule_delivery(s, p, d, flight, left_us);
	if (chance(s, d->dup_ppm)) {
		s->stats.duplicated++;
		schedule_delivery(s, p, d, flight, left_us);
	}
}

static bool tx_desc_valid(const struct sim *s, const struct vnic_desc *d)
{
	return d->type == VNIC_DESC_FRAME && d->buf < s->cfg.tx_bufs && d->len &&
	       (uint32_t)d->off + d->len <= s->cfg.buf_size;
}

/* Take what end `from` has posted: whole frames, and rx buffers that it gives back. */
static void take_posted(struct sim *s, int from, uint64_t now_us)
{
	struct port *p = &s->port[from];
	struct vnic_desc part[SIM_PARTS], d;
	uint32_t n = 0;

	while (ring_read(p->rx, p->rx_cons, s->entries, &d)) {
		p->rx_cons++;
		if (d.type == VNIC_DESC_RETURN && d.buf < s->cfg.rx_bufs && p->rx_out[d.buf]) {
			p->rx_out[d.buf] = 0;
			p->rx_free[p->free_top++] = (uint16_t)d.buf;
		} else {
			s->stats.bad_desc++;
		}
	}
	while ((n || s->free_flight || !lossless(s)) && ring_read(p->tx, p->tx_cons, s->entries, &d)) {
		p->tx_cons++;
		if (!tx_desc_valid(s, &d) || n == SIM_PARTS) {
			s->stats.bad_desc++;
			continue;
		}
		part[n++] = d;
		if (d.flags & VNIC_F_MORE)
			continue;
		send_frame(s, from, part, n, now_us);
		n = 0;
	}
}

void sim_step(struct sim *s, uint64_t now_us)
{
	take_posted(s, 0, now_us);
	take_posted(s, 1, now_us);
	while (s->events && s->heap[0].due_us <= now_us)
		run_event(s, now_us);
}

uint64_t sim_next(const struct sim *s)
{
	return s->events ? s->heap[0].due_us : UINT64_MAX;
}

struct sim_dir *sim_direction(struct sim *s, int from)
{
	return &s->cfg.dir[from & 1];
}

const struct sim_stats *sim_statistics(const struct sim *s)
{
	return &s->stats;
}

void sim_set_tap(struct sim *s, sim_tap function, void *arg)
{
	s->tap = function;
	s->tap_arg = arg;
}

void sim_set_middlebox(struct sim *s, sim_middlebox box, void *arg)
{
	s->box = box;
	s->box_arg = arg;
}

/* --- the stack's side --- */

static int sim_poll(struct vnic *v, struct vnic_desc *ev, int max)
{
	/* Where checksums are not computed, the device vouches for its frames. */
	uint8_t vouch = v->st->features & VNIC_FEAT_CSUM_TX ? VNIC_F_CSUM_OK : 0;

	return vnic_take_events(v, ev, max, v->st->evq_entries, vouch);
}

static void sim_post(struct vnic *v, const struct vnic_desc *d, int n)
{
	struct vnic_state *st = v->st;

	if (st->dead || n <= 0)
		return;
	for (int i = n - 1; i >= 0; i--) {
		struct vnic_desc part = d[i];

		part.type = VNIC_DESC_FRAME;
		part.flags = i + 1 < n ? VNIC_F_MORE : 0;
		st->tx_state[part.buf] |= VNIC_TX_NIC;
		st->stats.tx_bytes += part.len;
		ring_write(v->tx, st->tx_prod + (uint32_t)i, st->tx_entries, &part);
	}
	st->tx_prod += (uint32_t)n;
	st->stats.tx_frames++;
	st->posted += (uint32_t)n;
}

static void sim_release(struct vnic *v, uint32_t buf)
{
	struct vnic_state *st = v->st;

	if (buf >= st->rx_count || !st->rx_state[buf])
		return;
	vnic_drop_part(st, buf);
	ring_write(v->rx, st->rx_prod++, st->rx_entries, &(struct vnic_desc){.buf = buf, .type = VNIC_DESC_RETURN});
}

static const struct vnic_ops sim_ops = {
    .poll = sim_poll,
    .post = sim_post,
    .release = sim_release,
};

void sim_attach(struct sim *s, int end, struct vnic *v, struct vnic_state *st)
{
	struct port *p = &s->port[end & 1];

	vnic_state_reset(st, VNIC_PROV_SIM, end & 1, s->cfg.tx_bufs, s->cfg.rx_bufs, s->cfg.buf_size);
	st->mtu = s->cfg.mtu;
	st->features = s->cfg.features;
	st->tx_entries = st->rx_entries = st->evq_entries = s->entries;
	v->st = st;
	v->tx = p->tx;
	v->rx = p->rx;
	v->evq = p->evq;
	v->ctrl = p->ctrl;
	v->peer_ctrl = NULL;
	v->tx_bufs = p->tx_bufs;
	v->rx_bufs = p->rx_bufs;
	v->map = NULL;
	v->map_len = 0;
	v->gen = st->gen;
	v->priv = s;
	v->ops = &sim_ops;
}
