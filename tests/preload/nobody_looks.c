/* SPDX-License-Identifier: BSD-2-Clause */
/* An end at which no thread looks is served all the same, though the other end's thread is busy in the same stack: who
 * writes to a socket that was closed hears of it while he writes; an ACK that is due goes out though the only thread
 * awake looks at another socket. */
#include "pair.h"

#include <pthread.h>

#define WRITES 200
#define LOOKS 2000

/* Until it fails; the kernel's second write does, and nobody shall need all of these. */
static void write_until_error(int fd)
{
	int failed = 0;

	for (int i = 0; i < WRITES && !failed; i++) {
		if (send(fd, "x", 1, MSG_NOSIGNAL) < 0)
			failed = errno;
		rest(1);
	}
	say("writing to the closed end: %s", failed == EPIPE || failed == ECONNRESET ? "refused" : "taken");
}

static void same_process(int l)
{
	int c = connect_to(PORT), s = accept(l, NULL, NULL);
	char buf[16];

	show("send", send(c, "last", 4, 0));
	close(c);
	while (recv(s, buf, sizeof buf, 0) > 0)
		;
	write_until_error(s);
	close(s);
}

/* The child has the parent's stack mapped as well, in which the parent is busy. */
static void sleeping_child(int l)
{
	pid_t child = fork();
	char buf[16];
	int s;

	if (child == 0) {
		int c = connect_to(PORT);

		send(c, "last", 4, 0);
		close(c);
		rest(2000);
		_exit(0);
	}
	s = accept(l, NULL, NULL);
	while (recv(s, buf, sizeof buf, 0) > 0)
		;
	rest(50); /* the child sleeps now */
	write_until_error(s);
	close(s);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static int answering, listening;
static _Atomic bool all_there;

/* Answers in three writes, of which Nagle's algorithm holds the last back until the second is acknowledged; then only
 * looks at another socket. */
static void *answer(void *arg)
{
	struct pollfd p = {.fd = listening, .events = POLLIN};
	char c;

	for (int i = 0; i < 5; i++) {
		recv(answering, &c, 1, 0);
		for (int j = 0; j < 3; j++)
			send(answering, "x", 1, 0);
		for (int j = 0; j < LOOKS && !all_there; j++)
			poll(&p, 1, 1);
		if (!all_there)
			*(bool *)arg = true;
		all_there = false;
	}
	return NULL;
}

static void owed_ack(int l)
{
	int c = connect_to(PORT);
	bool late = false;
	pthread_t thread;
	char buf[16];

	answering = accept(l, NULL, NULL);
	listening = l;
	pthread_create(&thread, NULL, answer, &late);
	for (int i = 0; i < 5; i++) {
		ssize_t got = 0;

		send(c, "?", 1, 0);
		while (got < 3)
			got += recv(c, buf, sizeof buf, 0);
		all_there = true;
		while (all_there)
			rest(1);
	}
	pthread_join(thread, NULL);
	say("the answers: %s", late ? "late" : "in time");
	close(c);
	close(answering);
}

int main(void)
{
	int l;

	said = stdout;
	alarm(20);
	l = listen_on(PORT);
	same_process(l);
	sleeping_child(l);
	owed_ack(l);
	close(l);
	return 0;
}
