/* SPDX-License-Identifier: BSD-2-Clause */
/* The engine's half of socket options, and TCP_INFO in Linux's units. */
#include "sender.h"

/* Linux's header names one congestion state as our engine does. */
#define TCP_CA_CWR LINUX_TCP_CA_CWR
#include <linux/tcp.h>
#undef TCP_CA_CWR
#include <netinet/in.h>

#include "socket/sockopt.h"

static int set_int(struct sender *r, int level, int name, int v)
{
	return sockopt_set(&r->e, r->k, level, name, &v, sizeof(v), r->e.s->now_us);
}

static int get_int(struct sender *r, int level, int name)
{
	int v = -1;
	socklen_t len = sizeof(v);

	assert_int_equal(sockopt_get(&r->e, r->k, level, name, &v, &len, r->e.s->now_us), 0);
	assert_int_equal(len, sizeof(v));
	return v;
}

static struct tcp_info info(struct sender *r)
{
	struct tcp_info i;
	socklen_t len = sizeof(i);

	assert_int_equal(sockopt_get(&r->e, r->k, IPPROTO_TCP, TCP_INFO, &i, &len, r->e.s->now_us), 0);
	assert_int_equal(len, sizeof(i));
	return i;
}

static void tcp_info_counts_in_segments(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);
	struct tcp_info i = info(r);

	(void)state;
	assert_int_equal(i.tcpi_state, TCP_ESTABLISHED);
	assert_int_equal(i.tcpi_snd_cwnd, r->t->cwnd / 1000);
	assert_int_equal(i.tcpi_snd_ssthresh, 0x7fffffff);
	assert_int_equal(i.tcpi_unacked, 0);
	sender_write(r, 4500, 0);
	i = info(r);
	assert_int_equal(i.tcpi_unacked, 5);
	assert_int_equal(i.tcpi_notsent_bytes, 0);
	sender_ack(r, 1000, 1 << 16, 1, 2000u, 3000u);
	i = info(r);
	assert_int_equal(i.tcpi_unacked, 4);
	assert_int_equal(i.tcpi_sacked, 1);
	assert_int_equal(i.tcpi_bytes_acked, 1000);
	assert_int_equal(i.tcpi_snd_mss, 1000);
	assert_int_equal(i.tcpi_reordering, 3);
	sender_free(r);
}

static void tcp_info_is_cut_to_what_is_asked_for_and_no_longer_than_linux(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);
	uint8_t bytes[512];
	socklen_t len = 8;

	(void)state;
	memset(bytes, 0xee, sizeof(bytes));
	assert_int_equal(sockopt_get(&r->e, r->k, IPPROTO_TCP, TCP_INFO, bytes, &len, r->e.s->now_us), 0);
	assert_int_equal(len, 8);
	assert_int_equal(bytes[8], 0xee);
	len = sizeof(bytes);
	assert_int_equal(sockopt_get(&r->e, r->k, IPPROTO_TCP, TCP_INFO, bytes, &len, r->e.s->now_us), 0);
	assert_int_equal(len, TCP_INFO_BYTES);
	assert_int_equal(bytes[TCP_INFO_BYTES], 0xee);
	sender_free(r);
}

static void what_is_set_is_read_back(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);

	(void)state;
	assert_int_equal(set_int(r, IPPROTO_TCP, TCP_NODELAY, 1), 0);
	assert_int_equal(get_int(r, IPPROTO_TCP, TCP_NODELAY), 1);
	assert_int_equal(set_int(r, IPPROTO_TCP, TCP_KEEPIDLE, 77), 0);
	assert_int_equal(get_int(r, IPPROTO_TCP, TCP_KEEPIDLE), 77);
	assert_int_equal(set_int(r, IPPROTO_TCP, TCP_USER_TIMEOUT, 1234), 0);
	assert_int_equal(get_int(r, IPPROTO_TCP, TCP_USER_TIMEOUT), 1234);
	assert_int_equal(set_int(r, SOL_SOCKET, SO_KEEPALIVE, 1), 0);
	assert_int_equal(get_int(r, SOL_SOCKET, SO_KEEPALIVE), 1);
	assert_int_equal(set_int(r, SOL_SOCKET, SO_SNDBUF, 40000), 0); /* as the kernel doubled it */
	assert_int_equal(get_int(r, SOL_SOCKET, SO_SNDBUF), 40000);
	assert_int_equal(set_int(r, SOL_SOCKET, SO_RCVBUF, 40000), 0);
	assert_int_equal(get_int(r, SOL_SOCKET, SO_RCVBUF), 40000);
	sender_free(r);
}

static void taking_the_error_clears_it(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);

	(void)state;
	r->k->so_error = ECONNRESET;
	assert_int_equal(get_int(r, SOL_SOCKET, SO_ERROR), ECONNRESET);
	assert_int_equal(get_int(r, SOL_SOCKET, SO_ERROR), 0);
	sender_free(r);
}

static void what_the_engine_does_not_know_is_the_kernels(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);
	char one = 1;

	(void)state;
	assert_int_equal(set_int(r, SOL_SOCKET, SO_MARK, 1), SOCKOPT_NOT_OURS);
	assert_int_equal(sockopt_set(&r->e, r->k, IPPROTO_TCP, TCP_NODELAY, &one, 1, 0), SOCKOPT_NOT_OURS);
	assert_int_equal(sockopt_set(&r->e, r->k, SOL_SOCKET, SO_LINGER, &one, 1, 0), -EINVAL);
	sender_free(r);
}

static void half_of_notsent_lowat_wakes_a_writer(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);

	(void)state;
	r->t->snd_max_wnd = 2000; /* bursts of one segment */
	r->t->cwnd = 2000;
	assert_int_equal(set_int(r, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 4000), 0);
	assert_int_equal(sender_write(r, 50000, 0), 2000 + 4000);
	assert_false(tcp_poll(&r->e, r->k) & EV_OUT);
	sender_ack(r, 1000, 1 << 16, 0);
	assert_false(tcp_poll(&r->e, r->k) & EV_OUT); /* 2000 not sent is not less than half of 4000 */
	sender_ack(r, 2000, 1 << 16, 0);
	assert_true(r->t->snd_end - r->t->snd_nxt < 2000);
	assert_true(tcp_poll(&r->e, r->k) & EV_OUT);
	sender_free(r);
}

/* A program may set the DS field, TCP has the two bits below it (RFC 3168 5, as Linux). */
static void the_ecn_field_is_tcps_own(void **state)
{
	struct sender *r = sender_new(VNIC_FEAT_CSUM_TX, 1000);

	(void)state;
	assert_int_equal(set_int(r, IPPROTO_IP, IP_TOS, 0xbb), 0);
	assert_int_equal(r->k->tos, 0xb8);
	assert_int_equal(set_int(r, IPPROTO_IPV6, IPV6_TCLASS, 0x2f), 0);
	assert_int_equal(r->k->tos, 0x2c);
	assert_false(info(r).tcpi_options & TCPI_OPT_ECN);
	r->t->flags |= TCPF_ECN;
	assert_true(info(r).tcpi_options & TCPI_OPT_ECN);
	sender_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_ecn_field_is_tcps_own),
	    cmocka_unit_test(tcp_info_counts_in_segments),
	    cmocka_unit_test(tcp_info_is_cut_to_what_is_asked_for_and_no_longer_than_linux),
	    cmocka_unit_test(what_is_set_is_read_back),
	    cmocka_unit_test(taking_the_error_clears_it),
	    cmocka_unit_test(what_the_engine_does_not_know_is_the_kernels),
	    cmocka_unit_test(half_of_notsent_lowat_wakes_a_writer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
