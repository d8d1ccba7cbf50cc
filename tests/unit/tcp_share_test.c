/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections that share the buffers of a wire and the memory of a stack: those that nobody reads do not stop those
 * that somebody does (docs/architecture.md, "Sharing"). Over a wire, in virtual time.
 */
#include "pair.h"

#define MOST 2100u
#define PIECE 200000u

struct share {
	struct pair *p;
	struct sock *listener;
	struct sock *c[MOST], *s[MOST]; /* who writes, who reads */
	size_t left[MOST], got[MOST];   /* bytes to write still, bytes read */
	uint32_t n;
};

static uint8_t byte_at(uint32_t i, size_t at)
{
	return (uint8_t)(at * 31 + (at >> 8) + i);
}

static struct share *share_new(void)
{
	struct stack_config cfg = test_config();
	struct share *w = calloc(1, sizeof(*w));

	cfg.max_socks = 8192; /* the sizes of the preload library's stacks */
	cfg.max_pkts = 65536;
	cfg.max_private = 16384;
	cfg.hash_buckets = 8192;
	w->p = pair_new(&cfg);
	w->listener = pair_listen(w->p, 1, 80, 64);
	return w;
}

/* One more connection, over which so many bytes are to be written. */
static uint32_t share_open(struct share *w, size_t bytes)
{
	uint32_t i = w->n++;

	assert_true(i < MOST);
	w->c[i] = pair_connect(w->p, 0, (uint16_t)(10000 + i), 80);
	for (int tries = 0; !(w->s[i] = pair_accept(w->p, 1, w->listener)); tries++) {
		assert_true(tries < 1000);
		pair_wait(w->p, MS);
	}
	w->left[i] = bytes;
	return i;
}

/* A writer who writes when he is told that he can. True: he wrote something. */
static bool write_on(struct share *w, uint32_t i)
{
	static uint8_t piece[PIECE];
	size_t total = w->left[i], n;
	ssize_t sent;

	if (!total || !(tcp_poll(&w->p->e[0], w->c[i]) & EV_OUT))
		return false;
	n = total < PIECE ? total : PIECE;
	for (size_t b = 0; b < n; b++)
		piece[b] = byte_at(i, total - b);
	sent = pair_send(w->p, 0, w->c[i], piece, n, 0);
	assert_true(sent > 0 || sent == -EAGAIN);
	w->left[i] -= sent > 0 ? (size_t)sent : 0;
	return sent > 0;
}

static void write_all(struct share *w)
{
	for (uint32_t i = 0; i < w->n; i++)
		if (write_on(w, i))
			pair_run(w->p);
	pair_wait(w->p, MS);
}

/* All write as much as goes, and nobody reads. */
static void fill_up(struct share *w)
{
	for (int round = 0; round < 100; round++)
		write_all(w);
}

/* Read the i-th connection to its end (it had `bytes`), while all others' writers go on. */
static void read_all(struct share *w, uint32_t i, size_t bytes, bool others)
{
	static uint8_t buf[65536];
	int idle = 0;

	while (w->got[i] < bytes) {
		ssize_t n = pair_recv(w->p, 1, w->s[i], buf, sizeof(buf), 0);

		assert_true(n > 0 || n == -EAGAIN);
		for (ssize_t b = 0; b < n; b++)
			if (buf[b] != byte_at(i, bytes - w->got[i] - (size_t)b))
				fail_msg("connection %u, byte %zu", i, w->got[i] + (size_t)b);
		w->got[i] += n > 0 ? (size_t)n : 0;
		idle = n > 0 ? 0 : idle + 1;
		if (idle > 2000) /* two seconds without a byte */
			fail_msg("connection %u stands still at %zu bytes", i, w->got[i]);
		if (others) {
			write_all(w);
		} else {
			while (write_on(w, i))
				;
			pair_wait(w->p, MS);
		}
	}
}

static void share_free(struct share *w)
{
	for (uint32_t i = 0; i < w->n; i++) {
		tcp_close(&w->p->e[0], w->c[i], w->p->now);
		tcp_close(&w->p->e[1], w->s[i], w->p->now);
	}
	pair_wait(w->p, 2 * SECOND);
	assert_clean(w->p);
	assert_int_equal(w->p->e[1].s->promised, 0);
	pair_free(w->p);
	free(w);
}

static void connections_read_one_after_the_other_all_come_to_their_end(void **state)
{
	const size_t bytes = 1 << 20;
	struct share *w = share_new();

	(void)state;
	for (uint32_t i = 0; i < 60; i++)
		share_open(w, bytes);
	fill_up(w);
	for (uint32_t i = 0; i < w->n; i++)
		read_all(w, i, bytes, true);
	share_free(w);
}

static void a_connection_streams_past_two_thousand_with_a_little_unread(void **state)
{
	struct share *w = share_new();
	uint32_t i;

	(void)state;
	for (i = 0; i < 2000; i++) {
		share_open(w, 1000);
		write_on(w, i);
	}
	fill_up(w);
	i = share_open(w, 4 << 20);
	read_all(w, i, 4 << 20, false);
	for (i = 0; i < 2000; i++)
		read_all(w, i, 1000, false);
	share_free(w);
}

static void a_connection_streams_past_two_thousand_that_are_full(void **state)
{
	struct share *w = share_new();
	const struct stack_pool *pool = &w->p->e[1].s->private_pool;
	uint32_t i;

	(void)state;
	for (i = 0; i < 2000; i++) {
		share_open(w, 200000);
		write_on(w, i);
	}
	for (int round = 0; round < 10; round++)
		write_all(w);
	assert_true(pool->in_use < pool->limit - pool->limit / 16);
	assert_int_equal(w->p->e[1].s->counters[C_pkt_none], 0);
	i = share_open(w, 4 << 20);
	read_all(w, i, 4 << 20, false);
	read_all(w, 0, 200000, false);
	read_all(w, 1999, 200000, false);
	share_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(connections_read_one_after_the_other_all_come_to_their_end),
	    cmocka_unit_test(a_connection_streams_past_two_thousand_with_a_little_unread),
	    cmocka_unit_test(a_connection_streams_past_two_thousand_that_are_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
