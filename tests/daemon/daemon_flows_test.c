/* SPDX-License-Identifier: BSD-2-Clause */
/* Flows that a stack steers to itself: who gets the table, what an entry does, and that it goes with its stack. */
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

#include "rings.h"
#include "world.h"

static pid_t daemon_pid;
static const char *daemon_path;

static int start(void **state)
{
	(void)state;
	daemon_pid = daemon_start(daemon_path, NULL);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	return daemon_stop(daemon_pid, SIGTERM);
}

/* The table, mapped; *fd its descriptor. */
static struct daemon_flow_set *table_of(int sock, struct daemon_flows *about, int *fd)
{
	struct answer a;
	void *mem;

	assert_int_equal(client_ask(sock, DAEMON_FLOWS, NULL, 0, NULL, 0, &a), 0);
	*about = a.body.flows;
	assert_int_equal(a.fds, 1);
	assert_int_equal(about->set_size, sizeof(struct daemon_flow_set));
	mem = mmap(NULL, (size_t)about->sets * about->set_size, PROT_READ | PROT_WRITE, MAP_SHARED, a.fd[0], 0);
	assert_true(mem != MAP_FAILED);
	*fd = a.fd[0];
	return mem;
}

static struct daemon_flow flow(uint16_t local, uint16_t remote)
{
	struct daemon_flow f = {
	    .local_port = htons(local), .remote_port = htons(remote), .proto = IPPROTO_UDP, .family = 4};

	mapped((uint8_t *)f.local, HERE4);
	mapped((uint8_t *)f.remote, THERE4);
	return f;
}

/* Its tag, for removal. */
static uint32_t *enter(struct daemon_flow_set *table, uint32_t stack, const struct daemon_flow *f)
{
	uint32_t word[DAEMON_FLOW_WORDS], hash;
	struct daemon_flow_set *set;

	memcpy(word, f, sizeof(word));
	hash = daemon_flow_hash(word);
	set = table + daemon_flow_set_of(hash);
	set->tag[1] = 0;
	set->stack[1] = stack;
	set->flow[1] = *f;
	__atomic_store_n(&set->tag[1], hash | 1, __ATOMIC_RELEASE);
	return &set->tag[1];
}

static bool kernel_has(int fd)
{
	char text[16];

	return recv(fd, text, sizeof(text), 0) > 0;
}

static void an_entry_steers_its_flow_and_no_other(void **state)
{
	int sock = client_make(), plain = bound_socket(SOCK_DGRAM, HERE4, 7000), fd, from = peer_udp(7100), to;
	struct timeval patience = {.tv_usec = 300000};
	struct daemon_flow_set *table;
	struct daemon_flows about;
	struct daemon_flow f = flow(7000, 7100);
	uint8_t frame[2048];
	struct rings r;
	struct answer a;
	uint32_t *tag;

	(void)state;
	setsockopt(plain, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	assert_int_equal(rings_open(&r, sock, v0_index(), &a), 0);
	table = table_of(sock, &about, &fd);
	say(from, HERE4, 7000, "one");
	assert_true(kernel_has(plain));
	tag = enter(table, about.stack, &f);
	say(from, HERE4, 7000, "two");
	assert_true(rings_receive(&r, frame, sizeof(frame), 10000) > 0);
	assert_false(kernel_has(plain));
	to = peer_udp(7101);
	say(to, HERE4, 7000, "three");
	assert_true(kernel_has(plain));
	/* of a stack that is none, or has nothing there: the kernel's */
	for (uint32_t other = about.stack + 1; other; other = other == about.stack + 1 ? 0xffffffffu : 0) {
		enter(table, other, &f);
		say(from, HERE4, 7000, "four");
		assert_true(kernel_has(plain));
	}
	enter(table, about.stack, &f);
	__atomic_store_n(tag, 0, __ATOMIC_RELEASE);
	say(from, HERE4, 7000, "five");
	assert_true(kernel_has(plain));
	rings_unmap(&r);
	answer_close(&a);
	munmap(table, (size_t)about.sets * about.set_size);
	close(fd);
	close(sock);
	close(plain);
	close(from);
	close(to);
}

static void only_who_has_the_interfaces_queues_gets_the_table(void **state)
{
	int first = client_make(), second = client_make();
	struct answer a, b;

	(void)state;
	assert_int_equal(client_ask(first, DAEMON_FLOWS, NULL, 0, NULL, 0, &a), -EPERM);
	assert_int_equal(client_open(first, v0_index(), &a), 0);
	assert_int_equal(client_open(second, v0_index(), &b), 0);
	assert_int_equal(b.body.vnic.mode, DAEMON_MODE_VETH);
	answer_close(&a);
	answer_close(&b);
	assert_int_equal(client_ask(second, DAEMON_FLOWS, NULL, 0, NULL, 0, &b), -EPERM);
	assert_int_equal(client_ask(first, DAEMON_FLOWS, NULL, 0, NULL, 0, &a), 0);
	answer_close(&a);
	close(first);
	close(second);
}

static void flows_go_with_their_stack(void **state)
{
	struct daemon_flow f = flow(7000, 7100);
	struct daemon_flow_set *table;
	int ends[2], fd = -1, ours = -1;
	struct daemon_flows about;
	uint32_t *tag = NULL;
	struct answer a;
	pid_t child;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	child = fork();
	if (!child) {
		int sock = client_make();

		if (client_open(sock, v0_index(), &a))
			_exit(1);
		table = table_of(sock, &about, &fd);
		tag = enter(table, about.stack, &f);
		about.reserved = (uint32_t)((char *)tag - (char *)table);
		if (write(ends[1], &fd, sizeof(fd)) > 0 && write(ends[1], &about, sizeof(about)) > 0)
			pause();
		_exit(1);
	}
	assert_int_equal(read(ends[0], &fd, sizeof(fd)), sizeof(fd));
	assert_int_equal(read(ends[0], &about, sizeof(about)), sizeof(about));
	ours = (int)syscall(SYS_pidfd_getfd, (int)syscall(SYS_pidfd_open, child, 0), fd, 0);
	assert_true(ours >= 0);
	table = mmap(NULL, (size_t)about.sets * about.set_size, PROT_READ, MAP_SHARED, ours, 0);
	assert_true(table != MAP_FAILED);
	tag = (uint32_t *)(void *)((char *)table + about.reserved);
	assert_int_not_equal(*tag, 0);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	for (int i = 0; i < 100 && __atomic_load_n(tag, __ATOMIC_ACQUIRE); i++)
		usleep(50000);
	assert_int_equal(*tag, 0);
	munmap(table, (size_t)about.sets * about.set_size);
	close(ours);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(an_entry_steers_its_flow_and_no_other, start, stop),
	    cmocka_unit_test_setup_teardown(only_who_has_the_interfaces_queues_gets_the_table, start, stop),
	    cmocka_unit_test_setup_teardown(flows_go_with_their_stack, start, stop),
	};

	if (argc < 2 || !world_make())
		return 77;
	daemon_path = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
