/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rendezvous: two processes that may share a wire get one; anybody else gets a refusal in bounded time, and no
 * refusal leaves a descriptor behind. What hostile peers send is in rendezvous_hostile_test.c.
 */
#define _GNU_SOURCE
#include "rdv_peers.h"

/* --- the good case --- */

static void two_processes_get_a_wire_and_each_others_doorbells(void **state)
{
	(void)state;
	int before = open_fds();
	struct server s = start((struct plan){SOCK_TCP, 4, at4("127.0.0.1", 0), .serve = serve_one});
	struct rdv_wire w;
	bool squatted = true;
	assert_int_equal(try_connect(&s, 4, at4("127.0.0.1", 0), TIMEOUT_MS, &w, &squatted), 0);
	assert_false(squatted);
	assert_int_equal(w.link.pid, s.pid);
	assert_int_equal(w.link.uid, geteuid());
	assert_int_equal(w.end, 0);
	void *mem = mmap(NULL, wire_size(), PROT_READ | PROT_WRITE, MAP_SHARED, w.memfd, 0);
	assert_ptr_not_equal(mem, MAP_FAILED);
	assert_int_equal(wire_check(mem, wire_size()), 0);
	assert_int_equal(ftruncate(w.memfd, 4096), -1);
	munmap(mem, wire_size());
	/* The server rang our second doorbell through its copy. */
	struct pollfd p = {.fd = bell[1], .events = POLLIN};
	eventfd_t count;
	assert_int_equal(poll(&p, 1, TIMEOUT_MS), 1);
	assert_int_equal(eventfd_read(bell[1], &count), 0);
	assert_int_equal(count, 7);
	assert_true(host_fd_is_ours(w.memfd) && host_fd_is_ours(w.life_fd));
	/* And its end shows on the life descriptor. */
	struct pollfd life = {.fd = w.life_fd, .events = 0};
	assert_int_equal(poll(&life, 1, 0), 0);
	stop(&s);
	assert_int_equal(poll(&life, 1, TIMEOUT_MS), 1);
	assert_true(life.revents & POLLHUP);
	wire_close(&w);
	assert_int_equal(open_fds(), before);
}

/* --- a wire that both have --- */

/* Each side of these tests has one wire: of this nonce, to whatever stack and process. */
static const uint8_t shared_wire[16] = "a wire they have";

static bool have_wire(void *arg, struct rdv_link *link, bool exact)
{
	(void)arg;
	if (exact && memcmp(link->nonce, shared_wire, sizeof(shared_wire)))
		return false;
	memcpy(link->nonce, shared_wire, sizeof(shared_wire));
	return link->pid != 0;
}

static bool have_none(void *arg, struct rdv_link *link, bool exact)
{
	(void)arg;
	(void)link;
	return !exact;
}

static void serve_known(int listen_fd)
{
	struct rdv_self has = me;
	struct rdv_wire w;
	struct pollfd p = {.fd = listen_fd, .events = POLLIN};
	has.find = have_wire;
	for (int i = 0; i < 2; i++) {
		poll(&p, 1, TIMEOUT_MS);
		int rc = rdv_accept(listen_fd, &has, TIMEOUT_MS, &w);
		/* First it hangs up content, then it lacks that wire. */
		assert_int_equal(rc, i ? 0 : -EPROTO);
	}
	wire_close(&w);
}

static void a_wire_that_both_sides_know_is_agreed_upon(void **state)
{
	(void)state;
	int before = open_fds();
	struct server s = start((struct plan){SOCK_TCP, 4, at4("127.0.0.1", 0), .serve = serve_known});
	struct rdv_wire w;
	bool squatted;
	me.find = have_wire;
	assert_int_equal(try_connect(&s, 4, at4("127.0.0.1", 0), TIMEOUT_MS, &w, &squatted), RDV_KNOWN);
	assert_memory_equal(w.link.nonce, shared_wire, sizeof(shared_wire));
	assert_int_equal(w.link.pid, s.pid);
	assert_true(w.memfd == -1 && w.life_fd == -1);
	me.find = have_none;
	assert_int_equal(try_connect(&s, 4, at4("127.0.0.1", 0), TIMEOUT_MS, &w, &squatted), 0);
	assert_memory_not_equal(w.link.nonce, shared_wire, sizeof(shared_wire));
	me.find = NULL;
	wire_close(&w);
	stop(&s);
	assert_int_equal(open_fds(), before);
}

static void expect_reach(struct plan plan, int family, struct endpoint to, int expected)
{
	struct rdv_wire w;
	bool squatted;
	plan.proto = SOCK_TCP;
	plan.serve = expected ? NULL : serve_one;
	struct server s = start(plan);
	int rc = try_connect(&s, family, to, TIMEOUT_MS, &w, &squatted);
	assert_int_equal(rc, expected);
	if (!rc)
		wire_close(&w);
	stop(&s);
}

static void listeners_at_any_address_are_found(void **state)
{
	(void)state;
	struct plan any4 = {.family = 4, .ep = at4("0.0.0.0", 0)}, any6 = {.family = 6, .ep = at6("::", 0)};
	struct plan only6 = {.family = 6, .ep = at6("::", 0), .v6only = true};
	expect_reach(any4, 4, at4("127.0.0.1", 0), 0);
	expect_reach(any4, 4, at4("127.9.9.9", 0), 0);
	expect_reach(any4, 4, at4("0.0.0.0", 0), 0);
	expect_reach(any4, 6, at4("127.0.0.1", 0), 0);
	expect_reach(any6, 6, at6("::1", 0), 0);
	expect_reach(any6, 4, at4("127.0.0.1", 0), 0);
	expect_reach(only6, 6, at6("::1", 0), 0);
	expect_reach(only6, 4, at4("127.0.0.1", 0), -ECONNREFUSED);
	expect_reach(any4, 6, at6("::1", 0), -ECONNREFUSED);
}

static void udp_sockets_meet_too(void **state)
{
	(void)state;
	struct server s = start((struct plan){SOCK_UDP, 4, at4("127.0.0.1", 0), .serve = serve_one});
	struct rdv_wire w;
	bool squatted;
	assert_int_equal(rdv_connect(SOCK_UDP, 4, &s.ep, &me, TIMEOUT_MS, &w, &squatted), 0);
	wire_close(&w);
	stop(&s);
}

static void nobody_there_is_refused_at_once(void **state)
{
	(void)state;
	struct endpoint ep = at4("127.0.0.1", 0);
	int fd = kernel_socket(SOCK_TCP, 4, &ep, false);
	int before = open_fds();
	struct rdv_wire w;
	assert_int_equal(rdv_connect(SOCK_TCP, 4, &ep, &me, TIMEOUT_MS, &w, NULL), -ECONNREFUSED);
	assert_int_equal(open_fds(), before);
	close(fd);
}

static void a_name_can_be_taken_once(void **state)
{
	(void)state;
	struct endpoint ep = at4("127.0.0.1", 1);
	int fd = rdv_listen(SOCK_TCP, 4, &ep, false);
	assert_true(fd >= 0);
	int before = open_fds();
	assert_int_equal(rdv_listen(SOCK_TCP, 4, &ep, false), -EADDRINUSE);
	assert_int_equal(open_fds(), before);
	host_fd_close(fd);
}

/* --- squatters and other users --- */

static void a_name_without_its_port_is_squatted(void **state)
{
	(void)state;
	struct endpoint ep = at4("127.0.0.1", 0);
	int fd = kernel_socket(SOCK_TCP, 4, &ep, false);
	close(fd);
	struct server s = start((struct plan){SOCK_TCP, 4, ep, .no_port = true});
	int before = open_fds();
	struct rdv_wire w;
	bool squatted = false;
	assert_int_equal(try_connect(&s, 4, ep, TIMEOUT_MS, &w, &squatted), -EPERM);
	assert_true(squatted);
	assert_int_equal(open_fds(), before);
	stop(&s);
}

static void a_name_of_another_processs_port_is_squatted(void **state)
{
	(void)state;
	/* The owner's own name is at another address, so that the squatter can have this one. */
	struct server owner = start((struct plan){SOCK_TCP, 4, at4("0.0.0.0", 0), .serve = serve_one});
	struct server thief = start((struct plan){SOCK_TCP, 4, at4("127.0.0.1", owner.ep.port), .no_port = true});
	struct rdv_wire w;
	bool squatted = false;
	/* The squatter is passed over, and the owner found behind its wildcard name. */
	assert_int_equal(try_connect(&thief, 4, at4("127.0.0.1", 0), TIMEOUT_MS, &w, &squatted), 0);
	assert_int_equal(w.link.pid, owner.pid);
	wire_close(&w);
	stop(&thief); /* first: it has a copy of the owner's pipe */
	stop(&owner);
}

static void a_worker_may_answer_by_a_name_that_its_master_took(void **state)
{
	(void)state;
	struct server s = start((struct plan){SOCK_TCP, 4, at4("127.0.0.1", 0), .worker = true, .serve = serve_one});
	struct rdv_wire w;
	bool squatted = false;
	assert_int_equal(try_connect(&s, 4, s.ep, TIMEOUT_MS, &w, &squatted), 0);
	wire_close(&w);
	stop(&s);
}

static void another_user_cannot_squat(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	/* The port's owner is this process, the squatter's parent: descent alone gives no right to its name. */
	struct endpoint ep = at4("127.0.0.1", 0);
	close(kernel_socket(SOCK_TCP, 4, &ep, false));
	struct server s = start((struct plan){SOCK_TCP, 4, ep, .no_port = true, .uid = 65534});
	int fd = kernel_socket(SOCK_TCP, 4, &ep, false);
	struct rdv_wire w;
	bool squatted = false;
	assert_int_equal(try_connect(&s, 4, ep, TIMEOUT_MS, &w, &squatted), -EPERM);
	assert_true(squatted);
	close(fd);
	stop(&s);
}

/* A server of one user and a client of another, neither of them root. */
static void other_users_are_refused_unless_allowed(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	struct server s = start((struct plan){SOCK_TCP, 4, at4("127.0.0.1", 0), .uid = 65534, .serve = serve_one});
	pid_t pid = fork();
	if (pid == 0) {
		struct rdv_wire w;
		bool squatted;
		if (setresuid(1234, 1234, 1234) < 0)
			_exit(9);
		int rc = rdv_connect(SOCK_TCP, 4, &s.ep, &me, TIMEOUT_MS, &w, &squatted);
		_exit(rc == -EPERM && !squatted ? 0 : 1);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	stop(&s);
}

/* Root serves, somebody else connects: neither gets a descriptor by which it could make the other's write block. */
static void serve_untrusted(int listen_fd)
{
	struct rdv_wire w;
	struct pollfd p = {.fd = listen_fd, .events = POLLIN};
	poll(&p, 1, TIMEOUT_MS);
	assert_int_equal(rdv_accept(listen_fd, &me, TIMEOUT_MS, &w), 0);
	assert_true(w.link.uid == 1234 && w.doorbell[0] == -1 && w.doorbell[1] == -1);
	p.fd = w.life_fd;
	rdv_ring(w.life_fd, 2);
	assert_int_equal(poll(&p, 1, TIMEOUT_MS), 1);
	assert_int_equal(rdv_rung(w.life_fd), 1 << 1);
	wire_close(&w);
}

static void doorbells_are_not_shared_with_users_who_are_not_trusted(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	struct server s = start((struct plan){SOCK_TCP, 4, at4("127.0.0.1", 0), .serve = serve_untrusted});
	pid_t pid = fork();
	if (pid == 0) {
		struct rdv_wire w;
		bool squatted;
		if (setresuid(1234, 1234, 1234) < 0)
			_exit(9);
		if (rdv_connect(SOCK_TCP, 4, &s.ep, &me, TIMEOUT_MS, &w, &squatted) != 0)
			_exit(1);
		struct pollfd p = {.fd = w.life_fd, .events = POLLIN};
		rdv_ring(w.life_fd, 1);
		int good = w.doorbell[0] == -1 && poll(&p, 1, TIMEOUT_MS) == 1 && rdv_rung(w.life_fd) == 1 << 2;
		_exit(good ? 0 : 1);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	stop(&s);
}

/* --- peers that stop --- */

static int64_t now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void a_server_that_never_answers_times_out(void **state)
{
	(void)state;
	struct server s = start((struct plan){SOCK_TCP, 4, at4("127.0.0.1", 0)});
	int before = open_fds();
	struct rdv_wire w;
	bool squatted;
	int64_t begin = now_ms();
	assert_int_equal(try_connect(&s, 4, s.ep, SHORT_MS, &w, &squatted), -ETIMEDOUT);
	assert_in_range(now_ms() - begin, SHORT_MS - 5, 100 * SHORT_MS);
	assert_int_equal(open_fds(), before);
	stop(&s);
}

static void a_full_backlog_times_out(void **state)
{
	(void)state;
	struct server s = start((struct plan){SOCK_TCP, 4, at4("127.0.0.1", 0)});
	int fds[256], n = 0;
	while (n < 256 && (fds[n] = plain_connect(&s.ep)) >= 0)
		n++;
	assert_int_equal(fds[n], -EAGAIN);
	int before = open_fds();
	struct rdv_wire w;
	bool squatted;
	assert_int_equal(try_connect(&s, 4, s.ep, SHORT_MS, &w, &squatted), -ETIMEDOUT);
	assert_int_equal(open_fds(), before);
	while (n--)
		close(fds[n]);
	stop(&s);
}

static void a_server_that_hangs_up_counts_as_nobody(void **state)
{
	(void)state;
	struct server s = start((struct plan){SOCK_TCP, 4, at4("127.0.0.1", 0)});
	pid_t pid = fork();
	if (pid == 0) {
		usleep(20000);
		kill(s.pid, SIGKILL);
		_exit(0);
	}
	int before = open_fds(), status;
	struct rdv_wire w;
	bool squatted;
	assert_int_equal(try_connect(&s, 4, s.ep, TIMEOUT_MS, &w, &squatted), -ECONNREFUSED);
	assert_int_equal(open_fds(), before);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(waitpid(s.pid, &status, 0), s.pid);
	close(s.hold);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(two_processes_get_a_wire_and_each_others_doorbells),
	    cmocka_unit_test(a_wire_that_both_sides_know_is_agreed_upon),
	    cmocka_unit_test(listeners_at_any_address_are_found),
	    cmocka_unit_test(udp_sockets_meet_too),
	    cmocka_unit_test(nobody_there_is_refused_at_once),
	    cmocka_unit_test(a_name_can_be_taken_once),
	    cmocka_unit_test(a_name_without_its_port_is_squatted),
	    cmocka_unit_test(a_name_of_another_processs_port_is_squatted),
	    cmocka_unit_test(a_worker_may_answer_by_a_name_that_its_master_took),
	    cmocka_unit_test(another_user_cannot_squat),
	    cmocka_unit_test(other_users_are_refused_unless_allowed),
	    cmocka_unit_test(doorbells_are_not_shared_with_users_who_are_not_trusted),
	    cmocka_unit_test(a_server_that_never_answers_times_out),
	    cmocka_unit_test(a_full_backlog_times_out),
	    cmocka_unit_test(a_server_that_hangs_up_counts_as_nobody),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
