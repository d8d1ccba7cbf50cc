/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Epoll sets and poll for packetdrill scripts: level- and edge-triggered, over the engine's news.
 */
#include <stdlib.h>
#include <string.h>

#include "calls.h"

struct epoll_member {
	struct epoll_member *next;
	int fd;
	bool news; /* something happened since last reported */
	struct epoll_event ev;
};

uint32_t machine_poll_fd(struct machine *m, int fd)
{
	struct machine_fd *f = machine_fd(m, fd, FD_SOCK);
	struct sock *k = f ? sock_at(m->e.s, f->sock) : NULL;

	return k ? tcp_poll(&m->e, k) : 0;
}

static void mark_news(struct machine *m, uint32_t sock, uint32_t edges)
{
	for (int i = 0; i < MACHINE_FDS; i++) {
		if (m->fd[i].use != FD_EPOLL_SET)
			continue;
		for (struct epoll_member *it = m->fd[i].members; it; it = it->next) {
			struct machine_fd *f = machine_fd(m, it->fd, FD_SOCK);
			if (f && f->sock == sock && (edges & (it->ev.events | EPOLLERR | EPOLLHUP)))
				it->news = true;
		}
	}
}

void sets_news(struct machine *m)
{
	struct stack_proc *p = &m->e.s->proc[0];

	while (p->dirty_head != p->dirty_tail) {
		uint32_t i = p->dirty[p->dirty_head++ % DIRTY_RING];
		struct sock *k = sock_at(m->e.s, i);
		if (!k)
			continue;
		k->dirty_mask &= ~1ull;
		uint32_t edges = k->edges | (k->edge_rdhup ? EV_RDHUP : 0u);
		k->edges = k->edge_rdhup = 0;
		mark_news(m, i, edges);
	}
}

void sets_clear(struct machine_fd *set)
{
	while (set->members) {
		struct epoll_member *it = set->members;
		set->members = it->next;
		free(it);
	}
}

void sets_forget(struct machine *m, int fd)
{
	for (int i = 0; i < MACHINE_FDS; i++) {
		struct epoll_member **at = &m->fd[i].members;
		while (*at) {
			struct epoll_member *it = *at;
			if (it->fd == fd) {
				*at = it->next;
				free(it);
			} else {
				at = &it->next;
			}
		}
	}
}

int call_epoll_create(void *u, int size)
{
	struct machine *m = u;
	struct machine_fd *f;

	(void)size;
	pthread_mutex_lock(&m->mutex);
	int fd = machine_fd_new(m, FD_EPOLL_SET, 4, &f);
	pthread_mutex_unlock(&m->mutex);
	return fd;
}

static int epoll_change(struct machine *m, struct machine_fd *set, int op, int fd, const struct epoll_event *ev)
{
	struct epoll_member **at = &set->members;

	while (*at && (*at)->fd != fd)
		at = &(*at)->next;
	if (op == EPOLL_CTL_ADD ? *at != NULL : *at == NULL) {
		errno = *at ? EEXIST : ENOENT;
		return -1;
	}
	struct epoll_member *it = *at;
	if (op == EPOLL_CTL_DEL) {
		*at = it->next;
		free(it);
		return 0;
	}
	if (op == EPOLL_CTL_ADD) {
		it = calloc(1, sizeof(*it));
		if (!it) {
			errno = ENOMEM;
			return -1;
		}
		it->fd = fd;
		it->next = set->members;
		set->members = it;
	}
	it->ev = *ev;
	it->news = (machine_poll_fd(m, fd) & (ev->events | EPOLLERR | EPOLLHUP)) != 0;
	return 0;
}

int call_epoll_ctl(void *u, int epfd, int op, int fd, struct epoll_event *ev)
{
	struct machine *m = u;

	pthread_mutex_lock(&m->mutex);
	struct machine_fd *set = machine_fd(m, epfd, FD_EPOLL_SET);
	int r = set && machine_fd(m, fd, FD_SOCK) ? epoll_change(m, set, op, fd, ev) : -1;
	pthread_mutex_unlock(&m->mutex);
	return r;
}

static int epoll_collect(struct machine *m, struct machine_fd *set, struct epoll_event *ev, int max)
{
	int n = 0;

	for (struct epoll_member *it = set->members; it && n < max; it = it->next) {
		uint32_t ready = machine_poll_fd(m, it->fd) & (it->ev.events | EPOLLERR | EPOLLHUP);
		bool edge = (it->ev.events & EPOLLET) != 0;
		if (!ready || (edge && !it->news))
			continue;
		it->news = false;
		ev[n].events = ready;
		ev[n++].data = it->ev.data;
		if (it->ev.events & EPOLLONESHOT)
			it->ev.events &= EPOLLET | EPOLLONESHOT;
	}
	return n;
}

int call_epoll_wait(void *u, int epfd, struct epoll_event *ev, int max, int timeout_ms)
{
	struct machine *m = u;
	int n = -1;

	pthread_mutex_lock(&m->mutex);
	struct machine_fd *set = machine_fd(m, epfd, FD_EPOLL_SET);
	uint64_t until = timeout_ms < 0 ? UINT64_MAX : m->now_us + (uint64_t)timeout_ms * 1000;
	if (set) {
		sets_news(m);
		while ((n = epoll_collect(m, set, ev, max)) == 0 && m->now_us < until)
			if (!machine_block(m))
				break;
	}
	pthread_mutex_unlock(&m->mutex);
	return n;
}

int call_poll(void *u, struct pollfd *fds, nfds_t n, int timeout_ms)
{
	struct machine *m = u;
	int ready;

	pthread_mutex_lock(&m->mutex);
	uint64_t until = timeout_ms < 0 ? UINT64_MAX : m->now_us + (uint64_t)timeout_ms * 1000;
	for (;;) {
		ready = 0;
		for (nfds_t i = 0; i < n; i++) {
			fds[i].revents =
			    (short)(machine_poll_fd(m, fds[i].fd) & ((uint32_t)fds[i].events | POLLERR | POLLHUP));
			ready += fds[i].revents != 0;
		}
		if (ready || m->now_us >= until || !machine_block(m))
			break;
	}
	pthread_mutex_unlock(&m->mutex);
	return ready;
}
