/* SPDX-License-Identifier: BSD-2-Clause */
/* Who owns a port: our answers against real listeners of the kernel, with its own idea of precedence. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "host/host.h"

static struct endpoint at(const char *text, uint16_t port)
{
	struct endpoint ep = {.port = port};
	if (inet_pton(AF_INET6, text, ep.addr) != 1) {
		ep.addr[10] = ep.addr[11] = 0xff;
		assert_int_equal(inet_pton(AF_INET, text, ep.addr + 12), 1);
	}
	return ep;
}

/* A real socket; *port 0: any, filled in. */
static int open_at(enum sock_proto proto, const char *text, uint16_t *port, bool v6only, bool reuseport)
{
	int family = strchr(text, ':') ? 6 : 4, on = 1, only = v6only, got;
	struct endpoint ep = at(text, *port);
	struct sockaddr_storage ss;
	socklen_t len = addr_to_sockaddr(&ep, family, &ss);
	int fd = socket(ss.ss_family, proto == SOCK_TCP ? SOCK_STREAM : SOCK_DGRAM, 0);
	assert_true(fd >= 0);
	if (reuseport)
		assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)), 0);
	if (family == 6)
		assert_int_equal(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&ss, len), 0);
	if (proto == SOCK_TCP)
		assert_int_equal(listen(fd, 1), 0);
	len = sizeof(ss);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &len), 0);
	assert_int_equal(addr_from_sockaddr((struct sockaddr *)&ss, len, &ep, &got), 0);
	*port = ep.port;
	return fd;
}

static uint64_t inode_of(int fd)
{
	struct stat st;
	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

/* Who answers for text:port: the descriptor, or -1 nobody. */
static void expect_owner(enum sock_proto proto, const char *text, uint16_t port, int fd)
{
	struct endpoint ep = at(text, port);
	uint32_t uid = 77;
	uint64_t inode = 0;
	int rc = diag_port_owner(proto, strchr(text, ':') ? 6 : 4, &ep, &uid, &inode);
	assert_int_equal(rc, fd < 0 ? -ENOENT : 0);
	if (fd < 0)
		return;
	assert_int_equal(inode, inode_of(fd));
	assert_int_equal(uid, geteuid());
}

static void exact_and_any(enum sock_proto proto)
{
	uint16_t port = 0;
	int any = open_at(proto, "0.0.0.0", &port, false, true);
	expect_owner(proto, "127.0.0.1", port, any);
	expect_owner(proto, "::1", port, -1);
	int exact = open_at(proto, "127.0.0.2", &port, false, true);
	expect_owner(proto, "127.0.0.2", port, exact);
	expect_owner(proto, "127.0.0.1", port, any);
	close(any);
	expect_owner(proto, "127.0.0.1", port, -1);
	close(exact);
	expect_owner(proto, "127.0.0.2", port, -1);
}

static void tcp_exact_address_comes_before_any(void **state)
{
	(void)state;
	exact_and_any(SOCK_TCP);
}

static void udp_exact_address_comes_before_any(void **state)
{
	(void)state;
	exact_and_any(SOCK_UDP);
}

static void ipv6_any(enum sock_proto proto)
{
	uint16_t port = 0;
	int dual = open_at(proto, "::", &port, false, false);
	expect_owner(proto, "::1", port, dual);
	expect_owner(proto, "127.0.0.1", port, dual);
	close(dual);
	port = 0;
	int only = open_at(proto, "::", &port, true, false);
	expect_owner(proto, "::1", port, only);
	expect_owner(proto, "127.0.0.1", port, -1);
	close(only);
}

static void an_ipv6_listener_owns_the_ipv4_port_unless_v6only(void **state)
{
	(void)state;
	ipv6_any(SOCK_TCP);
	ipv6_any(SOCK_UDP);
}

static void a_connected_socket_is_not_a_listener(void **state)
{
	(void)state;
	uint16_t port = 0;
	int listener = open_at(SOCK_TCP, "127.0.0.1", &port, false, false);
	struct endpoint ep = at("127.0.0.1", port);
	struct sockaddr_storage ss;
	socklen_t len = addr_to_sockaddr(&ep, 4, &ss);
	int client = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(client, (struct sockaddr *)&ss, len), 0);
	int child = accept(listener, NULL, NULL);
	close(listener);
	expect_owner(SOCK_TCP, "127.0.0.1", port, -1);
	close(child);
	close(client);
}

static void all_sockets_of_a_shared_port_are_listed(void **state)
{
	(void)state;
	uint16_t port = 0;
	int fds[3];
	uint64_t inodes[8] = {0};
	for (int i = 0; i < 3; i++)
		fds[i] = open_at(SOCK_TCP, "127.0.0.1", &port, false, true);
	assert_int_equal(diag_port_inodes(SOCK_TCP, port, inodes, 8), 3);
	for (int i = 0; i < 3; i++)
		assert_true(inodes[0] == inode_of(fds[i]) || inodes[1] == inode_of(fds[i]) ||
			    inodes[2] == inode_of(fds[i]));
	assert_int_equal(diag_port_inodes(SOCK_TCP, port, inodes, 2), 2);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
}

static void the_owner_is_the_user_who_made_the_socket(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	int ready[2], done[2];
	uint16_t port = 0;
	char c;
	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(done), 0);
	pid_t pid = fork();
	if (pid == 0) {
		close(done[1]);
		if (setresuid(65534, 65534, 65534) < 0)
			_exit(1);
		open_at(SOCK_TCP, "127.0.0.1", &port, false, false);
		if (write(ready[1], &port, sizeof(port)) != sizeof(port))
			_exit(2);
		_exit(read(done[0], &c, 1) == 0 ? 0 : 3);
	}
	assert_int_equal(read(ready[0], &port, sizeof(port)), sizeof(port));
	struct endpoint ep = at("127.0.0.1", port);
	uint32_t uid = 0;
	int rc = diag_port_owner(SOCK_TCP, 4, &ep, &uid, NULL), status;
	close(done[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(rc, 0);
	assert_int_equal(uid, 65534);
	close(ready[0]);
	close(ready[1]);
	close(done[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(tcp_exact_address_comes_before_any),
	    cmocka_unit_test(udp_exact_address_comes_before_any),
	    cmocka_unit_test(an_ipv6_listener_owns_the_ipv4_port_unless_v6only),
	    cmocka_unit_test(a_connected_socket_is_not_a_listener),
	    cmocka_unit_test(all_sockets_of_a_shared_port_are_listed),
	    cmocka_unit_test(the_owner_is_the_user_who_made_the_socket),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
