/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The out-of-order queue (RFC 9293 3.10.7.4, "segments with higher beginning sequence numbers may be held") and
 * the SACK blocks that report it (RFC 2018, RFC 2883).
 *
 * The queue holds runs: a run is a chain of pkts without a gap, so it is exactly one SACK block. The runs are the nodes
 * of a treap ordered by sequence number, whose priorities are a keyed hash of the pkt's index: O(log n) expected
 * for each segment whatever order a peer chooses. A run's first pkt is its node:
 *
 *   next, prev   left and right subtree (of the run's first pkt; unused in the others)
 *   frag         next pkt of the run
 *   aux          last pkt of the run
 *   aux2         sequence number behind the run
 *
 * Invariants: runs don't overlap and don't touch; every run lies above rcv_nxt (below it tcp_ooo_drain takes it);
 * ooo_count and ooo_bytes are sums over all pkts; ooo_count <= TCP_OOO_MAX, and ooo_bytes is bounded by the window.
 * New data that overlaps old is trimmed at its front, and at its back or replaces the old runs that it covers.
 */
#include <assert.h>

#include "engine/tcp_internal.h"

#define OOO_COPY_MAX 512u /* segments up to this size are packed together into private buffers */

static uint32_t priority(const struct stack *s, uint32_t node)
{
	uint32_t x = node ^ (uint32_t)s->hash_key[0];

	x = (x ^ x >> 16) * 0x7feb352du;
	x = (x ^ x >> 15) * 0x846ca68bu;
	return x ^ x >> 16;
}

/* Split the tree `root` into what lies before seq and what lies at or after it. */
static void split(struct stack *s, uint32_t root, uint32_t seq, uint32_t *before, uint32_t *after)
{
	struct pkt *p;

	while ((p = pkt_at(s, root))) {
		if (seq_lt(p->seq, seq)) {
			*before = root;
			before = &p->prev;
			root = p->prev;
		} else {
			*after = root;
			after = &p->next;
			root = p->next;
		}
	}
	*before = *after = 0;
}

/* Join two trees, all of `a` before all of `b`. */
static uint32_t join(struct stack *s, uint32_t a, uint32_t b)
{
	uint32_t root = 0, *at = &root;
	struct pkt *pa, *pb;

	while ((pa = pkt_at(s, a)) && (pb = pkt_at(s, b))) {
		if (priority(s, a) > priority(s, b)) {
			*at = a;
			at = &pa->prev;
			a = pa->prev;
		} else {
			*at = b;
			at = &pb->next;
			b = pb->next;
		}
	}
	*at = a ? a : b;
	return root;
}

static void node_insert(struct stack *s, uint32_t *root, struct pkt *n)
{
	uint32_t ni = pkt_index(s, n), pri = priority(s, ni);
	struct pkt *p;

	while ((p = pkt_at(s, *root)) && priority(s, *root) >= pri)
		root = seq_lt(n->seq, p->seq) ? &p->next : &p->prev;
	split(s, *root, n->seq, &n->next, &n->prev);
	*root = ni;
}

static void node_remove(struct stack *s, uint32_t *root, struct pkt *n)
{
	struct pkt *p;

	while ((p = pkt_at(s, *root)) && p != n)
		root = seq_lt(n->seq, p->seq) ? &p->next : &p->prev;
	assert(p == n);
	*root = join(s, n->next, n->prev);
}

/* The last run that begins at or before seq, NULL none. */
static struct pkt *run_before(struct stack *s, uint32_t root, uint32_t seq)
{
	struct pkt *p, *best = NULL;

	while ((p = pkt_at(s, root))) {
		if (seq_leq(p->seq, seq)) {
			best = p;
			root = p->prev;
		} else {
			root = p->next;
		}
	}
	return best;
}

/* The first run that begins at or after seq, NULL none. */
static struct pkt *run_after(struct stack *s, uint32_t root, uint32_t seq)
{
	struct pkt *p, *best = NULL;

	while ((p = pkt_at(s, root))) {
		if (seq_geq(p->seq, seq)) {
			best = p;
			root = p->next;
		} else {
			root = p->prev;
		}
	}
	return best;
}

/* RFC 2883: the first duplicate since the last ACK is what the next one reports. */
static void dsack(struct tcb *t, uint32_t start, uint32_t end)
{
	if (t->dsack_start != t->dsack_end || !(t->flags & TCPF_SACK))
		return;
	t->dsack_start = start;
	t->dsack_end = end;
}

/* RFC 2018 4: the block that contains the newest segment is reported first. */
static void remember_run(struct tcb *t, uint32_t start)
{
	uint32_t i = 0;

	while (i < 3 && t->sack_recent[i] != start)
		i++;
	for (; i > 0; i--)
		t->sack_recent[i] = t->sack_recent[i - 1];
	t->sack_recent[0] = start;
}

static void run_forget(struct engine *e, struct tcb *t, struct pkt *run)
{
	struct stack *s = e->s;

	for (const struct pkt *p = run; p; p = pkt_at(s, p->frag)) {
		t->ooo_count--;
		t->ooo_bytes -= p->len;
	}
	pkt_free(e, run); /* and its chain */
}

/*
 * Cut [*seq, *end) down to what is new. Old runs that it covers completely are dropped in its favour: so what is left
 * is one piece, and each run is dropped once for having been inserted once.
 */
static void trim(struct engine *e, struct tcb *t, uint32_t *seq, uint32_t *end)
{
	struct stack *s = e->s;
	struct pkt *run = run_before(s, t->ooo_root, *seq);

	if (run && seq_gt(run->aux2, *seq)) {
		uint32_t dup_end = seq_lt(run->aux2, *end) ? run->aux2 : *end;

		dsack(t, *seq, dup_end);
		remember_run(t, run->seq);
		*seq = dup_end;
	}
	while (seq_lt(*seq, *end) && (run = run_after(s, t->ooo_root, *seq)) && seq_lt(run->seq, *end)) {
		if (seq_gt(run->aux2, *end)) {
			dsack(t, run->seq, *end);
			*end = run->seq;
			return;
		}
		dsack(t, run->seq, run->aux2);
		node_remove(s, &t->ooo_root, run);
		run_forget(e, t, run);
	}
}

/* Small pieces behind a private buffer with room go there: many small segments must not cost a buffer each. */
static bool append_copy(struct engine *e, struct tcb *t, struct pkt *run, struct frame *f, uint32_t off, uint32_t len)
{
	struct pkt *last = run ? pkt_at(e->s, run->aux) : NULL;
	uint8_t *data;

	if (!last || last->kind != PKT_PRIVATE || pkt_room(e, last) < len || !(data = pkt_data(e, last)) ||
	    !frame_copy(e, f, off, data + last->len, len))
		return false;
	last->len += len;
	t->ooo_bytes += len;
	run->aux2 += len;
	return true;
}

/* Take the piece over into pkts that are a run of their own, not yet in the tree. NULL: no pkt free. */
static struct pkt *make_run(struct engine *e, struct tcb *t, struct frame *f, uint32_t off, uint32_t seq, uint32_t len)
{
	struct pkt *head, *p, *n;

	if (len <= OOO_COPY_MAX) {
		uint8_t *data;

		head = pkt_alloc_private(e);
		if (!head)
			return NULL;
		data = pkt_data(e, head);
		if (!data || !frame_copy(e, f, off, data, len)) {
			pkt_free(e, head);
			return NULL;
		}
		head->len = len;
		head->next = 0;
	} else {
		head = frame_take(e, f, off, len);
	}
	for (p = head; p; p = n) {
		n = pkt_at(e->s, p->next);
		p->seq = seq;
		seq += p->len;
		p->frag = n ? p->next : 0;
		p->next = p->prev = 0;
		head->aux = pkt_index(e->s, p);
		t->ooo_count++;
		t->ooo_bytes += p->len;
	}
	if (head)
		head->aux2 = seq;
	return head;
}

/* Hang run b behind run a, which it touches. b is not in the tree. */
static void run_concat(struct stack *s, struct pkt *a, struct pkt *b)
{
	pkt_at(s, a->aux)->frag = pkt_index(s, b);
	a->aux = b->aux;
	a->aux2 = b->aux2;
	b->next = b->prev = 0;
}

int tcp_ooo_insert(struct engine *e, struct sock *k, struct frame *f, uint32_t off, uint32_t seq, uint32_t len)
{
	struct tcb *t = &k->tcp;
	struct stack *s = e->s;
	uint32_t first = seq, end = seq + len;
	struct pkt *before, *after, *run;

	trim(e, t, &seq, &end);
	if (seq_geq(seq, end))
		return 0;
	before = run_before(s, t->ooo_root, seq);
	if (before && before->aux2 != seq)
		before = NULL;
	run = before;
	if (end - seq > OOO_COPY_MAX || !append_copy(e, t, before, f, off + (seq - first), end - seq)) {
		if (t->ooo_count + 1 + (end - seq) / PRIVATE_BUF_SIZE + f->parts > TCP_OOO_MAX)
			return -ENOBUFS;
		run = make_run(e, t, f, off + (seq - first), seq, end - seq);
		if (!run)
			return -ENOBUFS;
		if (before) {
			run_concat(s, before, run);
			run = before;
		} else {
			node_insert(s, &t->ooo_root, run);
		}
	}
	after = run_after(s, t->ooo_root, end);
	if (after && after->seq == end) {
		node_remove(s, &t->ooo_root, after);
		run_concat(s, run, after);
	}
	remember_run(t, run->seq);
	return 0;
}

/* Move a run's pkts to rxq, cutting off what rcv_nxt has passed. */
static uint32_t run_deliver(struct engine *e, struct sock *k, struct pkt *run)
{
	struct tcb *t = &k->tcp;
	uint32_t moved = 0, next;

	for (struct pkt *p = run; p; p = pkt_at(e->s, next)) {
		uint32_t cut = seq_lt(p->seq, t->rcv_nxt) ? t->rcv_nxt - p->seq : 0;

		next = p->frag;
		p->frag = p->next = p->prev = 0;
		t->ooo_count--;
		t->ooo_bytes -= p->len;
		if (cut >= p->len) {
			pkt_free(e, p);
			continue;
		}
		p->seq += cut;
		p->off = (uint16_t)(p->off + cut);
		p->len -= cut;
		t->rcv_nxt += p->len;
		moved += p->len;
		pkt_push_tail(e->s, &k->rxq, p);
	}
	return moved;
}

uint32_t tcp_ooo_drain(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	uint32_t moved = 0;
	struct pkt *run;

	while ((run = run_before(e->s, t->ooo_root, t->rcv_nxt))) {
		node_remove(e->s, &t->ooo_root, run);
		moved += run_deliver(e, k, run);
	}
	return moved;
}

void tcp_ooo_free(struct engine *e, struct sock *k)
{
	struct tcb *t = &k->tcp;
	struct pkt *run;

	while ((run = pkt_at(e->s, t->ooo_root))) {
		t->ooo_root = join(e->s, run->next, run->prev);
		run_forget(e, t, run);
	}
	assert(t->ooo_count == 0 && t->ooo_bytes == 0);
}

int tcp_sack_blocks(struct engine *e, struct sock *k, uint32_t (*out)[2], int max)
{
	struct tcb *t = &k->tcp;
	int n = 0, first = 0;

	if (t->dsack_start != t->dsack_end && max > 0) {
		out[n][0] = t->dsack_start;
		out[n++][1] = t->dsack_end;
		t->dsack_start = t->dsack_end;
		first = 1; /* the block that contains the duplicate may, and must, follow it (RFC 2883 4) */
	}
	for (int i = 0; i < 4 && n < max && t->ooo_root; i++) {
		const struct pkt *run = run_before(e->s, t->ooo_root, t->sack_recent[i]);
		int j = first;

		if (!run || seq_leq(run->aux2, t->sack_recent[i]))
			continue; /* delivered meanwhile */
		while (j < n && out[j][0] != run->seq)
			j++;
		if (j < n)
			continue; /* two have grown together */
		out[n][0] = run->seq;
		out[n++][1] = run->aux2;
	}
	return n;
}
