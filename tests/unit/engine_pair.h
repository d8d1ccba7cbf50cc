/* SPDX-License-Identifier: BSD-2-Clause */
/* Two stacks in this process with a wire between them, and frames made by hand: for the engine's tests below TCP. */
#ifndef VD_TEST_ENGINE_PAIR_H
#define VD_TEST_ENGINE_PAIR_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/bytes.h"
#include "engine/inet.h"
#include "lib/test_stack.h"

struct pair {
	struct engine *e[2]; /* stack 0 is 10.0.0.1, stack 1 is 10.0.0.2 */
	uint8_t *wire;
	uint64_t now;
};

static inline struct stack_config pair_config(void)
{
	struct stack_config cfg = test_config();

	cfg.max_socks = 1024;
	cfg.max_private = 512;
	cfg.max_fdinfo = 8;
	memset(cfg.secret, 0x5a, sizeof(cfg.secret));
	cfg.defaults.rcvbuf = cfg.defaults.sndbuf = 212992;
	return cfg;
}

static inline struct pair *pair_make(const struct stack_config *cfg)
{
	struct pair *t = calloc(1, sizeof(*t));

	t->now = 1000000;
	t->wire = test_wire_new(NULL);
	for (int i = 0; i < 2; i++) {
		t->e[i] = calloc(1, sizeof(*t->e[i]));
		test_stack_new(t->e[i], cfg, t->now);
		assert_int_equal(test_wire_join(t->wire, i, t->e[i]), 0);
	}
	return t;
}

static inline void pair_free(struct pair *t)
{
	for (int i = 0; i < 2; i++) {
		assert_int_equal(stack_check(t->e[i]->s, stack_size(&t->e[i]->s->cfg)), 0);
		test_stack_free(t->e[i]);
		free(t->e[i]);
	}
	test_wire_free(t->wire);
	free(t);
}

static inline int pair_setup(void **state)
{
	struct stack_config cfg = pair_config();

	*state = pair_make(&cfg);
	return 0;
}

static inline int pair_teardown(void **state)
{
	pair_free(*state);
	return 0;
}

static inline int pair_poll(struct pair *t, int i)
{
	return engine_poll(t->e[i], t->now, 1000);
}

/* No buffer is out: nothing is queued, and each end has all of its tx buffers back. */
static inline void assert_quiet(struct pair *t)
{
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 2; i++) {
			t->e[i]->vnic[0].ops->flush(&t->e[i]->vnic[0]);
			pair_poll(t, 1 - i);
		}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(stack_audit(t->e[i]), 0);
		assert_int_equal(t->e[i]->s->pkt_pool.in_use, 0);
		assert_int_equal(t->e[i]->s->private_pool.in_use, 0);
		assert_int_equal(stack_vnic(t->e[i]->s, 0)->free_top, WIRE_BUFS);
		assert_int_equal(stack_vnic(t->e[i]->s, 0)->rx_held, 0);
	}
}

static inline struct endpoint v4(uint8_t last, uint16_t port)
{
	return test_addr4(last, port);
}

static inline struct endpoint v6(uint8_t last, uint16_t port)
{
	return test_addr6(last, port);
}

/* A UDP socket; remote NULL: not connected. It is held by process 0. */
static inline struct sock *udp_socket(struct engine *e, struct endpoint local, const struct endpoint *remote)
{
	struct sock *k = sock_alloc(e, SOCK_UDP, is_v4(local.addr) ? 4 : 6);

	assert_non_null(k);
	k->local = local;
	if (remote) {
		k->remote = *remote;
		k->vnic = 0;
		k->vnic_gen = stack_vnic(e->s, 0)->gen;
	}
	k->holders = 1;
	sock_hash(e->s, k);
	return k;
}

static inline void fix_ip_checksum(uint8_t *f)
{
	uint8_t *ip = f + ETH_HEADER;
	uint16_t sum;

	memset(ip + 10, 0, 2);
	sum = csum_fold(csum_add(ip, (ip[0] & 15u) * 4, 0));
	memcpy(ip + 10, &sum, 2);
}

/* Fill in a UDP header and its checksum in front of len bytes of payload. */
static inline void put_udp(uint8_t *udp, int family, struct endpoint src, struct endpoint dst, uint32_t len)
{
	uint16_t sum;

	put_be16(udp, src.port);
	put_be16(udp + 2, dst.port);
	put_be16(udp + 4, UDP_HEADER + len);
	memset(udp + 6, 0, 2);
	sum = csum_fold(
	    csum_add(udp, UDP_HEADER + len, csum_pseudo(family, src.addr, dst.addr, PROTO_UDP, UDP_HEADER + len)));
	sum = sum ? sum : 0xffff;
	memcpy(udp + 6, &sum, 2);
}

/* A frame with one UDP datagram from 10.0.0.1:1000 to 10.0.0.2:2000, checksums right; returns its length. */
static inline uint32_t make_udp4(uint8_t *f, const void *data, uint32_t len)
{
	struct endpoint src = v4(1, 1000), dst = v4(2, 2000);
	uint8_t *ip = f + ETH_HEADER, *udp = ip + IPV4_HEADER;

	memset(f, 0, ETH_HEADER + IPV4_HEADER + UDP_HEADER);
	f[0] = f[6] = 2;
	put_be16(f + 12, ETH_IPV4);
	ip[0] = 0x45;
	put_be16(ip + 2, IPV4_HEADER + UDP_HEADER + len);
	ip[8] = 64;
	ip[9] = PROTO_UDP;
	memcpy(ip + 12, src.addr + 12, 4);
	memcpy(ip + 16, dst.addr + 12, 4);
	if (len)
		memcpy(udp + UDP_HEADER, data, len);
	put_udp(udp, 4, src, dst, len);
	fix_ip_checksum(f);
	return ETH_HEADER + IPV4_HEADER + UDP_HEADER + len;
}

/* The same over IPv6, len bytes of zeros, with n bytes of extension headers, the first of type `next`. */
static inline uint32_t make_udp6(uint8_t *f, uint8_t next, const void *ext, uint32_t n, uint32_t len)
{
	struct endpoint src = v6(1, 1000), dst = v6(2, 2000);
	uint8_t *ip = f + ETH_HEADER, *udp = ip + IPV6_HEADER + n;

	memset(f, 0, ETH_HEADER + IPV6_HEADER);
	f[0] = f[6] = 2;
	put_be16(f + 12, ETH_IPV6);
	ip[0] = 0x60;
	put_be16(ip + 4, n + UDP_HEADER + len);
	ip[6] = next;
	ip[7] = 64;
	memcpy(ip + 8, src.addr, 16);
	memcpy(ip + 24, dst.addr, 16);
	if (n)
		memcpy(ip + IPV6_HEADER, ext, n);
	memset(udp, 0, UDP_HEADER + len);
	put_udp(udp, 6, src, dst, len);
	return ETH_HEADER + IPV6_HEADER + n + UDP_HEADER + len;
}

static inline ssize_t recv_bytes(struct engine *e, struct sock *k, void *to, size_t len, struct udp_meta *meta)
{
	struct iovec iov = {to, len};

	return udp_recv(e, k, &iov, 1, false, meta);
}

static inline ssize_t send_bytes(struct pair *t, int from, struct sock *k, struct endpoint to, const void *data,
				 size_t len)
{
	struct iovec iov = {(void *)(uintptr_t)data, len};

	return udp_send(t->e[from], k, 0, &k->local, &to, &iov, 1, t->now);
}

#define COUNTED(e, name) ((e)->s->counters[C_##name])

/* A seed for random tests, printed so that a failure can be run again: VIADUCT_TEST_SEED. */
static inline uint64_t test_seed(void)
{
	const char *env = getenv("VIADUCT_TEST_SEED");
	uint64_t seed = ((uint64_t)getpid() << 32 ^ (uint64_t)time(NULL)) * 0x9e3779b97f4a7c15ull | 1;

	if (env)
		seed = strtoull(env, NULL, 0);
	print_message("VIADUCT_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

static inline uint32_t random_below(uint64_t *seed, uint32_t limit)
{
	assert_true(limit > 0);
	return sim_below(seed, limit);
}

#endif
