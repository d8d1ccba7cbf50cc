/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The provider `verbs`, viaduct-verbs.so, over a double of libibverbs that carries frames across a veth pair: stacks
 * at both ends, or a stack and Linux. Real time, one thread, a network namespace of the test's own.
 */
#include "unit/rings.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/test_clock.h"
#include "vnic/verbs.h"

#include "verbs/double.h"

#define AMOUNT (512u * 1024)
#define LIMIT_US 20000000ull /* a test that has not come to its end by then hangs */

static const struct verbs_api *api;

struct end {
	struct engine e;
	struct netview *view;
	struct verbs_nic *nic;
	uint32_t vnic;
	bool there, stop_tending;
	int tended; /* what the last tend said */
};

/* A stream from one to the other. Linux is the receiver where `to` is NULL. */
struct transfer {
	struct end *from, *to;
	struct sock *s, *r, *listener;
	int fd;
	uint32_t sent, received;
	int err;
};

static struct end ends[2];
static const char *const names[2] = {"vb0", "vb1"};

static uint8_t byte_at(uint32_t i)
{
	return (uint8_t)(i * 0x9e3779b1u >> 24);
}

static void run_command(const char *command)
{
	if (system(command) != 0) { /* NOLINT(cert-env33-c): commands of the test's own */
		fprintf(stderr, "failed: %s\n", command);
		abort();
	}
}

static struct verbs_about about_of(int i)
{
	struct verbs_about a = {.port = 1, .ifindex = 2, .mtu = 1500, .mac = {2, 1, 1, 1, 1, (uint8_t)(1 + i)}};

	snprintf(a.device, sizeof(a.device), "%s", names[i]);
	return a;
}

static struct end *end_new(int i)
{
	struct verbs_about about = about_of(i);
	struct stack_config cfg = test_config();
	struct end *x = &ends[i];
	int vnic;

	*x = (struct end){.there = true};
	cfg.secret[0] = (uint8_t)i;
	test_stack_new(&x->e, &cfg, now_us());
	x->view = view_pair(i, about.mtu);
	x->e.view = x->view;
	assert_int_equal(api->open(&about, &x->nic), 0);
	vnic = engine_vnic_alloc(&x->e);
	assert_true(vnic >= 0);
	x->vnic = (uint32_t)vnic;
	assert_int_equal(api->attach(x->nic, &x->e.vnic[vnic], stack_vnic(x->e.s, x->vnic)), 0);
	return x;
}

static void ends_free(void)
{
	for (int i = 0; i < 2; i++) {
		if (!ends[i].there)
			continue;
		assert_int_equal(stack_audit(&ends[i].e), 0);
		api->close(ends[i].nic);
		view_free(ends[i].view);
		test_stack_free(&ends[i].e);
		ends[i].there = false;
	}
	assert_int_equal(double_open_things(), 0);
}

static struct vnic *vnic_of(struct end *x)
{
	return &x->e.vnic[x->vnic];
}

static void step_end(struct end *x)
{
	int fd[2];

	if (!x->there)
		return;
	engine_poll(&x->e, now_us(), 64);
	engine_tick(&x->e, now_us());
	api->kick(vnic_of(x));
	api->fds(x->nic, fd);
	if (!x->stop_tending && (api->trouble(x->nic) || poll(&(struct pollfd){.fd = fd[1], .events = POLLIN}, 1, 0))) {
		x->tended = api->tend(vnic_of(x));
		if (x->tended == -ENODEV)
			engine_vnic_dead(&x->e, x->vnic, now_us());
	}
}

static void steer(struct end *x, uint16_t port, bool add)
{
	struct verbs_flow f = {.proto = IPPROTO_TCP, .local_port = port};

	view_addr(f.local, x == ends ? "10.0.0.1" : "10.0.0.2");
	if (add)
		assert_int_equal(api->flow_add(x->nic, &f), 0);
	else
		api->flow_remove(x->nic, &f);
}

static struct endpoint at(struct end *x, uint16_t port)
{
	return test_addr4(x == ends ? 1 : 2, port);
}

static struct sock *new_socket(struct end *x)
{
	struct sock *k = sock_alloc(&x->e, SOCK_TCP, 4);

	k->holders = 1;
	return k;
}

/* The sender connects from port 4000 to port 80; bytes go as soon as they can. */
static void start(struct transfer *t, struct end *from, struct end *to)
{
	struct endpoint local = at(from, 4000), remote = test_addr4(2, 80);
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(80), .sin_addr.s_addr = htonl(0x0a000002)};
	int one = 1;

	*t = (struct transfer){.from = from, .to = to, .fd = -1};
	if (to) {
		t->listener = new_socket(to);
		t->listener->local = remote;
		sock_hash(to->e.s, t->listener);
		assert_int_equal(tcp_listen(&to->e, t->listener, 8), 0);
		steer(to, 80, true);
	} else {
		t->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		assert_int_equal(setsockopt(t->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
		assert_int_equal(bind(t->fd, (struct sockaddr *)&in, sizeof(in)), 0);
		assert_int_equal(listen(t->fd, 8), 0);
	}
	steer(from, 4000, true);
	t->s = new_socket(from);
	assert_int_equal(tcp_connect(&from->e, t->s, from->vnic, &local, &remote, now_us()), 0);
}

static void compare(struct transfer *t, const uint8_t *got, ssize_t n)
{
	for (ssize_t i = 0; i < n; i++)
		assert_int_equal(got[i], byte_at(t->received + (uint32_t)i));
	t->received += n > 0 ? (uint32_t)n : 0;
}

static void step_sender(struct transfer *t)
{
	static uint8_t block[16384];
	struct iovec iov = {block, AMOUNT - t->sent < sizeof(block) ? AMOUNT - t->sent : sizeof(block)};
	ssize_t n;

	if (t->err || !iov.iov_len || t->s->tcp.state == TCP_SYN_SENT)
		return;
	for (uint32_t i = 0; i < iov.iov_len; i++)
		block[i] = byte_at(t->sent + i);
	n = tcp_send(&t->from->e, t->s, &iov, 1, 0, 0, now_us());
	t->sent += n > 0 ? (uint32_t)n : 0;
	t->err = n < 0 && n != -EAGAIN ? (int)-n : 0;
}

static void step_receiver(struct transfer *t)
{
	static uint8_t block[16384];
	struct iovec iov = {block, sizeof(block)};
	int i, fd;

	if (!t->to) {
		fd = accept4(t->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			close(t->fd);
			t->fd = fd;
		}
		compare(t, block, recv(t->fd, block, sizeof(block), 0));
		return;
	}
	if (!t->r && (i = tcp_accept(&t->to->e, t->listener)) > 0) {
		t->r = sock_at(t->to->e.s, (uint32_t)i);
		t->r->holders = 1;
	}
	if (t->r)
		compare(t, block, tcp_recv(&t->to->e, t->r, &iov, 1, 0, 0, now_us()));
}

/* Until so much has come, or the sender has an error; false: neither happened in time. */
static bool run_until(struct transfer *t, uint32_t received)
{
	uint64_t until = now_us() + LIMIT_US;

	while (t->received < received && !t->err && now_us() < until) {
		step_end(&ends[0]);
		step_end(&ends[1]);
		step_sender(t);
		step_receiver(t);
	}
	return t->received >= received || t->err;
}

static void finish(struct transfer *t)
{
	if (t->fd >= 0)
		close(t->fd);
	ends_free();
}

static void let_pass(int ms)
{
	for (int i = 0; i < ms; i++) {
		step_end(&ends[0]);
		step_end(&ends[1]);
		usleep(1000);
	}
}

/* Begin a transfer between two stacks and come to its middle. */
static void to_the_middle(struct transfer *t)
{
	end_new(0);
	end_new(1);
	start(t, &ends[0], &ends[1]);
	assert_true(run_until(t, AMOUNT / 4));
	assert_int_equal(t->err, 0);
}

static void to_the_end(struct transfer *t)
{
	assert_true(run_until(t, AMOUNT));
	assert_int_equal(t->err, 0);
	assert_int_equal(t->received, AMOUNT);
}

/* --- */

static void bytes_reach_linux_unaltered(void **state)
{
	struct transfer t;
	struct double_counts before = double_counts(names[0]), after;

	(void)state;
	run_command("ip addr add 10.0.0.2/24 dev vb1 && ip neigh replace 10.0.0.1 lladdr 02:01:01:01:01:01 dev vb1");
	end_new(0);
	start(&t, &ends[0], NULL);
	to_the_end(&t);
	after = double_counts(names[0]);
	assert_true(after.checksums > before.checksums); /* the device's, and Linux took them */
	finish(&t);
	run_command("ip addr flush dev vb1");
}

static void bytes_go_from_stack_to_stack_unaltered(void **state)
{
	struct transfer t;

	(void)state;
	to_the_middle(&t);
	to_the_end(&t);
	assert_int_equal(stack_vnic(ends[0].e.s, ends[0].vnic)->stats.bad_desc, 0);
	assert_int_equal(api->counters(ends[0].nic)->failed_work, 0);
	finish(&t);
}

static void sends_share_doorbells_and_completions_and_short_ones_are_inlined(void **state)
{
	struct double_counts a = double_counts(names[0]), b;
	struct transfer t;

	(void)state;
	to_the_middle(&t);
	to_the_end(&t);
	b = double_counts(names[0]);
	assert_true(2 * (b.doorbells - a.doorbells) < b.sends - a.sends);
	assert_int_equal(b.signalled - a.signalled, b.doorbells - a.doorbells);
	assert_true(b.inlined > a.inlined);
	finish(&t);
}

static void every_buffer_comes_back(void **state)
{
	struct transfer t;
	struct vnic_state *st;

	(void)state;
	to_the_middle(&t);
	to_the_end(&t);
	let_pass(200);
	st = stack_vnic(ends[0].e.s, ends[0].vnic);
	assert_int_equal(st->free_top, st->tx_count);
	assert_int_equal(st->rx_held, 0);
	finish(&t);
}

static void a_broken_queue_pair_is_made_anew(void **state)
{
	struct transfer t;

	(void)state;
	to_the_middle(&t);
	double_inject(names[0], DOUBLE_QP);
	to_the_end(&t);
	assert_int_equal(api->counters(ends[0].nic)->qp_fatal, 1);
	assert_true(api->counters(ends[0].nic)->remade >= 1);
	finish(&t);
}

static void work_that_failed_tells_of_a_broken_queue_pair_without_an_event(void **state)
{
	struct transfer t;

	(void)state;
	to_the_middle(&t);
	ends[0].stop_tending = true;
	double_inject(names[0], DOUBLE_QP);
	for (int i = 0; i < 1000 && !api->trouble(ends[0].nic); i++) {
		step_end(&ends[0]);
		step_sender(&t);
		step_end(&ends[1]);
		step_receiver(&t);
		usleep(1000);
	}
	assert_int_equal(api->counters(ends[0].nic)->failed_work, 1);
	ends[0].stop_tending = false;
	to_the_end(&t);
	finish(&t);
}

static void an_overrun_completion_queue_is_made_anew(void **state)
{
	struct transfer t;

	(void)state;
	to_the_middle(&t);
	double_inject(names[1], DOUBLE_CQ);
	to_the_end(&t);
	assert_int_equal(api->counters(ends[1].nic)->cq_error, 1);
	assert_int_equal(api->counters(ends[1].nic)->remade, 1);
	finish(&t);
}

static void frames_that_the_send_queue_refuses_are_sent_again(void **state)
{
	struct transfer t;

	(void)state;
	to_the_middle(&t);
	double_inject(names[0], DOUBLE_SEND);
	to_the_end(&t);
	assert_true(api->counters(ends[0].nic)->refused >= 1);
	assert_int_equal(api->counters(ends[0].nic)->remade, 1);
	finish(&t);
}

static void queues_that_can_not_be_made_anew_are_tried_again(void **state)
{
	struct transfer t;

	(void)state;
	to_the_middle(&t);
	double_refuse_qps(3, ENOMEM);
	double_inject(names[0], DOUBLE_QP);
	to_the_end(&t);
	double_refuse_qps(0, 0);
	assert_int_equal(api->counters(ends[0].nic)->remake_failed, 3);
	assert_int_equal(api->counters(ends[0].nic)->remade, 1);
	finish(&t);
}

static void a_removed_device_ends_connections_with_an_error(void **state)
{
	struct transfer t;
	struct verbs_flow f = {.proto = IPPROTO_TCP, .local_port = 9};

	(void)state;
	to_the_middle(&t);
	double_inject(names[0], DOUBLE_REMOVED);
	assert_true(run_until(&t, AMOUNT));
	assert_true(t.err > 0);
	assert_int_equal(ends[0].tended, -ENODEV);
	assert_int_equal(api->counters(ends[0].nic)->device_gone, 1);
	assert_int_equal(api->flow_add(ends[0].nic, &f), -ENODEV);
	finish(&t);
}

static void a_port_without_a_link_is_told_and_its_connections_go_on_later(void **state)
{
	struct transfer t;

	(void)state;
	to_the_middle(&t);
	double_inject(names[0], DOUBLE_DOWN);
	let_pass(20);
	assert_int_equal(stack_iface(ends[0].e.s, ends[0].vnic)->link_down, 1);
	double_inject(names[0], DOUBLE_UP);
	to_the_end(&t);
	assert_int_equal(stack_iface(ends[0].e.s, ends[0].vnic)->link_down, 0);
	assert_int_equal(api->counters(ends[0].nic)->port_down, 1);
	assert_int_equal(api->counters(ends[0].nic)->port_up, 1);
	finish(&t);
}

static void what_no_filter_names_stays_with_the_kernel(void **state)
{
	struct transfer t;
	uint64_t before;

	(void)state;
	end_new(0);
	end_new(1);
	start(&t, &ends[0], &ends[1]);
	steer(&ends[1], 80, false);
	before = double_counts(names[1]).receives;
	let_pass(20);
	assert_true(double_counts(names[0]).sends > 0);
	assert_int_equal(double_counts(names[1]).receives, before);
	assert_int_equal(t.s->tcp.state, TCP_SYN_SENT);
	steer(&ends[1], 80, true); /* the SYN's second time */
	to_the_end(&t);
	finish(&t);
}

static void who_sleeps_is_woken_by_a_frame(void **state)
{
	struct transfer t;
	int fd[2];

	(void)state;
	to_the_middle(&t);
	api->fds(ends[1].nic, fd);
	assert_int_equal(poll(&(struct pollfd){.fd = fd[0], .events = POLLIN}, 1, 0), 0); /* nobody asked */
	while (engine_poll(&ends[1].e, now_us(), 64))
		;
	assert_int_equal(api->arm(vnic_of(&ends[1])), 0);
	while (engine_poll(&ends[1].e, now_us(), 64))
		;
	step_sender(&t);
	step_end(&ends[0]);
	assert_int_equal(poll(&(struct pollfd){.fd = fd[0], .events = POLLIN}, 1, 5000), 1);
	assert_int_equal(api->counters(ends[1].nic)->armed, 1);
	to_the_end(&t);
	finish(&t);
}

static void a_device_that_can_not_be_had_gives_its_errno(void **state)
{
	struct verbs_about about = about_of(0);
	struct verbs_nic *nic;

	(void)state;
	double_refuse_qps(1, EPERM);
	assert_int_equal(api->open(&about, &nic), -EPERM);
	double_refuse_qps(0, 0);
	about.port = 2;
	assert_int_equal(api->open(&about, &nic), -EINVAL);
	about = about_of(0);
	about.mtu = 20000;
	assert_int_equal(api->open(&about, &nic), -EMSGSIZE);
	about = about_of(0);
	strcpy(about.device, "none");
	assert_int_equal(api->open(&about, &nic), -ENODEV);
	assert_int_equal(double_open_things(), 0);
}

/* Linux does itself what it would leave to a device: a veth does none of it, and the double takes frames as on a wire.
 */
static void no_offload(const char *name)
{
	static const uint32_t off[] = {ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	for (unsigned i = 0; i < sizeof(off) / sizeof(off[0]); i++) {
		struct ethtool_value value = {.cmd = off[i]};
		struct ifreq ask = {.ifr_data = (void *)&value};

		snprintf(ask.ifr_name, sizeof(ask.ifr_name), "%s", name);
		if (ioctl(fd, SIOCETHTOOL, &ask) < 0)
			abort();
	}
	close(fd);
}

static void make_world(void)
{
	void *object;

	if (unshare(CLONE_NEWNET) < 0)
		exit(77);
	run_command("ip link add vb0 address 02:01:01:01:01:01 type veth peer name vb1 address 02:01:01:01:01:02");
	run_command(
	    "sysctl -qw net.ipv6.conf.all.disable_ipv6=1; ip link set lo up; ip link set vb0 up && ip link set vb1 up");
	no_offload(names[0]);
	no_offload(names[1]);
	double_add(names[0]);
	double_add(names[1]);
	object = dlopen(VERBS_OBJECT, RTLD_NOW | RTLD_LOCAL);
	if (!object) {
		fprintf(stderr, "%s\n", dlerror());
		abort();
	}
	api = dlsym(object, "viaduct_verbs");
	if (!api || api->version != VERBS_VERSION)
		abort();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(bytes_reach_linux_unaltered),
	    cmocka_unit_test(bytes_go_from_stack_to_stack_unaltered),
	    cmocka_unit_test(sends_share_doorbells_and_completions_and_short_ones_are_inlined),
	    cmocka_unit_test(every_buffer_comes_back),
	    cmocka_unit_test(a_broken_queue_pair_is_made_anew),
	    cmocka_unit_test(work_that_failed_tells_of_a_broken_queue_pair_without_an_event),
	    cmocka_unit_test(an_overrun_completion_queue_is_made_anew),
	    cmocka_unit_test(frames_that_the_send_queue_refuses_are_sent_again),
	    cmocka_unit_test(queues_that_can_not_be_made_anew_are_tried_again),
	    cmocka_unit_test(a_port_without_a_link_is_told_and_its_connections_go_on_later),
	    cmocka_unit_test(what_no_filter_names_stays_with_the_kernel),
	    cmocka_unit_test(who_sleeps_is_woken_by_a_frame),
	    cmocka_unit_test(a_device_that_can_not_be_had_gives_its_errno),
	    cmocka_unit_test(a_removed_device_ends_connections_with_an_error), /* it stays away: the last one */
	};

	make_world();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
