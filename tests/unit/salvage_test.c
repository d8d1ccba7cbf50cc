/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is kept of a stack whose last thread died inside (engine/salvage.c): a send queue that can be proven whole goes
 * on to the last byte that send() took, and what can't be is reset; nothing is counted twice or lost. Broken by hand,
 * and at random: of the words that one step of a conversation changes, some are as before and some as after.
 */
#include <stdio.h>

#include "unit/pair.h"

#define BYTES_MAX (1u << 20)

static uint8_t bytes[BYTES_MAX];
static uint8_t fate[4096];

static void make_bytes(void)
{
	for (uint32_t i = 0; i < BYTES_MAX; i++)
		bytes[i] = (uint8_t)(i % 251);
}

struct world {
	struct pair *p;
	struct sock *c, *s; /* client, which dies, and server */
	uint32_t sent, got;
	int err;    /* that the server has read */
	bool mixed; /* into what no thread leaves: any bytes may come of it */
};

static struct world begin(void)
{
	struct stack_config cfg = test_config();
	struct world w = {.p = pair_new(&cfg)};

	pair_open(w.p, &w.c, &w.s);
	return w;
}

static void end(struct world *w)
{
	pair_free(w->p);
}

static void write_some(struct world *w, uint32_t n)
{
	ssize_t done = pair_send(w->p, 0, w->c, bytes + w->sent, n, 0);

	if (done > 0)
		w->sent += (uint32_t)done;
}

static void read_all(struct world *w)
{
	uint8_t buf[4096];
	ssize_t n;

	while ((n = pair_recv(w->p, 1, w->s, buf, sizeof(buf), 0)) > 0) {
		assert_true(w->got + (uint32_t)n <= BYTES_MAX);
		if (!w->mixed)
			assert_memory_equal(buf, bytes + w->got, (size_t)n);
		w->got += (uint32_t)n;
	}
	if (n < 0 && n != -EAGAIN)
		w->err = (int)-n;
}

/* What viaductd's child does: all is closed, then the engine runs. */
static enum salvage die(struct world *w)
{
	struct engine *e = &w->p->e[0];

	memset(fate, 0xff, sizeof(fate));
	engine_salvage(e, fate);
	for (uint32_t i = 1; i < e->s->sock_pool.mark; i++) {
		struct sock *k = sock_at(e->s, i);

		if (k->proto == SOCK_TCP && !(k->flags & SOCKF_ORPHAN)) {
			k->holders = 0;
			tcp_close(e, k, w->p->now);
		}
	}
	for (int i = 0; i < 100; i++) {
		pair_wait(w->p, SECOND / 4);
		read_all(w);
	}
	return (enum salvage)fate[sock_index(e->s, w->c)];
}

static void a_queue_that_is_whole_goes_on_to_its_end(void **state)
{
	struct world w = begin();

	(void)state;
	write_some(&w, 50000);
	assert_int_equal(die(&w), SALVAGE_KEEP);
	assert_int_equal(w.got, w.sent);
	assert_true(w.sent > 10000);
	assert_int_equal(pair_recv(w.p, 1, w.s, bytes, 0, 0), 0);
	end(&w);
}

static void a_new_pkt_that_is_not_linked_yet_was_not_accepted(void **state)
{
	struct world w = begin();
	struct tcb *t = &w.c->tcp;
	struct pkt *tail;

	(void)state;
	t->snd_wnd = 5000; /* some wait */
	write_some(&w, 50000);
	tail = pkt_at(w.p->e[0].s, t->txq.tail);
	assert_false(tail->flags & PKT_SENT);
	/* as in the middle of pkt_push_tail: the one before does not know of it, the queue's end does */
	pkt_at(w.p->e[0].s, tail->prev)->next = 0;
	assert_int_equal(die(&w), SALVAGE_KEEP);
	assert_int_equal(w.got, w.sent); /* found from the other end */
	end(&w);
}

/* AF_XDP drops a frame of which one part is empty: neither it nor the FIN behind it would ever arrive. */
static void a_pkt_that_has_no_bytes_yet_is_not_sent(void **state)
{
	struct world w = begin();
	struct engine *e = &w.p->e[0];
	struct tcb *t = &w.c->tcp;
	struct pkt *empty;

	(void)state;
	t->snd_wnd = 5000; /* some wait */
	write_some(&w, 50000);
	/* as in the middle of fill(), before or in the copy */
	empty = pkt_alloc_tx(e, w.c->vnic);
	assert_non_null(empty);
	empty->seq = t->snd_end;
	pkt_push_tail(e->s, &t->txq, empty);
	memset(fate, 0xff, sizeof(fate));
	engine_salvage(e, fate);
	assert_int_equal(fate[sock_index(e->s, w.c)], SALVAGE_KEEP);
	assert_true(t->txq.count > 1);
	for (struct pkt *p = pkt_at(e->s, t->txq.head); p; p = pkt_at(e->s, p->next))
		assert_int_not_equal(p->len, 0);
	die(&w);
	assert_int_equal(w.got, w.sent);
	assert_int_equal(pair_recv(w.p, 1, w.s, bytes, 0, 0), 0);
	end(&w);
}

static void a_head_that_is_being_freed_is_not_needed(void **state)
{
	struct world w = begin();
	struct tcb *t = &w.c->tcp;
	struct stack *s = w.p->e[0].s;
	struct pkt *head;

	(void)state;
	write_some(&w, 50000);
	head = pkt_at(s, t->txq.head);
	/* acknowledged, and back in the pool, but the queue still begins there */
	t->snd_una = head->seq + head->len;
	head->kind = PKT_FREE;
	head->next = s->pkt_pool.free_head;
	s->pkt_pool.free_head = pkt_index(s, head);
	assert_int_equal(die(&w), SALVAGE_KEEP);
	assert_int_equal(w.got, w.sent);
	end(&w);
}

static void a_hole_in_the_queue_means_reset(void **state)
{
	struct world w = begin();
	struct stack *s = w.p->e[0].s;
	uint32_t third;

	(void)state;
	write_some(&w, 50000);
	third = pkt_at(s, pkt_at(s, w.c->tcp.txq.head)->next)->next;
	assert_non_null(pkt_at(s, third));
	pkt_at(s, third)->seq += 7;
	assert_int_equal(die(&w), SALVAGE_RESET);
	assert_int_equal(w.err, ECONNRESET);
	assert_int_equal(s->sock_pool.in_use, 0);
	assert_int_equal(s->pkt_pool.in_use, 0);
	end(&w);
}

static void unread_data_means_reset(void **state)
{
	struct world w = begin();

	(void)state;
	assert_true(pair_send(w.p, 1, w.s, bytes, 10, 0) == 10);
	pair_run(w.p);
	assert_true(w.c->rxq.bytes);
	assert_int_equal(die(&w), SALVAGE_RESET);
	assert_int_equal(w.err, ECONNRESET);
	end(&w);
}

static void a_queue_that_runs_in_a_circle_ends_nothing(void **state)
{
	struct world w = begin();
	struct stack *s = w.p->e[0].s;

	(void)state;
	write_some(&w, 50000);
	pkt_at(s, w.c->tcp.txq.tail)->next = w.c->tcp.txq.head;
	pkt_at(s, w.c->tcp.txq.head)->prev = w.c->tcp.txq.tail;
	die(&w);
	end(&w);
}

/* --- at random --- */

static uint64_t random_state;

static uint32_t rnd(uint32_t below)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(random_state >> 33) % below;
}

static void one_step(struct world *w)
{
	switch (rnd(4)) {
	case 0:
	case 1:
		write_some(w, 1 + rnd(30000));
		break;
	case 2:
		engine_poll(&w->p->e[0], w->p->now, 64);
		break;
	default:
		engine_poll(&w->p->e[1], w->p->now, 64);
		read_all(w);
	}
}

/* Sockets and pkts: of the words that differ, `share` of 16 are put back. */
static uint32_t tear(struct stack *s, const uint64_t *before, uint64_t from, uint64_t to, uint32_t share)
{
	uint64_t *now = (uint64_t *)s;
	uint32_t torn = 0;

	for (uint64_t i = from / 8; i < to / 8; i++)
		if (now[i] != before[i] && rnd(16) < share) {
			now[i] = before[i];
			torn++;
		}
	return torn;
}

static void any_mixture_of_before_and_after_leaves_a_sound_stack(void **state)
{
	uint32_t kept = 0, reset = 0, torn = 0;

	(void)state;
	for (uint32_t seed = 1; seed <= 300; seed++) {
		struct world w;
		struct stack *s;
		uint64_t *before;
		enum salvage f;

		random_state = seed * 7919;
		w = begin();
		s = w.p->e[0].s;
		before = malloc(s->off_private);
		for (uint32_t i = rnd(20); i > 0; i--)
			one_step(&w);
		memcpy(before, s, s->off_private);
		write_some(&w, 1 + rnd(30000));
		engine_poll(&w.p->e[0], w.p->now, 64);
		torn += tear(s, before, s->off_socks, s->off_private, rnd(17));
		free(before);
		w.mixed = true;
		f = die(&w);
		kept += f == SALVAGE_KEEP;
		reset += f == SALVAGE_RESET;
		assert_true(f == SALVAGE_KEEP || f == SALVAGE_RESET);
		assert_int_equal(stack_audit(&w.p->e[0]), 0);
		if (f == SALVAGE_RESET)
			assert_int_equal(s->pkt_pool.in_use, 0);
		end(&w);
	}
	print_message("%u words torn, %u kept, %u reset\n", torn, kept, reset);
	assert_true(kept > 50 && torn > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_queue_that_is_whole_goes_on_to_its_end),
	    cmocka_unit_test(a_new_pkt_that_is_not_linked_yet_was_not_accepted),
	    cmocka_unit_test(a_pkt_that_has_no_bytes_yet_is_not_sent),
	    cmocka_unit_test(a_head_that_is_being_freed_is_not_needed),
	    cmocka_unit_test(a_hole_in_the_queue_means_reset),
	    cmocka_unit_test(unread_data_means_reset),
	    cmocka_unit_test(a_queue_that_runs_in_a_circle_ends_nothing),
	    cmocka_unit_test(any_mixture_of_before_and_after_leaves_a_sound_stack),
	};

	make_bytes();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
