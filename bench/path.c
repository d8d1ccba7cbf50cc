/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a message costs in the engine, counted in instructions: two stacks and a wire in one thread, no clock, no
 * system call, no waiting. The only program here that is linked with the engine; it measures no time.
 *
 *	bench-path pingpong|stream|bulk N
 *
 *   pingpong  N round trips of 64 bytes: send, poll and receive on one end, the same back
 *   stream    N writes of 64 bytes one way (Nagle), the reader looks after every 64
 *   bulk      N writes of 64 KiB one way, each read at once
 *
 * bench/instructions runs it with N and 2N under callgrind: the difference is the cost, without the setting up.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tcp.h"
#include "lib/test_stack.h"

#define SMALL 64u
#define LARGE 65536u
#define BATCH 64u

static struct engine end[2];
static struct sock *sock[2];
static uint64_t now = 1000000;
static char in[2 * LARGE], out[LARGE];

static void check(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "bench-path: %s\n", what);
	exit(1);
}

static void open_pair(void)
{
	struct stack_config cfg = test_config();
	struct endpoint client = test_addr4(1, 4000), server = test_addr4(2, 80);
	struct sock *listener;
	void *wire = test_wire_new(NULL);
	int child;

	cfg.max_socks = cfg.hash_buckets = 64;
	cfg.defaults.sndbuf = 87040;
	for (int i = 0; i < 2; i++) {
		test_stack_new(&end[i], &cfg, now);
		check(test_wire_join(wire, i, &end[i]) == 0, "not the first vNIC");
		engine_poll(&end[i], now, 1);
		engine_tick(&end[i], now);
	}
	listener = sock_alloc(&end[1], SOCK_TCP, 4);
	sock[0] = sock_alloc(&end[0], SOCK_TCP, 4);
	listener->holders = sock[0]->holders = 1;
	listener->local = server;
	check(tcp_listen(&end[1], listener, 8) == 0, "no listener");
	check(tcp_connect(&end[0], sock[0], 0, &client, &server, now) == 0, "no connection");
	for (int i = 0; i < 8; i++)
		engine_poll(&end[!(i & 1)], now, 64);
	child = tcp_accept(&end[1], listener);
	check(child > 0 && sock[0]->tcp.state == TCP_ESTABLISHED, "not established");
	sock[1] = sock_at(end[1].s, (uint32_t)child);
	sock[1]->holders = 1;
}

static size_t put(int i, size_t len)
{
	struct iovec iov = {out, len};
	ssize_t n = tcp_send(&end[i], sock[i], &iov, 1, 0, 0, now);

	check(n > 0 || n == -EAGAIN, "send");
	return n > 0 ? (size_t)n : 0;
}

static size_t take(int i)
{
	struct iovec iov = {in, sizeof(in)};
	ssize_t n;

	engine_poll(&end[i], now, 64);
	n = tcp_recv(&end[i], sock[i], &iov, 1, 0, 0, now);
	check(n > 0 || n == -EAGAIN, "receive");
	if (n > 0)
		return (size_t)n;
	now += 50000; /* a reader that finds nothing waits: an ACK that was put off goes out */
	engine_tick(&end[i], now);
	return 0;
}

static void pingpong(unsigned long rounds)
{
	tcp_set_nodelay(&end[0], sock[0], true, now);
	tcp_set_nodelay(&end[1], sock[1], true, now);
	for (unsigned long i = 0; i < rounds; i++)
		for (int side = 0; side < 2; side++) {
			now += !(i % 4); /* a round trip takes a fraction of a microsecond */
			check(put(side, SMALL) == SMALL && take(!side) == SMALL, "a message was not there at once");
		}
}

static void one_way(unsigned long writes, size_t len, unsigned long batch)
{
	unsigned long sent = 0, got = 0;

	for (unsigned long i = 0; i < writes; i++) {
		size_t done = 0;

		now += !(i % (len == SMALL ? 64 : 1));
		while (done < len) {
			size_t n = put(0, len - done);

			done += n;
			if (n && i % batch)
				continue;
			got += take(1);
			engine_poll(&end[0], now, 64);
		}
		sent += done;
	}
	for (int i = 0; i < 100 && got < sent; i++) {
		got += take(1);
		engine_poll(&end[0], now, 64);
	}
	check(got == sent, "bytes are missing");
}

int main(int argc, char **argv)
{
	unsigned long n = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;

	check(n, "usage: bench-path pingpong|stream|bulk N");
	open_pair();
	if (!strcmp(argv[1], "pingpong"))
		pingpong(n);
	else if (!strcmp(argv[1], "stream"))
		one_way(n, SMALL, BATCH);
	else if (!strcmp(argv[1], "bulk"))
		one_way(n, LARGE, 1);
	else
		check(false, "unknown pattern");
	for (int i = 0; i < 2; i++)
		printf("end %d: %lu frames sent, %lu segments in, %lu by the fast path\n", i,
		       stack_vnic(end[i].s, 0)->stats.tx_frames, end[i].s->counters[C_tcp_segs_in],
		       end[i].s->counters[C_tcp_fast_path]);
	return 0;
}
