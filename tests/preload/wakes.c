/* SPDX-License-Identifier: BSD-2-Clause */
/* What wakes a thread that waits in a call: shutdown of its socket or listener, data after another thread's close. */
#include <pthread.h>

#include "pair.h"

static int shared;
static long result;
static int error;

static void *reader(void *arg)
{
	char buf[16];

	(void)arg;
	result = recv(shared, buf, sizeof buf, 0);
	error = errno;
	return NULL;
}

static void *accepter(void *arg)
{
	(void)arg;
	result = accept(shared, NULL, NULL);
	error = errno;
	return NULL;
}

static void *poller(void *arg)
{
	struct pollfd p = {.fd = shared, .events = POLLIN};

	(void)arg;
	result = poll(&p, 1, 3000);
	error = p.revents;
	return NULL;
}

static void *sender(void *arg)
{
	size_t size = 100000;
	char *block = malloc(size);
	void *bad = NULL;

	memset(block, *(char *)arg, size);
	for (int i = 0; i < 20 && !bad; i++)
		if (send(shared, block, size, 0) != (ssize_t)size)
			bad = arg;
	free(block);
	return bad;
}

/* Does the thread end within ms? */
static bool ends(pthread_t t, int ms)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += ms * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000L;
	until.tv_nsec %= 1000000000L;
	return pthread_timedjoin_np(t, NULL, &until) == 0;
}

static void show_end(const char *what, pthread_t t)
{
	bool ended = ends(t, 2000);

	errno = error;
	if (!ended)
		say("%s: still waits", what);
	else if (result < 0)
		show(what, -1);
	else
		say("%s: %ld", what, result);
}

static void shut_reader(int l, int how)
{
	pthread_t t;

	shared = accept(l, NULL, NULL);
	pthread_create(&t, NULL, reader, NULL);
	rest(50);
	show("shutdown", shutdown(shared, how));
	show_end("reader after shutdown", t);
	close(shared);
	await();
}

static void shut_poller(int l)
{
	pthread_t t;

	shared = accept(l, NULL, NULL);
	pthread_create(&t, NULL, poller, NULL);
	rest(50);
	show("shutdown", shutdown(shared, SHUT_RDWR));
	show_end("poll after shutdown", t);
	say("events %x", (unsigned)error);
	close(shared);
	await();
}

static void shut_listener(bool polls)
{
	pthread_t t;
	struct pollfd p = {.events = POLLIN};

	shared = listen_on(PORT + 1);
	pthread_create(&t, NULL, polls ? poller : accepter, NULL);
	rest(50);
	show("shutdown of a listener", shutdown(shared, SHUT_RD));
	show_end(polls ? "poll of a listener" : "accept", t);
	if (polls)
		say("events %x", (unsigned)error);
	show("accept again", accept(shared, NULL, NULL));
	p.fd = shared;
	show("poll", poll(&p, 1, 0));
	say("events %x", (unsigned)p.revents);
	close(shared);
}

static void two_senders(int l)
{
	pthread_t t[2];
	void *bad[2];

	shared = accept(l, NULL, NULL);
	pthread_create(&t[0], NULL, sender, "a");
	pthread_create(&t[1], NULL, sender, "b");
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], &bad[i]);
	say("senders: %d %d", bad[0] != NULL, bad[1] != NULL);
	close(shared);
}

/* The kernel leaves the reader where it is; the peer's data or end reaches it still. */
static void closed_reader(int l)
{
	pthread_t t;

	shared = accept(l, NULL, NULL);
	pthread_create(&t, NULL, reader, NULL);
	rest(50);
	show("close under a reader", close(shared));
	say("ends by that: %d", ends(t, 200));
	tell();
	show_end("reader after the peer's data", t);
}

/* The process ends while threads wait in recv, one of them on a socket that was closed: both peers see the end. */
static void exits_under_readers(int l)
{
	pthread_t t;

	for (int i = 0; i < 2; i++) {
		shared = accept(l, NULL, NULL);
		pthread_create(&t, NULL, reader, NULL);
		rest(50);
	}
	close(shared);
	close(l);
}

static void server(void)
{
	int l = listen_on(PORT);

	tell();
	shut_reader(l, SHUT_RD);
	shut_reader(l, SHUT_RDWR);
	shut_poller(l);
	shut_listener(false);
	shut_listener(true);
	two_senders(l);
	closed_reader(l);
	exits_under_readers(l);
}

static void client(void)
{
	static char buf[65536];
	long count[2] = {0};
	int fd, last[2];
	ssize_t n;

	await();
	for (int i = 0; i < 3; i++) {
		fd = connect_to(PORT);
		rest(100);
		tell();
		close(fd);
	}
	fd = connect_to(PORT);
	while ((n = read(fd, buf, sizeof buf)) > 0)
		for (ssize_t i = 0; i < n; i++)
			count[buf[i] == 'b']++;
	say("a %ld b %ld", count[0], count[1]);
	close(fd);
	fd = connect_to(PORT);
	await();
	show("write", write(fd, "late", 4));
	rest(200);
	close(fd);
	for (int i = 0; i < 2; i++)
		last[i] = connect_to(PORT);
	for (int i = 0; i < 2; i++)
		show("end of a process with readers", read(last[i], buf, sizeof buf));
}

int main(void)
{
	return roles(server, client);
}
