/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The short ways over a wire (tcp_fast.c): they do what the long ways do, refuse what is not for them, and have changed
 * nothing when they refuse.
 */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "engine/bytes.h"
#include "pair.h"
#include "vnic/ring.h"

#define STEPS 4000
#define LONGEST 9000u

static uint64_t next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed >> 11;
}

/* The byte at a position of the stream from that end. */
static uint8_t pattern(int from, uint64_t at)
{
	return (uint8_t)(at * 131 + (at >> 8) * 17 + (uint64_t)from * 77);
}

struct traffic {
	struct pair *p;
	struct sock *k[2];
	uint64_t sent[2], got[2]; /* by end; of what the other end sent */
	bool corked[2];
};

static ssize_t write_some(struct traffic *w, int end, size_t len, int flags)
{
	uint8_t buf[LONGEST];
	ssize_t n;

	for (size_t i = 0; i < len; i++)
		buf[i] = pattern(end, w->sent[end] + i);
	n = pair_send(w->p, end, w->k[end], buf, len, flags);
	assert_true(n > 0 || n == -EAGAIN);
	w->sent[end] += n > 0 ? (uint64_t)n : 0;
	return n;
}

static ssize_t read_some(struct traffic *w, int end, size_t len)
{
	uint8_t buf[LONGEST];
	ssize_t n = pair_recv(w->p, end, w->k[end], buf, len, 0);

	assert_true(n > 0 || n == -EAGAIN);
	for (ssize_t i = 0; i < n; i++)
		assert_int_equal(buf[i], pattern(!end, w->got[end] + (uint64_t)i));
	w->got[end] += n > 0 ? (uint64_t)n : 0;
	return n;
}

static size_t some_length(uint64_t *seed)
{
	return 1 + next(seed) % (next(seed) % 4 ? 128 : LONGEST);
}

/* One step of a random conversation; what the call returned. */
static ssize_t step(struct traffic *w, uint64_t *seed)
{
	struct pair *p = w->p;
	int end = (int)(next(seed) & 1);
	uint64_t what = next(seed) % 100;

	if (what < 40)
		return write_some(w, end, some_length(seed), next(seed) % 8 ? 0 : TCP_F_MORE);
	if (what < 65)
		return engine_poll(&p->e[end], p->now, 64);
	if (what < 90)
		return read_some(w, end, some_length(seed));
	if (what < 94) {
		tcp_set_nodelay(&p->e[end], w->k[end], next(seed) & 1, p->now);
	} else if (what < 96) {
		w->corked[end] = !w->corked[end];
		tcp_set_cork(&p->e[end], w->k[end], w->corked[end], p->now);
	} else {
		p->now += next(seed) % (next(seed) % 3 ? 10 : 60000);
		engine_tick(&p->e[end], p->now);
	}
	return 0;
}

static struct traffic traffic_new(bool long_way)
{
	struct stack_config cfg = test_config();
	struct traffic w;

	/* round trips are sampled less often by the short way: let no timer depend on them */
	cfg.defaults.rto_min_ms = cfg.defaults.rto_max_ms = 300;
	w = (struct traffic){.p = pair_new(&cfg)};
	pair_open(w.p, &w.k[0], &w.k[1]);
	for (int i = 0; i < 2; i++) {
		w.k[i]->rcvbuf = 20000;
		if (long_way)
			w.k[i]->tcp.hdr_len = 0;
	}
	return w;
}

static void traffic_end(struct traffic *w)
{
	for (int i = 0; i < 2; i++)
		tcp_set_cork(&w->p->e[i], w->k[i], false, w->p->now);
	for (int round = 0; round < 1000; round++) {
		pair_wait(w->p, 10 * MS);
		for (int i = 0; i < 2; i++)
			while (read_some(w, i, LONGEST) > 0)
				;
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(w->got[i], w->sent[!i]);
		assert_int_equal(stack_audit(&w->p->e[i]), 0);
	}
}

static uint64_t test_seed(void)
{
	const char *env = getenv("VIADUCT_TEST_SEED");
	uint64_t seed = ((uint64_t)getpid() << 32 ^ (uint64_t)time(NULL)) * 0x9e3779b97f4a7c15ull | 1;

	if (env)
		seed = strtoull(env, NULL, 0);
	print_message("VIADUCT_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

static void random_conversation_goes_the_same_way_by_both(void **state)
{
	uint64_t seed = test_seed(), seed_b = seed;
	struct traffic a = traffic_new(false), b = traffic_new(true);

	(void)state;
	for (int i = 0; i < STEPS; i++) {
		ssize_t x = step(&a, &seed), y = step(&b, &seed_b);

		assert_int_equal(x, y);
		for (int end = 0; end < 2; end++) {
			assert_int_equal(a.k[end]->tcp.snd_nxt - a.k[end]->tcp.iss,
					 b.k[end]->tcp.snd_nxt - b.k[end]->tcp.iss);
			assert_int_equal(a.k[end]->tcp.segs_out, b.k[end]->tcp.segs_out);
			assert_int_equal(a.k[end]->tcp.rcv_adv - a.k[end]->tcp.irs,
					 b.k[end]->tcp.rcv_adv - b.k[end]->tcp.irs);
			assert_int_equal(tcp_poll(&a.p->e[end], a.k[end]), tcp_poll(&b.p->e[end], b.k[end]));
		}
		if (i % 16 == 0)
			pair_check(a.p);
		if (i % 256 == 0)
			assert_int_equal(stack_audit(&a.p->e[0]) + stack_audit(&a.p->e[1]), 0);
	}
	traffic_end(&a);
	traffic_end(&b);
	assert_true(a.p->e[0].s->counters[C_tcp_fast_path] > 100);
	pair_free(a.p);
	pair_free(b.p);
}

static void headers_follow_tos_and_ttl(void **state)
{
	struct traffic w = traffic_new(false);
	struct vnic *v = &w.p->e[1].vnic[w.p->vnic[1]];
	const uint8_t *frame;
	struct vnic_desc d;

	(void)state;
	w.k[0]->tos = 0x10;
	w.k[0]->ttl = 9;
	assert_int_equal(tcp_fast_send(&w.p->e[0], w.k[0], "x", 1, w.p->now), 1);
	assert_int_equal(v->ops->poll(v, &d, 1), 1);
	frame = vnic_rx_buf(v, d.buf) + d.off;
	assert_int_equal(frame[15], 0x10);
	assert_int_equal(frame[22], 9);
	pair_free(w.p);
}

static void unusual_writes_are_refused(void **state)
{
	struct traffic w = traffic_new(false);
	struct engine *e = &w.p->e[0];
	struct sock *k = w.k[0], before;

	(void)state;
	tcp_set_cork(e, k, true, w.p->now);
	before = *k;
	assert_int_equal(tcp_fast_send(e, k, "x", 1, w.p->now), 0);
	assert_memory_equal(&before, k, sizeof(*k));
	tcp_set_cork(e, k, false, w.p->now);
	k->so_error = ECONNRESET;
	assert_int_equal(tcp_fast_send(e, k, "x", 1, w.p->now), 0);
	k->so_error = 0;
	k->tcp.snd_wnd = 0;
	assert_int_equal(tcp_fast_send(e, k, "x", 1, w.p->now), 0);
	k->tcp.snd_wnd = k->tcp.snd_max_wnd;
	assert_int_equal(tcp_fast_send(e, k, "x", 0, w.p->now), 0);
	stack_vnic(e->s, w.p->vnic[0])->dead = 1;
	assert_int_equal(tcp_fast_send(e, k, "x", 1, w.p->now), 0);
	stack_vnic(e->s, w.p->vnic[0])->dead = 0;
	assert_int_equal(tcp_shutdown(e, k, 1, w.p->now), 0);
	assert_int_equal(tcp_fast_send(e, k, "x", 1, w.p->now), 0);
	pair_free(w.p);
}

static void what_nagle_holds_is_added_to_and_goes_out_in_order(void **state)
{
	struct traffic w = traffic_new(false);
	struct engine *e = &w.p->e[0];
	struct sock *k = w.k[0];
	char got[8] = "";

	(void)state;
	assert_int_equal(tcp_fast_send(e, k, "a", 1, w.p->now), 1); /* in flight: the next ones are held */
	assert_int_equal(tcp_fast_send(e, k, "b", 1, w.p->now), 0);
	assert_int_equal(pair_send(w.p, 0, k, "b", 1, 0), 1);
	assert_true(k->tcp.send_head);
	assert_int_equal(tcp_fast_gather(e, k, "cd", 2), 2);
	assert_int_equal(k->tcp.txq.count, 2);
	k->tcp.flags |= TCPF_NODELAY;
	assert_int_equal(tcp_fast_gather(e, k, "x", 1), 0);
	k->tcp.flags &= ~TCPF_NODELAY;
	k->tcp.snd_wnd = 4;
	assert_int_equal(tcp_fast_gather(e, k, "x", 1), 0);
	k->tcp.snd_wnd = k->tcp.snd_max_wnd;
	k->so_error = ECONNRESET;
	assert_int_equal(tcp_fast_gather(e, k, "x", 1), 0);
	k->so_error = 0;
	assert_int_equal(tcp_fast_gather(e, k, "e", 1), 1);
	pair_run(w.p);
	assert_int_equal(pair_recv(w.p, 1, w.k[1], got, sizeof(got), 0), 5);
	assert_string_equal(got, "abcde");
	pair_free(w.p);
}

/* Bytes of an IPv4 frame, and bits of them, that no usual segment of the connection may have otherwise. */
static const struct {
	uint8_t at, bits;
} must_be[] = {{0, 1},       {12, 1},      {13, 1},      {14, 0x40},   {14, 1},    {16, 0x80}, {17, 0x80}, {20, 0x20},
	       {21, 1},      {23, 1},      {26, 1},      {29, 1},      {30, 1},    {33, 1},    {34, 1},    {35, 1},
	       {36, 1},      {37, 1},      {38, 1},      {41, 1},      {42, 0x80}, {46, 0x10}, {46, 0x80}, {47, TH_FIN},
	       {47, TH_SYN}, {47, TH_RST}, {47, TH_ACK}, {47, TH_URG}, {48, 1}};

static void other_segments_are_refused_and_change_nothing(void **state)
{
	struct traffic w = traffic_new(false);
	struct engine *e = &w.p->e[1];
	struct vnic *v = &e->vnic[w.p->vnic[1]];
	struct sock *k = w.k[1], before;
	struct vnic_desc d, cut;
	uint8_t *frame;

	(void)state;
	assert_int_equal(tcp_fast_send(&w.p->e[0], w.k[0], "data", 4, w.p->now), 4);
	assert_int_equal(v->ops->poll(v, &d, 1), 1);
	frame = vnic_rx_buf(v, d.buf) + d.off;
	before = *k;
	for (size_t i = 0; i < sizeof(must_be) / sizeof(must_be[0]); i++) {
		frame[must_be[i].at] ^= must_be[i].bits;
		assert_false(tcp_fast_input(e, w.p->vnic[1], &d));
		frame[must_be[i].at] ^= must_be[i].bits;
		assert_memory_equal(&before, k, sizeof(*k));
	}
	for (cut = d; cut.len > 0; cut.len--)
		assert_true(cut.len == d.len || !tcp_fast_input(e, w.p->vnic[1], &cut));
	assert_memory_equal(&before, k, sizeof(*k));
	assert_int_equal(e->s->pkt_pool.in_use, 0);
	assert_true(tcp_fast_input(e, w.p->vnic[1], &d));
	assert_int_equal(k->rxq.bytes, 4);
	pair_free(w.p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(random_conversation_goes_the_same_way_by_both),
	    cmocka_unit_test(headers_follow_tos_and_ttl),
	    cmocka_unit_test(unusual_writes_are_refused),
	    cmocka_unit_test(what_nagle_holds_is_added_to_and_goes_out_in_order),
	    cmocka_unit_test(other_segments_are_refused_and_change_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
