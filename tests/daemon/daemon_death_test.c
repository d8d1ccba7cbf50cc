/* SPDX-License-Identifier: BSD-2-Clause */
/* Processes that die: their filters, ports, rings, veths and the program go, and others' stay. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "rings.h"
#include "world.h"

static const char *daemon_path;

/* In a child: a vNIC, and the port. It says which mode it got, and stays until it is killed. */
static pid_t guest(uint16_t port, int *mode)
{
	int ends[2];
	pid_t pid;

	*mode = 0;
	assert_int_equal(pipe(ends), 0);
	pid = fork();
	if (!pid) {
		int sock = client_make(), owner = bound_socket(SOCK_DGRAM, HERE4, port);
		struct answer a;

		if (client_open(sock, v0_index(), &a) || client_filter(sock, IPPROTO_UDP, HERE4, port, owner, 0) <= 0)
			_exit(1);
		if (write(ends[1], &a.body.vnic.mode, sizeof(int)) == sizeof(int))
			pause();
		_exit(1);
	}
	close(ends[1]);
	assert_int_equal(read(ends[0], mode, sizeof(*mode)), sizeof(*mode));
	close(ends[0]);
	return pid;
}

static void finish(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static struct daemon_status status(void)
{
	struct answer a;
	int sock = client_connect();

	assert_int_equal(client_ask(sock, DAEMON_STATUS, NULL, 0, NULL, 0, &a), 0);
	close(sock);
	return a.body.status;
}

/* Wait until the daemon has this many filters, and dead stacks are done with. */
static void await_filters(uint32_t n)
{
	for (int i = 0; i < 100 && (status().filters != n || status().orphans); i++)
		usleep(50000);
	assert_int_equal(status().filters, n);
	assert_int_equal(status().orphans, 0);
}

static bool there(const char *what)
{
	return run("ip -d link show 2>&1 | grep -q '%s'", what) == 0;
}

static void what_the_dead_had_goes(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL), first, second;
	int mode, owner;

	(void)state;
	first = guest(7000, &mode);
	assert_int_equal(mode, DAEMON_MODE_DIRECT);
	second = guest(7100, &mode);
	assert_int_equal(mode, DAEMON_MODE_VETH);
	await_filters(2);
	assert_true(there("xdp") && there("viaduct"));
	finish(second);
	await_filters(1);
	assert_true(there("xdp"));
	assert_false(there("viaduct"));
	finish(first);
	await_filters(0);
	assert_false(there("xdp"));
	/* nobody holds the port any more */
	owner = bound_socket(SOCK_DGRAM, HERE4, 7000);
	close(owner);
	/* and the queue is free again */
	first = guest(7000, &mode);
	assert_int_equal(mode, DAEMON_MODE_DIRECT);
	finish(first);
	await_filters(0);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

static void stacks_that_die_without_a_daemon_leave_nothing(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL), first, second;
	int mode;

	(void)state;
	first = guest(7000, &mode);
	second = guest(7100, &mode);
	daemon_stop(daemon, SIGKILL);
	finish(first);
	finish(second);
	for (int i = 0; i < 100 && (there("xdp") || there("viaduct")); i++)
		usleep(50000);
	assert_false(there("xdp") || there("viaduct"));
}

static void a_transient_daemon_leaves_with_its_last_stack(void **state)
{
	pid_t daemon = daemon_start(daemon_path, "--transient", NULL), first;
	int mode, end = 0;

	(void)state;
	first = guest(7000, &mode);
	usleep(4000000);
	assert_int_equal(waitpid(daemon, &end, WNOHANG), 0);
	finish(first);
	for (int i = 0; i < 160 && !waitpid(daemon, &end, WNOHANG); i++)
		usleep(50000);
	assert_true(WIFEXITED(end) && WEXITSTATUS(end) == 0);
	assert_true(client_connect() < 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_the_dead_had_goes),
	    cmocka_unit_test(stacks_that_die_without_a_daemon_leave_nothing),
	    cmocka_unit_test(a_transient_daemon_leaves_with_its_last_stack),
	};

	if (argc < 2 || !world_make())
		return 77;
	daemon_path = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
