/* SPDX-License-Identifier: BSD-2-Clause */
/* Processes that share a stack and speak with viaductd each for itself: one stack to it, with one set of filters. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "client.h"
#include "world.h"

static pid_t daemon_pid;
static const char *daemon_path;
static int memory;

static int start(void **state)
{
	(void)state;
	daemon_pid = daemon_start(daemon_path, NULL);
	memory = memfd_create("viaduct:stack", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return memory < 0;
}

static int stop(void **state)
{
	(void)state;
	close(memory);
	return daemon_stop(daemon_pid, SIGTERM);
}

/* A conversation about that memory. */
static int converse(int memfd)
{
	struct daemon_hello hello = {0};
	int sock = client_connect(), fds[2] = {memfd, (int)syscall(SYS_pidfd_open, getpid(), 0)}, rc;
	struct answer a;

	rc = client_ask(sock, DAEMON_HELLO, &hello, sizeof(hello), fds, 2, &a);
	if (!rc && !(a.body.welcome.flags & DAEMON_WELCOME_JOINS))
		rc = -EPROTO;
	answer_close(&a);
	close(fds[1]);
	return rc ? rc : sock;
}

static struct daemon_status status(int sock)
{
	struct answer a;

	assert_int_equal(client_ask(sock, DAEMON_STATUS, NULL, 0, NULL, 0, &a), 0);
	return a.body.status;
}

static struct daemon_inherited inherit(int sock)
{
	struct answer a;

	assert_int_equal(client_ask(sock, DAEMON_INHERIT, NULL, 0, NULL, 0, &a), 0);
	return a.body.inherited;
}

static int filter(int sock, uint16_t port)
{
	int owner = bound_socket(SOCK_DGRAM, HERE4, port), id = client_filter(sock, IPPROTO_UDP, HERE4, port, owner, 0);

	close(owner);
	assert_true(id > 0);
	return id;
}

static void two_conversations_are_about_one_stack(void **state)
{
	int first = converse(memory), second = converse(memory), id;
	struct daemon_filter_ids gone = {0};
	struct answer a, again;

	(void)state;
	assert_true(first >= 0 && second >= 0);
	assert_int_equal(status(first).stacks, 1);
	assert_int_equal(client_open(first, v0_index(), &a), 0);
	/* the vNIC is the second's as well: it may show the rings to a daemon that has them, and has filters on it */
	assert_int_equal(client_ask(second, DAEMON_RESUME, &a.body.vnic, sizeof(a.body.vnic), a.fd,
				    1 + (int)a.body.vnic.queues, &again),
			 0);
	assert_int_equal(again.fds, 1);
	answer_close(&again);
	id = filter(second, 7000);
	gone.id = (uint32_t)id;
	assert_int_equal(client_ask(first, DAEMON_FILTER_DEL, &gone, sizeof(gone), NULL, 0, &again), 0);
	answer_close(&a);
	close(first);
	close(second);
}

static void other_rings_are_not_the_stacks(void **state)
{
	int first = converse(memory), second = converse(memory), stranger = socket(AF_INET, SOCK_DGRAM, 0);
	struct answer a, again;
	int fds[2];

	(void)state;
	assert_int_equal(client_open(first, v0_index(), &a), 0);
	fds[0] = a.fd[0];
	fds[1] = stranger;
	assert_true(client_ask(second, DAEMON_RESUME, &a.body.vnic, sizeof(a.body.vnic), fds, 2, &again) < 0);
	answer_close(&a);
	close(stranger);
	close(first);
	close(second);
}

static void filters_stay_when_their_asker_goes_and_another_takes_them(void **state)
{
	int first = converse(memory), second = converse(memory), id, mine;
	struct daemon_inherited had = {0};
	struct daemon_filter_ids gone = {0};
	struct answer a;

	(void)state;
	assert_int_equal(client_open(first, v0_index(), &a), 0);
	answer_close(&a);
	id = filter(first, 7001);
	mine = filter(second, 7002);
	assert_int_equal(inherit(second).count, 0);
	close(first);
	for (int i = 0; i < 100 && !had.count; i++) {
		had = inherit(second);
		usleep(20000);
	}
	assert_int_equal(status(second).filters, 2);
	assert_int_equal(had.count, 1);
	assert_int_equal(had.was[0].id, id);
	assert_int_equal(had.was[0].filter.local_port, 7001);
	assert_int_equal(inherit(second).count, 0);
	gone.id = (uint32_t)id;
	gone.more = 1;
	gone.others[0] = (uint32_t)mine;
	assert_int_equal(client_ask(second, DAEMON_FILTER_DEL, &gone, sizeof(gone), NULL, 0, &a), 0);
	assert_int_equal(status(second).filters, 0);
	close(second);
}

/* A slow viaductd did not answer in time; its client came again, named what it knows of, and can't know of this one. */
static void what_a_client_that_came_again_does_not_name_goes(void **state)
{
	int first = converse(memory), second;
	struct answer a;

	(void)state;
	assert_int_equal(client_open(first, v0_index(), &a), 0);
	filter(first, 7001);
	close(first);
	second = converse(memory);
	filter(second, 7002);
	for (int i = 0; i < 100 && status(second).filters > 1; i++) {
		struct answer named;

		assert_int_equal(client_ask(second, DAEMON_NAMED, NULL, 0, NULL, 0, &named), 0);
		usleep(20000);
	}
	assert_int_equal(status(second).filters, 1);
	assert_int_equal(inherit(second).count, 0);
	answer_close(&a);
	close(second);
}

static void one_conversation_is_enough_for_the_stack_to_live(void **state)
{
	int first = -1, second, ends[2], end;
	pid_t child;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	child = fork();
	if (!child) {
		first = converse(memory);
		end = first < 0 || filter(first, 7003) <= 0;
		if (write(ends[1], &end, sizeof(end)) == sizeof(end))
			pause();
		_exit(1);
	}
	assert_int_equal(read(ends[0], &end, sizeof(end)), sizeof(end));
	assert_int_equal(end, 0);
	second = converse(memory);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	for (end = 0; end < 100 && !inherit(second).count; end++)
		usleep(20000);
	assert_true(end < 100);
	assert_int_equal(status(second).filters, 1);
	close(second);
	close(ends[0]);
	close(ends[1]);
}

static void another_users_memory_is_not_joined(void **state)
{
	int first = converse(memory), end;
	pid_t child = fork();

	(void)state;
	if (!child) {
		int sock = setresuid(65534, 65534, 65534) ? -1 : converse(memory);

		_exit(sock < 0 ? 1 : status(sock).stacks == 2 ? 0 : 2);
	}
	waitpid(child, &end, 0);
	assert_true(WIFEXITED(end) && WEXITSTATUS(end) == 0);
	close(first);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(two_conversations_are_about_one_stack, start, stop),
	    cmocka_unit_test_setup_teardown(other_rings_are_not_the_stacks, start, stop),
	    cmocka_unit_test_setup_teardown(filters_stay_when_their_asker_goes_and_another_takes_them, start, stop),
	    cmocka_unit_test_setup_teardown(what_a_client_that_came_again_does_not_name_goes, start, stop),
	    cmocka_unit_test_setup_teardown(one_conversation_is_enough_for_the_stack_to_live, start, stop),
	    cmocka_unit_test_setup_teardown(another_users_memory_is_not_joined, start, stop),
	};

	if (argc < 2 || !world_make())
		return 77;
	daemon_path = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
