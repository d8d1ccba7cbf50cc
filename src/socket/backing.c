/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Backing sockets that are used again, so that a connection costs no socket in the kernel.
 *
 * A TCP socket costs the kernel several microseconds to make and to free, more than all that we do for a short
 * connection. An accelerated connection's backing socket is never connected, so it is as good as new when the program
 * closes it. We keep it under a high number of ours, and the program's next socket is a duplicate of it: the same
 * lowest free number as socket(2) gives, a real socket with an inode of its own. One open description has one user at a
 * time. What a program did to it decides about its future:
 *   - options that the engine answers for may be on it: then it serves accept(), whose sockets the kernel never takes
 *     over, but not socket();
 *   - options of the kernel's own, owners, modes other than O_NONBLOCK, a bind or listen by the program: it is closed.
 *
 * Ports. connect() binds the backing socket, so that the kernel gives the port to nobody else. When such a socket is
 * closed, it stays with us as the holder of its port (`ports`), and the next connect() from that address takes a port
 * that is held already. The engine says whether the name is free (sock_lookup); ports are taken oldest first.
 *
 * Both are kept only while they are used: what lies idle for IDLE_US the helper closes. Their number is bounded, and
 * there are none where few descriptors are allowed.
 *
 * fork shares open descriptions, so what is in use then is not kept when its user closes it, in neither process, and
 * the child closes its copies of what is idle.
 */
#define _GNU_SOURCE
#include "socket/backing.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>

#include "host/host.h"
#include "socket/handshakes.h"
#include "socket/reason.h"

#define SOCKETS_MAX 128u
#define PORTS_MAX 128u
#define PORT_TRIES 16u /* held ports looked at for one connect */
#define IDLE_US 1000000u

enum use { UNUSED, IDLE, USED };

struct kept {
	int fd;
	uint8_t use; /* enum use */
	uint8_t family;
	bool nonblock, options;
	bool shared; /* another process may have it: not to be used again */
	vsock_t v;   /* USED: whose */
	uint64_t since_us;
	struct endpoint local; /* of ports */
};

/* Numbers of entries, 1 on; the idle ones in the order of their use. */
struct pool {
	struct kept *kept;
	uint32_t size, idle_n;
	uint16_t idle[SOCKETS_MAX];
};
_Static_assert(PORTS_MAX <= SOCKETS_MAX, "idle[] is large enough for both pools");

static struct kept kept_sockets[SOCKETS_MAX], kept_ports[PORTS_MAX];
static struct pool sockets = {.kept = kept_sockets, .size = SOCKETS_MAX};
static struct pool ports = {.kept = kept_ports, .size = PORTS_MAX};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* --- pools: under the lock --- */

static struct kept *entry_of(struct pool *p, uint32_t entry, vsock_t v)
{
	struct kept *k = entry && entry <= p->size ? &p->kept[entry - 1] : NULL;

	return k && k->use == USED && k->v == v ? k : NULL;
}

static void idle_remove(struct pool *p, uint32_t at)
{
	p->idle_n--;
	memmove(&p->idle[at], &p->idle[at + 1], (p->idle_n - at) * sizeof(p->idle[0]));
}

static void make_idle(struct pool *p, struct kept *k)
{
	k->use = IDLE;
	k->v = VS_NONE;
	k->since_us = clock_us();
	p->idle[p->idle_n++] = (uint16_t)(k - p->kept + 1);
}

/* Give up an entry; its descriptor is the caller's to close. */
static int give_up(struct kept *k)
{
	int fd = k->fd;

	*k = (struct kept){.fd = -1};
	return fd;
}

static void close_kept(int fd)
{
	vs_publish_fd(fd, FD_OTHER, VS_NONE, REASON_NONE);
	host_fd_close(fd);
}

/* Close those that are idle since before `since_us`, oldest first. */
static void drop_idle(struct pool *p, uint64_t since_us)
{
	for (;;) {
		int fd = -1;

		quiet_lock(&lock);
		if (p->idle_n && p->kept[p->idle[0] - 1].since_us <= since_us) {
			fd = give_up(&p->kept[p->idle[0] - 1]);
			idle_remove(p, 0);
		}
		quiet_unlock(&lock);
		if (fd < 0)
			return;
		close_kept(fd);
	}
}

/* --- sockets --- */

/* The one used last that fits, at best in the mode asked for. 0: none. */
static uint16_t take_socket(int domain, bool nonblock, bool fresh, bool *mode_fits)
{
	uint8_t family = domain == AF_INET6 ? 6 : 4;
	uint32_t best = UINT32_MAX, entry = 0;

	if (!__atomic_load_n(&sockets.idle_n, __ATOMIC_RELAXED))
		return 0;
	quiet_lock(&lock);
	for (uint32_t i = sockets.idle_n; i-- > 0;) {
		const struct kept *k = &sockets.kept[sockets.idle[i] - 1];

		if (k->family != family || (fresh && k->options))
			continue;
		if (best == UINT32_MAX || k->nonblock == nonblock)
			best = i;
		if (k->nonblock == nonblock)
			break;
	}
	if (best != UINT32_MAX) {
		entry = sockets.idle[best];
		sockets.kept[entry - 1].use = USED;
		*mode_fits = sockets.kept[entry - 1].nonblock == nonblock;
		idle_remove(&sockets, best);
	}
	quiet_unlock(&lock);
	return (uint16_t)entry;
}

static void put_back(struct pool *p, uint16_t entry)
{
	quiet_lock(&lock);
	make_idle(p, &p->kept[entry - 1]);
	quiet_unlock(&lock);
}

static int duplicate(uint16_t entry, int flags, bool mode_fits)
{
	struct kept *k = &sockets.kept[entry - 1];
	int fd;

	if (!mode_fits && host_sys.fcntl(k->fd, F_SETFL, O_RDWR | (flags & SOCK_NONBLOCK ? O_NONBLOCK : 0)) < 0)
		return -errno;
	fd = host_sys.fcntl(k->fd, flags & SOCK_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
	return fd < 0 ? -errno : fd;
}

void backing_give_way(void)
{
	drop_idle(&sockets, UINT64_MAX);
	drop_idle(&ports, UINT64_MAX);
	handshakes_give_way();
}

int backing_socket(int domain, int flags, bool fresh, uint16_t *entry)
{
	bool mode_fits = false;
	int fd;

	*entry = take_socket(domain, flags & SOCK_NONBLOCK, fresh, &mode_fits);
	if (*entry) {
		fd = duplicate(*entry, flags, mode_fits);
		if (fd >= 0)
			return fd;
		put_back(&sockets, *entry);
		*entry = 0;
	}
	fd = host_sys.socket(domain, SOCK_STREAM | flags, 0);
	if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
		backing_give_way();
		fd = host_sys.socket(domain, SOCK_STREAM | flags, 0);
	}
	return fd < 0 ? -errno : fd;
}

void backing_own(uint16_t entry, vsock_t v)
{
	if (!entry)
		return;
	quiet_lock(&lock);
	sockets.kept[entry - 1].v = v;
	sockets.kept[entry - 1].shared = false;
	quiet_unlock(&lock);
}

/* --- keeping --- */

static bool room(const struct pool *p, uint32_t *at)
{
	for (*at = 0; *at < p->size && p->kept[*at].use != UNUSED; ++*at)
		;
	return *at < p->size && host_fd_plenty();
}

/* Keep what is behind fd under a number of ours. */
static void keep(struct pool *p, int fd, const struct kept *like)
{
	uint32_t at;
	int high = -1;

	quiet_lock(&lock);
	if (room(p, &at)) {
		p->kept[at] = *like;
		p->kept[at].use = USED; /* by nobody, until we have the descriptor */
	} else {
		at = p->size;
	}
	quiet_unlock(&lock);
	if (at == p->size)
		return;
	high = host_fd_dup_high(fd);
	if (high >= 0)
		vs_publish_fd(high, FD_OWN, VS_NONE, REASON_NONE);
	quiet_lock(&lock);
	p->kept[at].fd = high;
	if (high >= 0)
		make_idle(p, &p->kept[at]);
	else
		p->kept[at].use = UNUSED;
	quiet_unlock(&lock);
}

static void release_port(vsock_t v, uint16_t entry)
{
	struct kept *k;
	int fd = -1;

	if (!entry)
		return;
	quiet_lock(&lock);
	k = entry_of(&ports, entry, v);
	if (k && k->shared)
		fd = give_up(k);
	else if (k)
		make_idle(&ports, k);
	quiet_unlock(&lock);
	if (fd >= 0)
		close_kept(fd);
}

/* True: it was one of those kept. */
static bool release_socket(vsock_t v, const struct backing_left *left)
{
	struct kept *k;
	int fd = -1;

	if (!left->entry)
		return false;
	quiet_lock(&lock);
	k = entry_of(&sockets, left->entry, v);
	if (k && (k->shared || !left->reusable || left->bound)) {
		fd = give_up(k);
	} else if (k) {
		k->nonblock = left->nonblock;
		k->options |= left->options;
		make_idle(&sockets, k);
	}
	quiet_unlock(&lock);
	if (fd >= 0)
		close_kept(fd);
	return k != NULL;
}

void backing_release(vsock_t v, int fd, const struct backing_left *left)
{
	struct kept like = {.family = left->family, .nonblock = left->nonblock, .options = left->options};

	release_port(v, left->port);
	process_helper_expect(clock_us() + 2 * IDLE_US);
	if (release_socket(v, left) || fd < 0 || !left->reusable)
		return;
	like.local = left->local;
	keep(left->bound ? &ports : &sockets, fd, &like);
}

/* --- ports --- */

static bool same_address(const struct kept *k, int family, const struct endpoint *local)
{
	return k->family == family && !memcmp(k->local.addr, local->addr, sizeof(local->addr));
}

/* The oldest that fits, from the at-th on. */
static uint16_t take_port(int family, const struct endpoint *local, uint32_t *at)
{
	uint16_t entry = 0;

	quiet_lock(&lock);
	for (; *at < ports.idle_n && !entry; ++*at) {
		if (!same_address(&ports.kept[ports.idle[*at] - 1], family, local))
			continue;
		entry = ports.idle[*at];
		ports.kept[entry - 1].use = USED;
		idle_remove(&ports, (*at)--);
	}
	quiet_unlock(&lock);
	return entry;
}

static bool name_free(vsock_t v, const struct endpoint *local, const struct endpoint *remote)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	bool yes;

	if (!k)
		return false;
	yes = !sock_lookup(a->s, SOCK_TCP, local, remote);
	stack_leave(a);
	return yes;
}

uint16_t backing_port(vsock_t v, int family, struct endpoint *local, const struct endpoint *remote)
{
	uint32_t at = 0;

	for (uint32_t tries = 0; tries < PORT_TRIES; tries++) {
		uint16_t entry = take_port(family, local, &at);

		if (!entry)
			return 0;
		local->port = ports.kept[entry - 1].local.port;
		if (name_free(v, local, remote)) {
			quiet_lock(&lock);
			ports.kept[entry - 1].v = v;
			ports.kept[entry - 1].shared = false;
			quiet_unlock(&lock);
			return entry;
		}
		put_back(&ports, entry); /* behind all others */
	}
	local->port = 0;
	return 0;
}

uint16_t backing_adopt_port(vsock_t v, int fd, uint8_t family, const struct endpoint *local)
{
	uint32_t at;
	bool yes;

	quiet_lock(&lock);
	yes = room(&ports, &at);
	if (yes)
		ports.kept[at] =
		    (struct kept){.fd = fd, .use = USED, .family = family, .shared = true, .v = v, .local = *local};
	quiet_unlock(&lock);
	return yes ? (uint16_t)(at + 1) : 0;
}

int backing_port_fd(uint16_t entry)
{
	return entry && entry <= ports.size ? ports.kept[entry - 1].fd : -1;
}

bool backing_holds_port(const struct endpoint *local)
{
	bool yes = false;

	quiet_lock(&lock);
	for (uint32_t i = 0; i < ports.size && !yes; i++)
		yes = ports.kept[i].use != UNUSED && ports.kept[i].local.port == local->port &&
		      !memcmp(ports.kept[i].local.addr, local->addr, sizeof(local->addr));
	quiet_unlock(&lock);
	return yes;
}

/* --- idleness, fork --- */

uint64_t backing_trim(void)
{
	uint64_t now = clock_us();

	if (!sockets.idle_n && !ports.idle_n)
		return 0;
	drop_idle(&sockets, now - IDLE_US);
	drop_idle(&ports, now - IDLE_US);
	return sockets.idle_n || ports.idle_n ? IDLE_US : 0;
}

static void share_used(struct pool *p)
{
	for (uint32_t i = 0; i < p->size; i++)
		p->kept[i].shared |= p->kept[i].use == USED;
}

void backing_fork_prepare(void)
{
	quiet_lock(&lock);
	share_used(&sockets);
	quiet_unlock(&lock);
}

void backing_after_fork(void)
{
	pthread_mutex_init(&lock, NULL);
	share_used(&ports);
	for (uint32_t i = 0; i < sockets.idle_n; i++)
		host_fd_close(give_up(&sockets.kept[sockets.idle[i] - 1]));
	for (uint32_t i = 0; i < ports.idle_n; i++)
		host_fd_close(give_up(&ports.kept[ports.idle[i] - 1]));
	sockets.idle_n = ports.idle_n = 0;
}
