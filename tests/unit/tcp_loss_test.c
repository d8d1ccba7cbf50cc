/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two engines over a link of 20 ms round trip that loses exactly the data segments a test names, in virtual time: how
 * long until the stream is complete, and by which means. A segment is lost by damaging its checksum on the way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/tcp_wire.h"
#include "lib/test_stack.h"

#define MS 1000ull
#define SECOND 1000000ull
#define ONE_WAY (10 * MS)
#define RTO_MIN (200 * MS)

struct lossy {
	struct engine e[2];
	struct sim *link;
	struct sock *k[2]; /* [0] sends, [1] receives */
	uint64_t now;
	uint32_t data_seen; /* data segments from 0, in the order of their arrival, from 1 */
	uint64_t drop;      /* bit i: the i-th of these is lost */
	bool strip_sack, drop_acks;
	uint32_t acks;
	size_t got;
	bool wrong;
};

static uint8_t byte_at(size_t i)
{
	return (uint8_t)(i * 31 + (i >> 9));
}

/* Take the SACK-permitted option out of a SYN, as some middleboxes do. The checksum is set right by the difference. */
static void strip(uint8_t *l4, uint32_t opts)
{
	for (uint32_t i = 20; i + 1 < 20 + opts && l4[i]; i += l4[i] == 1 ? 1 : l4[i + 1] ? l4[i + 1] : 1)
		if (l4[i] == 4 && l4[i + 1] == 2) {
			uint32_t sum = (uint32_t)(l4[16] << 8 | l4[17]);

			sum += i & 1 ? 0x0204u - 0x0101u : 0x0402u - 0x0101u;
			l4[i] = l4[i + 1] = 1;
			sum = (sum & 0xffff) + (sum >> 16);
			l4[16] = (uint8_t)(sum >> 8);
			l4[17] = (uint8_t)sum;
		}
}

static void box(void *arg, int from, uint8_t *frame, uint32_t len)
{
	struct lossy *l = arg;
	uint8_t *l4 = frame + 34;
	uint32_t header = (uint32_t)(l4[12] >> 4) * 4, payload = len - 34 - header;
	bool lose = false;

	if (l4[13] & TH_SYN) {
		if (l->strip_sack)
			strip(l4, header - 20);
		return;
	}
	if (from == 0 && payload) {
		l->data_seen++;
		lose = l->data_seen < 64 && (l->drop >> l->data_seen & 1);
	} else if (from == 1 && !payload) {
		l->acks++;
		lose = l->drop_acks;
	}
	if (lose)
		l4[17] ^= 0x55;
}

static uint64_t secret = 1; /* what the stacks' secrets come from: sequence numbers, timestamps, the lookup table */

static struct stack_config config(void)
{
	struct stack_config c = test_config();
	uint64_t random = secret;

	c.max_socks = 16;
	c.max_pkts = 4096;
	c.hash_buckets = 64;
	c.defaults.rcvbuf = c.defaults.sndbuf = 262144;
	c.defaults.somaxconn = 128;
	for (size_t i = 0; i < sizeof(c.secret); i++)
		c.secret[i] = (uint8_t)sim_random(&random);
	return c;
}

static void receive(struct lossy *l)
{
	uint8_t buf[16384];
	struct iovec iov = {buf, sizeof(buf)};
	ssize_t n;

	while (l->k[1] && (n = tcp_recv(&l->e[1], l->k[1], &iov, 1, 0, 0, l->now)) > 0)
		for (ssize_t i = 0; i < n; i++)
			l->wrong |= buf[i] != byte_at(l->got++);
}

static void step(struct lossy *l)
{
	sim_step(l->link, l->now);
	for (int i = 0; i < 2; i++) {
		while (engine_poll(&l->e[i], l->now, 64))
			;
		engine_tick(&l->e[i], l->now);
	}
	sim_step(l->link, l->now);
}

/* Let time pass until `want` bytes have come, at most for `us`. Returns the time that it took. */
static uint64_t run(struct lossy *l, size_t want, uint64_t us, bool reading)
{
	uint64_t start = l->now, end = l->now + us;

	for (;;) {
		uint64_t next;

		step(l);
		if (reading)
			receive(l);
		if (l->got >= want || l->now >= end)
			return l->now - start;
		next = sim_next(l->link);
		for (int i = 0; i < 2; i++)
			if (engine_deadline(&l->e[i]) < next)
				next = engine_deadline(&l->e[i]);
		l->now = next > end ? end : next > l->now ? next : l->now + 1;
	}
}

static struct lossy *lossy_new(bool sack)
{
	struct lossy *l = calloc(1, sizeof(*l));
	struct sim_config link = {.seed = 1,
				  .mtu = 1500,
				  .buf_size = 2048,
				  .tx_bufs = 1024,
				  .rx_bufs = 1024,
				  .flights = 1024,
				  .dir = {{.delay_us = ONE_WAY}, {.delay_us = ONE_WAY}}};
	struct stack_config cfg = config();
	struct endpoint server = test_addr4(2, 80), client = test_addr4(1, 4000);
	struct sock *listener;
	int child;

	l->now = SECOND;
	l->strip_sack = !sack;
	l->link = test_link_new(&link);
	sim_set_middlebox(l->link, box, l);
	for (int i = 0; i < 2; i++) {
		test_stack_new(&l->e[i], &cfg, l->now);
		test_link_join(l->link, i, &l->e[i]);
		engine_tick(&l->e[i], l->now);
	}
	listener = sock_alloc(&l->e[1], SOCK_TCP, 4);
	listener->local = server;
	assert_int_equal(tcp_listen(&l->e[1], listener, 8), 0);
	l->k[0] = sock_alloc(&l->e[0], SOCK_TCP, 4);
	l->k[0]->holders = 1;
	assert_int_equal(tcp_connect(&l->e[0], l->k[0], 0, &client, &server, l->now), 0);
	run(l, 1, 100 * MS, false);
	child = tcp_accept(&l->e[1], listener);
	assert_true(child > 0);
	l->k[1] = sock_at(l->e[1].s, (uint32_t)child);
	l->k[1]->holders = 1;
	assert_int_equal(l->k[0]->tcp.state, TCP_ESTABLISHED);
	assert_int_equal(!!(l->k[0]->tcp.flags & TCPF_SACK), sack);
	return l;
}

static void lossy_free(struct lossy *l)
{
	assert_false(l->wrong);
	assert_int_equal(sim_statistics(l->link)->rewritten, 0);
	test_stack_free(&l->e[0]);
	test_stack_free(&l->e[1]);
	test_link_free(l->link);
	free(l);
}

static void send_bytes(struct lossy *l, size_t n)
{
	static uint8_t data[1 << 18];
	struct iovec iov = {data, n};

	for (size_t i = 0; i < n; i++)
		data[i] = byte_at(l->got + i);
	assert_int_equal(tcp_send(&l->e[0], l->k[0], &iov, 1, 0, 0, l->now), (ssize_t)n);
}

/* Send so many bytes, the first of the connection; all must arrive within this time. How long it took. */
static uint64_t transfer(struct lossy *l, size_t n, uint64_t us)
{
	uint64_t took;

	send_bytes(l, n);
	took = run(l, n, us, true);
	assert_int_equal(l->got, n);
	return took;
}

static uint64_t counter(const struct lossy *l, enum counter c)
{
	return l->e[0].s->counters[c];
}

static void one_loss_costs_one_round_trip(void **state)
{
	struct lossy *l = lossy_new(true);
	uint64_t took;

	(void)state;
	l->drop = 1 << 2;
	took = transfer(l, 14000, 5 * SECOND);
	assert_true(took < 4 * ONE_WAY + 5 * MS); /* there, back, and there again */
	assert_int_equal(counter(l, C_tcp_rto), 0);
	assert_int_equal(counter(l, C_tcp_retrans), 1);
	lossy_free(l);
}

static void one_loss_without_sack_costs_one_round_trip(void **state)
{
	struct lossy *l = lossy_new(false);
	uint64_t took;

	(void)state;
	l->drop = 1 << 2;
	took = transfer(l, 14000, 5 * SECOND);
	assert_true(took < RTO_MIN);
	assert_int_equal(counter(l, C_tcp_rto), 0);
	lossy_free(l);
}

static void repair_three_holes(void)
{
	struct lossy *l = lossy_new(true);
	uint64_t took;

	l->drop = 1ull << 2 | 1ull << 4 | 1ull << 6;
	took = transfer(l, 40000, 5 * SECOND);
	assert_true(took < RTO_MIN);
	assert_int_equal(counter(l, C_tcp_rto), 0);
	assert_int_equal(counter(l, C_tcp_retrans), 3); /* each once, and nothing else */
	lossy_free(l);
}

/* Whatever numbers the keyed hashes give. */
static void several_holes_are_repaired_without_a_timeout(void **state)
{
	(void)state;
	for (secret = 1; secret <= 1000; secret++)
		repair_three_holes();
	secret = 1;
}

static void several_holes_without_sack_are_repaired_without_a_timeout(void **state)
{
	struct lossy *l = lossy_new(false);

	(void)state;
	l->drop = 1ull << 2 | 1ull << 5;
	transfer(l, 40000, 5 * SECOND);
	assert_int_equal(counter(l, C_tcp_rto), 0);
	lossy_free(l);
}

static void a_lost_tail_is_repaired_before_the_timeout(void **state)
{
	struct lossy *l = lossy_new(true);
	uint64_t took;

	(void)state;
	send_bytes(l, 14000); /* a round trip is known */
	run(l, 14000, SECOND, true);
	run(l, SIZE_MAX, SECOND, true);
	l->drop = 3ull << (l->data_seen + 9); /* the last two of ten */
	send_bytes(l, 14480);
	took = run(l, 28480, 5 * SECOND, true);
	assert_int_equal(l->got, 28480);
	assert_true(took < RTO_MIN);
	assert_true(counter(l, C_tcp_tlp) > 0);
	assert_int_equal(counter(l, C_tcp_rto), 0);
	lossy_free(l);
}

static void a_lost_retransmission_is_found(void **state)
{
	struct lossy *l = lossy_new(true);

	(void)state;
	l->drop = 1ull << 2 | 1ull << 11; /* and the 11th to arrive is the second copy of the 2nd */
	transfer(l, 14480, 5 * SECOND);
	assert_int_equal(counter(l, C_tcp_retrans) >= 2, 1);
	lossy_free(l);
}

static void everything_lost_comes_again_after_the_timeout(void **state)
{
	struct lossy *l = lossy_new(true);
	uint64_t took;

	(void)state;
	l->drop = 0xffe; /* all ten, and the first attempt after them */
	took = transfer(l, 14480, 20 * SECOND);
	assert_true(took > RTO_MIN / 2 && took < 4 * SECOND);
	lossy_free(l);
}

static void a_lost_window_update_is_asked_for(void **state)
{
	struct lossy *l = lossy_new(true);
	size_t before;

	(void)state;
	l->k[1]->flags |= SOCKF_RCVBUF_SET;
	send_bytes(l, 262144);
	run(l, SIZE_MAX, 5 * SECOND, false); /* nobody reads */
	assert_true(l->k[0]->tcp.snd_wnd < 1448);
	l->k[0]->flags |= SOCKF_SNDBUF_SET;
	l->k[0]->sndbuf = 1 << 20;
	before = l->got;
	l->got = 262144;
	send_bytes(l, 50000);
	l->got = before;
	run(l, SIZE_MAX, SECOND, false);
	l->drop_acks = true; /* the window opens, and the news is lost */
	receive(l);
	run(l, SIZE_MAX, 30 * MS, true);
	l->drop_acks = false;
	run(l, 262144 + 50000, 120 * SECOND, true);
	assert_int_equal(l->got, 262144 + 50000);
	assert_true(counter(l, C_tcp_probes) > 0);
	lossy_free(l);
}

static void a_spurious_timeout_is_undone(void **state)
{
	struct lossy *l = lossy_new(true);
	uint32_t cwnd;

	(void)state;
	send_bytes(l, 60000);
	run(l, 60000, SECOND, true);
	run(l, SIZE_MAX, 100 * MS, true);
	cwnd = l->k[0]->tcp.cwnd;
	sim_direction(l->link, 0)->delay_us = 600 * MS; /* the path gets slow at once; nothing is lost */
	sim_direction(l->link, 1)->delay_us = ONE_WAY;
	send_bytes(l, 100000);
	run(l, 160000, 20 * SECOND, true);
	assert_int_equal(l->got, 160000);
	assert_true(counter(l, C_tcp_rto) + counter(l, C_tcp_tlp) > 0);
	assert_true(counter(l, C_tcp_rto) == 0 || counter(l, C_tcp_undo) > 0);
	assert_true(l->k[0]->tcp.cwnd >= cwnd);
	lossy_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(one_loss_costs_one_round_trip),
	    cmocka_unit_test(one_loss_without_sack_costs_one_round_trip),
	    cmocka_unit_test(several_holes_are_repaired_without_a_timeout),
	    cmocka_unit_test(several_holes_without_sack_are_repaired_without_a_timeout),
	    cmocka_unit_test(a_lost_tail_is_repaired_before_the_timeout),
	    cmocka_unit_test(a_lost_retransmission_is_found),
	    cmocka_unit_test(everything_lost_comes_again_after_the_timeout),
	    cmocka_unit_test(a_lost_window_update_is_asked_for),
	    cmocka_unit_test(a_spurious_timeout_is_undone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
