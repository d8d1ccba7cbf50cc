/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See handshakes.h. Each handshake under way is an entry: the connection, the socket that it asked for, and when its
 * time is over. When all entries are in use, the oldest goes. `under_way` is held while descriptors come and go, so
 * after handshakes_give_way no descriptor is still on its way to being closed.
 */
#include "socket/handshakes.h"

#include <pthread.h>
#include <sys/epoll.h>

#include "host/handshake.h"
#include "host/host.h"
#include "host/knobs.h"
#include "socket/wire.h"

#define AT_ONCE 64 /* answered before the helper looks at anything else */

struct handshake {
	vsock_t v; /* VS_NONE: unused */
	int fd;
	int64_t deadline_ms;
};

static struct handshake table[HANDSHAKES_MAX];
static pthread_mutex_t under_way = PTHREAD_MUTEX_INITIALIZER;

static void refuse(struct handshake *h)
{
	rdv_accept_refuse(h->fd, -EPROTO);
	h->v = VS_NONE;
}

static struct handshake *free_entry(void)
{
	struct handshake *oldest = &table[0];

	for (uint32_t i = 0; i < HANDSHAKES_MAX; i++) {
		if (table[i].v == VS_NONE)
			return &table[i];
		if (table[i].deadline_ms < oldest->deadline_ms)
			oldest = &table[i];
	}
	refuse(oldest);
	return oldest;
}

/* Wait for its hello. */
static void keep(vsock_t v, int fd, int epfd, uint64_t tag)
{
	struct handshake *h = free_entry();
	struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP, .data.u64 = tag + (uint32_t)(h - table)};
	int high = host_fd_high(fd);

	*h = (struct handshake){.v = v, .fd = high < 0 ? fd : high};
	h->deadline_ms = handshake_now_ms() + (int64_t)knob[K_HANDSHAKE_MS];
	if (high < 0 || host_sys.epoll_ctl(epfd, EPOLL_CTL_ADD, h->fd, &ev) < 0)
		refuse(h);
}

/* -EAGAIN: its hello has not come. */
static int answer(struct attached *a, int fd)
{
	struct rdv_wire w;
	struct rdv_self self;
	int ret;

	wire_self(a, &self);
	ret = rdv_accept_step(fd, &self, &w);

	if (ret == 0)
		wire_add(a, &w);
	return ret;
}

/* A wire would be of no use: the stack has no socket for what comes over it. */
static bool no_room(struct attached *a)
{
	const struct stack_pool *p = &a->s->sock_pool;
	bool full;

	stack_enter(a);
	full = !p->free_head && p->mark >= p->limit;
	stack_leave(a);
	return full;
}

void handshakes_begin(vsock_t v, int rdv_fd, int epfd, uint64_t tag)
{
	struct attached *a = vs_attached(v);
	int fd = 0;

	for (int i = 0; i < AT_ONCE && a; i++) {
		quiet_lock(&under_way);
		fd = rdv_accept_begin(rdv_fd, knob[K_PEERS] == PEERS_ANY);
		if (fd >= 0 && no_room(a))
			rdv_accept_refuse(fd, -EUSERS);
		else if (fd >= 0 && answer(a, fd) == -EAGAIN)
			keep(v, fd, epfd, tag);
		quiet_unlock(&under_way);
		if (fd < 0 && fd != -EPROTO && fd != -EPERM)
			return;
	}
}

void handshakes_step(uint32_t i)
{
	struct handshake *h = &table[i % HANDSHAKES_MAX];
	struct attached *a;

	quiet_lock(&under_way);
	a = h->v != VS_NONE ? vs_attached(h->v) : NULL;
	if (a && !vs_alive(h->v))
		refuse(h);
	else if (a && answer(a, h->fd) != -EAGAIN)
		h->v = VS_NONE;
	quiet_unlock(&under_way);
}

int handshakes_expire(void)
{
	int64_t now = 0, next = -1;

	quiet_lock(&under_way);
	for (uint32_t i = 0; i < HANDSHAKES_MAX; i++) {
		struct handshake *h = &table[i];

		if (h->v == VS_NONE)
			continue;
		now = now ? now : handshake_now_ms();
		if (h->deadline_ms <= now)
			refuse(h);
		else if (next < 0 || h->deadline_ms - now < next)
			next = h->deadline_ms - now;
	}
	quiet_unlock(&under_way);
	return (int)next;
}

void handshakes_give_way(void)
{
	quiet_lock(&under_way);
	for (uint32_t i = 0; i < HANDSHAKES_MAX; i++)
		if (table[i].v != VS_NONE)
			refuse(&table[i]);
	quiet_unlock(&under_way);
}

void handshakes_after_fork(void)
{
	pthread_mutex_init(&under_way, NULL);
	for (uint32_t i = 0; i < HANDSHAKES_MAX; i++) {
		if (table[i].v != VS_NONE)
			host_fd_close(table[i].fd); /* the parent goes on with it */
		table[i].v = VS_NONE;
	}
}
