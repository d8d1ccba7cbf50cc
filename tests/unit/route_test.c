/* SPDX-License-Identifier: BSD-2-Clause */
/* Routes, next hops and source addresses out of a page as viaductd publishes it, honest and not. */
#include "rings.h"

static int find(const struct netview *v, const char *to, const char *from, uint32_t ifindex, struct route *r)
{
	uint8_t a[16], b[16];

	view_addr(a, to);
	view_addr(b, from);
	return route_lookup(v, a, b, ifindex, 0, r);
}

static void assert_addr(const uint8_t got[16], const char *want)
{
	uint8_t a[16];

	view_addr(a, want);
	assert_memory_equal(got, a, 16);
}

/* Interface 2: 10.0.0.1/24, fd00::1/64, gateway 10.0.0.254; interface 3: 10.1.0.1/24. */
static struct netview *office(void)
{
	struct netview *v = view_new();

	view_iface(v, 2, 1500);
	view_iface(v, 3, 9000);
	view_own(v, 2, "10.0.0.1", 24);
	view_own(v, 3, "10.1.0.1", 24);
	view_own(v, 2, "fd00::1", 64);
	view_route(v, 2, "fd00::", 64, NULL);
	view_route(v, 2, "10.0.0.0", 24, NULL);
	view_route(v, 3, "10.1.0.0", 24, NULL);
	view_route(v, 2, "0.0.0.0", 0, "10.0.0.254");
	view_neigh(v, 2, "10.0.0.254", 254);
	view_neigh(v, 2, "10.0.0.2", 2);
	view_neigh(v, 3, "10.1.0.2", 22);
	view_neigh(v, 2, "fd00::2", 6);
	return v;
}

static void a_neighbour_on_the_link_is_its_own_next_hop(void **state)
{
	struct netview *v = office();
	struct route r;

	(void)state;
	assert_int_equal(find(v, "10.0.0.2", NULL, 0, &r), 0);
	assert_int_equal(r.ifindex, 2);
	assert_int_equal(r.mtu, 1500);
	assert_int_equal(r.resolved, 1);
	assert_int_equal(r.mac[5], 2);
	assert_addr(r.from, "10.0.0.1");
	assert_addr(r.via, "10.0.0.2");
	assert_int_equal(find(v, "fd00::2", NULL, 0, &r), 0);
	assert_int_equal(r.mac[5], 6);
	assert_addr(r.from, "fd00::1");
	view_free(v);
}

static void what_is_far_goes_by_the_gateway(void **state)
{
	struct netview *v = office();
	struct route r;

	(void)state;
	assert_int_equal(find(v, "192.0.2.1", NULL, 0, &r), 0);
	assert_addr(r.via, "10.0.0.254");
	assert_int_equal(r.mac[5], 254);
	assert_addr(r.from, "10.0.0.1");
	assert_int_equal(find(v, "2001:db8::1", NULL, 0, &r), -ENETUNREACH); /* the default route is IPv4's */
	view_free(v);
}

static void an_address_that_the_socket_has_is_kept(void **state)
{
	struct netview *v = office();
	struct route r;

	(void)state;
	assert_int_equal(find(v, "10.0.0.2", "10.1.0.1", 0, &r), 0);
	assert_addr(r.from, "10.1.0.1");
	assert_int_equal(r.ifindex, 2);
	view_free(v);
}

static void the_route_names_mtu_and_source(void **state)
{
	struct netview *v = office();
	struct netview_route *way = &view_copy(v)->route[1];
	struct route r;

	(void)state;
	way->mtu = 1400;
	view_addr(way->from, "10.0.0.77");
	assert_int_equal(find(v, "10.0.0.2", NULL, 0, &r), 0);
	assert_int_equal(r.mtu, 1400);
	assert_int_equal(r.link_mtu, 1500);
	assert_addr(r.from, "10.0.0.77");
	way->mtu = 65535;
	assert_int_equal(find(v, "10.0.0.2", NULL, 0, &r), 0);
	assert_int_equal(r.mtu, 1500); /* no packet is larger than the link takes */
	view_free(v);
}

static void a_bound_device_chooses_among_routes(void **state)
{
	struct netview *v = office();
	struct route r;

	(void)state;
	view_route(v, 3, "0.0.0.0", 0, "10.1.0.2")->metric = 100;
	assert_int_equal(find(v, "192.0.2.1", NULL, 3, &r), 0);
	assert_int_equal(r.ifindex, 3);
	assert_int_equal(r.mac[5], 22);
	assert_int_equal(find(v, "192.0.2.1", NULL, 9, &r), -ENOENT); /* Linux takes it for on-link there */
	view_free(v);
}

static void the_kernel_serves_what_is_not_ours(void **state)
{
	static const char *const theirs[] = {"127.0.0.1", "224.0.0.1", "255.255.255.255", "::1",
					     "ff02::1",   "fe80::1",   "0.0.0.0",         "10.9.0.1"};
	struct netview *v = office();
	struct netview_copy *c = view_copy(v);
	struct route r;

	(void)state;
	c->route[4] = c->route[3]; /* one before the default route: */
	c->routes = 5;
	view_addr(c->route[3].dst, "10.9.0.0");
	c->route[3].prefix = 96 + 16;
	c->route[3].type = NETVIEW_ROUTE_KERNEL;
	for (size_t i = 0; i < sizeof(theirs) / sizeof(theirs[0]); i++) {
		int ret = find(v, theirs[i], NULL, 0, &r);

		assert_true(ret == -ENOENT || ret == -ENETUNREACH);
		assert_true(ret == -ENOENT || strchr(theirs[i], ':'));
	}
	c->route[1].type = NETVIEW_ROUTE_LOCAL;
	assert_int_equal(find(v, "10.0.0.2", NULL, 0, &r), -ENOENT);
	assert_int_equal(find(v, "10.0.0.2", NULL, 3, &r), -ENOENT);
	view_own(v, 2, "10.0.0.254", 24); /* a gateway that is ourselves */
	assert_int_equal(find(v, "192.0.2.1", NULL, 0, &r), -ENOENT);
	c->addrs--;
	assert_int_equal(find(v, "192.0.2.1", NULL, 0, &r), 0);
	c->iface[1].flags &= ~NETVIEW_IF_ALLOWED;
	assert_int_equal(find(v, "10.1.0.2", NULL, 0, &r), -ENOENT);
	c->refuse = NETVIEW_REFUSE_RULES;
	assert_int_equal(find(v, "192.0.2.1", NULL, 0, &r), -ENOENT);
	assert_int_equal(route_lookup(NULL, r.via, r.from, 0, 0, &r), -ENOENT);
	view_free(v);
}

static void neighbours_that_are_not_there_are_told_apart(void **state)
{
	struct netview *v = office();
	struct route r;

	(void)state;
	assert_int_equal(find(v, "10.0.0.3", NULL, 0, &r), 0);
	assert_int_equal(r.resolved, 0);
	view_neigh(v, 2, "10.0.0.3", 0)->failed = 1;
	assert_int_equal(find(v, "10.0.0.3", NULL, 0, &r), -EHOSTUNREACH);
	assert_addr(r.via, "10.0.0.3");  /* so that it can be asked for again */
	view_neigh(v, 3, "10.0.0.4", 4); /* on another link: not this one */
	assert_int_equal(find(v, "10.0.0.4", NULL, 0, &r), 0);
	assert_int_equal(r.resolved, 0);
	view_free(v);
}

static void the_hash_spreads_flows_over_hops_by_weight(void **state)
{
	struct netview *v = office();
	uint32_t taken[2] = {0};
	uint8_t to[16], none[16] = {0};
	struct netview_route *way;
	struct route r;

	(void)state;
	view_copy(v)->routes--;
	way = view_route(v, 2, "0.0.0.0", 0, "10.0.0.254");
	way->hops = 2;
	way->weight = 1;
	view_route(v, 3, "0.0.0.0", 0, "10.1.0.2")->weight = 3;
	way[1].hops = 0;
	view_addr(to, "192.0.2.1");
	for (uint32_t i = 0; i < 1000; i++) {
		assert_int_equal(route_lookup(v, to, none, 0, i * 4294967u, &r), 0);
		taken[r.ifindex - 2]++;
	}
	assert_true(taken[0] > 240 && taken[0] < 260);
	view_copy(v)->iface[1].flags &= ~NETVIEW_IF_UP;
	for (uint32_t i = 0; i < 1000; i++) {
		assert_int_equal(route_lookup(v, to, none, 0, i * 4294967u, &r), 0);
		assert_int_equal(r.ifindex, 2); /* the other hop's link is down */
	}
	view_free(v);
}

static void ipv6_sources_follow_rfc_6724(void **state)
{
	struct netview *v = view_new();
	struct route r;

	(void)state;
	view_iface(v, 2, 1500);
	view_iface(v, 3, 1500);
	view_route(v, 2, "::", 0, "fe80::9");
	view_own(v, 2, "fe80::1", 64)->scope = 253;
	assert_int_equal(find(v, "2001:db8::1", NULL, 0, &r), 0); /* better than none */
	assert_addr(r.from, "fe80::1");
	view_own(v, 3, "2001:db8::77", 64);
	assert_int_equal(find(v, "2001:db8::1", NULL, 0, &r), 0); /* rule 2: scope before interface */
	assert_addr(r.from, "2001:db8::77");
	view_own(v, 2, "fd00::1", 64);
	view_own(v, 2, "2001:db8:1::1", 64);
	assert_int_equal(find(v, "2001:db8::1", NULL, 0, &r), 0); /* 5, then 6: label */
	assert_addr(r.from, "2001:db8:1::1");
	view_own(v, 2, "2001:db8:0:1::1", 64);
	assert_int_equal(find(v, "2001:db8::1", NULL, 0, &r), 0); /* 8: longest match */
	assert_addr(r.from, "2001:db8:0:1::1");
	view_own(v, 2, "2001:db8::5", 64)->flags = 0; /* 3: deprecated */
	assert_int_equal(find(v, "2001:db8::1", NULL, 0, &r), 0);
	assert_addr(r.from, "2001:db8:0:1::1");
	assert_int_equal(find(v, "fd00::2", NULL, 0, &r), 0); /* 6: private to private */
	assert_addr(r.from, "fd00::1");
	view_free(v);
}

static void ipv4_sources_are_of_the_gateways_network(void **state)
{
	struct netview *v = office();
	struct route r;

	(void)state;
	view_own(v, 2, "172.16.0.1", 16);
	view_route(v, 2, "203.0.113.0", 24, "172.16.0.254");
	view_copy(v)->route[3] = view_copy(v)->route[4]; /* no default any more */
	view_copy(v)->routes--;
	assert_int_equal(find(v, "203.0.113.1", NULL, 0, &r), 0);
	assert_addr(r.from, "172.16.0.1");
	view_copy(v)->addrs = 2;
	assert_int_equal(find(v, "203.0.113.1", NULL, 0, &r), 0);
	assert_addr(r.from, "10.0.0.1");
	view_copy(v)->addrs = 0;
	assert_int_equal(find(v, "203.0.113.1", NULL, 0, &r), -ENOENT);
	view_free(v);
}

static void a_page_of_another_kind_is_refused(void **state)
{
	struct netview *v = view_new();

	(void)state;
	assert_int_equal(netview_check(v, sizeof(*v)), 0);
	assert_int_equal(netview_check(v, sizeof(*v) - 1), -EPROTO);
	v->format++;
	assert_int_equal(netview_check(v, sizeof(*v)), -EPROTO);
	v->format--;
	v->size--;
	assert_int_equal(netview_check(v, sizeof(*v)), -EPROTO);
	v->size++;
	v->magic++;
	assert_int_equal(netview_check(v, sizeof(*v)), -EPROTO);
	view_free(v);
}

/* Whatever a page says, a lookup reads nothing beyond it (it ends at a guard) and comes back. */
static void a_hostile_page_does_no_harm(void **state)
{
	struct netview *v = office();
	struct netview_copy *c = view_copy(v);
	struct route r;

	(void)state;
	for (uint32_t i = 0; i < 4; i++) {
		uint32_t *counts[4] = {&c->ifaces, &c->addrs, &c->routes, &c->neighs}, old = *counts[i];

		*counts[i] = UINT32_MAX;
		assert_int_equal(find(v, "192.0.2.1", NULL, 0, &r), -ENOENT);
		*counts[i] = old;
	}
	srand(1);
	for (uint32_t n = 0; n < 300; n++) {
		uint8_t *p = (uint8_t *)c->iface;

		for (size_t i = 0; i < sizeof(*c) - offsetof(struct netview_copy, iface); i += 1 + rand() % 3)
			p[i] = (uint8_t)rand();
		c->ifaces = NETVIEW_IFACES;
		c->addrs = NETVIEW_ADDRS;
		c->routes = NETVIEW_ROUTES;
		c->neighs = NETVIEW_NEIGHS;
		c->route[NETVIEW_ROUTES - 1].hops = 255;
		c->route[n % NETVIEW_ROUTES].prefix = 96;
		view_addr(c->route[n % NETVIEW_ROUTES].dst, "1.2.3.4");
		for (uint32_t to = 0; to < 8; to++) {
			uint8_t a[16], from[16] = {0};

			view_addr(a, "192.0.2.1");
			a[12 + to % 4] = (uint8_t)rand();
			route_lookup(v, a, from, to & 1, (uint32_t)rand(), &r);
			assert_true(r.resolved <= 1);
		}
	}
	view_free(v);
}

/* --- sockets --- */

#define US 1000000ull

/* A stack with vNICs on interfaces 2 and 3, and a peer 10.0.0.2 on the first. */
struct machine {
	struct engine e;
	struct rings *r[2];
	uint32_t vnic[2];
	struct netview *v;
	uint64_t now;
	uint8_t frame[70000];
};

static struct machine *machine_new(void)
{
	struct machine *m = calloc(1, sizeof(*m));
	struct stack_config cfg = test_config();

	m->now = 100 * US;
	test_stack_new(&m->e, &cfg, m->now);
	m->v = office();
	m->e.view = m->v;
	for (int i = 0; i < 2; i++) {
		struct xdp_about about = {
		    .ifindex = 2 + (uint32_t)i, .mtu = 1500, .mac = {2, 0, 0, 0, 0, (uint8_t)(2 + i)}};

		m->r[i] = rings_new();
		m->vnic[i] = rings_join(m->r[i], &m->e, &about);
	}
	engine_tick(&m->e, m->now);
	return m;
}

static void machine_free(struct machine *m)
{
	assert_int_equal(stack_audit(&m->e), 0);
	view_free(m->v);
	rings_free(m->r[0]);
	rings_free(m->r[1]);
	test_stack_free(&m->e);
	free(m);
}

static uint32_t sent(struct machine *m, int i)
{
	uint32_t n = rings_take(m->r[i], m->frame, sizeof(m->frame));

	engine_poll(&m->e, m->now, 1); /* completions */
	return n;
}

static void later(struct machine *m, uint64_t us)
{
	uint64_t end = m->now + us, next;

	while ((next = engine_deadline(&m->e)) <= end) {
		m->now = next > m->now ? next : m->now + 1;
		engine_tick(&m->e, m->now);
	}
	m->now = end;
	engine_tick(&m->e, end);
}

static struct sock *machine_connect(struct machine *m, const char *to)
{
	struct sock *k = sock_alloc(&m->e, SOCK_TCP, 4);
	struct endpoint local = {.port = 4000}, remote = {.port = 80};
	struct route r;
	uint32_t vnic = m->vnic[0];

	view_addr(local.addr, "10.0.0.1");
	view_addr(remote.addr, to);
	route_to(&m->e, remote.addr, local.addr, 0, &vnic, &r);
	k->holders = 1;
	assert_int_equal(tcp_connect(&m->e, k, vnic, &local, &remote, m->now), 0);
	return k;
}

static void a_segment_goes_to_the_next_hop(void **state)
{
	static const uint8_t head[14] = {2, 1, 1, 1, 1, 2, 2, 0, 0, 0, 0, 2, 8, 0};
	struct machine *m = machine_new();

	(void)state;
	machine_connect(m, "10.0.0.2");
	assert_true(sent(m, 0) > 54);
	assert_memory_equal(m->frame, head, sizeof(head));
	assert_int_equal(sent(m, 0), 0);
	machine_free(m);
}

static void a_tag_is_put_on_frames_of_a_vlan(void **state)
{
	static const uint8_t tag[6] = {0x81, 0, 0, 7, 8, 0};
	struct machine *m = machine_new();

	(void)state;
	stack_vnic(m->e.s, m->vnic[0])->vlan = 7;
	machine_connect(m, "10.0.0.2");
	assert_true(sent(m, 0) > 58);
	assert_memory_equal(m->frame + 12, tag, sizeof(tag));
	assert_int_equal(m->frame[18], 0x45);
	machine_free(m);
}

static void a_neighbour_that_moves_is_followed(void **state)
{
	struct machine *m = machine_new();

	(void)state;
	machine_connect(m, "10.0.0.2");
	assert_true(sent(m, 0) > 0);
	view_change(m->v)->neigh[1].mac[5] = 99;
	later(m, 2 * US); /* the SYN again */
	assert_true(sent(m, 0) > 0);
	assert_int_equal(m->frame[5], 99);
	machine_free(m);
}

static void an_unresolved_neighbour_is_asked_for_and_waited_for(void **state)
{
	struct machine *m = machine_new();
	struct neigh_want w;

	(void)state;
	machine_connect(m, "10.0.0.9");
	assert_int_equal(sent(m, 0), 0);
	assert_true(route_wanted(&m->e, &w));
	assert_addr(w.addr, "10.0.0.9");
	assert_int_equal(w.ifindex, 2);
	assert_false(route_wanted(&m->e, &w)); /* once */
	later(m, 4000);
	assert_int_equal(sent(m, 0), 0);
	view_change(m->v);
	view_neigh(m->v, 2, "10.0.0.9", 9);
	later(m, 8000); /* long before the SYN's own timer */
	assert_true(sent(m, 0) > 0);
	assert_int_equal(m->frame[5], 9);
	later(m, 100000);
	assert_int_equal(sent(m, 0), 0); /* it went once */
	machine_free(m);
}

static void a_failed_neighbour_ends_an_attempt_to_connect(void **state)
{
	struct machine *m = machine_new();
	struct sock *k = machine_connect(m, "10.0.0.9");

	(void)state;
	view_change(m->v);
	view_neigh(m->v, 2, "10.0.0.9", 0)->failed = 1;
	later(m, 10000);
	assert_int_equal(k->so_error, EHOSTUNREACH);
	assert_int_equal(k->tcp.state, TCP_CLOSED);
	machine_free(m);
}

static void a_route_that_goes_away_ends_an_attempt_to_connect(void **state)
{
	struct machine *m = machine_new();
	struct sock *k = machine_connect(m, "10.0.0.9");

	(void)state;
	view_change(m->v)->routes = 0;
	later(m, 10000);
	assert_int_equal(k->so_error, ENETUNREACH);
	machine_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_neighbour_on_the_link_is_its_own_next_hop),
	    cmocka_unit_test(what_is_far_goes_by_the_gateway),
	    cmocka_unit_test(an_address_that_the_socket_has_is_kept),
	    cmocka_unit_test(the_route_names_mtu_and_source),
	    cmocka_unit_test(a_bound_device_chooses_among_routes),
	    cmocka_unit_test(the_kernel_serves_what_is_not_ours),
	    cmocka_unit_test(neighbours_that_are_not_there_are_told_apart),
	    cmocka_unit_test(the_hash_spreads_flows_over_hops_by_weight),
	    cmocka_unit_test(ipv6_sources_follow_rfc_6724),
	    cmocka_unit_test(ipv4_sources_are_of_the_gateways_network),
	    cmocka_unit_test(a_page_of_another_kind_is_refused),
	    cmocka_unit_test(a_hostile_page_does_no_harm),
	    cmocka_unit_test(a_segment_goes_to_the_next_hop),
	    cmocka_unit_test(a_tag_is_put_on_frames_of_a_vlan),
	    cmocka_unit_test(a_neighbour_that_moves_is_followed),
	    cmocka_unit_test(an_unresolved_neighbour_is_asked_for_and_waited_for),
	    cmocka_unit_test(a_failed_neighbour_ends_an_attempt_to_connect),
	    cmocka_unit_test(a_route_that_goes_away_ends_an_attempt_to_connect),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
