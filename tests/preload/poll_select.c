/* SPDX-License-Identifier: BSD-2-Clause */
/* poll and select: result bits, bad and negative descriptors, regular files, kernel descriptors beside, timeouts. */
#include "pair.h"

static void poll_show(const char *what, struct pollfd *p, int n, int ms)
{
	int r = poll(p, (nfds_t)n, ms);

	show(what, r);
	for (int i = 0; i < n; i++)
		say("  %x", (unsigned)p[i].revents);
}

static void select_show(const char *what, int fd, int other, struct timeval *t)
{
	int high = (fd > other ? fd : other) + 1, r;
	fd_set in, out, ex;

	FD_ZERO(&in);
	FD_ZERO(&out);
	FD_ZERO(&ex);
	FD_SET(fd, &in);
	FD_SET(fd, &out);
	FD_SET(fd, &ex);
	FD_SET(other, &in);
	r = select(high, &in, &out, &ex, t);
	show(what, r);
	if (r >= 0)
		say("  in %d out %d except %d other %d", FD_ISSET(fd, &in) != 0, FD_ISSET(fd, &out) != 0,
		    FD_ISSET(fd, &ex) != 0, FD_ISSET(other, &in) != 0);
}

static void server(int fd)
{
	int p[2], file = open("/dev/null", O_RDWR), regular = fileno(tmpfile());
	struct pollfd all[5] = {
	    {fd, POLLIN, 0}, {-1, POLLIN, 0}, {999, POLLIN, 0}, {file, POLLIN, 0}, {regular, POLLIN, 0}};
	struct pollfd two[2], one = {fd, POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM, 0};
	struct timeval t = {0, 30000};
	struct timespec ts = {0, 20000000};
	fd_set in;
	double start;

	if (pipe(p) < 0)
		exit(2);
	poll_show("all kinds", all, 5, 1000);
	two[0] = (struct pollfd){fd, POLLIN, 0};
	two[1] = (struct pollfd){p[0], POLLIN, 0};
	start = now_ms();
	poll_show("nothing", two, 2, 30);
	say("it waited %d", now_ms() - start >= 29);
	show("ppoll, nothing", ppoll(two, 2, &ts, NULL));
	select_show("select, writable", fd, p[0], &t);
	t = (struct timeval){0, 30000};
	FD_ZERO(&in);
	FD_SET(fd, &in);
	show("select, timed out", select(fd + 1, &in, NULL, NULL, &t));
	say("set empty %d, time left %ld.%06ld", !FD_ISSET(fd, &in), (long)t.tv_sec, (long)t.tv_usec);
	if (write(p[1], "x", 1) != 1)
		exit(2);
	poll_show("pipe", two, 2, 1000);
	tell();
	await();
	rest(20);
	poll_show("both", two, 2, 1000);
	poll_show("all bits", &one, 1, 1000);
	t = (struct timeval){5, 0};
	select_show("select, both", fd, p[0], &t);
	say("most of the time is left %d", t.tv_sec >= 4); /* all of it, where that took less than a microsecond */
	FD_ZERO(&in);
	FD_SET(fd, &in);
	close(p[0]);
	FD_SET(p[0], &in);
	show("select, bad descriptor", select(p[0] + 1, &in, NULL, NULL, &t));
	tell();
	await();
	rest(20);
	one.events = POLLIN | POLLRDHUP;
	poll_show("the peer's half close", &one, 1, 1000);
	one.events = 0;
	poll_show("nothing asked", &one, 1, 20);
	read_all(fd, (char[8]){0}, 8);
	shutdown(fd, SHUT_WR);
	rest(20);
	poll_show("closed both ways, nothing asked", &one, 1, 1000);
	FD_ZERO(&in);
	FD_SET(fd, &in);
	show("select at the end", select(fd + 1, &in, NULL, NULL, NULL));
	show("pselect at the end", pselect(fd + 1, &in, NULL, NULL, &ts, NULL));
	close(fd);
}

static void client(int fd)
{
	await();
	send(fd, "data", 4, 0);
	tell();
	await();
	shutdown(fd, SHUT_WR);
	tell();
	read_all(fd, (char[8]){0}, 8);
	close(fd);
}

int main(void)
{
	return pair(server, client);
}
