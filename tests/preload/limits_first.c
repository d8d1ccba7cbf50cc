/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * RLIMIT_NOFILE reached when two processes meet for the first time, at either end: what does not find its descriptors
 * is served by the kernel, and the next who come are served at all.
 */
#include "limits.h"

static void server(void)
{
	int l;

	set_limit();
	l = listen_on(PORT);
	for (int left = 1; left <= 5; left++) {
		take_all_but(left);
		tell();
		echo_once(l);
		give_back(taken_count);
	}
	tell();
	for (int i = 0; i < 6; i++)
		echo_once(l);
	close(l);
}

static void talk(void)
{
	char c = 'x';
	struct sockaddr_in a = address(PORT);
	int fd = socket(AF_INET, SOCK_STREAM, 0), r = connect(fd, (struct sockaddr *)&a, sizeof a);

	if (r < 0)
		show("connect", r);
	show("write", write(fd, &c, 1));
	show("read", read(fd, &c, 1));
	close(fd);
}

/* Each time from a process of its own: a rendezvous for each. */
static void in_a_child(int left)
{
	pid_t pid = fork();

	if (!pid) {
		alarm(20);
		if (left) {
			/* the library says there that it has no descriptors */
			dup2(open("/dev/null", O_WRONLY), 2);
			set_limit();
			take_all_but(left);
		}
		talk();
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static void client(void)
{
	for (int i = 0; i < 5; i++) {
		await();
		in_a_child(0);
	}
	await();
	for (int left = 1; left <= 5; left++)
		in_a_child(left);
	in_a_child(0);
}

int main(void)
{
	return roles(server, client);
}
