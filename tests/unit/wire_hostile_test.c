/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A peer that scribbles over the wire's memory while it is in use.
 *
 * Three stacks: a in the middle, b and c each joined to it by a wire. Connections transfer over both wires, while
 * another thread writes random values anywhere in the wire between a and b. What must hold: no stack
 * crashes or loops, the books of all stacks stay right, the connection between a and c delivers every byte as if
 * nothing had happened, and nothing of it ever shows in the memory that a and b share.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/test_stack.h"

#define TOTAL (32u << 20) /* bytes of the stream that must arrive */
#define PORT 7
#define ROUNDS_MAX 4000000u
#define TICK_US 20u
#define START_US 1000000000u

static const uint8_t marker[16] = "between a and c";

struct node {
	struct engine e;
	uint8_t addr[16];
};

struct scribbler {
	pthread_t thread;
	uint8_t *mem;
	size_t from, to;
	uint64_t random;
	atomic_bool stop;
	atomic_ulong writes;
};

struct setting {
	struct node *node; /* a, b, c */
	uint8_t *wire[2];  /* a-b, a-c */
	uint64_t now;
};

static void node_up(struct node *n, uint8_t last)
{
	struct stack_config cfg = test_config();

	cfg.max_socks = cfg.hash_buckets = 64;
	cfg.max_private = 512;
	memset(cfg.secret, last, sizeof(cfg.secret));
	cfg.defaults.sndbuf = 262144;
	cfg.defaults.rcvbuf_max = cfg.defaults.sndbuf_max = 1 << 20;
	cfg.defaults.time_wait_ms = 1000;
	cfg.defaults.somaxconn = 128;
	test_stack_new(&n->e, &cfg, START_US);
	memcpy(n->addr, test_addr4(last, 0).addr, 16);
}

static void *join(struct node *x, struct node *y)
{
	void *wire = test_wire_new(NULL);

	test_wire_join(wire, 0, &x->e);
	test_wire_join(wire, 1, &y->e);
	return wire;
}

static int set_up(void **state)
{
	struct setting *t = calloc(1, sizeof(*t));

	t->node = calloc(3, sizeof(*t->node));
	for (uint8_t i = 0; i < 3; i++)
		node_up(&t->node[i], i + 1);
	t->wire[0] = join(&t->node[0], &t->node[1]);
	t->wire[1] = join(&t->node[0], &t->node[2]);
	t->now = START_US;
	*state = t;
	return 0;
}

static int tear_down(void **state)
{
	struct setting *t = *state;

	for (int i = 0; i < 3; i++)
		test_stack_free(&t->node[i].e);
	test_wire_free(t->wire[0]);
	test_wire_free(t->wire[1]);
	free(t->node);
	free(t);
	return 0;
}

static void turn(struct setting *t)
{
	t->now += TICK_US;
	for (int i = 0; i < 3; i++) {
		engine_poll(&t->node[i].e, t->now, 64);
		if (engine_deadline(&t->node[i].e) <= t->now)
			engine_tick(&t->node[i].e, t->now);
		t->node[i].e.s->proc[0].dirty_head = t->node[i].e.s->proc[0].dirty_tail;
	}
}

static void *scribble(void *arg)
{
	struct scribbler *s = arg;

	while (!atomic_load_explicit(&s->stop, memory_order_relaxed)) {
		uint64_t r = sim_random(&s->random);
		size_t at = s->from + (size_t)(sim_random(&s->random) % (s->to - s->from));

		if (r & 1)
			__atomic_store_n(s->mem + at, (uint8_t)(r >> 8), __ATOMIC_RELAXED);
		else if (at / 4 * 4 + 4 <= s->to)
			__atomic_store_n((uint32_t *)(void *)(s->mem + at / 4 * 4), (uint32_t)(r >> 8) & 0x1fff,
					 __ATOMIC_RELAXED);
		atomic_fetch_add_explicit(&s->writes, 1, memory_order_relaxed);
	}
	return NULL;
}

/* A connection from x to y over x's vNIC; both may fail at any time when the wire is bad. */
struct stream {
	struct node *from, *to;
	uint32_t vnic, out, out_gen, in, in_gen, listener;
	uint64_t sent, received;
	uint16_t port;
};

static struct sock *live(struct node *n, uint32_t i, uint32_t gen)
{
	struct sock *k = sock_at(n->e.s, i);

	return k && k->proto == SOCK_TCP && k->gen == gen ? k : NULL;
}

static void start(struct setting *t, struct stream *s)
{
	struct endpoint local = {.port = ++s->port}, remote = {.port = PORT};
	struct sock *k = sock_alloc(&s->from->e, SOCK_TCP, 4);

	memcpy(local.addr, s->from->addr, 16);
	memcpy(remote.addr, s->to->addr, 16);
	if (!k)
		return; /* the earlier ones are still going */
	k->holders = 1;
	s->out = sock_index(s->from->e.s, k);
	s->out_gen = k->gen;
	if (tcp_connect(&s->from->e, k, s->vnic, &local, &remote, t->now))
		tcp_abort(&s->from->e, k, 0, t->now);
}

static void listen_at(struct stream *s)
{
	struct sock *k = sock_alloc(&s->to->e, SOCK_TCP, 4);

	memcpy(k->local.addr, s->to->addr, 16);
	k->local.port = PORT;
	k->holders = 1;
	assert_int_equal(tcp_listen(&s->to->e, k, 16), 0);
	s->listener = sock_index(s->to->e.s, k);
}

static void fill(uint8_t *to, uint64_t at, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = marker[(at + i) % sizeof(marker)];
}

/* Send and receive what is possible. False: the receiving side saw an error or the end. */
static bool pump(struct setting *t, struct stream *s, bool check)
{
	static uint8_t buf[16384], want[16384];
	struct sock *out = live(s->from, s->out, s->out_gen), *in;
	struct iovec iov = {.iov_base = buf, .iov_len = sizeof(buf)};
	ssize_t r;

	if (out) {
		check ? fill(buf, s->sent, sizeof(buf)) : (void)memset(buf, 0x42, sizeof(buf));
		r = tcp_send(&s->from->e, out, &iov, 1, 0, 0, t->now);
		s->sent += r > 0 ? (uint64_t)r : 0;
	}
	in = live(s->to, s->in, s->in_gen);
	if (!in) {
		int n = tcp_accept(&s->to->e, sock_at(s->to->e.s, s->listener));

		if (n <= 0)
			return out != NULL;
		in = sock_at(s->to->e.s, (uint32_t)n);
		in->holders = 1;
		s->in = (uint32_t)n;
		s->in_gen = in->gen;
	}
	r = tcp_recv(&s->to->e, in, &iov, 1, 0, 0, t->now);
	if (r > 0 && check) {
		fill(want, s->received, (size_t)r);
		assert_memory_equal(buf, want, r);
	}
	s->received += r > 0 ? (uint64_t)r : 0;
	return r > 0 || r == -EAGAIN;
}

/* Close both sides of a stream and begin anew. */
static void renew(struct setting *t, struct stream *s)
{
	struct sock *k = live(s->from, s->out, s->out_gen);

	if (k) {
		k->holders = 0;
		k->flags |= SOCKF_LINGER;
		tcp_close(&s->from->e, k, t->now);
	}
	k = live(s->to, s->in, s->in_gen);
	if (k) {
		k->holders = 0;
		k->flags |= SOCKF_LINGER;
		tcp_close(&s->to->e, k, t->now);
	}
	s->out = s->in = 0;
	start(t, s);
}

static bool holds_marker(const uint8_t *mem, size_t len)
{
	return memmem(mem, len, marker, sizeof(marker)) != NULL;
}

static void transfer_beside(struct setting *t, size_t from, size_t to)
{
	struct scribbler s = {.mem = t->wire[0], .from = from, .to = to, .random = from + 1};
	struct stream bad = {.from = &t->node[0], .to = &t->node[1], .vnic = 0, .port = 20000};
	struct stream back = {.from = &t->node[1], .to = &t->node[0], .vnic = 0, .port = 30000};
	struct stream good = {.from = &t->node[0], .to = &t->node[2], .vnic = 1, .port = 20000};
	uint32_t rounds;

	listen_at(&bad);
	listen_at(&back);
	listen_at(&good);
	start(t, &good);
	start(t, &bad);
	start(t, &back);
	assert_int_equal(pthread_create(&s.thread, NULL, scribble, &s), 0);
	for (rounds = 0; good.received < TOTAL && rounds < ROUNDS_MAX; rounds++) {
		turn(t);
		assert_true(pump(t, &good, true));
		if (!pump(t, &bad, false) || rounds % 5000 == 0)
			renew(t, &bad);
		if (!pump(t, &back, false) || rounds % 7000 == 0)
			renew(t, &back);
	}
	atomic_store(&s.stop, true);
	pthread_join(s.thread, NULL);
	assert_true(good.received >= TOTAL);
	assert_true(atomic_load(&s.writes) > 1000);
	for (int i = 0; i < 3; i++)
		assert_int_equal(stack_audit(&t->node[i].e), 0);
	assert_false(holds_marker(t->wire[0], wire_size()));
	assert_true(holds_marker(t->wire[1], wire_size()));

	/* The wire is given up; nothing of it may hold a stack back. */
	engine_vnic_dead(&t->node[0].e, 0, t->now);
	for (int i = 0; i < 1000; i++)
		turn(t);
	assert_int_equal(stack_audit(&t->node[0].e), 0);
}

static void scribbling_over_all_of_a_wire_hurts_only_that_wire(void **state)
{
	transfer_beside(*state, 0, wire_size());
}

static void scribbling_over_the_rings_hurts_only_that_wire(void **state)
{
	transfer_beside(*state, 4096, 4096 + 2 * WIRE_RING * sizeof(struct vnic_desc));
}

static void scribbling_over_the_frames_hurts_only_that_wire(void **state)
{
	/* The buffers that a free list hands out first, and their headers above all. */
	size_t area = 4096 + 2 * WIRE_RING * sizeof(struct vnic_desc);

	transfer_beside(*state, area, area + 64 * WIRE_BUF_SIZE);
}

static void scribbling_over_header_and_control_lines_hurts_nobody(void **state)
{
	transfer_beside(*state, 0, 4096);
}

#define HOSTILE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    HOSTILE(scribbling_over_all_of_a_wire_hurts_only_that_wire),
	    HOSTILE(scribbling_over_the_rings_hurts_only_that_wire),
	    HOSTILE(scribbling_over_the_frames_hurts_only_that_wire),
	    HOSTILE(scribbling_over_header_and_control_lines_hurts_nobody),
	};

#ifdef __SANITIZE_THREAD__
	/* The races are what is tested. */
	return 0;
#endif
	return cmocka_run_group_tests_name("wire_hostile", tests, NULL, NULL);
}
