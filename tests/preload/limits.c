/* SPDX-License-Identifier: BSD-2-Clause */
/* RLIMIT_NOFILE reached at socket(), accept() and connect(): errno as the kernel has it, and life goes on afterwards.
 */
#include "limits.h"

static void server(void)
{
	struct pollfd p = {.events = POLLIN};
	int l;

	set_limit();
	take_all_but(0);
	show("socket, no descriptor left", socket(AF_INET, SOCK_STREAM, 0));
	show("socket, no descriptor left", socket(AF_INET, SOCK_DGRAM, 0));
	show("epoll_create1, no descriptor left", epoll_create1(0));
	give_back(taken_count);
	l = listen_on(PORT);
	tell();
	echo_once(l);
	/* A connection waits that can't be accepted. */
	tell();
	await();
	take_all_but(0);
	p.fd = l;
	show("poll", poll(&p, 1, 2000));
	show("accept, no descriptor left", accept(l, NULL, NULL));
	show("again", accept(l, NULL, NULL));
	show("poll", poll(&p, 1, 2000));
	give_back(8);
	echo_once(l);
	give_back(taken_count);
	tell();
	echo_once(l);
	close(l);
}

static void talk(int fd)
{
	char c = 'x';

	show("write", write(fd, &c, 1));
	show("read", read(fd, &c, 1));
	close(fd);
}

static void client(void)
{
	int fd;

	await();
	talk(connect_to(PORT));
	await();
	fd = connect_to(PORT);
	tell();
	talk(fd);
	await();
	talk(connect_to(PORT));
}

int main(void)
{
	return roles(server, client);
}
