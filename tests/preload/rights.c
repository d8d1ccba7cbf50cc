/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sockets passed to other processes (SCM_RIGHTS), among other descriptors: to a worker that was forked before the
 * socket was made; to a program that nobody forked, while the sender ends before it reads; back to oneself; and what is
 * lost on the way.
 */
#include "pair.h"
#include <stddef.h>
#include <sys/un.h>

#define MAX 8

static void send_fds(int to, const int *fds, int n)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(MAX * sizeof(int))];
	} control = {0};
	struct iovec iov = {"m", 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control};

	m.msg_controllen = CMSG_SPACE((size_t)n * sizeof(int));
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN((size_t)n * sizeof(int));
	memcpy(CMSG_DATA(&control.header), fds, (size_t)n * sizeof(int));
	show("sendmsg", sendmsg(to, &m, 0));
}

/* How many came; room: for how many there is room. */
static int receive_fds(int from, int *fds, int room)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(MAX * sizeof(int))];
	} control = {0};
	char c;
	struct iovec iov = {&c, 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control};
	int n = 0;

	m.msg_controllen = CMSG_LEN((size_t)room * sizeof(int));
	show("recvmsg", recvmsg(from, &m, 0));
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
		n = (int)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(h), (size_t)n * sizeof(int));
	}
	say("%d descriptors, flags %x", n, (unsigned)m.msg_flags);
	return n;
}

static void answer(int fd, const char *with)
{
	char buf[8] = {0};

	say("asked %zu: %s", read_all(fd, buf, 4), buf);
	show("answer", send(fd, with, 4, MSG_NOSIGNAL));
}

/* --- a forked worker --- */

/* It says nothing: its status says whether all was as it should be. */
static void worker(int from)
{
	FILE *nothing = fopen("/dev/null", "w");
	int fds[MAX], n;
	char c;

	said = nothing;
	n = receive_fds(from, fds, MAX);
	if (n != 3 || write(fds[0], "p", 1) != 1)
		exit(7);
	answer(fds[1], "work");
	exit(read(fds[1], &c, 1) == 0 && fds[2] != fds[1] ? 0 : 8);
}

static void to_a_worker(int l)
{
	int pair[2], p[2], fd, status;
	char c;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 || pipe(p) < 0)
		exit(2);
	pid = fork();
	if (!pid)
		worker(pair[1]);
	close(pair[1]);
	fd = accept(l, NULL, NULL);
	send_fds(pair[0], (int[]){p[1], fd, pair[0]}, 3);
	close(fd);
	show("pipe", read(p[0], &c, 1));
	waitpid(pid, &status, 0);
	show("status", status);
	close(pair[0]);
	close(p[0]);
	close(p[1]);
}

/* --- another program, which takes over the listener as well --- */

static struct sockaddr_un unix_name(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	snprintf(un.sun_path + 1, sizeof(un.sun_path) - 1, "viaduct-test-rights");
	return un;
}

static int unix_socket(bool listens)
{
	struct sockaddr_un un = unix_name();
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	if (listens && (bind(fd, (struct sockaddr *)&un, sizeof un) < 0 || listen(fd, 1) < 0))
		exit(2);
	if (!listens && connect(fd, (struct sockaddr *)&un, sizeof un) < 0)
		exit(2);
	return fd;
}

static void successor(int u)
{
	int fds[MAX], from = accept(u, NULL, NULL), fd;
	char c;

	show("old one is gone", read(from_other, &c, 1));
	if (receive_fds(from, fds, MAX) != 3)
		exit(7);
	show("pipe", read(fds[1], &c, 1));
	answer(fds[2], "next");
	close(fds[2]);
	fd = accept(fds[0], NULL, NULL);
	answer(fd, "newl");
	close(fd);
	close(fds[0]);
}

/* The old server is a process of its own and ends when it has sent all. */
static void old_server(void)
{
	int l = listen_on(PORT + 1), p[2], u = unix_socket(false), fd;

	if (pipe(p) < 0 || write(p[1], "p", 1) != 1)
		exit(2);
	tell();
	fd = accept(l, NULL, NULL);
	answer(fd, "old1");
	send_fds(u, (int[]){l, p[0], fd}, 3);
	exit(0);
}

static void to_a_successor(void)
{
	int u = unix_socket(true), gone[2], status;
	pid_t pid;

	if (pipe(gone) < 0)
		exit(2);
	pid = fork();
	if (!pid)
		old_server();
	close(gone[1]);
	from_other = gone[0];
	successor(u);
	waitpid(pid, &status, 0);
	show("status", status);
	close(u);
}

/* --- to oneself, and lost --- */

static void to_oneself(int l)
{
	int pair[2], fds[MAX] = {-1}, fd = accept(l, NULL, NULL);

	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) < 0)
		exit(2);
	send_fds(pair[0], &fd, 1);
	close(fd);
	if (receive_fds(pair[1], fds, 1) == 1)
		answer(fds[0], "self");
	close(fds[0]);
	close(pair[0]);
	close(pair[1]);
}

/* Nobody reads the message: the client sees the end. */
static void lost(int l)
{
	int pair[2], fd = accept(l, NULL, NULL);

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		exit(2);
	send_fds(pair[0], &fd, 1);
	close(fd);
	tell();
	await();
	close(pair[0]);
	close(pair[1]);
}

/* There is room for one descriptor only: the kernel closes the other. */
static void no_room(int l)
{
	int pair[2], fds[MAX] = {-1}, two[2];

	two[0] = accept(l, NULL, NULL);
	two[1] = accept(l, NULL, NULL);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		exit(2);
	send_fds(pair[0], two, 2);
	close(two[0]);
	close(two[1]);
	if (receive_fds(pair[1], fds, 1) == 1)
		answer(fds[0], "room");
	tell();
	await();
	close(fds[0]);
	close(pair[0]);
	close(pair[1]);
}

static void server(void)
{
	int l = listen_on(PORT), from_client = from_other;

	tell();
	to_a_worker(l);
	to_a_successor();
	from_other = from_client;
	to_oneself(l);
	lost(l);
	no_room(l);
	close(l);
}

static void ask(int fd)
{
	char buf[8] = {0};

	send(fd, "ping", 4, 0);
	say("answer %zu: %s", read_all(fd, buf, 4), buf);
}

static void ended(int fd)
{
	char c;

	show("end", read(fd, &c, 1));
	close(fd);
}

static void client(void)
{
	struct pollfd p = {.events = POLLIN};
	int fd;

	await();
	fd = connect_to(PORT);
	ask(fd);
	close(fd);

	await();
	fd = connect_to(PORT + 1);
	ask(fd);
	ask(fd);
	ended(fd);
	fd = connect_to(PORT + 1);
	ask(fd);
	ended(fd);

	fd = connect_to(PORT);
	ask(fd);
	ended(fd);

	p.fd = connect_to(PORT);
	await();
	show("still open", poll(&p, 1, 50));
	tell();
	ended(p.fd);

	fd = connect_to(PORT);
	p.fd = connect_to(PORT);
	ask(fd);
	await();
	ended(p.fd);
	tell();
	ended(fd);
}

int main(void)
{
	return roles(server, client);
}
