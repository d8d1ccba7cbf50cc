/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stack's filters, and the kernel sockets that keep their ports taken. A client can ask only for what the kernel lets
 * it have: it must show the socket that is bound there. See tenant.h.
 */
#include "daemon/tenant.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/closer.h"
#include "daemon/kernel_flows.h"
#include "daemon/own_queue.h"

#define KERNEL_FLOWS 1024 /* that one filter leaves to the kernel at most */
#define USERS_SHARE 4u    /* no user gets more than this part of the descriptors */

static const uint8_t any[16];
static const uint8_t any4[16] = {[10] = 0xff, [11] = 0xff};

static bool is_v4(const uint8_t addr[16])
{
	return !memcmp(addr, any4, 12);
}

static bool is_any(const uint8_t addr[16])
{
	return !memcmp(addr, any, 16) || !memcmp(addr, any4, 16);
}

static bool is_group(const uint8_t addr[16])
{
	return is_v4(addr) ? addr[12] >= 224 : addr[0] == 0xff;
}

/* --- what is asked for --- */

uint32_t tenant_keys(const struct daemon_filter *f, struct steer_key key[2])
{
	struct steer_key k = {.proto = f->proto, .local_port = htons(f->local_port)};
	uint8_t family = is_any(f->local) ? f->family : is_v4(f->local) ? 4 : 6;

	if ((f->proto != IPPROTO_TCP && f->proto != IPPROTO_UDP) || !f->local_port || (family != 4 && family != 6))
		return 0;
	k.family = family;
	if (!is_any(f->local))
		memcpy(k.local, f->local, 16);
	if (f->remote_port) {
		/* a flow has both ends, and none of them is a group */
		if (is_group(f->local) || is_any(f->local) || is_any(f->remote) || is_v4(f->remote) != (family == 4))
			return 0;
		memcpy(k.remote, f->remote, 16);
		k.remote_port = htons(f->remote_port);
	}
	key[0] = k;
	if (!(f->flags & DAEMON_FILTER_BOTH) || !is_any(f->local) || family != 6)
		return 1;
	key[1] = k;
	key[1].family = 4;
	return 2;
}

static int get_int(int fd, int level, int name)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, level, name, &value, &len) ? -1 : value;
}

/* Where fd is bound, as the protocol writes it. */
static int bound_to(int fd, uint8_t addr[16], uint16_t *port)
{
	union {
		struct sockaddr sa;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} u = {0};
	socklen_t len = sizeof(u);

	if (getsockname(fd, &u.sa, &len))
		return -errno;
	if (u.sa.sa_family == AF_INET) {
		memcpy(addr, any4, 12);
		memcpy(addr + 12, &u.v4.sin_addr, 4);
		*port = ntohs(u.v4.sin_port);
		return 4;
	}
	if (u.sa.sa_family != AF_INET6)
		return -EAFNOSUPPORT;
	memcpy(addr, &u.v6.sin6_addr, 16);
	*port = ntohs(u.v6.sin6_port);
	return 6;
}

/* Does a socket of this family, bound to `bound`, own what the key steers? */
static bool covers(int fd, int family, const uint8_t bound[16], const struct steer_key *k)
{
	if (!is_any(bound))
		return !memcmp(bound, k->local, 16);
	if (family == 4)
		return k->family == 4;
	return k->family == 6 || get_int(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 0;
}

int tenant_socket_check(int fd, const struct daemon_filter *f, uint64_t netns, const char **why)
{
	struct steer_key key[2];
	uint32_t keys = tenant_keys(f, key);
	uint8_t addr[16] = {0};
	uint16_t port = 0;
	int family;

	*why = "the filter makes no sense";
	if (!keys)
		return -EINVAL;
	*why = "the descriptor is no TCP or UDP socket as the filter says";
	if (get_int(fd, SOL_SOCKET, SO_PROTOCOL) != f->proto ||
	    get_int(fd, SOL_SOCKET, SO_TYPE) != (f->proto == IPPROTO_TCP ? SOCK_STREAM : SOCK_DGRAM))
		return -EINVAL;
	*why = "the socket is of another network namespace";
	if (socket_netns(fd) != netns)
		return -EPERM;
	*why = "the socket is not bound to the filter's address and port";
	family = bound_to(fd, addr, &port);
	if (family < 0 || port != f->local_port)
		return -EPERM;
	for (uint32_t i = 0; i < keys; i++)
		if (!covers(fd, family, addr, &key[i]))
			return -EPERM;
	return 0;
}

/* --- ports held --- */

/* What the user's stacks occupy of our descriptors. */
static uint32_t descriptors_of(const struct house *h, uint32_t uid)
{
	uint32_t n = closer_waiting(uid);

	for (uint32_t i = 0; i < STEER_STACKS; i++)
		if (h->tenant[i] && h->tenant[i]->uid == uid)
			n += h->tenant[i]->filters;
	return n;
}

/* The hold that covers the filter, plus 1; 0 none. */
static uint32_t find_hold(const struct tenant *t, const struct daemon_filter *f)
{
	for (uint32_t i = 0; i < t->holds; i++) {
		const struct tenant_hold *h = &t->hold[i];
		struct steer_key key[2];

		if (h->fd < 0 || h->proto != f->proto || h->port != f->local_port)
			continue;
		if (tenant_keys(f, key) == 1 && covers(h->fd, is_v4(h->addr) ? 4 : 6, h->addr, &key[0]))
			return i + 1;
	}
	return 0;
}

static int free_hold(struct tenant *t)
{
	struct tenant_hold *more;
	uint32_t n = t->holds;

	for (uint32_t i = 0; i < n; i++)
		if (t->hold[i].fd < 0)
			return (int)i;
	more = realloc(t->hold, (n ? 2 * n : 8) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	t->hold = more;
	t->holds = n ? 2 * n : 8;
	for (uint32_t i = n; i < t->holds; i++)
		t->hold[i] = (struct tenant_hold){.fd = -1};
	return (int)n;
}

/* Which hold the filter rests on; fd becomes its socket. -EPERM: none. */
static int hold_for(struct tenant *t, const struct daemon_filter *f, int fd, const char **why)
{
	uint32_t known;
	int at, rc;

	if (fd < 0) {
		known = find_hold(t, f);
		*why = "the process does not own that port (no socket was shown)";
		return known ? (int)known - 1 : -EPERM;
	}
	rc = tenant_socket_check(fd, f, t->house->netns, why);
	if (rc)
		return rc;
	at = free_hold(t);
	if (at < 0)
		return at;
	t->hold[at] = (struct tenant_hold){.fd = fd, .proto = f->proto, .port = f->local_port};
	bound_to(fd, t->hold[at].addr, &t->hold[at].port);
	return at;
}

/* The port is no longer served as a whole, its connections go on: with us alone the kernel would go on accepting. The
 * socket may be other processes' as well, who go on to listen: it is closed, not shut down. */
static void stop_serving(struct tenant *t, struct tenant_hold *h)
{
	int stand_in = fcntl(t->house->sock, F_DUPFD_CLOEXEC, 0);

	if (stand_in < 0)
		return;
	closer_close(t->uid, h->fd);
	h->fd = stand_in;
}

static void let_go(struct tenant *t, const struct tenant_filter *f)
{
	struct tenant_hold *h = &t->hold[f->hold];

	if (!f->key[0].remote_port && !--h->ports && h->proto == IPPROTO_TCP && h->filters > 1)
		stop_serving(t, h);
	if (!--h->filters) {
		closer_close(t->uid, h->fd);
		h->fd = -1;
	}
}

/* --- filters --- */

static int free_filter(struct tenant *t)
{
	struct tenant_filter *more;
	uint32_t at = t->filter_free;

	if (at) {
		t->filter_free = t->filter[at - 1].next_free;
		return (int)at;
	}
	if (t->filter_high % 64 == 0) {
		more = realloc(t->filter, (t->filter_high + 64) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		t->filter = more;
	}
	t->filter[t->filter_high].keys = 0;
	return (int)++t->filter_high;
}

static void give_back_filter(struct tenant *t, uint32_t id)
{
	t->filter[id - 1].keys = 0;
	t->filter[id - 1].next_free = t->filter_free;
	t->filter_free = id;
}

/* A group's filter: whoever has a socket there may hear it, and groups.h says which way its frames go. */
static int claim_group(struct tenant *t, uint32_t id, const struct tenant_filter *f)
{
	struct group_member m = {.stack = t->number, .uid = t->uid, .id = id};
	struct stat st;
	int rc;

	if (fstat(t->hold[f->hold].fd, &st))
		return -errno;
	m.inode = st.st_ino;
	rc = groups_add(t->house->groups, &f->key[0], &m);
	return rc ? rc : (int)id;
}

static int claim_keys(struct tenant *t, uint32_t id, const struct tenant_filter *f)
{
	int rc = 0;

	if (groups_key(&f->key[0]))
		return claim_group(t, id, f);
	for (uint32_t i = 0; i < f->keys; i++) {
		rc = own_queue_add(t, &f->key[i]);
		if (!rc)
			rc = filters_add(t->house->filters, &f->key[i], t->number, t->uid, id, f->shared);
		if (rc == (int)id)
			continue;
		if (rc < 0)
			own_queue_del(t, &f->key[i]);
		while (i--) {
			filters_del(t->house->filters, &f->key[i], t->number);
			own_queue_del(t, &f->key[i]);
		}
		break;
	}
	return rc;
}

/* The filter that the tenant has already, with its socket replaced. */
static int refresh(struct tenant *t, uint32_t id, int fd)
{
	struct tenant_filter *f = &t->filter[id - 1];
	struct tenant_hold *h = &t->hold[f->hold];

	if (fd >= 0) {
		closer_close(t->uid, h->fd);
		h->fd = fd;
	}
	return (int)id;
}

/* Connections that the kernel has on the port stay with it. */
static int keep_kernel_flows(struct tenant *t, struct tenant_filter *f, int fd, const char **why)
{
	struct steer_key flow[KERNEL_FLOWS];
	struct stat st;
	int n = 0;

	if (fd < 0 || f->key[0].remote_port || groups_key(&f->key[0]) || !kernel_flows_possible(fd))
		return 0;
	/* of the socket's user: a server may have made it as root */
	if (fstat(fd, &st))
		return -errno;
	for (uint32_t i = 0; i < f->keys && n >= 0; i++) {
		int more = kernel_flows(&f->key[i], st.st_uid, flow + n, KERNEL_FLOWS - n);

		n = more < 0 ? more : n + more;
	}
	*why = n == -EADDRINUSE ? "another user has a socket on that port too"
				: "the kernel has too many connections on that port, of an earlier program";
	if (n <= 0)
		return n;
	f->kernel = malloc((size_t)n * sizeof(*flow));
	if (!f->kernel)
		return -ENOMEM;
	memcpy(f->kernel, flow, (size_t)n * sizeof(*flow));
	f->kernels = n;
	for (int i = 0; i < n; i++)
		filters_keep_out(t->house->filters, &flow[i]);
	return 0;
}

static void free_kernel_flows(struct tenant *t, struct tenant_filter *f)
{
	for (int i = 0; i < f->kernels; i++)
		filters_let_in(t->house->filters, &f->kernel[i]);
	free(f->kernel);
	f->kernel = NULL;
	f->kernels = 0;
}

static int new_filter(struct tenant *t, const struct daemon_filter *asked, int fd, const char **why)
{
	struct tenant_filter f = {.shared = asked->flags & DAEMON_FILTER_SHARED, .asked = *asked};
	int id, rc, hold = hold_for(t, asked, fd, why);
	uint32_t known;

	if (hold < 0)
		return hold;
	f.keys = tenant_keys(asked, f.key);
	known = groups_key(&f.key[0]) ? 0 : filters_id(t->house->filters, &f.key[0], t->number);
	if (known) { /* with the kernel's connections that were left to it */
		if (fd >= 0)
			t->hold[hold].fd = -1;
		return refresh(t, known, fd);
	}
	f.hold = (uint32_t)hold;
	rc = keep_kernel_flows(t, &f, fd, why);
	id = rc ? rc : free_filter(t);
	rc = id < 0 ? id : claim_keys(t, (uint32_t)id, &f);
	if (id < 0 || rc != id) {
		if (id > 0)
			give_back_filter(t, (uint32_t)id);
		if (fd >= 0)
			t->hold[hold].fd = -1;
		free_kernel_flows(t, &f);
		if (id > 0)
			*why = rc == -EADDRINUSE ? "another process has a filter there"
						 : "there is no room for more filters";
		return rc > 0 ? refresh(t, (uint32_t)rc, fd) : rc;
	}
	t->hold[hold].filters++;
	t->hold[hold].ports += !asked->remote_port;
	t->filter[id - 1] = f;
	t->filters++;
	return id;
}

int tenant_filter_add(struct tenant *t, const struct daemon_filter *f, int fd, const char **why)
{
	struct steer_key key[2];
	int rc = tenant_keys(f, key) ? 0 : -EINVAL;

	*why = "the filter makes no sense";
	if (!rc && t->filters >= t->house->policy.filters) {
		*why = "the process has as many filters as viaductd allows (option --filters)";
		rc = -ENOSPC;
	}
	if (!rc && fd >= 0 && descriptors_of(t->house, t->uid) >= t->house->descriptors / USERS_SHARE) {
		*why = "viaductd holds as many sockets for this user as one user may have";
		rc = -ENOSPC;
	}
	if (!rc)
		rc = tenant_number(t);
	if (!rc)
		rc = new_filter(t, f, fd, why);
	if (rc < 0 && fd >= 0)
		closer_close(t->uid, fd);
	return rc;
}

/* One that rests on a socket which keeps nobody from listening at its port. */
static bool may_be_anothers(const struct tenant *t, const struct tenant_filter *f)
{
	int listens = 0;
	socklen_t len = sizeof(listens);

	if (!f->keys || f->key[0].remote_port || f->key[0].proto != IPPROTO_TCP)
		return false;
	return getsockopt(t->hold[f->hold].fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) || !listens;
}

static void check_filter(struct tenant *t, uint32_t id)
{
	struct tenant_filter *f = &t->filter[id - 1];
	struct stat st;

	if (fstat(t->hold[f->hold].fd, &st))
		return;
	for (uint32_t i = 0; i < f->keys; i++)
		if (kernel_flows(&f->key[i], st.st_uid, NULL, 0) == -EADDRINUSE) {
			(void)tenant_filter_del(t, id);
			return;
		}
}

bool house_check_ports(struct house *h)
{
	uint64_t ports[KERNEL_PORT_WORDS];
	bool asked = false, some = false;

	for (uint32_t i = 0; i < STEER_STACKS; i++) {
		struct tenant *t = h->tenant[i];

		for (uint32_t id = 1; t && t->uid && id <= t->filter_high; id++) {
			struct tenant_filter *f = &t->filter[id - 1];
			uint16_t port;

			some |= f->keys && !f->key[0].remote_port && f->key[0].proto == IPPROTO_TCP;
			if (!may_be_anothers(t, f))
				continue;
			if (!asked && kernel_listening(ports))
				return true;
			asked = true;
			port = ntohs(f->key[0].local_port);
			if (ports[port / 64] >> port % 64 & 1)
				check_filter(t, id);
		}
	}
	return some;
}

/* The flow, its port at the address, or at any. */
static bool inherited(struct tenant *t, const struct steer_key *flow)
{
	struct steer_key k = *flow;

	if (steer_table_has(t->house->steer, &k, t->number))
		return true;
	if (filters_inherited(t->house->filters, &k, t->number))
		return true;
	memset(k.remote, 0, sizeof(k.remote));
	k.remote_port = 0;
	if (filters_inherited(t->house->filters, &k, t->number))
		return true;
	memset(k.local, 0, sizeof(k.local));
	return filters_inherited(t->house->filters, &k, t->number);
}

int tenant_filter_inherit(struct tenant *t, const struct daemon_filter *f)
{
	struct steer_key key[2];
	const char *why;
	int at, rc;

	if (tenant_keys(f, key) != 1 || !f->remote_port || t->number == TENANT_NO_NUMBER)
		return -EINVAL;
	if (!inherited(t, &key[0]))
		return -EPERM;
	if (!find_hold(t, f)) {
		at = free_hold(t);
		if (at < 0)
			return at;
		t->hold[at] = (struct tenant_hold){
		    .fd = fcntl(t->house->sock, F_DUPFD_CLOEXEC, 0), .proto = f->proto, .port = f->local_port};
		if (t->hold[at].fd < 0)
			return -errno;
		memcpy(t->hold[at].addr, f->local, sizeof(f->local));
		rc = tenant_filter_add(t, f, -1, &why);
		if (rc < 0) {
			close(t->hold[at].fd);
			t->hold[at].fd = -1;
		}
		return rc;
	}
	return tenant_filter_add(t, f, -1, &why);
}

void tenant_filter_name(struct tenant *t, uint32_t id, uint32_t asker)
{
	if (id && id <= t->filter_high && t->filter[id - 1].keys)
		t->filter[id - 1].asker = asker;
}

void tenant_inherit(struct tenant *t, uint32_t asker, struct daemon_inherited *out)
{
	*out = (struct daemon_inherited){0};
	for (uint32_t i = 0; i < t->filter_high && out->count < DAEMON_INHERIT_MAX; i++) {
		struct tenant_filter *f = &t->filter[i];

		if (!f->keys || f->asker)
			continue;
		f->asker = asker;
		out->was[out->count].id = i + 1;
		out->was[out->count++].filter = f->asked;
	}
}

int tenant_filter_del(struct tenant *t, uint32_t id)
{
	struct tenant_filter *f;

	if (!id || id > t->filter_high || !t->filter[id - 1].keys)
		return -ENOENT;
	f = &t->filter[id - 1];
	if (groups_key(&f->key[0]))
		groups_del(t->house->groups, &f->key[0], t->number, id);
	else
		for (uint32_t i = 0; i < f->keys; i++) {
			filters_del(t->house->filters, &f->key[i], t->number);
			own_queue_del(t, &f->key[i]);
		}
	free_kernel_flows(t, f);
	let_go(t, f);
	give_back_filter(t, id);
	t->filters--;
	return 0;
}

void tenant_forget_unnamed(struct tenant *t)
{
	for (uint32_t id = 1; id <= t->filter_high; id++)
		if (t->filter[id - 1].keys && !t->filter[id - 1].asker)
			(void)tenant_filter_del(t, id);
}
