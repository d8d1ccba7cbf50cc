/* SPDX-License-Identifier: BSD-2-Clause */
/* The engine against Linux's own TCP, over a wire of the test's own; see tap_world.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tap_kernel.h"
#include "tap_world.h"

#define PORT 5001

static const struct sim_dir bad_link = {.delay_us = 300,
					.jitter_us = 200,
					.loss_ppm = 20000,
					.dup_ppm = 10000,
					.reorder_ppm = 20000,
					.reorder_us = 2000,
					.corrupt_ppm = 5000};

static int setup(void **state)
{
	*state = tap_world_new(1, NULL);
	return 0;
}

static int teardown(void **state)
{
	tap_world_free(*state);
	return 0;
}

/* --- transfers --- */

static void transfer(struct tap_world *w, bool by_kernel, int family, uint64_t kernel_bytes, uint64_t engine_bytes,
		     uint32_t seconds)
{
	struct conn *c = by_kernel ? conn_by_kernel(w, family, PORT) : conn_by_engine(w, family, PORT);

	assert_non_null(c);
	assert_true(conn_transfer(c, kernel_bytes, engine_bytes, seconds));
	conn_free(c);
}

static void kernel_connects_and_both_send(void **state)
{
	transfer(*state, true, 4, 3000000, 3000000, 20);
}

static void engine_connects_and_both_send(void **state)
{
	transfer(*state, false, 4, 3000000, 3000000, 20);
}

static void kernel_connects_over_ipv6(void **state)
{
	transfer(*state, true, 6, 1000000, 1000000, 20);
}

static void engine_connects_over_ipv6(void **state)
{
	transfer(*state, false, 6, 1000000, 1000000, 20);
}

static void nothing_sent_is_an_empty_stream(void **state)
{
	transfer(*state, true, 4, 0, 0, 5);
	transfer(*state, false, 4, 0, 0, 5);
}

static void single_bytes_and_odd_sizes_arrive(void **state)
{
	static const uint32_t sizes[] = {1, 2, 1447, 1448, 1449, 2896, 65535, 65537};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		transfer(*state, i & 1, 4, sizes[i], sizes[i], 10);
}

/* --- loss --- */

static void transfers_survive_a_bad_wire(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 4; seed++) {
		struct tap_world *w = tap_world_new(seed, &bad_link);

		transfer(w, seed & 1, seed > 2 ? 6 : 4, 600000, 600000, 60);
		assert_true(sim_statistics(w->link)->lost > 0);
		tap_world_free(w);
	}
}

static void loss_is_repaired_by_sack_both_ways(void **state)
{
	struct sim_dir dir = {.delay_us = 2000, .loss_ppm = 20000};
	struct tap_world *w = tap_world_new(7, &dir);
	struct capture_facts engine, kernel;

	(void)state;
	transfer(w, true, 4, 2000000, 2000000, 60);
	assert_true(capture_look(w->capture, true, PORT, &engine));
	assert_true(capture_look(w->capture, false, PORT, &kernel));
	assert_true(engine.sack_blocks > 0);
	assert_true(kernel.sack_blocks > 0);
	tap_world_free(w);
}

static void a_burst_of_loss_ends_in_recovery_not_in_a_stall(void **state)
{
	struct sim_dir dir = {.delay_us = 5000, .burst_ppm = 3000, .burst_len = 40};
	struct tap_world *w = tap_world_new(11, &dir);

	(void)state;
	transfer(w, false, 4, 1500000, 1500000, 60);
	tap_world_free(w);
}

/* --- congestion marks --- */

static void set_kernel_ecn(const char *value)
{
	FILE *f = fopen("/proc/sys/net/ipv4/tcp_ecn", "w"); /* of this namespace */

	assert_non_null(f);
	assert_true(fputs(value, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

/* Both ends agree on ECN, both see marks, hear of their own, and nothing is lost or sent again for it. */
static void marks_are_heard_of(bool by_kernel, int family)
{
	struct sim_dir dir = {.delay_us = 1000, .ce_ppm = 10000};
	struct tap_world *w = tap_world_new(5, &dir);
	const uint64_t *counted = w->e->s->counters;
	struct kernel_tcp kernel;
	struct conn *c;

	w->e->s->cfg.defaults.ecn = TCP_ECN_ASK;
	c = by_kernel ? conn_by_kernel(w, family, PORT) : conn_by_engine(w, family, PORT);
	assert_non_null(c);
	assert_true(conn_sock(c)->tcp.flags & TCPF_ECN);
	assert_true(conn_transfer(c, 2000000, 2000000, 60));
	assert_true(kernel_tcp_of(c->fd, &kernel));
	assert_true(kernel.ecn);
	assert_true(kernel.delivered_ce > 0);
	assert_true(counted[C_tcp_ecn_ce] > 0);
	assert_true(counted[C_tcp_ecn_reductions] > 0);
	assert_true(counted[C_tcp_retrans] <= counted[C_tcp_tlp]); /* probes at the end */
	conn_free(c);
	tap_world_free(w);
}

static void congestion_marks_are_heard_of_both_ways(void **state)
{
	(void)state;
	set_kernel_ecn("2"); /* it answers */
	marks_are_heard_of(false, 4);
	marks_are_heard_of(false, 6);
	set_kernel_ecn("1"); /* it asks */
	marks_are_heard_of(true, 4);
	marks_are_heard_of(true, 6);
	set_kernel_ecn("2");
}

/* --- what was negotiated --- */

static void check_syn(const struct capture_facts *f)
{
	assert_true(f->syns > 0);
	assert_true(f->mss);
	assert_true(f->sack_permitted);
	assert_true(f->wscale);
	assert_true(f->timestamps);
	assert_int_equal(f->without_timestamp, 0);
}

static void options_are_negotiated(struct tap_world *w, bool by_kernel)
{
	struct conn *c = by_kernel ? conn_by_kernel(w, 4, PORT) : conn_by_engine(w, 4, PORT);
	struct capture_facts engine, kernel;
	struct tcp_stats stats;
	struct kernel_tcp kernel_says;

	assert_non_null(c);
	assert_true(kernel_tcp_of(c->fd, &kernel_says));
	tcp_get_stats(w->e, conn_sock(c), &stats);
	assert_true(kernel_says.timestamps && kernel_says.sack && kernel_says.wscale);
	assert_true(stats.sack && stats.timestamps);
	assert_int_equal(stats.snd_wscale, kernel_says.rcv_wscale);
	assert_int_equal(stats.rcv_wscale, kernel_says.snd_wscale);
	assert_int_equal(kernel_says.snd_mss, TAP_MTU - 40 - 12);
	assert_int_equal(stats.mss, TAP_MTU - 40 - 12);
	assert_true(conn_transfer(c, 1000000, 1000000, 20));
	assert_true(capture_look(w->capture, true, PORT, &engine));
	assert_true(capture_look(w->capture, false, PORT, &kernel));
	check_syn(&engine);
	check_syn(&kernel);
	conn_free(c);
}

static void options_are_negotiated_when_the_kernel_connects(void **state)
{
	options_are_negotiated(*state, true);
}

static void options_are_negotiated_when_the_engine_connects(void **state)
{
	options_are_negotiated(*state, false);
}

static void scaled_windows_are_really_used(void **state)
{
	struct sim_dir dir = {.delay_us = 10000};
	struct tap_world *w = tap_world_new(3, &dir);
	struct capture_facts engine, kernel;

	(void)state;
	transfer(w, true, 4, 8000000, 8000000, 60);
	assert_true(capture_look(w->capture, true, PORT, &engine));
	assert_true(capture_look(w->capture, false, PORT, &kernel));
	assert_true(engine.largest_window > 65535);
	assert_true(kernel.largest_window > 65535);
	assert_true(engine.largest_flight > 65535);
	assert_true(kernel.largest_flight > 65535);
	tap_world_free(w);
}

/* --- ends --- */

static bool kernel_at_end(void *arg)
{
	struct conn *c = arg;

	conn_step(c);
	return c->kernel.eof;
}

static bool engine_at_end(void *arg)
{
	struct conn *c = arg;

	conn_step(c);
	return c->engine.eof;
}

static void kernel_closes_half_and_still_reads(void **state)
{
	struct conn *c = conn_by_kernel(*state, 4, PORT);

	assert_non_null(c);
	c->kernel.to_send = 100000;
	c->kernel.shut = true;
	assert_true(tap_until(*state, engine_at_end, c, 5000));
	assert_int_equal(c->engine.received, 100000);
	assert_int_equal(conn_sock(c)->tcp.state, TCP_CLOSE_WAIT);
	c->engine.to_send = 200000;
	c->engine.shut = true;
	assert_true(tap_until(*state, kernel_at_end, c, 5000));
	assert_int_equal(c->kernel.received, 200000);
	conn_free(c);
}

static bool fin_is_acknowledged(void *arg)
{
	return conn_sock(arg)->tcp.state == TCP_FIN_WAIT_2;
}

static void engine_closes_half_and_still_reads(void **state)
{
	struct conn *c = conn_by_engine(*state, 4, PORT);

	assert_non_null(c);
	c->engine.to_send = 100000;
	c->engine.shut = true;
	assert_true(tap_until(*state, kernel_at_end, c, 5000));
	assert_int_equal(c->kernel.received, 100000);
	assert_true(tap_until(*state, fin_is_acknowledged, c, 1000)); /* Linux may delay the ACK */
	c->kernel.to_send = 200000;
	c->kernel.shut = true;
	assert_true(tap_until(*state, engine_at_end, c, 5000));
	assert_int_equal(c->engine.received, 200000);
	assert_int_equal(conn_sock(c)->tcp.state, TCP_TIME_WAIT);
	conn_free(c);
}

static bool engine_failed(void *arg)
{
	struct conn *c = arg;
	uint8_t byte;
	struct iovec iov = {&byte, 1};
	ssize_t n = tcp_recv(c->w->e, conn_sock(c), &iov, 1, 0, 0, tap_now_us());

	c->engine.err = n < 0 && n != -EAGAIN ? (int)-n : 0;
	return c->engine.err != 0;
}

static bool kernel_failed(void *arg)
{
	struct conn *c = arg;
	uint8_t byte;

	c->kernel.err = recv(c->fd, &byte, 1, 0) < 0 && errno != EAGAIN ? errno : 0;
	return c->kernel.err != 0;
}

static void reset_by_the_kernel_is_an_error(void **state)
{
	struct conn *c = conn_by_kernel(*state, 4, PORT);
	struct linger linger = {1, 0};

	assert_non_null(c);
	assert_return_code(setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), errno);
	close(c->fd);
	c->fd = -1;
	assert_true(tap_until(*state, engine_failed, c, 3000));
	assert_int_equal(c->engine.err, ECONNRESET);
	conn_free(c);
}

static void reset_by_the_engine_is_an_error(void **state)
{
	struct conn *c = conn_by_engine(*state, 4, PORT);

	assert_non_null(c);
	tcp_abort(c->w->e, conn_sock(c), 0, tap_now_us());
	assert_true(tap_until(*state, kernel_failed, c, 3000));
	assert_int_equal(c->kernel.err, ECONNRESET);
	conn_free(c);
}

static bool engine_has_bytes(void *arg)
{
	struct conn *c = arg;

	return tcp_inq(c->w->e, conn_sock(c)) >= 1000;
}

static void close_with_unread_data_resets(void **state)
{
	struct conn *c = conn_by_kernel(*state, 4, PORT);
	char bytes[1000] = "";

	assert_non_null(c);
	assert_int_equal(send(c->fd, bytes, sizeof(bytes), 0), sizeof(bytes));
	assert_true(tap_until(*state, engine_has_bytes, c, 3000));
	conn_sock(c)->holders = 0;
	tcp_close(c->w->e, conn_sock(c), tap_now_us());
	c->sock = 0;
	assert_true(tap_until(*state, kernel_failed, c, 3000));
	assert_int_equal(c->kernel.err, ECONNRESET);
	conn_free(c);
}

static bool kernel_has_error(void *arg)
{
	struct pollfd p = {.fd = *(int *)arg, .events = POLLOUT};

	return poll(&p, 1, 0) == 1 && p.revents & POLLERR;
}

static void kernel_is_refused_where_nobody_listens(void **state)
{
	int fd = kernel_connect(4, 0, 5999), err = 0;
	socklen_t len = sizeof(err);

	assert_true(tap_until(*state, kernel_has_error, &fd, 3000));
	assert_return_code(getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len), errno);
	assert_int_equal(err, ECONNREFUSED);
	close(fd);
}

static bool has_so_error(void *arg)
{
	return ((struct sock *)arg)->so_error != 0;
}

static void engine_is_refused_where_nobody_listens(void **state)
{
	struct tap_world *w = *state;
	struct sock *k = engine_connect(w, 4, 15999, 5998);

	assert_true(tap_until(w, has_so_error, k, 3000));
	assert_int_equal(k->so_error, ECONNREFUSED);
	k->holders = 0;
	tcp_close(w->e, k, tap_now_us());
}

/* Both send a SYN before the other's arrives (RFC 9293, 3.5). */
static bool both_open(void *arg)
{
	struct conn *c = arg;
	struct pollfd p = {.fd = c->fd, .events = POLLOUT};

	return conn_sock(c)->tcp.state == TCP_ESTABLISHED && poll(&p, 1, 0) == 1 && p.revents == POLLOUT;
}

static void simultaneous_open_makes_one_connection(void **state)
{
	struct sim_dir dir = {.delay_us = 30000};
	struct tap_world *w = tap_world_new(5, &dir);
	struct conn *c = calloc(1, sizeof(*c));

	(void)state;
	assert_non_null(c);
	c->w = w;
	c->family = 4;
	c->fd = kernel_connect(4, 6001, 6002);
	c->sock = sock_index(w->e->s, engine_connect(w, 4, 6002, 6001));
	assert_true(tap_until(w, both_open, c, 5000));
	assert_true(conn_transfer(c, 50000, 50000, 10));
	conn_free(c);
	tap_world_free(w);
}

/* --- windows --- */

static void wait_ms(struct conn *c, uint32_t ms)
{
	uint64_t end = tap_now_us() + ms * 1000ull;

	while (tap_now_us() < end)
		tap_pump(c->w);
}

static void kernel_that_does_not_read_stops_the_engine(void **state)
{
	struct conn *c = conn_by_engine(*state, 4, PORT);
	uint8_t block[65536] = {0};
	struct iovec iov = {block, sizeof(block)};
	uint64_t total = 0;
	int small = 8192;

	assert_non_null(c);
	setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	for (int i = 0; i < 400; i++) {
		ssize_t n = tcp_send(c->w->e, conn_sock(c), &iov, 1, 0, 0, tap_now_us());

		total += n > 0 ? (uint64_t)n : 0;
		wait_ms(c, 2);
	}
	assert_int_equal(tcp_poll(c->w->e, conn_sock(c)) & EV_OUT, 0);
	/* now it reads: everything that was accepted arrives */
	tcp_shutdown(c->w->e, conn_sock(c), 1, tap_now_us());
	uint64_t got = 0, end = tap_now_us() + 20000000;
	ssize_t n = 1;

	while (n != 0 && tap_now_us() < end) {
		n = recv(c->fd, block, sizeof(block), 0);
		got += n > 0 ? (uint64_t)n : 0;
		tap_pump(c->w);
	}
	assert_int_equal(got, total);
	conn_free(c);
}

static void engine_that_does_not_read_stops_the_kernel(void **state)
{
	struct conn *c = conn_by_kernel(*state, 4, PORT);
	struct sock *k;

	assert_non_null(c);
	k = conn_sock(c);
	c->kernel.to_send = 0;
	static uint8_t block[65536];
	uint64_t total = 0, got = 0, end;

	for (int i = 0; i < 400; i++) {
		ssize_t n = send(c->fd, block, sizeof(block), MSG_NOSIGNAL);

		total += n > 0 ? (uint64_t)n : 0;
		wait_ms(c, 2);
	}
	assert_true(tcp_inq(c->w->e, k) <= k->rcvbuf + 65536);
	assert_true(total > tcp_inq(c->w->e, k)); /* the rest waits in the kernel */
	shutdown(c->fd, SHUT_WR);
	end = tap_now_us() + 20000000;
	for (ssize_t n = 1; n != 0 && tap_now_us() < end;) {
		struct iovec iov = {block, 3000};

		n = tcp_recv(c->w->e, k, &iov, 1, 0, 0, tap_now_us());
		got += n > 0 ? (uint64_t)n : 0;
		tap_pump(c->w);
	}
	assert_int_equal(got, total);
	conn_free(c);
}

static void small_reads_do_not_stall(void **state)
{
	struct conn *c = conn_by_kernel(*state, 4, PORT);

	assert_non_null(c);
	c->read_size = 700;
	assert_true(conn_transfer(c, 1000000, 1000000, 30));
	conn_free(c);
}

/* --- urgent data --- */

static bool engine_has_urgent(void *arg)
{
	struct conn *c = arg;

	return tcp_poll(c->w->e, conn_sock(c)) & EV_PRI;
}

static bool kernel_has_urgent(void *arg)
{
	struct pollfd p = {.fd = ((struct conn *)arg)->fd, .events = POLLPRI};

	return poll(&p, 1, 0) == 1;
}

static void urgent_byte_goes_both_ways(void **state)
{
	struct conn *c = conn_by_kernel(*state, 4, PORT);
	char byte = 0;
	struct iovec iov = {&byte, 1}, out = {"abc", 3};

	assert_non_null(c);
	assert_int_equal(send(c->fd, "xyU", 3, MSG_OOB), 3);
	assert_true(tap_until(*state, engine_has_urgent, c, 3000));
	assert_int_equal(tcp_recv(c->w->e, conn_sock(c), &iov, 1, 0, TCP_F_OOB, tap_now_us()), 1);
	assert_int_equal(byte, 'U');
	assert_int_equal(tcp_send(c->w->e, conn_sock(c), &out, 1, 0, TCP_F_OOB, tap_now_us()), 3);
	assert_true(tap_until(*state, kernel_has_urgent, c, 3000));
	assert_int_equal(recv(c->fd, &byte, 1, MSG_OOB), 1);
	assert_int_equal(byte, 'c');
	conn_free(c);
}

/* --- UDP --- */

static struct sock *engine_udp(struct tap_world *w, int family, uint16_t port, uint16_t peer)
{
	struct sock *k = sock_alloc(w->e, SOCK_UDP, family);

	assert_non_null(k);
	k->holders = 1;
	k->local = engine_endpoint(family, port);
	if (peer) {
		k->remote = kernel_endpoint(family, peer);
		k->vnic = w->vnic;
	}
	sock_hash(w->e->s, k);
	return k;
}

struct udp_pair {
	struct tap_world *w;
	struct sock *k;
	int fd;
};

static bool engine_has_datagram(void *arg)
{
	struct udp_pair *p = arg;

	return udp_poll(p->w->e, p->k) & EV_IN;
}

static bool kernel_has_datagram(void *arg)
{
	struct pollfd p = {.fd = ((struct udp_pair *)arg)->fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

static void echo_datagram(struct udp_pair *p, int family, size_t size)
{
	struct endpoint from = engine_endpoint(family, 7001), to = kernel_endpoint(family, 7002);
	uint8_t out[TAP_MTU], in[TAP_MTU];
	struct iovec iov = {in, sizeof(in)};
	struct udp_meta meta;

	for (size_t i = 0; i < size; i++)
		out[i] = (uint8_t)(i * 7 + size);
	assert_int_equal(send(p->fd, out, size, 0), size);
	assert_true(tap_until(p->w, engine_has_datagram, p, 2000));
	assert_int_equal(udp_recv(p->w->e, p->k, &iov, 1, false, &meta), size);
	assert_memory_equal(in, out, size);
	assert_int_equal(meta.from.port, 7002);
	assert_memory_equal(meta.from.addr, to.addr, 16);
	iov.iov_len = size;
	assert_int_equal(udp_send(p->w->e, p->k, p->w->vnic, &from, &to, &iov, 1, tap_now_us()), size);
	assert_true(tap_until(p->w, kernel_has_datagram, p, 2000));
	memset(in, 0, sizeof(in));
	assert_int_equal(recv(p->fd, in, sizeof(in), 0), size);
	assert_memory_equal(in, out, size);
}

static void datagrams_go_both_ways(void **state)
{
	for (int family = 4; family <= 6; family += 2) {
		size_t largest = TAP_MTU - (family == 4 ? 28 : 48), sizes[] = {0, 1, 2, 3, 64, 511, 1000, largest};
		struct udp_pair p = {.w = *state,
				     .k = engine_udp(*state, family, 7001, 0),
				     .fd = kernel_socket(family, SOCK_DGRAM, 7002)};

		kernel_connect_socket(p.fd, family, 7001);
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
			echo_datagram(&p, family, sizes[i]);
		close(p.fd);
		p.k->holders = 0;
		udp_close(p.w->e, p.k);
	}
}

static void kernel_hears_that_no_socket_wants_its_datagram(void **state)
{
	int fd = kernel_socket(4, SOCK_DGRAM, 7003), err = 0;
	socklen_t len = sizeof(err);

	kernel_connect_socket(fd, 4, 7999);
	assert_int_equal(send(fd, "x", 1, 0), 1);
	assert_true(tap_until(*state, kernel_has_error, &fd, 2000));
	assert_return_code(getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len), errno);
	assert_int_equal(err, ECONNREFUSED);
	close(fd);
}

static void engine_hears_that_no_socket_wants_its_datagram(void **state)
{
	struct tap_world *w = *state;
	struct sock *k = engine_udp(w, 4, 7004, 7998);
	struct iovec iov = {"x", 1};

	assert_int_equal(udp_send(w->e, k, w->vnic, &k->local, &k->remote, &iov, 1, tap_now_us()), 1);
	assert_true(tap_until(w, has_so_error, k, 2000));
	assert_int_equal(k->so_error, ECONNREFUSED);
	k->holders = 0;
	udp_close(w->e, k);
}

int main(void)
{
#define IN_A_WORLD(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    IN_A_WORLD(kernel_connects_and_both_send),
	    IN_A_WORLD(engine_connects_and_both_send),
	    IN_A_WORLD(kernel_connects_over_ipv6),
	    IN_A_WORLD(engine_connects_over_ipv6),
	    IN_A_WORLD(nothing_sent_is_an_empty_stream),
	    IN_A_WORLD(single_bytes_and_odd_sizes_arrive),
	    cmocka_unit_test(transfers_survive_a_bad_wire),
	    cmocka_unit_test(loss_is_repaired_by_sack_both_ways),
	    cmocka_unit_test(a_burst_of_loss_ends_in_recovery_not_in_a_stall),
	    cmocka_unit_test(congestion_marks_are_heard_of_both_ways),
	    IN_A_WORLD(options_are_negotiated_when_the_kernel_connects),
	    IN_A_WORLD(options_are_negotiated_when_the_engine_connects),
	    cmocka_unit_test(scaled_windows_are_really_used),
	    IN_A_WORLD(kernel_closes_half_and_still_reads),
	    IN_A_WORLD(engine_closes_half_and_still_reads),
	    IN_A_WORLD(reset_by_the_kernel_is_an_error),
	    IN_A_WORLD(reset_by_the_engine_is_an_error),
	    IN_A_WORLD(close_with_unread_data_resets),
	    IN_A_WORLD(kernel_is_refused_where_nobody_listens),
	    IN_A_WORLD(engine_is_refused_where_nobody_listens),
	    cmocka_unit_test(simultaneous_open_makes_one_connection),
	    IN_A_WORLD(kernel_that_does_not_read_stops_the_engine),
	    IN_A_WORLD(engine_that_does_not_read_stops_the_kernel),
	    IN_A_WORLD(small_reads_do_not_stall),
	    IN_A_WORLD(urgent_byte_goes_both_ways),
	    IN_A_WORLD(datagrams_go_both_ways),
	    IN_A_WORLD(kernel_hears_that_no_socket_wants_its_datagram),
	    IN_A_WORLD(engine_hears_that_no_socket_wants_its_datagram),
	};

	if (!tap_enter_namespace()) {
		printf("skip tap: neither root nor user namespaces, or no /dev/net/tun\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
