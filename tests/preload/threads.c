/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads: one waits in a set while another adds to it; several wait in one set; one reads while another writes. */
#include "pair.h"
#include <pthread.h>

#define MESSAGES 2000

static int ep, handled[3];

static void *wait_for_one(void *arg)
{
	struct epoll_event e = {0};
	int n = epoll_wait(ep, &e, 1, 3000);

	*(int *)arg = n == 1 ? (int)e.data.u64 : -n - 1;
	return NULL;
}

/* One-shot: each message is handled by exactly one thread. */
static void *worker(void *arg)
{
	struct epoll_event e;
	char c[4];

	while (epoll_wait(ep, &e, 1, 3000) == 1) {
		int fd = (int)e.data.u64;
		ssize_t r = read(fd, c, 4);

		if (r <= 0)
			break;
		++*(int *)arg;
		if (write(fd, c, 4) != 4)
			break;
		e.events = EPOLLIN | EPOLLONESHOT;
		epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e);
	}
	return NULL;
}

static void server(int fd)
{
	struct epoll_event e = {.events = EPOLLIN, .data.u64 = 5};
	pthread_t t[3];
	int seen = 0;

	ep = epoll_create1(0);
	pthread_create(&t[0], NULL, wait_for_one, &seen);
	rest(50); /* it sleeps in an empty set */
	epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
	rest(50);
	tell();
	pthread_join(t[0], NULL);
	say("the thread saw %d", seen);
	read_all(fd, (char[4]){0}, 4);
	e.events = EPOLLIN | EPOLLONESHOT;
	e.data.u64 = (uint64_t)fd;
	epoll_ctl(ep, EPOLL_CTL_MOD, fd, &e);
	for (int i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, worker, &handled[i]);
	tell();
	await();
	shutdown(fd, SHUT_RDWR);
	epoll_ctl(ep, EPOLL_CTL_MOD, fd, &(struct epoll_event){.events = EPOLLIN, .data.u64 = (uint64_t)fd});
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	say("handled %d", handled[0] + handled[1] + handled[2]);
	close(fd);
}

static void client(int fd)
{
	int right = 0, got;

	await();
	send(fd, "1234", 4, 0);
	await();
	for (int i = 0; i < MESSAGES; i++) {
		send(fd, &i, 4, 0);
		right += read_all(fd, &got, 4) == 4 && got == i;
	}
	say("right answers %d", right);
	tell();
	close(fd);
}

int main(void)
{
	return pair(server, client);
}
