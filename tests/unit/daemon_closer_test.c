/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who is told that a descriptor is closed finds it closed, on a busy machine too; a close that waits is not waited for.
 * Each test in a process of its own: the closer's threads never end.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/closer.h"

enum { USER = 4711, LINGER = 10 };

static void need(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "does not hold: %s (%d)\n", what, errno);
	_exit(1);
}
#define NEED(x) need(x, #x)

static void in_child(void (*test)(void))
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		NEED(closer_start() == 0);
		test();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void only_one_cpu(void)
{
	cpu_set_t all, one;
	int cpu = 0;

	NEED(sched_getaffinity(0, sizeof(all), &all) == 0);
	while (!CPU_ISSET(cpu, &all))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	for (DIR *tasks = opendir("/proc/self/task"); tasks;) {
		const struct dirent *task = readdir(tasks);
		pid_t thread = task ? atoi(task->d_name) : 0;

		if (!task) {
			closedir(tasks);
			break;
		}
		if (thread)
			NEED(sched_setaffinity(thread, sizeof(one), &one) == 0);
		/* the closer's threads hardly get to run beside somebody who computes */
		if (thread && thread != getpid())
			NEED(setpriority(PRIO_PROCESS, (id_t)thread, 19) == 0);
	}
}

/* Those who compute, until this process ends. */
static void busy(void)
{
	only_one_cpu();
	for (int i = 0; i < 2; i++) {
		if (fork())
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(60);
		for (volatile int n = 0;; n = n + 1)
			;
	}
}

static int listener(struct sockaddr_in *at)
{
	socklen_t len = sizeof(*at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	NEED(bind(fd, (struct sockaddr *)at, sizeof(*at)) == 0);
	NEED(listen(fd, 1) == 0 && getsockname(fd, (struct sockaddr *)at, &len) == 0);
	return fd;
}

static void close_and_bind(void)
{
	busy();
	for (int i = 0; i < 10; i++) {
		struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

		closer_close(USER, listener(&at));
		close(listener(&at));
	}
}

static void a_port_is_free_when_it_is_said_to_be_however_busy_the_machine_is(void **state)
{
	(void)state;
	in_child(close_and_bind);
}

static void several_and_bind(void)
{
	struct sockaddr_in at[5] = {{0}};

	busy();
	closer_gather();
	for (int i = 0; i < 5; i++) {
		at[i] = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		closer_close(USER, listener(&at[i]));
	}
	closer_settle(USER);
	for (int i = 0; i < 5; i++)
		close(listener(&at[i]));
}

static void so_are_the_ports_of_many_that_are_closed_at_once(void **state)
{
	(void)state;
	in_child(several_and_bind);
}

/* A connection whose last close waits: its peer does not read what was written. */
static int lingering(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct linger linger = {1, LINGER};
	static char block[65536];
	int l = listener(&at), fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	NEED(connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0);
	NEED(accept(l, NULL, NULL) >= 0);
	while (send(fd, block, sizeof(block), MSG_DONTWAIT) > 0)
		;
	NEED(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
	return fd;
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void close_that_waits(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int waits = lingering(), l = listener(&at);
	double began = seconds();

	closer_close(USER, waits);
	/* nor is what the user has closed then */
	for (int i = 0; i < 100; i++)
		closer_close(USER, open("/dev/null", O_RDONLY | O_CLOEXEC));
	NEED(closer_waiting(USER) == 100);
	/* but others' */
	closer_close(USER + 1, l);
	close(listener(&at));
	NEED(seconds() - began < LINGER / 2.0);
}

static void a_close_that_waits_holds_up_nobody_but_its_user(void **state)
{
	(void)state;
	in_child(close_that_waits);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_port_is_free_when_it_is_said_to_be_however_busy_the_machine_is),
	    cmocka_unit_test(so_are_the_ports_of_many_that_are_closed_at_once),
	    cmocka_unit_test(a_close_that_waits_holds_up_nobody_but_its_user),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
