/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rendezvous: two processes that may share a wire get one; anybody else gets a refusal in bounded time, and no
 * refusal leaves a descriptor behind. The other side of each case is a forked child, so that credentials and
 * descriptors are really another process's.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/handshake.h"
#include "host/host.h"
#include "vnic/vnic.h"

#define TIMEOUT_MS 2000
#define SHORT_MS 100

static int bell[2];
static struct rdv_self me = {.stack = "stack of this.."};

static int setup(void **state)
{
	(void)state;
	clock_init();
	bell[0] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	bell[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	memcpy(me.doorbell, bell, sizeof(bell));
	/* The first listener also takes the spare descriptor that stays. */
	struct endpoint ep = {.port = 1};
	int fd = rdv_listen(SOCK_TCP, 6, &ep, false);
	host_fd_close(fd);
	return fd < 0 || bell[0] < 0 || bell[1] < 0;
}

static int teardown(void **state)
{
	(void)state;
	close(bell[0]);
	close(bell[1]);
	return 0;
}

static int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;
	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static struct endpoint at4(const char *text, uint16_t port)
{
	struct endpoint ep = {.port = port};
	ep.addr[10] = ep.addr[11] = 0xff;
	assert_int_equal(inet_pton(AF_INET, text, ep.addr + 12), 1);
	return ep;
}

static struct endpoint at6(const char *text, uint16_t port)
{
	struct endpoint ep = {.port = port};
	assert_int_equal(inet_pton(AF_INET6, text, ep.addr), 1);
	return ep;
}

/* A kernel TCP listener (or UDP socket) at ep; fills in the port. */
static int kernel_socket(enum sock_proto proto, int family, struct endpoint *ep, bool v6only)
{
	struct sockaddr_storage ss;
	socklen_t len = addr_to_sockaddr(ep, family, &ss);
	int fd = socket(family == 4 ? AF_INET : AF_INET6, proto == SOCK_TCP ? SOCK_STREAM : SOCK_DGRAM, 0);
	int only = v6only, got;
	assert_true(fd >= 0);
	if (family == 6)
		assert_int_equal(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&ss, len), 0);
	if (proto == SOCK_TCP)
		assert_int_equal(listen(fd, 5), 0);
	len = sizeof(ss);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &len), 0);
	assert_int_equal(addr_from_sockaddr((struct sockaddr *)&ss, len, ep, &got), 0);
	return fd;
}

static void wire_close(struct rdv_wire *w)
{
	host_fd_close(w->memfd);
	host_fd_close(w->doorbell[0]);
	host_fd_close(w->doorbell[1]);
	host_fd_close(w->life_fd);
}

/* --- a server in a child: what it does after listening is the test's --- */

struct server {
	pid_t pid;
	struct endpoint ep;
	int hold; /* closing it ends the child */
};

struct plan {
	enum sock_proto proto;
	int family;
	struct endpoint ep;
	bool v6only;
	bool no_port; /* squatter: takes the name without the port */
	uid_t uid;    /* change to this user before all */
	void (*serve)(int listen_fd);
};

static void serve_one(int listen_fd)
{
	struct rdv_wire w;
	struct pollfd p = {.fd = listen_fd, .events = POLLIN};
	poll(&p, 1, TIMEOUT_MS);
	if (rdv_accept(listen_fd, &me, TIMEOUT_MS, &w) == 0)
		assert_int_equal(eventfd_write(w.doorbell[1], 7), 0);
}

static struct server start(struct plan plan)
{
	struct server s;
	int ready[2], hold[2];
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	assert_int_equal(pipe2(hold, O_CLOEXEC), 0);
	s.pid = fork();
	assert_true(s.pid >= 0);
	if (s.pid == 0) {
		char c;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(hold[1]);
		if (plan.uid && setresuid(plan.uid, plan.uid, plan.uid) < 0)
			_exit(9);
		if (!plan.no_port)
			kernel_socket(plan.proto, plan.family, &plan.ep, plan.v6only);
		int fd = rdv_listen(plan.proto, plan.family, &plan.ep, plan.v6only);
		if (fd < 0 || write(ready[1], &plan.ep, sizeof(plan.ep)) != sizeof(plan.ep))
			_exit(8);
		if (plan.serve)
			plan.serve(fd);
		while (read(hold[0], &c, 1) < 0)
			;
		_exit(0);
	}
	close(ready[1]);
	close(hold[0]);
	assert_int_equal(read(ready[0], &s.ep, sizeof(s.ep)), sizeof(s.ep));
	close(ready[0]);
	s.hold = hold[1];
	return s;
}

static void stop(struct server *s)
{
	int status;
	close(s->hold);
	assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
	assert_int_equal(status, 0);
}

static int try_connect(const struct server *s, int family, struct endpoint to, int timeout_ms, struct rdv_wire *w,
		       bool *squatted)
{
	to.port = s->ep.port;
	return rdv_connect(SOCK_TCP, family, &to, &me, timeout_ms, w, squatted);
}

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

static int plain_connect(const struct endpoint *ep)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int n = snprintf(un.sun_path + 1, sizeof(un.sun_path) - 1, "viaduct1/tcp/127.0.0.1/%u", ep->port);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (connect(fd, (struct sockaddr *)&un, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)) == 0)
		return fd;
	int err = -errno;
	close(fd);
	return err;
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

/* --- hostile connecting sides: what they send, rdv_accept refuses and keeps nothing --- */

static int plain_eventfd(void)
{
	return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static int plain_memfd(size_t size, unsigned seals)
{
	int fd = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	if (seals)
		assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

/* Sends h with these descriptors (all closed then) to a listener of this process; what does rdv_accept say? */
static int accept_after(const struct hello *h, size_t len, int *fds, int count)
{
	static uint16_t port = 1;
	struct endpoint ep = at4("127.0.0.1", port++);
	struct rdv_wire w;
	int before = open_fds() - count;
	int listen_fd = rdv_listen(SOCK_TCP, 4, &ep, false);
	int fd = plain_connect(&ep);
	assert_true(listen_fd >= 0 && fd >= 0);
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(16 * sizeof(int))] = {0};
	struct iovec iov = {(void *)h, len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	if (count) {
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, (size_t)count * sizeof(int));
	}
	if (len)
		assert_int_equal(sendmsg(fd, &msg, 0), len);
	for (int i = 0; i < count; i++)
		close(fds[i]);
	int rc = rdv_accept(listen_fd, &me, SHORT_MS, &w);
	if (rc == 0)
		wire_close(&w);
	close(fd);
	host_fd_close(listen_fd);
	assert_int_equal(open_fds(), before);
	return rc;
}

static struct hello good_hello(void)
{
	static const uint8_t nonce[16] = "0123456789abcde";
	struct hello h;
	hello_fill(&h, HELLO_MAKE, nonce, me.stack);
	return h;
}

static void a_good_hello_is_accepted(void **state)
{
	(void)state;
	struct hello h = good_hello();
	int fds[3] = {wire_memfd_make(), plain_eventfd(), plain_eventfd()};
	assert_int_equal(accept_after(&h, sizeof(h), fds, 3), 0);
}

static void a_silent_client_is_given_up(void **state)
{
	(void)state;
	struct hello h = good_hello();
	assert_int_equal(accept_after(&h, 0, NULL, 0), -EPROTO);
}

static void bad_hellos_are_refused(void **state)
{
	(void)state;
	for (size_t at = 0; at < offsetof(struct hello, nonce); at++) {
		struct hello h = good_hello();
		int fds[3] = {wire_memfd_make(), plain_eventfd(), plain_eventfd()};
		((uint8_t *)&h)[at] ^= 0x81;
		assert_int_equal(accept_after(&h, sizeof(h), fds, 3), -EPROTO);
	}
	struct {
		struct hello h;
		uint8_t more[8];
	} longer = {good_hello(), {0}};
	for (size_t len = 1; len <= sizeof(longer); len++) {
		int fds[3] = {wire_memfd_make(), plain_eventfd(), plain_eventfd()};
		assert_int_equal(accept_after(&longer.h, len, fds, 3), len == sizeof(struct hello) ? 0 : -EPROTO);
	}
}

static void a_wrong_number_of_descriptors_is_refused(void **state)
{
	(void)state;
	struct hello h = good_hello();
	for (int count = 0; count <= 16; count++) {
		int fds[16];
		fds[0] = wire_memfd_make();
		for (int i = 1; i < 16; i++)
			fds[i] = plain_eventfd();
		for (int i = count; i < 16; i++)
			close(fds[i]);
		int rc = accept_after(&h, sizeof(h), fds, count);
		if (count == 1 || count == 3) /* with doorbells or without */
			assert_int_equal(rc, 0);
		else
			assert_true(rc == -EPROTO || rc == -EMFILE);
	}
}

static void wires_that_could_fault_are_refused(void **state)
{
	(void)state;
	const unsigned good = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	struct hello h = good_hello();
	int bad[] = {plain_memfd(wire_size(), 0),
		     plain_memfd(wire_size(), F_SEAL_GROW | F_SEAL_SEAL),
		     plain_memfd(wire_size(), F_SEAL_SHRINK | F_SEAL_GROW),
		     plain_memfd(wire_size(), good | F_SEAL_WRITE),
		     plain_memfd(wire_size() - 4096, good),
		     plain_memfd(wire_size() + 4096, good),
		     plain_memfd(0, good),
		     open("/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600),
		     plain_eventfd()};
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int fds[3] = {bad[i], plain_eventfd(), plain_eventfd()};
		assert_true(bad[i] >= 0);
		assert_int_equal(accept_after(&h, sizeof(h), fds, 3), -EPROTO);
	}
}

static void doorbells_that_are_something_else_are_refused(void **state)
{
	(void)state;
	struct hello h = good_hello();
	for (int where = 1; where <= 2; where++) {
		int pipe_fds[2];
		assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
		close(pipe_fds[0]);
		int bad[] = {open("/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600), pipe_fds[1],
			     epoll_create1(EPOLL_CLOEXEC), plain_memfd(4096, 0),
			     socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
		for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			int fds[3] = {wire_memfd_make(), plain_eventfd(), plain_eventfd()};
			assert_true(bad[i] >= 0);
			close(fds[where]);
			fds[where] = bad[i];
			assert_int_equal(accept_after(&h, sizeof(h), fds, 3), -EPROTO);
		}
	}
}

/* Fill the table up to `room` free numbers; returns how many descriptors fill[] holds. */
static int fill_table(int *fill, int room)
{
	int n = 0;
	while ((fill[n] = dup(0)) >= 0)
		n++;
	while (room-- > 0)
		close(fill[--n]);
	return n;
}

static void a_full_descriptor_table_loses_nothing(void **state)
{
	(void)state;
	static int fill[1024];
	struct rlimit lim, tight;
	struct endpoint ep = at4("127.0.0.1", 1);
	int listen_fd = rdv_listen(SOCK_TCP, 4, &ep, false);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &lim), 0);
	tight = lim;
	tight.rlim_cur = 1024;
	/* From no room at all to almost enough: 4 descriptors are needed. */
	for (int room = 0; room < 4; room++) {
		struct hello h = good_hello();
		int fds[3] = {wire_memfd_make(), plain_eventfd(), plain_eventfd()};
		int fd = plain_connect(&ep);
		struct rdv_wire w;
		assert_int_equal(hello_send(fd, &h, fds, 3), 0);
		for (int i = 0; i < 3; i++)
			close(fds[i]);
		int before = open_fds();
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
		int n = fill_table(fill, room);
		int rc = rdv_accept(listen_fd, &me, SHORT_MS, &w);
		while (n--)
			close(fill[n]);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &lim), 0);
		assert_true(rc == -EMFILE || rc == -EPROTO);
		assert_int_equal(open_fds(), before);
		/* It was dealt with, not left in the queue, and its maker knows. */
		assert_int_equal(rdv_accept(listen_fd, &me, SHORT_MS, &w), -EAGAIN);
		assert_int_equal(hello_receive(fd, &h, fds, 0, handshake_now_ms() + SHORT_MS, NULL), 0);
		assert_true(h.kind == HELLO_REFUSE && h.status < 0);
		close(fd);
	}
	host_fd_close(listen_fd);
}

/* --- hostile accepting sides --- */

static int answer_kind;

static void answer_badly(int fd, struct hello *h)
{
	int give[3] = {plain_eventfd(), plain_eventfd(), plain_eventfd()};
	switch (answer_kind) {
	case 0: /* a file as doorbell */
		give[1] = open("/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
		hello_send(fd, h, give, 2);
		break;
	case 1: /* another nonce */
		h->nonce[3] ^= 1;
		hello_send(fd, h, give, 2);
		break;
	case 2: /* one doorbell */
		hello_send(fd, h, give, 1);
		break;
	case 3:
		hello_send(fd, h, give, 3);
		break;
	case 4: /* another version */
		h->version++;
		hello_send(fd, h, give, 2);
		break;
	case 5: /* a refusal */
		h->status = -EPROTO;
		hello_send(fd, h, NULL, 0);
		break;
	case 6: /* not who it was */
		h->stack[0] ^= 1;
		hello_send(fd, h, give, 2);
		break;
	case 7: /* an answer to something else */
		h->kind = HELLO_NEW;
		hello_send(fd, h, give, 2);
		break;
	default: /* something short */
		if (write(fd, "x", 1) != 1)
			_exit(7);
	}
}

static void serve_badly(int listen_fd)
{
	static const uint8_t stack[16] = "stack of server";
	struct pollfd p = {.fd = listen_fd, .events = POLLIN};
	poll(&p, 1, TIMEOUT_MS);
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	struct hello h;
	int got[3];
	hello_receive(fd, &h, got, 3, handshake_now_ms() + TIMEOUT_MS, NULL);
	assert_int_equal(h.kind, HELLO_ASK);
	if (answer_kind < 9) {
		hello_fill(&h, HELLO_NEW, h.nonce, stack);
		hello_send(fd, &h, NULL, 0);
		hello_receive(fd, &h, got, 3, handshake_now_ms() + TIMEOUT_MS, NULL);
	}
	hello_fill(&h, HELLO_MADE, h.nonce, stack);
	answer_badly(fd, &h);
}

static void bad_answers_are_refused(void **state)
{
	(void)state;
	for (answer_kind = 0; answer_kind < 10; answer_kind++) {
		struct server s = start((struct plan){SOCK_TCP, 4, at4("127.0.0.1", 0), .serve = serve_badly});
		int before = open_fds();
		struct rdv_wire w;
		bool squatted;
		assert_int_equal(try_connect(&s, 4, s.ep, TIMEOUT_MS, &w, &squatted), -EPROTO);
		assert_int_equal(open_fds(), before);
		stop(&s);
	}
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
	    cmocka_unit_test(another_user_cannot_squat),
	    cmocka_unit_test(other_users_are_refused_unless_allowed),
	    cmocka_unit_test(doorbells_are_not_shared_with_users_who_are_not_trusted),
	    cmocka_unit_test(a_server_that_never_answers_times_out),
	    cmocka_unit_test(a_full_backlog_times_out),
	    cmocka_unit_test(a_server_that_hangs_up_counts_as_nobody),
	    cmocka_unit_test(a_good_hello_is_accepted),
	    cmocka_unit_test(a_silent_client_is_given_up),
	    cmocka_unit_test(bad_hellos_are_refused),
	    cmocka_unit_test(a_wrong_number_of_descriptors_is_refused),
	    cmocka_unit_test(wires_that_could_fault_are_refused),
	    cmocka_unit_test(doorbells_that_are_something_else_are_refused),
	    cmocka_unit_test(a_full_descriptor_table_loses_nothing),
	    cmocka_unit_test(bad_answers_are_refused),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
