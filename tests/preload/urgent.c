/* SPDX-License-Identifier: BSD-2-Clause */
/* Urgent data: MSG_OOB, the mark, POLLPRI, in-line delivery. */
#include "pair.h"
#include <linux/sockios.h>

static void at_mark(int fd)
{
	int n = -1;

	ioctl(fd, SIOCATMARK, &n);
	say("at the mark %d %d", n, sockatmark(fd));
}

static void server(int fd)
{
	struct pollfd p = {fd, POLLIN | POLLPRI, 0};
	char buf[16] = "";
	int on = 1;

	show("recv MSG_OOB, none", recv(fd, buf, 1, MSG_OOB));
	tell();
	await();
	rest(20);
	poll(&p, 1, 1000);
	say("poll %x", (unsigned)p.revents);
	at_mark(fd);
	show("recv stops at the mark", recv(fd, buf, 16, 0));
	say("%.3s", buf);
	at_mark(fd);
	show("recv MSG_OOB", recv(fd, buf, 1, MSG_OOB));
	say("%c", buf[0]);
	show("recv MSG_OOB again", recv(fd, buf, 1, MSG_OOB));
	show("recv", recv(fd, buf, 16, 0));
	say("%.3s", buf);
	setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on);
	tell();
	await();
	rest(20);
	show("recv before", recv(fd, buf, 16, 0));
	show("recv in line", recv(fd, buf, 16, 0));
	say("%.2s", buf);
	show("recv MSG_OOB, in line", recv(fd, buf, 1, MSG_OOB));
	close(fd);
}

static void client(int fd)
{
	await();
	send(fd, "abc", 3, 0);
	show("send MSG_OOB", send(fd, "U", 1, MSG_OOB));
	send(fd, "def", 3, 0);
	tell();
	await();
	send(fd, "gh", 2, 0);
	send(fd, "V", 1, MSG_OOB);
	send(fd, "i", 1, 0);
	tell();
	read_all(fd, (char[4]){0}, 4);
	close(fd);
}

int main(void)
{
	return pair(server, client);
}
