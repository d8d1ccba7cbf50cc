/* SPDX-License-Identifier: BSD-2-Clause */
/* SO_RCVTIMEO, SO_SNDTIMEO, SO_LINGER: results and times. A time is printed as right or wrong, not as a number. */
#include "pair.h"

#define FULL (1 << 20)

/* A call that must take about ms: not less, and hardly more. On a busy machine any one may be late, but not for ever.
 */
#define LATE 3000

static void took(const char *what, double start, int ms)
{
	double t = now_ms() - start;

	if (t > ms - 8 && t < ms + LATE)
		say("%s took about %d ms", what, ms);
	else
		say("%s took %.0f ms, not %d", what, t, ms);
}

/* A call that fails after ms: of some at least one hardly later. */
static void times(const char *what, int ms, long (*call)(int), int fd)
{
	double least = LATE, t;

	for (int i = 0; i < 20 && least >= ms + 100; i++) {
		t = now_ms();
		if (call(fd) != -1 || (errno != EAGAIN && errno != EWOULDBLOCK))
			show(what, 0);
		t = now_ms() - t;
		least = t < least ? t : least;
	}
	if (least > ms - 8 && least < ms + 100)
		say("%s took about %d ms", what, ms);
	else
		say("%s took %.0f ms, not %d", what, least, ms);
}

static long receives(int fd)
{
	char c;

	return recv(fd, &c, 1, 0);
}

static long receives_all(int fd)
{
	char c;

	return recv(fd, &c, 1, MSG_WAITALL);
}

static long accepts(int fd)
{
	return accept(fd, NULL, NULL);
}

static long sends(int fd)
{
	char buf[1000] = {0};

	return send(fd, buf, sizeof buf, 0);
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
	int ms[] = {10, 30, 100, 250};

	for (unsigned i = 0; i < 4; i++) {
		set_timeout(fd, SO_RCVTIMEO, ms[i]);
		show("recv", receives(fd));
		times("recv", ms[i], receives, fd);
	}
	show("recv, all of 1", receives_all(fd));
	times("recv, all of 1", 250, receives_all, fd);
}

static void times_accepting(void)
{
	int l = listen_on(PORT + 1);

	set_timeout(l, SO_RCVTIMEO, 100);
	show("accept", accepts(l));
	times("accept", 100, accepts, l);
	close(l);
}

static void times_datagrams(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in a = address(PORT + 2);

	(void)!bind(fd, (struct sockaddr *)&a, sizeof a);
	set_timeout(fd, SO_RCVTIMEO, 100);
	show("recv, datagram", receives(fd));
	times("recv", 100, receives, fd);
	close(fd);
}

static void times_sending(int fd)
{
	say("filled: %d", fill(fd) > 10000);
	set_timeout(fd, SO_SNDTIMEO, 100);
	show("send", sends(fd));
	times("send", 100, sends, fd);
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
