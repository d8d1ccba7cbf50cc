/* SPDX-License-Identifier: BSD-2-Clause */
/* Whose a group's frames are: daemon/groups.c over sockets and filters made up here. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define filters_add note_add
#define filters_del note_del
#define hearers_ask made_up
#define hearers_forwards forwarding
#include "daemon/groups.c"

static struct hearers sockets;
static bool forwarded;
static uint32_t has = NOBODY, changes;
static int refuse;

int note_add(struct filters *f, const struct steer_key *key, uint32_t stack, uint32_t uid, uint32_t id, bool shared)
{
	(void)f;
	(void)uid;
	assert_true(groups_key(key));
	assert_false(shared);
	assert_int_equal(has, NOBODY);
	if (refuse)
		return refuse;
	has = stack;
	changes++;
	return (int)id;
}

void note_del(struct filters *f, const struct steer_key *key, uint32_t stack)
{
	(void)f;
	(void)key;
	if (has != stack)
		return;
	has = NOBODY;
	changes++;
}

int made_up(__be16 port, struct hearers *p)
{
	*p = sockets;
	p->port = port;
	return 0;
}

bool forwarding(uint8_t family)
{
	return family == 4 && forwarded;
}

static void address(uint8_t to[16], const char *text)
{
	memset(to, 0, 16);
	if (strchr(text, ':')) {
		inet_pton(AF_INET6, text, to);
		return;
	}
	to[10] = to[11] = 0xff;
	inet_pton(AF_INET, text, to + 12);
}

static struct steer_key group(const char *text)
{
	struct steer_key k = {.proto = IPPROTO_UDP, .local_port = htons(5000)};

	address(k.local, text);
	k.family = strchr(text, ':') ? 6 : 4;
	return k;
}

static void binds(uint64_t inode, const char *text, uint8_t family)
{
	struct hearer *s = &sockets.at[sockets.count++];

	s->inode = inode;
	s->family = family;
	address(s->addr, text);
}

static struct groups *fresh(void)
{
	sockets.count = 0;
	forwarded = false;
	has = NOBODY;
	changes = 0;
	refuse = 0;
	return groups_new(NULL);
}

static int add(struct groups *g, const char *text, uint32_t stack, uint32_t id, uint64_t inode)
{
	struct steer_key k = group(text);

	return groups_add(g, &k, &(struct group_member){.stack = stack, .uid = stack, .id = id, .inode = inode});
}

static void del(struct groups *g, const char *text, uint32_t stack, uint32_t id)
{
	struct steer_key k = group(text);

	groups_del(g, &k, stack, id);
}

static void a_group_goes_to_the_stack_that_alone_hears_it(void **state)
{
	struct groups *g = fresh();

	(void)state;
	binds(100, "0.0.0.0", 4);
	assert_int_equal(add(g, "239.1.1.1", 1, 7, 100), 0);
	assert_int_equal(has, 1);
	del(g, "239.1.1.1", 1, 7);
	assert_int_equal(has, NOBODY);
	assert_int_equal(groups_run(g, 5), -1); /* nothing to look at */
	groups_free(g);
}

static void a_plain_socket_beside_makes_the_kernel_serve_both(void **state)
{
	static const struct {
		const char *addr;
		uint8_t family;
		bool hears;
	} other[] = {{"0.0.0.0", 4, true},    {"239.1.1.1", 4, true}, {"::", 0, true},      {"::", 6, false},
		     {"239.1.1.2", 4, false}, {"10.0.0.1", 4, false}, {"ff15::1", 6, false}};

	(void)state;
	for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++) {
		struct groups *g = fresh();

		binds(100, "0.0.0.0", 4);
		add(g, "239.1.1.1", 1, 7, 100);
		assert_int_equal(has, 1);
		binds(200, other[i].addr, other[i].family);
		assert_in_range(groups_run(g, 1000), 1, 10 * GROUPS_LOOK_MS);
		assert_int_equal(has, other[i].hears ? NOBODY : 1);
		sockets.count = 1; /* it goes again */
		groups_run(g, 1000 + GROUPS_LOOK_MS / 2);
		assert_int_equal(has, other[i].hears ? NOBODY : 1); /* not looked yet */
		groups_run(g, 100000);
		assert_int_equal(has, 1);
		groups_free(g);
	}
}

static void two_stacks_share_by_the_kernel(void **state)
{
	struct groups *g = fresh();

	(void)state;
	binds(100, "0.0.0.0", 4);
	add(g, "239.1.1.1", 1, 7, 100);
	binds(200, "239.1.1.1", 4);
	add(g, "239.1.1.1", 2, 3, 200);
	assert_int_equal(has, NOBODY);
	del(g, "239.1.1.1", 1, 7);
	sockets.at[0] = sockets.at[1];
	sockets.count = 1;
	groups_run(g, 1); /* at once */
	assert_int_equal(has, 2);
	groups_free(g);
}

static void several_sockets_of_one_stack_are_the_stacks(void **state)
{
	struct groups *g = fresh();

	(void)state;
	binds(100, "0.0.0.0", 4);
	binds(101, "0.0.0.0", 4);
	add(g, "239.1.1.1", 1, 7, 100);
	assert_int_equal(has, NOBODY); /* the other has not joined, but hears it from the kernel */
	add(g, "239.1.1.1", 1, 8, 101);
	assert_int_equal(has, 1);
	del(g, "239.1.1.1", 1, 7);
	sockets.at[0] = sockets.at[1];
	sockets.count = 1;
	groups_run(g, 1);
	assert_int_equal(has, 1);
	groups_free(g);
}

static void a_router_of_groups_has_them_all(void **state)
{
	struct groups *g = fresh();

	(void)state;
	forwarded = true;
	binds(100, "0.0.0.0", 4);
	binds(102, "::", 6);
	add(g, "239.1.1.1", 1, 7, 100);
	assert_int_equal(has, NOBODY);
	add(g, "ff15::1", 1, 9, 102);
	assert_int_equal(has, 1); /* not of IPv6 */
	groups_free(g);
}

static void nobody_has_more_than_a_share_of_the_groups(void **state)
{
	struct groups *g = fresh();
	uint32_t n = 0;
	char text[32];

	(void)state;
	refuse = -ENOSPC; /* and no room in the kernel's map does no harm */
	binds(100, "0.0.0.0", 4);
	while (snprintf(text, sizeof(text), "239.1.%u.%u", n / 250, n % 250), add(g, text, 1, n + 1, 100) == 0)
		n++;
	assert_int_equal(n, GROUPS_MAX / USERS_SHARE);
	assert_int_equal(add(g, "239.2.2.2", 2, 1, 100), 0);
	for (n = 2; add(g, "239.2.2.2", 2, n, 100) == 0; n++)
		assert_in_range(n, 2, HEARERS);
	assert_int_equal(n, HEARERS + 1);
	assert_int_equal(has, NOBODY);
	groups_free(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_group_goes_to_the_stack_that_alone_hears_it),
	    cmocka_unit_test(a_plain_socket_beside_makes_the_kernel_serve_both),
	    cmocka_unit_test(two_stacks_share_by_the_kernel),
	    cmocka_unit_test(several_sockets_of_one_stack_are_the_stacks),
	    cmocka_unit_test(a_router_of_groups_has_them_all),
	    cmocka_unit_test(nobody_has_more_than_a_share_of_the_groups),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
