/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two stacks joined by a wire in one process, in virtual time: what the tests of whole connections stand on. End 0 is
 * the client 10.0.0.1, end 1 the server 10.0.0.2.
 */
#ifndef VD_TEST_PAIR_H
#define VD_TEST_PAIR_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/tcp_internal.h"
#include "lib/test_stack.h"

#define MS 1000ull
#define SECOND 1000000ull

struct pair {
	struct engine e[2];
	void *wire;
	uint32_t vnic[2];
	uint64_t now;
};

static struct endpoint pair_addr(int end, uint16_t port)
{
	return test_addr4((uint8_t)(end + 1), port);
}

static struct pair *pair_new(const struct stack_config *cfg)
{
	struct pair *p = calloc(1, sizeof(*p));

	p->wire = test_wire_new(NULL);
	p->now = SECOND;
	for (int i = 0; i < 2; i++) {
		struct stack_config c = *cfg;

		c.secret[0] = (uint8_t)i;
		test_stack_new(&p->e[i], &c, p->now);
		p->vnic[i] = test_wire_join(p->wire, i, &p->e[i]);
		engine_poll(&p->e[i], p->now, 1);
		engine_tick(&p->e[i], p->now);
	}
	return p;
}

static void pair_free(struct pair *p)
{
	test_stack_free(&p->e[0]);
	test_stack_free(&p->e[1]);
	test_wire_free(p->wire);
	free(p);
}

static void pair_check(struct pair *p)
{
	for (int i = 0; i < 2; i++)
		for (uint32_t s = 1; s < p->e[i].s->sock_pool.mark; s++) {
			struct sock *k = sock_at(p->e[i].s, s);

			if (k->proto == SOCK_TCP)
				tcp_check(&p->e[i], k);
		}
}

/* Exchange frames until both ends are quiet, without letting time pass. */
static void pair_run(struct pair *p)
{
	int quiet = 0;

	for (int turn = 0; quiet < 2; turn++) {
		int n = engine_poll(&p->e[turn & 1], p->now, 64);

		assert_true(turn < 1000000);
		quiet = n ? 0 : quiet + 1;
	}
	pair_check(p);
}

/* Let time pass, firing timers when they are due and exchanging frames. */
static void pair_wait(struct pair *p, uint64_t us)
{
	uint64_t end = p->now + us;

	while (p->now < end) {
		uint64_t a = engine_deadline(&p->e[0]), b = engine_deadline(&p->e[1]);
		uint64_t next = a < b ? a : b;

		p->now = next > end ? end : next > p->now ? next : p->now + 1;
		engine_tick(&p->e[0], p->now);
		engine_tick(&p->e[1], p->now);
		pair_run(p);
	}
}

static struct sock *pair_socket(struct pair *p, int end)
{
	struct sock *k = sock_alloc(&p->e[end], SOCK_TCP, 4);

	assert_non_null(k);
	k->holders = 1;
	return k;
}

static struct sock *pair_listen(struct pair *p, int end, uint16_t port, int backlog)
{
	struct sock *k = pair_socket(p, end);

	k->local = pair_addr(end, port);
	assert_int_equal(tcp_listen(&p->e[end], k, backlog), 0);
	return k;
}

static struct sock *pair_connect(struct pair *p, int end, uint16_t from, uint16_t to)
{
	struct sock *k = pair_socket(p, end);
	struct endpoint local = pair_addr(end, from), remote = pair_addr(!end, to);

	assert_int_equal(tcp_connect(&p->e[end], k, p->vnic[end], &local, &remote, p->now), 0);
	return k;
}

static struct sock *pair_accept(struct pair *p, int end, struct sock *listener)
{
	int i = tcp_accept(&p->e[end], listener);
	struct sock *k;

	if (i < 0)
		return NULL;
	k = sock_at(p->e[end].s, (uint32_t)i);
	assert_non_null(k);
	k->holders = 1;
	return k;
}

/* A listener on end 1 and one connection to it: client in *c, server in *s. */
static struct sock *pair_open(struct pair *p, struct sock **c, struct sock **s)
{
	struct sock *l = pair_listen(p, 1, 80, 8);

	*c = pair_connect(p, 0, 4000, 80);
	pair_run(p);
	*s = pair_accept(p, 1, l);
	assert_non_null(*s);
	assert_int_equal((*c)->tcp.state, TCP_ESTABLISHED);
	assert_int_equal((*s)->tcp.state, TCP_ESTABLISHED);
	return l;
}

static ssize_t pair_send(struct pair *p, int end, struct sock *k, const void *data, size_t n, int flags)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = n};

	return tcp_send(&p->e[end], k, &iov, 1, 0, flags, p->now);
}

static ssize_t pair_recv(struct pair *p, int end, struct sock *k, void *data, size_t n, int flags)
{
	struct iovec iov = {.iov_base = data, .iov_len = n};

	return tcp_recv(&p->e[end], k, &iov, 1, 0, flags, p->now);
}

/* Nothing is left behind: no pkt, no private buffer, every tx buffer home. */
static void assert_clean(struct pair *p)
{
	pair_run(p);
	for (int i = 0; i < 2; i++) {
		struct stack *s = p->e[i].s;

		vnic_arm(&p->e[i].vnic[p->vnic[i]], VNIC_ARMED_HELPER);
		assert_int_equal(s->pkt_pool.in_use, 0);
		assert_int_equal(s->private_pool.in_use, 0);
		assert_int_equal(stack_audit(&p->e[i]), 0);
	}
	pair_run(p);
	for (int i = 0; i < 2; i++)
		assert_int_equal(stack_vnic(p->e[i].s, p->vnic[i])->free_top, WIRE_BUFS);
}

#endif
