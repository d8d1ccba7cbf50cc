/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests of the rendezvous share: addresses, sockets of the kernel, and a server in a forked child, so that
 * credentials and descriptors are really another process's.
 */
#ifndef RDV_PEERS_H
#define RDV_PEERS_H

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
	bool worker;  /* a forked child serves and keeps the port; the maker of the name gives it up */
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

/* In a child from here on, which does what the maker of the name would; the maker itself goes on without the port. */
static void leave_to_worker(struct plan *plan, int port)
{
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		return;
	close(port);
	plan->serve = NULL;
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
		int port = -1;
		char c;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(hold[1]);
		if (plan.uid && setresuid(plan.uid, plan.uid, plan.uid) < 0)
			_exit(9);
		if (!plan.no_port)
			port = kernel_socket(plan.proto, plan.family, &plan.ep, plan.v6only);
		int fd = rdv_listen(plan.proto, plan.family, &plan.ep, plan.v6only);
		pid_t maker = getpid();
		if (plan.worker)
			leave_to_worker(&plan, port);
		/* the maker: when it has given up the port */
		if (getpid() == maker && (fd < 0 || write(ready[1], &plan.ep, sizeof(plan.ep)) != sizeof(plan.ep)))
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

#endif
