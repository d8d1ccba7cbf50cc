/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the interface's program does with a frame, run by the kernel on frames made here (BPF_PROG_TEST_RUN): to the
 * stack's veth, or on to the kernel. The frames' bytes are then cut and spoiled everywhere.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <net/if.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/port.h"
#include "daemon/steer.h"
#include "viaduct/daemon.h"
#include "viaduct/netview.h"
#include "world.h"

#define STACK 5u

static struct steer *steer;
static struct port rings;
static struct netview view;
static uint8_t mac[6] = {2, 0, 0, 0, 0, 1};

struct frame {
	uint8_t byte[256];
	uint32_t len;
};

/* --- frames --- */

static void put(struct frame *f, const void *data, uint32_t len)
{
	memcpy(f->byte + f->len, data, len);
	f->len += len;
}

static void put16(struct frame *f, unsigned int value)
{
	uint16_t v = htons((uint16_t)value);

	put(f, &v, 2);
}

static struct frame ethernet(const uint8_t to[6], int vlan, unsigned int type)
{
	static const uint8_t from[6] = {2, 0, 0, 0, 0, 2};
	struct frame f = {0};

	put(&f, to, 6);
	put(&f, from, 6);
	if (vlan) {
		put16(&f, ETH_P_8021Q);
		put16(&f, (unsigned int)vlan);
	}
	put16(&f, type);
	return f;
}

/* fragment: as the header has it, flags and offset. options: bytes of them. */
static void put_v4(struct frame *f, uint8_t proto, const char *from, const char *to, unsigned int fragment,
		   unsigned int options)
{
	uint8_t head[60] = {(uint8_t)(0x45 + options / 4)};

	head[6] = (uint8_t)(fragment >> 8);
	head[7] = (uint8_t)fragment;
	head[8] = 64;
	head[9] = proto;
	inet_pton(AF_INET, from, head + 12);
	inet_pton(AF_INET, to, head + 16);
	put(f, head, 20 + options);
}

static void put_v6(struct frame *f, uint8_t proto, const char *from, const char *to)
{
	uint8_t head[40] = {0x60};

	head[6] = proto;
	head[7] = 64;
	inet_pton(AF_INET6, from, head + 8);
	inet_pton(AF_INET6, to, head + 24);
	put(f, head, sizeof(head));
}

static void put_tcp(struct frame *f, unsigned int from, unsigned int to, uint8_t flags)
{
	uint8_t rest[16] = {0};

	put16(f, from);
	put16(f, to);
	rest[8] = 0x50;
	rest[9] = flags;
	put(f, rest, sizeof(rest));
}

static void put_udp(struct frame *f, unsigned int from, unsigned int to)
{
	put16(f, from);
	put16(f, to);
	put16(f, 8);
	put16(f, 0);
}

static void put_icmp(struct frame *f, uint8_t type)
{
	uint8_t head[8] = {type};

	put(f, head, sizeof(head));
}

/* --- the program --- */

static uint32_t run_on(const struct frame *f, uint32_t repeat, uint32_t *ns)
{
	struct xdp_md ctx = {.ingress_ifindex = v0_index(), .data_end = f->len};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = f->byte, .data_size_in = f->len, .ctx_in = &ctx,
		    .ctx_size_in = sizeof(ctx), .repeat = (int)repeat);

	assert_int_equal(bpf_prog_test_run_opts(steer_program(steer), &opts), 0);
	if (ns)
		*ns = opts.duration;
	return opts.retval;
}

static void assert_steered(const struct frame *f)
{
	assert_int_equal(run_on(f, 1, NULL), XDP_REDIRECT);
}

static void assert_kernels(const struct frame *f)
{
	assert_int_equal(run_on(f, 1, NULL), XDP_PASS);
}

static void steer_port(uint8_t proto, int family, const char *local, uint16_t port, const char *remote, uint16_t rport)
{
	struct steer_key k = {
	    .proto = proto, .family = (uint8_t)family, .local_port = htons(port), .remote_port = htons(rport)};
	struct steer_target t = {.stack = STACK};

	if (local && family == 4)
		mapped(k.local, local);
	else if (local)
		inet_pton(AF_INET6, local, k.local);
	if (remote)
		mapped(k.remote, remote);
	assert_int_equal(steer_filter_set(steer, &k, &t), 0);
}

static int set_up(void **state)
{
	static const int vlans[] = {0, 10};
	struct steer_outer outer = {.stack = STACK};
	struct steer_port port = {.mode = DAEMON_MODE_VETH};
	const char *why;

	(void)state;
	assert_int_equal(steer_start(&steer, false, false, &why), 0);
	assert_int_equal(port_open(if_nametoindex("lo"), 1, 1500, &rings), 0);
	for (unsigned int i = 0; i < 2; i++) {
		struct steer_if_key where = {v0_index(), (uint32_t)vlans[i]};
		int number = steer_iface(steer, &where, v0_index() + i, mac);

		assert_int_equal(number, i);
		assert_int_equal(steer_port_set(steer, i, STACK, &port), 0);
		assert_int_equal(steer_veth(steer, i, STACK, v0_index(), &outer), 0);
		assert_int_equal(steer_xsk(steer, i, STACK, 0, rings.xsk[0]), 0);
	}
	view.version = 1;
	view.copy[1].addrs = 1;
	mapped(view.copy[1].addr[0].addr, HERE4);
	steer_view(steer, &view);
	assert_int_equal(steer_kinds_set(steer, &(struct steer_kinds){1, 1, 1, 0}), 0);
	steer_port(IPPROTO_TCP, 4, HERE4, 80, NULL, 0);
	steer_port(IPPROTO_UDP, 4, NULL, 90, NULL, 0);
	steer_port(IPPROTO_TCP, 4, HERE4, 100, THERE4, 200);
	steer_port(IPPROTO_TCP, 6, HERE6, 80, NULL, 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	port_close(&rings);
	steer_stop(steer);
	return 0;
}

static struct frame tcp4(const char *to, unsigned int from_port, unsigned int to_port)
{
	struct frame f = ethernet(mac, 0, ETH_P_IP);

	put_v4(&f, IPPROTO_TCP, THERE4, to, 0, 0);
	put_tcp(&f, from_port, to_port, 0x10);
	return f;
}

static struct frame udp4(const char *to, unsigned int to_port, unsigned int fragment)
{
	struct frame f = ethernet(mac, 0, ETH_P_IP);

	put_v4(&f, IPPROTO_UDP, THERE4, to, fragment, 0);
	put_udp(&f, 1, to_port);
	return f;
}

/* --- tests --- */

static void ports_and_flows_are_found_and_nothing_else(void **state)
{
	struct frame f;

	(void)state;
	f = tcp4(HERE4, 5, 80);
	assert_steered(&f);
	f = tcp4(HERE4, 5, 81);
	assert_kernels(&f);
	f = tcp4("10.77.0.5", 5, 80);
	assert_kernels(&f);
	f = tcp4(HERE4, 200, 100);
	assert_steered(&f);
	f = tcp4(HERE4, 201, 100);
	assert_kernels(&f);
	f = udp4(HERE4, 80, 0);
	assert_kernels(&f);
}

static void a_port_at_any_address_is_one_of_this_machines(void **state)
{
	struct frame f = udp4(HERE4, 90, 0);

	(void)state;
	assert_steered(&f);
	f = udp4("10.77.0.5", 90, 0);
	assert_kernels(&f);
	f = udp4("224.0.0.1", 90, 0);
	assert_kernels(&f);
}

static void ipv6_tags_and_options_are_parsed(void **state)
{
	struct frame f = ethernet(mac, 0, ETH_P_IPV6);

	(void)state;
	put_v6(&f, IPPROTO_TCP, THERE6, HERE6);
	put_tcp(&f, 5, 80, 0x10);
	assert_steered(&f);
	f = ethernet(mac, 10 | 0xe000, ETH_P_IP);
	put_v4(&f, IPPROTO_TCP, THERE4, HERE4, 0, 0);
	put_tcp(&f, 5, 80, 2);
	assert_steered(&f);
	f = ethernet(mac, 11, ETH_P_IP);
	put_v4(&f, IPPROTO_TCP, THERE4, HERE4, 0, 0);
	put_tcp(&f, 5, 80, 2);
	assert_kernels(&f);
	f = ethernet(mac, 0, ETH_P_IP);
	put_v4(&f, IPPROTO_TCP, THERE4, HERE4, 0, 12);
	put_tcp(&f, 5, 80, 2);
	assert_steered(&f);
}

/* Its veth may still be there. */
static void frames_for_a_stack_that_is_gone_are_the_kernels(void **state)
{
	struct frame f = tcp4(HERE4, 1000, 80);

	(void)state;
	assert_int_equal(steer_kinds_set(steer, &(struct steer_kinds){1, 1, 1, 0}), 0);
	assert_steered(&f);
	port_close(&rings);
	assert_kernels(&f);
}

/* A device may take the tag out and tell it to the kernel alone. */
static void a_frame_without_its_tag_goes_to_the_stack_that_has_the_vlan(void **state)
{
	struct steer_if_key taken_out = {v0_index(), steer_untagged(STACK + 1)}, second = {v0_index() + 7, 10};
	struct steer_outer outer = {.stack = STACK + 1};
	struct steer_port port = {.mode = DAEMON_MODE_VETH};
	struct steer_key k = {.proto = IPPROTO_TCP, .family = 4, .local_port = htons(300)};
	struct steer_target t = {.stack = STACK + 1};
	struct frame f = tcp4(HERE4, 5, 300), strange;

	(void)state;
	mapped(k.local, HERE4);
	assert_int_equal(steer_filter_set(steer, &k, &t), 0);
	assert_int_equal(steer_port_set(steer, 1, STACK + 1, &port), 0);
	assert_int_equal(steer_veth(steer, 1, STACK + 1, v0_index(), &outer), 0);
	assert_int_equal(steer_xsk(steer, 1, STACK + 1, 0, rings.xsk[0]), 0);
	assert_kernels(&f);
	assert_int_equal(steer_iface(steer, &taken_out, v0_index() + 1, mac), 1);
	assert_steered(&f);
	/* of other stacks it says nothing */
	strange = tcp4(HERE4, 5, 81);
	assert_kernels(&strange);
	/* the same interface by another device: a bond's */
	assert_int_equal(steer_iface(steer, &second, v0_index() + 1, mac), 1);
	steer_iface_gone(steer, &second);
	steer_iface_gone(steer, &taken_out);
	assert_kernels(&f);
	steer_filter_clear(steer, &k);
}

static void what_is_odd_is_the_kernels(void **state)
{
	static const uint8_t other[6] = {2, 9, 9, 9, 9, 9};
	struct frame f = udp4(HERE4, 90, 0x2000);

	(void)state;
	assert_kernels(&f); /* fragments: the first, a later one */
	f = udp4(HERE4, 90, 0x0003);
	assert_kernels(&f);
	f = udp4(HERE4, 90, 0x4000); /* DF is none */
	assert_steered(&f);
	f = ethernet(other, 0, ETH_P_IP); /* somebody else's station */
	put_v4(&f, IPPROTO_TCP, THERE4, HERE4, 0, 0);
	put_tcp(&f, 5, 80, 2);
	assert_kernels(&f);
	f = ethernet(mac, 0, ETH_P_IPV6); /* hop-by-hop options first */
	put_v6(&f, 0, THERE6, HERE6);
	put_tcp(&f, 5, 80, 2);
	assert_kernels(&f);
	f = ethernet(mac, 0, ETH_P_ARP);
	put_udp(&f, 1, 90);
	put_udp(&f, 1, 90);
	assert_kernels(&f);
}

/* Sent by a router about what HERE4:80 sent to THERE4:5. */
static struct frame error4(uint8_t type, const char *about_from, unsigned int about_port, unsigned int fragment)
{
	struct frame f = ethernet(mac, 0, ETH_P_IP);

	put_v4(&f, IPPROTO_ICMP, "10.77.0.254", HERE4, 0, 0);
	put_icmp(&f, type);
	put_v4(&f, IPPROTO_TCP, about_from, THERE4, fragment, 0);
	put16(&f, about_port);
	put16(&f, 5);
	put_icmp(&f, 0); /* any further bytes */
	return f;
}

static void icmp_errors_follow_what_they_quote(void **state)
{
	static const uint8_t types[] = {3, 11, 12};
	struct frame f;

	(void)state;
	for (unsigned int i = 0; i < sizeof(types); i++) {
		f = error4(types[i], HERE4, 80, 0);
		assert_steered(&f);
	}
	f = error4(5, HERE4, 80, 0); /* a redirect is the kernel's */
	assert_kernels(&f);
	f = error4(3, HERE4, 81, 0);
	assert_kernels(&f);
	f = error4(3, THERE4, 80, 0);
	assert_kernels(&f);
	f = error4(3, HERE4, 80, 0x0003); /* of a later fragment: there are no ports */
	assert_kernels(&f);
	f = error4(3, HERE4, 80, 0x2000);
	assert_steered(&f);
	f = ethernet(mac, 0, ETH_P_IPV6);
	put_v6(&f, IPPROTO_ICMPV6, "fd77::9", HERE6);
	put_icmp(&f, 2);
	put_v6(&f, IPPROTO_TCP, HERE6, THERE6);
	put_tcp(&f, 80, 5, 2);
	assert_steered(&f);
	f.byte[54] = 128; /* an echo */
	assert_kernels(&f);
}

static void frames_that_end_early_or_are_spoiled_do_no_harm(void **state)
{
	struct frame whole = error4(3, HERE4, 80, 0);

	(void)state;
	for (uint32_t len = ETH_HLEN; len < whole.len; len++) {
		struct frame f = whole;
		uint32_t result;

		f.len = len;
		result = run_on(&f, 1, NULL);
		assert_true(result == XDP_PASS || (result == XDP_REDIRECT && len >= 14 + 20 + 8 + 20 + 8));
	}
	for (uint32_t i = 0; i < whole.len * 8; i++) {
		struct frame f = whole;

		f.byte[i / 8] ^= (uint8_t)(1u << i % 8);
		assert_in_range(run_on(&f, 1, NULL), XDP_PASS, XDP_REDIRECT);
	}
}

static void a_frame_takes_less_than_a_microsecond(void **state)
{
	struct frame f = udp4(HERE4, 90, 0), other = udp4(HERE4, 91, 0);
	uint32_t steered, passed;

	(void)state;
	run_on(&f, 100000, &steered);
	run_on(&other, 100000, &passed);
	print_message(
	    "with filters of all kinds, a frame for a port at any address: %u ns; one for the kernel: %u ns\n", steered,
	    passed);
	assert_int_equal(steer_kinds_set(steer, &(struct steer_kinds){0, 0, 1, 0}), 0);
	run_on(&f, 100000, &steered);
	run_on(&other, 100000, &passed);
	print_message("with ports at any address only: %u ns; %u ns\n", steered, passed);
	assert_true(steered < 1000 && passed < 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(ports_and_flows_are_found_and_nothing_else),
	    cmocka_unit_test(a_port_at_any_address_is_one_of_this_machines),
	    cmocka_unit_test(ipv6_tags_and_options_are_parsed),
	    cmocka_unit_test(a_frame_without_its_tag_goes_to_the_stack_that_has_the_vlan),
	    cmocka_unit_test(what_is_odd_is_the_kernels),
	    cmocka_unit_test(icmp_errors_follow_what_they_quote),
	    cmocka_unit_test(frames_that_end_early_or_are_spoiled_do_no_harm),
	    cmocka_unit_test(a_frame_takes_less_than_a_microsecond),
	    /* the last: the socket does not come back */
	    cmocka_unit_test(frames_for_a_stack_that_is_gone_are_the_kernels),
	};

	return world_make() ? cmocka_run_group_tests(tests, set_up, tear_down) : 77;
}
