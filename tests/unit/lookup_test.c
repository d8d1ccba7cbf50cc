/* SPDX-License-Identifier: BSD-2-Clause */
/* Which socket a packet belongs to. */
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine_pair.h"

static struct endpoint any4(uint16_t port)
{
	struct endpoint ep = {.addr = {[10] = 0xff, [11] = 0xff}, .port = port};

	return ep;
}

static struct endpoint any6(uint16_t port)
{
	struct endpoint ep = {.port = port};

	return ep;
}

static struct sock *bound(struct engine *e, enum sock_proto proto, int family, struct endpoint local, uint32_t flags)
{
	struct sock *k = sock_alloc(e, proto, family);

	assert_non_null(k);
	k->local = local;
	k->flags |= flags;
	sock_hash(e->s, k);
	return k;
}

static void a_connection_is_found_by_its_four_tuple_only(void **state)
{
	struct engine *e = ((struct pair *)*state)->e[0];
	struct endpoint local = v4(1, 80), remote = v4(2, 5000), other = v4(2, 5001);
	struct sock *k = sock_alloc(e, SOCK_TCP, 4);

	k->local = local;
	k->remote = remote;
	sock_hash(e->s, k);
	assert_ptr_equal(sock_lookup(e->s, SOCK_TCP, &local, &remote), k);
	assert_null(sock_lookup(e->s, SOCK_UDP, &local, &remote));
	assert_null(sock_lookup(e->s, SOCK_TCP, &local, &other));
	assert_null(sock_lookup(e->s, SOCK_TCP, &remote, &local));
	assert_null(sock_lookup_bound(e->s, SOCK_TCP, &local));
	sock_unhash(e->s, k);
	assert_null(sock_lookup(e->s, SOCK_TCP, &local, &remote));
}

static void the_exact_address_comes_before_any(void **state)
{
	struct engine *e = ((struct pair *)*state)->e[0];
	struct endpoint there = v4(1, 80), elsewhere = v4(7, 80), six = v6(1, 80);
	struct sock *six_any = bound(e, SOCK_TCP, 6, any6(80), 0), *four_any = bound(e, SOCK_TCP, 4, any4(80), 0);
	struct sock *exact = bound(e, SOCK_TCP, 4, v4(1, 80), 0);

	assert_ptr_equal(sock_lookup_bound(e->s, SOCK_TCP, &there), exact);
	assert_ptr_equal(sock_lookup_bound(e->s, SOCK_TCP, &elsewhere), four_any);
	assert_ptr_equal(sock_lookup_bound(e->s, SOCK_TCP, &six), six_any);
	sock_unhash(e->s, four_any);
	assert_ptr_equal(sock_lookup_bound(e->s, SOCK_TCP, &elsewhere), six_any);
	sock_unhash(e->s, exact);
	assert_ptr_equal(sock_lookup_bound(e->s, SOCK_TCP, &there), six_any);
	there.port = 81;
	assert_null(sock_lookup_bound(e->s, SOCK_TCP, &there));
}

static void v6only_keeps_ipv4_out(void **state)
{
	struct engine *e = ((struct pair *)*state)->e[0];
	struct endpoint four = v4(1, 80), six = v6(1, 80);
	struct sock *k = bound(e, SOCK_UDP, 6, any6(80), SOCKF_V6ONLY);

	assert_null(sock_lookup_bound(e->s, SOCK_UDP, &four));
	assert_ptr_equal(sock_lookup_bound(e->s, SOCK_UDP, &six), k);
}

static void an_ipv4_any_never_takes_ipv6(void **state)
{
	struct engine *e = ((struct pair *)*state)->e[0];
	struct endpoint six = v6(1, 80), four = v4(3, 81), six81 = v6(1, 81);
	struct sock *mapped;

	bound(e, SOCK_UDP, 4, any4(80), 0);
	bound(e, SOCK_UDP, 4, any6(80), 0); /* an IPv4 socket whose address is still all zero */
	assert_null(sock_lookup_bound(e->s, SOCK_UDP, &six));
	mapped = bound(e, SOCK_UDP, 6, any4(81), 0); /* bound to ::ffff:0.0.0.0 */
	assert_ptr_equal(sock_lookup_bound(e->s, SOCK_UDP, &four), mapped);
	assert_null(sock_lookup_bound(e->s, SOCK_UDP, &six81));
}

/* The call must end the process with an assertion. */
static void assert_aborts(void (*call)(struct stack *, struct sock *), struct stack *s, struct sock *k)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct rlimit no_core = {0, 0};

		setrlimit(RLIMIT_CORE, &no_core);
		assert_non_null(freopen("/dev/null", "w", stderr));
		signal(SIGABRT, SIG_DFL);
		call(s, k);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void free_it(struct stack *s, struct sock *k)
{
	struct engine e = {.s = s};

	sock_free(&e, k);
}

static void filing_twice_or_forgetting_to_unfile_is_caught(void **state)
{
	struct engine *e = ((struct pair *)*state)->e[0];
	struct sock *k = bound(e, SOCK_UDP, 4, v4(1, 80), 0);

	assert_aborts(sock_hash, e->s, k);
	assert_aborts(free_it, e->s, k);
	sock_unhash(e->s, k);
	assert_aborts(sock_unhash, e->s, k);
	sock_free(e, k);
}

static uint64_t thread_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Longest chain of the table. */
static uint32_t longest_chain(struct stack *s)
{
	const uint32_t *head = (const uint32_t *)(const void *)((char *)s + s->off_hash);
	uint32_t longest = 0;

	for (uint32_t b = 0; b < s->cfg.hash_buckets; b++) {
		uint32_t n = 0;

		for (struct sock *k = sock_at(s, head[b]); k; k = sock_at(s, k->hash_next))
			n++;
		longest = n > longest ? n : longest;
	}
	return longest;
}

/* Endpoints as a peer might choose them: dense in address, dense in port, equal low bits. */
static void choose(uint32_t i, struct endpoint *local, struct endpoint *remote)
{
	*local = v4(1, 443);
	*remote = v4(2, 0);
	if (i % 3 == 0) {
		remote->port = (uint16_t)(1024 + i / 3);
	} else if (i % 3 == 1) {
		remote->addr[13] = (uint8_t)(1 + (i >> 16));
		remote->addr[14] = (uint8_t)(i >> 8);
		remote->addr[15] = (uint8_t)i;
		remote->port = 4096;
	} else {
		*remote = v6((uint8_t)i, 443);
		put_be32(remote->addr + 4, i << 8);
	}
}

static void a_hundred_thousand_connections_cost_no_more_than_a_few(void **state)
{
	const uint32_t n = 100000;
	struct stack_config cfg = pair_config();
	struct pair *t;
	uint64_t ns;

	(void)state;
	cfg.max_socks = n + 1;
	cfg.hash_buckets = 1 << 17;
	t = pair_make(&cfg);
	for (uint32_t i = 0; i < n; i++) {
		struct sock *k = sock_alloc(t->e[0], SOCK_TCP, 6);

		assert_non_null(k);
		choose(i, &k->local, &k->remote);
		sock_hash(t->e[0]->s, k);
	}
	assert_null(sock_alloc(t->e[0], SOCK_TCP, 6));
	assert_int_equal(COUNTED(t->e[0], sock_none), 1);
	assert_true(longest_chain(t->e[0]->s) < 20);
	ns = thread_ns();
	for (uint32_t i = 0; i < n; i++) {
		struct endpoint local, remote;

		choose(i, &local, &remote);
		assert_int_equal(sock_index(t->e[0]->s, sock_lookup(t->e[0]->s, SOCK_TCP, &local, &remote)), i + 1);
	}
	ns = thread_ns() - ns;
	print_message("lookup among 100000: %llu ns each\n", (unsigned long long)(ns / n));
	for (uint32_t i = 0; i < n; i++) {
		struct sock *k = sock_at(t->e[0]->s, i + 1);

		sock_unhash(t->e[0]->s, k);
		sock_free(t->e[0], k);
	}
	assert_int_equal(longest_chain(t->e[0]->s), 0);
	assert_quiet(t);
	pair_free(t);
}

int main(void)
{
#define WITH_STACK(f) cmocka_unit_test_setup_teardown(f, pair_setup, pair_teardown)
	const struct CMUnitTest tests[] = {
	    WITH_STACK(a_connection_is_found_by_its_four_tuple_only),
	    WITH_STACK(the_exact_address_comes_before_any),
	    WITH_STACK(v6only_keeps_ipv4_out),
	    WITH_STACK(an_ipv4_any_never_takes_ipv6),
	    WITH_STACK(filing_twice_or_forgetting_to_unfile_is_caught),
	    cmocka_unit_test(a_hundred_thousand_connections_cost_no_more_than_a_few),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
