/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Servers that fork: one child per connection (the parent closes its descriptor); children that all accept; a child
 * that executes another program with the parent's pipe, connection excluded.
 */
#include "pair.h"

#define CHILDREN 3
#define CLIENTS 24

static void serve(int fd)
{
	char buf[64];
	ssize_t n;

	while ((n = read(fd, buf, sizeof buf)) > 0)
		if (write(fd, buf, (size_t)n) != n)
			break;
	close(fd);
}

static void child_per_connection(void)
{
	int l = listen_on(PORT), bad = 0, status;

	tell();
	for (int i = 0; i < CLIENTS; i++) {
		int fd = accept(l, NULL, NULL);
		pid_t pid = fork();

		if (!pid) {
			close(l);
			serve(fd);
			_exit(0);
		}
		close(fd);
	}
	for (int i = 0; i < CLIENTS; i++)
		bad += wait(&status) < 0 || status != 0;
	say("children that failed: %d", bad);
	close(l);
}

static void all_accept(void)
{
	int l = listen_on(PORT + 1), status;
	pid_t pid[CHILDREN];

	for (int i = 0; i < CHILDREN; i++) {
		pid[i] = fork();
		if (!pid[i]) {
			alarm(20);
			for (;;)
				serve(accept(l, NULL, NULL));
		}
	}
	tell();
	await();
	for (int i = 0; i < CHILDREN; i++) {
		kill(pid[i], SIGTERM);
		waitpid(pid[i], &status, 0);
		say("ended by signal %d", WTERMSIG(status));
	}
	close(l);
}

/* The parent must see the end although a child that runs another program was forked meanwhile, and the child uses
 * what it inherits. */
static void runs_a_program(void)
{
	int l = listen_on(PORT + 2), p[2], fd, status;
	char buf[64] = {0};
	pid_t pid;

	tell();
	fd = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	if (pipe(p) < 0)
		exit(2);
	pid = fork();
	if (!pid) {
		dup2(p[1], 1);
		execlp("echo", "echo", "from the child", (char *)NULL);
		_exit(9);
	}
	close(p[1]);
	show("pipe", (long)read_all(p[0], buf, sizeof buf));
	say("%s", strtok(buf, "\n"));
	waitpid(pid, &status, 0);
	show("status", status);
	show("write", write(fd, "after", 5));
	close(fd);
	close(l);
}

static void server(void)
{
	child_per_connection();
	all_accept();
	runs_a_program();
}

static int talk(int port)
{
	int fd = connect_to(port), right = 0;
	char buf[5];

	for (int i = 0; i < 20; i++) {
		send(fd, "hello", 5, 0);
		right += read_all(fd, buf, 5) == 5 && !memcmp(buf, "hello", 5);
	}
	shutdown(fd, SHUT_WR);
	right += read(fd, buf, 5) == 0;
	close(fd);
	return right;
}

static void client(void)
{
	int right = 0, fd;
	char buf[8] = {0};

	await();
	for (int i = 0; i < CLIENTS; i++)
		right += talk(PORT);
	say("right: %d", right);
	right = 0;
	await();
	for (int i = 0; i < CLIENTS; i++)
		right += talk(PORT + 1);
	say("right: %d", right);
	tell();
	await();
	fd = connect_to(PORT + 2);
	show("read", (long)read_all(fd, buf, 5));
	show("end", read(fd, buf, 5));
	close(fd);
}

int main(void)
{
	return roles(server, client);
}
