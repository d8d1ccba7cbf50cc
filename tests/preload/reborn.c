/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A server executes itself, with its listener and an open connection: the new program goes on with both, accelerated.
 * In the same process, with an empty environment (as nginx's upgrade does it), in a child whose parent ends, and
 * spawned with a connection moved to another number. And one executes a program that can not go on with it.
 */
#include "pair.h"
#include <spawn.h>

static const char *self;

/* --- the program after execve: its descriptors are in its arguments --- */

static void answer(int fd, const char *with)
{
	char buf[8] = {0};

	if (read(fd, buf, 4) == 4 && !memcmp(buf, "ping", 4))
		send(fd, with, 4, 0);
}

/* The open connection, then a new one that comes to the listener; the end of the first is seen. */
static int go_on(int l, int fd)
{
	char c;

	alarm(20);
	answer(fd, "old1");
	if (l >= 0) {
		int next = accept(l, NULL, NULL);

		answer(next, "new1");
		close(next);
		close(l);
	}
	if (read(fd, &c, 1) != 0)
		return 1;
	close(fd);
	return 0;
}

/* --- the server before that --- */

static void become(int l, int fd, char *const env[])
{
	char listener[16], connection[16];

	snprintf(listener, sizeof listener, "%d", l);
	snprintf(connection, sizeof connection, "%d", fd);
	execve(self, (char *[]){"reborn", listener, connection, NULL}, env);
	_exit(9);
}

static void ended(pid_t pid)
{
	int status = -1;

	waitpid(pid, &status, 0);
	say("ended with %x", (unsigned)status);
}

static void in_a_child(int port, char *const env[])
{
	int l = listen_on(port), fd;
	pid_t pid;

	tell();
	fd = accept(l, NULL, NULL);
	answer(fd, "old0");
	pid = fork();
	if (!pid)
		become(l, fd, env);
	close(l);
	close(fd);
	ended(pid);
}

/* In a child, which makes its sockets itself: its connection. The parent sees its end: -1. */
static int accepted_in_a_child(int port, int *l)
{
	pid_t pid = fork();
	int fd;

	if (pid) {
		ended(pid);
		return -1;
	}
	*l = listen_on(port);
	tell();
	fd = accept(*l, NULL, NULL);
	answer(fd, "old0");
	return fd;
}

/* The process that made the sockets is the one that executes. */
static void as_itself(int port)
{
	int l, fd = accepted_in_a_child(port, &l);

	if (fd >= 0)
		become(l, fd, environ);
}

static void spawned(int port)
{
	int l = listen_on(port), fd;
	posix_spawn_file_actions_t actions;
	pid_t pid;

	tell();
	fd = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	answer(fd, "old0");
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fd, 50);
	posix_spawn_file_actions_addclose(&actions, l);
	show("spawn", posix_spawn(&pid, self, &actions, NULL, (char *[]){"reborn", "-1", "50", NULL}, environ));
	posix_spawn_file_actions_destroy(&actions);
	close(fd);
	close(l);
	ended(pid);
}

/* A program that can't go on with the connection: the client sees its end, as when the program on the kernel ends. */
static void plain(int port)
{
	int l;

	if (accepted_in_a_child(port, &l) < 0)
		return;
	dup2(open("/dev/null", O_WRONLY), 2);
	execle("/bin/sleep", "sleep", "0.1", (char *)NULL, (char *[]){"VIADUCT_ENABLE=0", NULL});
	_exit(9);
}

static void server(void)
{
	in_a_child(PORT, environ);
	in_a_child(PORT + 1, (char *[]){"NGINX=7;", NULL});
	as_itself(PORT + 2);
	spawned(PORT + 3);
	plain(PORT + 4);
}

/* --- the client --- */

static void ask(int fd)
{
	char buf[8] = {0};

	send(fd, "ping", 4, 0);
	show("answer", (long)read_all(fd, buf, 4));
	say("%s", buf);
}

static void client_of(int port, bool listens)
{
	int fd, next;
	char c;

	await();
	fd = connect_to(port);
	ask(fd);
	ask(fd); /* of the new program */
	if (listens) {
		next = connect_to(port);
		ask(next);
		show("end", read(next, &c, 1));
		close(next);
	}
	shutdown(fd, SHUT_WR);
	show("end", read(fd, &c, 1));
	close(fd);
}

static void client(void)
{
	int fd;
	char c;

	client_of(PORT, true);
	client_of(PORT + 1, true);
	client_of(PORT + 2, true);
	client_of(PORT + 3, false);
	await();
	fd = connect_to(PORT + 4);
	ask(fd);
	show("end", read(fd, &c, 1));
	close(fd);
}

int main(int argc, char **argv)
{
	self = "/proc/self/exe";
	if (argc == 3)
		return go_on(atoi(argv[1]), atoi(argv[2]));
	return roles(server, client);
}
