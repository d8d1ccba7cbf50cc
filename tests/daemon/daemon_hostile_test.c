/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Users without privileges against viaductd: whatever they send, hold or withhold, it goes on answering others, and
 * they get nothing that is not theirs.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "rings.h"
#include "world.h"

#define MALLORY 1001

static const char *daemon_path;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Another client is answered, soon. */
static void assert_answers(void)
{
	double began = now();
	struct answer a;
	int sock = client_connect();

	assert_true(sock >= 0);
	assert_int_equal(client_ask(sock, DAEMON_STATUS, NULL, 0, NULL, 0, &a), 0);
	close(sock);
	assert_true(now() - began < 2);
}

/* Run `what` as Mallory in a child; it stays until it is killed, and says when it is done. */
struct mallory {
	pid_t pid;
	int done;
};

static struct mallory mallory_start(void (*what)(void))
{
	struct mallory m;
	int ends[2];
	char word;

	assert_int_equal(pipe(ends), 0);
	m.pid = fork();
	if (!m.pid) {
		close(ends[0]);
		if (setresgid(MALLORY, MALLORY, MALLORY) || setresuid(MALLORY, MALLORY, MALLORY))
			_exit(1);
		what();
		if (write(ends[1], "d", 1) == 1)
			pause();
		_exit(1);
	}
	close(ends[1]);
	assert_int_equal(read(ends[0], &word, 1), 1);
	close(ends[0]);
	return m;
}

static void mallory_stop(struct mallory m)
{
	kill(m.pid, SIGKILL);
	waitpid(m.pid, NULL, 0);
}

static void against(void (*what)(void))
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	struct mallory m = mallory_start(what);

	assert_answers();
	mallory_stop(m);
	assert_answers();
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

static void connect_a_thousand_times(void)
{
	for (int i = 0; i < 1000; i++)
		client_connect();
}

static void a_flood_of_connections(void **state)
{
	(void)state;
	against(connect_a_thousand_times);
}

static void ask_and_never_read(void)
{
	struct daemon_head head = {DAEMON_STATUS, DAEMON_PROTOCOL, sizeof(head), 1, 0};
	int sock = client_connect();

	for (int i = 0; i < 100000; i++)
		if (send(sock, &head, sizeof(head), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN)
			return;
}

static void clients_that_never_read(void **state)
{
	(void)state;
	against(ask_and_never_read);
}

static void send_rubbish(void)
{
	char rubbish[4096];

	for (unsigned int i = 0; i < 2000; i++) {
		int sock = client_connect();

		memset(rubbish, (int)i, sizeof(rubbish));
		send(sock, rubbish, i * 7 % sizeof(rubbish), MSG_NOSIGNAL);
		close(sock);
	}
}

static void rubbish(void **state)
{
	(void)state;
	against(send_rubbish);
}

static void pass_many_descriptors(void)
{
	int fds[DAEMON_FDS_MAX];
	struct answer a;

	for (int i = 0; i < (int)DAEMON_FDS_MAX; i++)
		fds[i] = open("/dev/null", O_RDONLY);
	for (int i = 0; i < 200; i++) {
		int sock = client_connect();

		client_ask(sock, (uint16_t)(i % 10), NULL, 0, fds, DAEMON_FDS_MAX, &a);
		answer_close(&a);
		close(sock);
	}
}

static void descriptors_that_nobody_asked_for(void **state)
{
	(void)state;
	against(pass_many_descriptors);
}

/* Its last close, the daemon's, would wait for the peer. Sent without waiting for the answer. */
static void leave_a_lingering_socket(void)
{
	struct linger linger = {1, 1000};
	struct sockaddr_in sa;
	static char data[1 << 16];
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
	struct daemon_head head = {DAEMON_STATUS, DAEMON_PROTOCOL, sizeof(head), 1, 0};
	struct iovec iov = {&head, sizeof(head)};
	struct msghdr msg = {
	    .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int sock = client_connect(), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	v4_addr(&sa, THERE4, 7400);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) && errno != EINPROGRESS)
		_exit(1);
	usleep(100000);
	while (send(fd, data, sizeof(data), 0) > 0)
		;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	*c = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	sendmsg(sock, &msg, MSG_NOSIGNAL);
	close(fd);
}

static void sockets_whose_close_would_wait(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	int listener = peer_socket(AF_INET, SOCK_STREAM), small = 4096;
	struct sockaddr_in sa;
	struct mallory m;

	(void)state;
	v4_addr(&sa, THERE4, 7400);
	setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	assert_int_equal(bind(listener, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(listener, 5), 0);
	/* it stands still meanwhile, so that it finds the socket in nobody else's hands */
	kill(daemon, SIGSTOP);
	m = mallory_start(leave_a_lingering_socket);
	kill(daemon, SIGCONT);
	usleep(100000);
	assert_answers();
	mallory_stop(m);
	assert_answers();
	close(listener);
	kill(daemon, SIGKILL);
	waitpid(daemon, NULL, 0);
}

/* In 1/100 s. */
static long cpu_of(pid_t pid)
{
	char path[64], text[512] = {0}, *at;
	long user = 0, kernel = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "r");
	assert_non_null(file);
	assert_true(fread(text, 1, sizeof(text) - 1, file) > 0);
	fclose(file);
	at = strrchr(text, ')');
	assert_int_equal(sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld", &user, &kernel), 2);
	return user + kernel;
}

/* It keeps the pidfd of a dead process open: epoll would tell of it for ever. */
static void a_dead_process_whose_pidfd_somebody_keeps(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL), child = fork();
	int sock, pidfd;
	struct answer a;
	long before;

	(void)state;
	if (!child)
		pause();
	pidfd = (int)syscall(SYS_pidfd_open, child, 0);
	sock = client_make();
	assert_int_equal(client_ask(sock, DAEMON_PROCESS, NULL, 0, &pidfd, 1, &a), 0);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	usleep(50000);
	before = cpu_of(daemon);
	usleep(400000);
	assert_true(cpu_of(daemon) - before < 10);
	assert_answers();
	close(sock);
	close(pidfd);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

#define PORT_SOUGHT 7410

static int reusing_socket(void)
{
	struct sockaddr_in sa;
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	v4_addr(&sa, HERE4, PORT_SOUGHT);
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) || bind(fd, (struct sockaddr *)&sa, sizeof(sa)))
		return -1;
	return fd;
}

static void take_a_port_without_listening(void)
{
	int sock = client_make(), fd = reusing_socket();

	if (client_filter(sock, IPPROTO_TCP, HERE4, PORT_SOUGHT, fd, DAEMON_FILTER_SHARED) <= 0)
		_exit(1);
}

static uint32_t filters_there_are(void)
{
	int sock = client_connect();
	struct answer a;

	assert_int_equal(client_ask(sock, DAEMON_STATUS, NULL, 0, NULL, 0, &a), 0);
	close(sock);
	return a.body.status.filters;
}

/* The kernel lets two sockets with SO_REUSEADDR have a port until one listens: that one's are the frames. */
static void a_port_taken_before_its_server_comes(void **state)
{
	pid_t daemon = daemon_start(daemon_path, NULL);
	struct mallory m = mallory_start(take_a_port_without_listening);
	int server = reusing_socket();
	double until;

	(void)state;
	assert_int_equal(filters_there_are(), 1);
	assert_true(server >= 0);
	assert_int_equal(listen(server, 1), 0);
	for (until = now() + 20; filters_there_are() && now() < until;)
		usleep(20000);
	assert_int_equal(filters_there_are(), 0);
	mallory_stop(m);
	close(server);
	assert_int_equal(daemon_stop(daemon, SIGTERM), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_flood_of_connections),
	    cmocka_unit_test(clients_that_never_read),
	    cmocka_unit_test(rubbish),
	    cmocka_unit_test(descriptors_that_nobody_asked_for),
	    cmocka_unit_test(sockets_whose_close_would_wait),
	    cmocka_unit_test(a_dead_process_whose_pidfd_somebody_keeps),
	    cmocka_unit_test(a_port_taken_before_its_server_comes),
	};

	if (argc < 2 || !world_make())
		return 77;
	daemon_path = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
