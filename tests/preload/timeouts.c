/* SPDX-License-Identifier: BSD-2-Clause */
/* SO_RCVTIMEO, SO_SNDTIMEO, SO_LINGER: results and times. A time is printed as right or wrong, not as a number. */
#include "pair.h"

#define FULL (1 << 20)

/* A call that must take about ms: not less, and hardly more. */
static void took(const char *what, double start, int ms)
{
	double t = now_ms() - start;

	if (t > ms - 8 && t < ms + 400) /* how late it may be depends on the machine's load, too */
		say("%s took about %d ms", what, ms);
	else
		say("%s took %.0f ms, not %d", what, t, ms);
}

static void set_timeout(int fd, int name, int ms)
{
	struct timeval tv = {ms / 1000, ms % 1000 * 1000}, got = {0};
	socklen_t len = sizeof got;

	show("setsockopt", setsockopt(fd, SOL_SOCKET, name, &tv, sizeof tv));
	getsockopt(fd, SOL_SOCKET, name, &got, &len);
	/* the kernel counts in its own ticks */
	say("timeout is about %ld ms", (long)(got.tv_sec * 1000 + (got.tv_usec + 500) / 1000) / 10 * 10);
}

static void set_linger(int fd, int on, int seconds)
{
	struct linger l = {on, seconds};

	show("SO_LINGER", setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l));
}

/* Until nothing fits any more, also not a while later: the other end may still take some in, though nobody reads; and
 * what is left of its window is used after a retransmission timeout. */
static int fill(int fd)
{
	char buf[65536] = {0};
	int total = 0, before;
	ssize_t n;

	do {
		before = total;
		while ((n = send(fd, buf, sizeof buf, MSG_DONTWAIT)) > 0)
			total += (int)n;
		rest(450);
	} while (total > before);
	return total;
}

static void times_receiving(int fd)
{
	char c;
	double t;
	int ms[] = {10, 30, 100, 250};

	for (unsigned i = 0; i < 4; i++) {
		set_timeout(fd, SO_RCVTIMEO, ms[i]);
		t = now_ms();
		show("recv", recv(fd, &c, 1, 0));
		took("recv", t, ms[i]);
	}
	t = now_ms();
	show("recv, all of 1", recv(fd, &c, 1, MSG_WAITALL));
	took("recv", t, 250);
}

static void times_accepting(void)
{
	int l = listen_on(PORT + 1);
	double t;

	set_timeout(l, SO_RCVTIMEO, 100);
	t = now_ms();
	show("accept", accept(l, NULL, NULL));
	took("accept", t, 100);
	close(l);
}

static void times_datagrams(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in a = address(PORT + 2);
	char c;
	double t;

	(void)!bind(fd, (struct sockaddr *)&a, sizeof a);
	set_timeout(fd, SO_RCVTIMEO, 100);
	t = now_ms();
	show("recv, datagram", recv(fd, &c, 1, 0));
	took("recv", t, 100);
	close(fd);
}

static void times_sending(int fd)
{
	char buf[1000] = {0};
	double t;

	say("filled: %d", fill(fd) > 10000);
	set_timeout(fd, SO_SNDTIMEO, 100);
	t = now_ms();
	show("send", send(fd, buf, sizeof buf, 0));
	took("send", t, 100);
}

static void end_pair(int l, int linger, int seconds)
{
	int fd = accept(l, NULL, NULL);
	double t;

	say("filled: %d", fill(fd) > 10000);
	set_linger(fd, linger, seconds);
	t = now_ms();
	show("close", close(fd));
	took("close", t, seconds * 1000);
	tell();
	await();
}

static void server(void)
{
	int l = listen_on(PORT), fd;

	tell();
	fd = accept(l, NULL, NULL);
	times_receiving(fd);
	times_accepting();
	times_datagrams();
	times_sending(fd);
	close(fd);
	tell();
	end_pair(l, 1, 0); /* reset */
	end_pair(l, 1, 1); /* nobody reads: all of the time */
	end_pair(l, 0, 0); /* in the background */
	/* All is read: it need not wait. */
	fd = accept(l, NULL, NULL);
	set_linger(fd, 1, 5);
	show("send", send(fd, "hello", 5, 0));
	await();
	{
		double t = now_ms();

		close(fd);
		took("close of a connection that was read", t, 0);
	}
	/* The peer reads after a while. */
	fd = accept(l, NULL, NULL);
	say("filled: %d", fill(fd) > 10000);
	set_linger(fd, 1, 5);
	tell();
	{
		double t = now_ms();

		close(fd);
		took("close of a connection that is read later", t, 300);
	}
	close(l);
}

/* Bytes until the end, and what the end is. */
static void drain(int fd)
{
	static char buf[65536];
	ssize_t n;
	long total = 0;

	while ((n = read(fd, buf, sizeof buf)) > 0)
		total += n;
	say("read something: %d", total > 10000);
	show("end", n);
	close(fd);
}

static void client(void)
{
	int fd;
	char c;

	await();
	fd = connect_to(PORT);
	await();
	close(fd);
	fd = connect_to(PORT);
	await();
	show("after a reset", read(fd, &c, 1));
	show("after a reset", read(fd, &c, 1));
	close(fd);
	tell();
	for (int i = 0; i < 2; i++) {
		fd = connect_to(PORT);
		await();
		drain(fd);
		tell();
	}
	fd = connect_to(PORT);
	{
		char buf[5];

		show("read", (long)read_all(fd, buf, 5));
		rest(20);
		tell();
	}
	show("end", read(fd, &c, 1));
	close(fd);
	fd = connect_to(PORT);
	await();
	rest(300);
	drain(fd);
}

int main(void)
{
	return roles(server, client);
}
