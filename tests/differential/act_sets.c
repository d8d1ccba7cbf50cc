/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An actor's calls about readiness, and look(): what is ready on every descriptor it has, which is compared after each
 * step. No call waits. Events of a set are sorted: their order is the kernel's own affair.
 */
#include "play.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>

#define EVENTS_MAX 64

const char *events_text(unsigned events, char *text)
{
	static const struct {
		unsigned bit;
		char letter;
	} letters[] = {{POLLIN, 'i'},     {POLLPRI, 'p'},    {POLLOUT, 'o'},    {POLLERR, 'e'},
		       {POLLHUP, 'h'},    {POLLRDHUP, 'r'},  {POLLNVAL, 'n'},   {POLLRDNORM, 'I'},
		       {POLLRDBAND, 'B'}, {POLLWRNORM, 'O'}, {POLLWRBAND, 'W'}, {0xffffdc00u, '?'}};
	char *end = text;

	for (size_t i = 0; i < sizeof letters / sizeof *letters; i++)
		if (events & letters[i].bit)
			*end++ = letters[i].letter;
	*end = 0;
	return text;
}

static void act_poll(struct actor *me, const int *a)
{
	struct pollfd p[SLOTS];
	char text[32];
	nfds_t n = 0;

	for (int i = 0; i < SLOTS; i++)
		if (a[0] & 1 << i)
			p[n++] = (struct pollfd){me->fd[i], (short)a[1], 0};
	answer_result(me, poll(p, n, 0));
	for (nfds_t i = 0; i < n; i++)
		answer(me, " %d:%s", p[i].fd, events_text((unsigned short)p[i].revents, text));
}

static void act_select(struct actor *me, const int *a)
{
	struct timeval now = {0, 0};
	fd_set sets[3];
	int highest = -1, r;

	for (int i = 0; i < 3; i++) {
		FD_ZERO(&sets[i]);
		for (int j = 0; j < SLOTS; j++)
			if ((a[i] & 1 << j) && me->fd[j] >= 0) {
				FD_SET(me->fd[j], &sets[i]);
				highest = me->fd[j] > highest ? me->fd[j] : highest;
			}
	}
	r = select(highest + 1, &sets[0], &sets[1], &sets[2], &now);
	answer_result(me, r);
	for (int i = 0; r >= 0 && i < 3; i++) {
		answer(me, " /");
		for (int fd = 0; fd <= highest; fd++)
			if (FD_ISSET(fd, &sets[i]))
				answer(me, " %d", fd);
	}
}

static int by_data(const void *a, const void *b)
{
	const struct epoll_event *x = a, *y = b;

	return x->data.u64 < y->data.u64 ? -1 : x->data.u64 > y->data.u64;
}

static void act_wait(struct actor *me, int fd, int most)
{
	struct epoll_event events[EVENTS_MAX];
	char text[32];
	int n = epoll_wait(fd, events, most > EVENTS_MAX ? EVENTS_MAX : most, 0);

	answer_result(me, n);
	if (n > 0)
		qsort(events, (size_t)n, sizeof *events, by_data);
	for (int i = 0; i < n; i++)
		answer(me, " %u:%s", (unsigned)events[i].data.u64, events_text(events[i].events, text));
}

void act_sets(struct actor *me, const struct step *s)
{
	int fd = descriptor(me, s->a[0]), r;
	struct epoll_event event;

	switch (s->op) {
	case OP_poll:
		act_poll(me, s->a);
		break;
	case OP_select:
		act_select(me, s->a);
		break;
	case OP_epoll:
		r = epoll_create1(s->a[1]);
		answer_result(me, r);
		put_descriptor(me, s->a[0], r);
		break;
	case OP_ctl:
		event = (struct epoll_event){.events = (uint32_t)s->a[3], .data.u64 = (uint64_t)s->a[2]};
		answer_result(me, epoll_ctl(fd, s->a[1], descriptor(me, s->a[2]), &event));
		break;
	case OP_wait:
		act_wait(me, fd, s->a[1]);
		break;
	}
}

/* Both ends have closed, and both know it. */
static bool is_closed(int fd)
{
	struct tcp_info info;
	socklen_t length = sizeof info;

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && info.tcpi_state == TCP_CLOSE;
}

void look(struct actor *me, bool on_kernel)
{
	struct pollfd p[SLOTS];
	char text[32];
	int waiting;
	bool unsent = false;

	for (int i = 0; i < SLOTS; i++)
		p[i] = (struct pollfd){me->fd[i], POLLIN | POLLPRI | POLLOUT | POLLRDHUP, 0};
	if (poll(p, SLOTS, 0) < 0)
		answer(me, " poll failed");
	for (int i = 0; i < SLOTS; i++) {
		if (me->fd[i] < 0 || p[i].revents == POLLNVAL)
			continue;
		answer(me, " %d:%s", i, events_text((unsigned short)p[i].revents, text));
		if (ioctl(me->fd[i], FIONREAD, &waiting) == 0 && waiting)
			answer(me, "/%d", waiting);
		if (p[i].revents & POLLHUP && is_closed(me->fd[i]))
			answer(me, "c");
		unsent |= on_kernel && !(p[i].revents & (POLLERR | POLLHUP)) &&
			  ioctl(me->fd[i], SIOCOUTQNSD, &waiting) == 0 && waiting;
	}
	if (unsent)
		answer(me, UNSENT);
}
