/* SPDX-License-Identifier: BSD-2-Clause */
/* See server.h. */
#include "daemon/server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "daemon/closer.h"
#include "daemon/orphan.h"
#include "daemon/requests.h"

#define ACCEPT_BURST 16
#define NOBODY 0xffffffffu
#define ADOPTED_MS 20000 /* in which stacks of an earlier viaductd must have come */
#define FIND_MS 500      /* so often those are looked for who finish connections */
#define PORTS_MS 2000    /* so often ports of filters are looked at (house_check_ports) */
#define LINGER_MS 3000   /* a transient viaductd stays without users: the next may come at once */

enum source {
	SOURCE_LISTENER,
	SOURCE_CLIENT,
	SOURCE_PROCESS,
	SOURCE_MIRROR,
	SOURCE_STOP,
	SOURCE_ORPHAN,
	SOURCE_ORPHAN_WORDS
};

struct server {
	struct house *house;
	int epoll, listener;
	int spare; /* closed to have one descriptor for turning somebody away */
	struct client *client[SERVER_CLIENTS];
	uint32_t clients, numbered;
	int64_t adopted_until; /* ms; 0: nobody is waited for */
	int64_t find_at;       /* ms: when those who finish an earlier viaductd's connections are looked for again */
	int64_t ports_at;      /* ms: when filters' ports are looked at next; 0: there are none of that kind */
	int64_t idle_since;    /* ms; 0: somebody is here */
};

static int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int watch(struct server *s, int fd, enum source kind, uint32_t index)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = (uint64_t)kind << 32 | index};

	return epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

/* --- tenants' ends --- */

static bool alive(const struct tenant *t)
{
	for (uint32_t i = 0; i < TENANT_PROCESSES; i++)
		if (t->process[i] >= 0)
			return true;
	return false;
}

static int watch_orphan(struct server *s, const struct tenant *t)
{
	uint32_t at = 0;
	int rc;

	while (s->house->tenant[at] != t)
		at++;
	rc = watch(s, t->orphan_fd, SOURCE_ORPHAN, at);
	return rc ? rc : watch(s, t->orphan_words, SOURCE_ORPHAN_WORDS, at);
}

/* Its connections are finished first, if it has any. */
static void end_if_dead(struct server *s, struct tenant *t)
{
	if (t->clients || alive(t) || t->orphan)
		return;
	if (orphan_adopt(t) || watch_orphan(s, t))
		tenant_free(t);
}

static void orphan_ready(struct server *s, uint32_t at, bool words)
{
	struct tenant *t = s->house->tenant[at];

	if (!t || !t->orphan)
		return;
	if (words)
		orphan_hear(t);
	else if (orphan_is_over(t))
		tenant_free(t);
}

static void process_gone(struct server *s, uint32_t index)
{
	struct tenant *t = s->house->tenant[index / TENANT_PROCESSES];
	int *process = t ? &t->process[index % TENANT_PROCESSES] : NULL;
	struct pollfd p = {.events = POLLIN};

	/* the event may be of one who was here before */
	if (!process || *process < 0)
		return;
	p.fd = *process;
	if (poll(&p, 1, 0) != 1)
		return;
	tenant_process_gone(t, index % TENANT_PROCESSES);
	end_if_dead(s, t);
}

int server_watch_process(struct server *s, const struct tenant *t, uint32_t at)
{
	return watch(s, t->process[at], SOURCE_PROCESS, t->seat * TENANT_PROCESSES + at);
}

/* --- connections --- */

static void drop_client(struct server *s, uint32_t index)
{
	struct client *c = s->client[index];

	/* what lies unread in it is closed with it */
	epoll_ctl(s->epoll, EPOLL_CTL_DEL, c->fd, NULL);
	closer_close(c->uid, c->fd);
	if (c->news >= 0)
		close(c->news);
	s->client[index] = NULL;
	s->clients--;
	if (c->tenant) {
		tenant_client_gone(c->tenant, c->number);
		end_if_dead(s, c->tenant);
	}
	free(c);
}

static uint32_t clients_of(const struct server *s, uint32_t uid)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < SERVER_CLIENTS; i++)
		n += s->client[i] && s->client[i]->uid == uid;
	return n;
}

static int add_client(struct server *s, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	struct client *c;
	uint32_t at = 0;
	int rc;

	while (at < SERVER_CLIENTS && s->client[at])
		at++;
	if (at == SERVER_CLIENTS || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return -EUSERS;
	if (clients_of(s, peer.uid) > SERVER_PER_STACK * s->house->policy.stacks + SERVER_LOOKERS)
		return -EUSERS;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	s->numbered += s->numbered == UINT32_MAX ? 2 : 1;
	*c = (struct client){.fd = fd, .news = -1, .uid = peer.uid, .pid = peer.pid, .number = s->numbered};
	rc = watch(s, fd, SOURCE_CLIENT, at);
	if (rc) {
		free(c);
		return rc;
	}
	s->client[at] = c;
	s->clients++;
	return 0;
}

/* No descriptor is left: the one kept for this lets somebody in just to be turned away, or poll would say forever that
 * he waits. */
static void turn_away(struct server *s)
{
	int fd;

	if (s->spare >= 0)
		close(s->spare);
	fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	closer_close(NOBODY, fd);
	s->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void accept_clients(struct server *s)
{
	for (int i = 0; i < ACCEPT_BURST; i++) {
		int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0 && (errno == EMFILE || errno == ENFILE))
			turn_away(s);
		if (fd < 0)
			return;
		if (add_client(s, fd))
			closer_close(NOBODY, fd);
	}
}

static void client_ready(struct server *s, uint32_t index)
{
	struct client *c = s->client[index];
	struct request q;
	int rc;

	if (!c)
		return;
	rc = request_receive(c->fd, c->uid, &q);
	if (rc == -EAGAIN)
		return;
	if (!rc) {
		if (q.head.type == DAEMON_FILTER_ADD && c->uid && !s->ports_at)
			s->ports_at = now() + PORTS_MS;
		rc = request_serve(s, s->house, c, &q);
	} else if (rc == -EMFILE)
		rc = reply_error(c->fd, &q.head, -EMFILE, "viaductd has no descriptors left");
	if (rc)
		drop_client(s, index);
}

/* Who listens may want a vNIC on an interface that is new. */
static void tell_news(const struct server *s)
{
	static const uint64_t one = 1;

	for (uint32_t i = 0; i < SERVER_CLIENTS; i++)
		if (s->client[i] && s->client[i]->news >= 0)
			(void)!write(s->client[i]->news, &one, sizeof(one));
}

/* --- the loop --- */

static bool tenants_exist(const struct house *h)
{
	for (uint32_t i = 0; i < STEER_STACKS; i++)
		if (h->tenant[i] || h->number[i].used)
			return true;
	return false;
}

static bool all_left(struct server *s)
{
	if (!s->house->policy.transient || s->clients || tenants_exist(s->house)) {
		s->idle_since = 0;
		return false;
	}
	if (!s->idle_since)
		s->idle_since = now();
	return now() - s->idle_since >= LINGER_MS;
}

static void handle(struct server *s, const struct epoll_event *ev)
{
	uint32_t index = (uint32_t)ev->data.u64;

	switch ((enum source)(ev->data.u64 >> 32)) {
	case SOURCE_LISTENER:
		accept_clients(s);
		break;
	case SOURCE_CLIENT:
		client_ready(s, index);
		break;
	case SOURCE_PROCESS:
		process_gone(s, index);
		break;
	case SOURCE_MIRROR:
		if (mirror_run(s->house->mirror) > 0)
			house_view(s->house);
		if (mirror_moved(s->house->mirror))
			tell_news(s);
		break;
	case SOURCE_ORPHAN:
	case SOURCE_ORPHAN_WORDS:
		orphan_ready(s, index, ev->data.u64 >> 32 == SOURCE_ORPHAN_WORDS);
		break;
	case SOURCE_STOP:
		break;
	}
}

static void find_orphans(struct server *s)
{
	struct tenant *found[ACCEPT_BURST];
	uint32_t n;

	do {
		n = orphan_find(s->house, found, ACCEPT_BURST);
		for (uint32_t i = 0; i < n; i++)
			if (watch_orphan(s, found[i]))
				tenant_free(found[i]);
	} while (n == ACCEPT_BURST);
	s->find_at = now() + FIND_MS;
}

/* Until when nothing is due: ms, -1 for ever. */
static int patience(const struct server *s)
{
	int64_t at = s->adopted_until && s->find_at < s->adopted_until ? s->find_at : s->adopted_until, left;

	if (s->idle_since && (!at || s->idle_since + LINGER_MS < at))
		at = s->idle_since + LINGER_MS;
	if (s->ports_at && (!at || s->ports_at < at))
		at = s->ports_at;
	if (!at)
		return -1;
	left = at - now();
	return left < 0 ? 0 : (int)left;
}

static void sweep_when_due(struct server *s)
{
	if (s->ports_at && now() >= s->ports_at)
		s->ports_at = house_check_ports(s->house) ? now() + PORTS_MS : 0;
	if (s->adopted_until && now() >= s->find_at)
		find_orphans(s);
	if (!s->adopted_until || now() < s->adopted_until)
		return;
	house_sweep(s->house);
	s->adopted_until = 0;
}

int server_run(struct server *s, int stop_fd)
{
	int rc = stop_fd >= 0 ? watch(s, stop_fd, SOURCE_STOP, 0) : 0;

	while (!rc && !all_left(s)) {
		struct epoll_event ev[32];
		int groups = groups_run(s->house->groups, now()), wait = patience(s);
		int n = epoll_wait(s->epoll, ev, 32, groups >= 0 && (wait < 0 || groups < wait) ? groups : wait);

		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n; i++) {
			if (ev[i].data.u64 >> 32 == SOURCE_STOP)
				return 0;
			handle(s, &ev[i]);
		}
		sweep_when_due(s);
	}
	return rc;
}

int server_start(struct server **out, struct house *h, int listener)
{
	struct server *s = calloc(1, sizeof(*s));
	int rc;

	if (!s) {
		close(listener);
		return -ENOMEM;
	}
	*s = (struct server){
	    .house = h, .listener = listener, .adopted_until = steer_adopted(h->steer) ? now() + ADOPTED_MS : 0};
	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	s->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	h->epoll = s->epoll;
	rc = s->epoll < 0 ? -errno : watch(s, listener, SOURCE_LISTENER, 0);
	if (!rc)
		rc = watch(s, mirror_fd(h->mirror), SOURCE_MIRROR, 0);
	if (rc) {
		server_stop(s);
		return rc;
	}
	house_view(h);
	if (s->adopted_until)
		find_orphans(s);
	*out = s;
	return 0;
}

void server_stop(struct server *s)
{
	for (uint32_t i = 0; i < SERVER_CLIENTS; i++)
		if (s->client[i]) {
			close(s->client[i]->fd);
			if (s->client[i]->news >= 0)
				close(s->client[i]->news);
			free(s->client[i]);
		}
	close(s->listener);
	if (s->epoll >= 0)
		close(s->epoll);
	if (s->spare >= 0)
		close(s->spare);
	free(s);
}
