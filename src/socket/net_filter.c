/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Filters: what of the interfaces' traffic comes to our stacks. See net.h.
 *
 * A filter is known here by protocol, local and remote end; the same one is asked for once. How long it stands:
 *   - one for all peers of a port that connect() chose: as long as the backing socket that holds the port is kept
 *     (backing.c), so the next connection from that port needs no conversation; then as long as the engine has a
 *     connection of that port, in TIME-WAIT at last;
 *   - a listener's, a bound UDP socket's: until it is closed (net_unbound). Connections of a listener that closes get
 *     filters of their own first;
 *   - one that names the peer: as long as the engine has that connection.
 * What nobody took back is found when the helper looks (net_filters_sweep).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "engine/bytes.h"
#include "socket/backing.h"
#include "socket/net_chardev.h"
#include "socket/net_internal.h"
#include "socket/sockets.h"
#include "socket/udp_group.h"

#define FILTERS_MAX 16000u
#define BUCKETS 1024u
#define GRACE_US 5000000u        /* between asking for a filter and the connection's being there */
#define SWEEP_US 1000000u        /* between sweeps, twice as long after each that found nothing, ... */
#define SWEEP_LAST_US 128000000u /* ... until it is this long */
#define CLEAN 4u                 /* old filters looked at for each new one, ... */
#define CLEAN_EVERY 32u          /* ... together for so many */
#define CLEAN_US 200000u
#define PORT_WORDS (65536 / 64)
#define AT_DRIVER INT32_MAX /* the kernel's char driver has it, viaductd does not */

struct filter {
	uint32_t id; /* viaductd's, or AT_DRIVER; 0: unused */
	uint16_t next;
	uint8_t stack, proto, family;
	uint16_t flags;
	uint64_t used_us;
	struct endpoint local, remote;
};

/* Number 0 is none. */
static struct filter filters[FILTERS_MAX];
static uint16_t buckets[BUCKETS], free_head, mark = 1;
static uint32_t in_use;
static uint64_t swept_us, sweep_every_us = SWEEP_US;

/* Others ask for filters while a sweep waits for the lock: those are younger than the sweep. */
static bool older(const struct filter *f, uint64_t now_us, uint64_t age_us)
{
	return f->used_us + age_us < now_us;
}

static uint16_t *bucket(uint8_t proto, uint16_t port)
{
	return &buckets[(port * 2u + proto) % BUCKETS];
}

static bool same_end(const struct endpoint *x, const struct endpoint *y)
{
	return x->port == y->port && !memcmp(x->addr, y->addr, sizeof(x->addr));
}

static struct filter *find(const struct filter *want)
{
	for (uint16_t i = *bucket(want->proto, want->local.port); i; i = filters[i].next) {
		struct filter *f = &filters[i];

		if (f->stack == want->stack && f->proto == want->proto && f->family == want->family &&
		    same_end(&f->local, &want->local) && same_end(&f->remote, &want->remote))
			return f;
	}
	return NULL;
}

static struct filter *insert(const struct filter *f)
{
	uint16_t i = free_head, *head = bucket(f->proto, f->local.port);

	if (i)
		free_head = filters[i].next;
	else if (mark < FILTERS_MAX)
		i = mark++;
	else
		return NULL;
	filters[i] = *f;
	filters[i].next = *head;
	*head = i;
	in_use++;
	return &filters[i];
}

static void forget(struct filter *f)
{
	uint16_t i = (uint16_t)(f - filters), *at = bucket(f->proto, f->local.port);

	while (*at && *at != i)
		at = &filters[*at].next;
	if (*at)
		*at = f->next;
	*f = (struct filter){.next = free_head};
	free_head = i;
	in_use--;
}

/* --- asking viaductd, or the driver --- */

static struct daemon_filter body_of(const struct filter *f)
{
	struct daemon_filter body = {.proto = f->proto,
				     .family = f->family,
				     .local_port = f->local.port,
				     .remote_port = f->remote.port,
				     .flags = f->flags};

	if (!is_any(f->local.addr))
		memcpy(body.local, f->local.addr, sizeof(body.local));
	if (f->remote.port)
		memcpy(body.remote, f->remote.addr, sizeof(body.remote));
	return body;
}

/* fd: -1 none. The filter's id or -errno. */
static int ask_add(struct net *n, const struct filter *f, int fd)
{
	struct daemon_filter body = body_of(f);
	const struct daemon_filter_id *id;
	struct viaductd_reply reply;
	bool mixed;
	int ret;

	if (net_chardev_used(n, &mixed)) {
		ret = net_chardev_filter(n, &body, fd, true);
		if (ret < 0 || !mixed)
			return ret < 0 ? ret : AT_DRIVER;
	}
	ret =
	    net_ask(n,
		    &(struct viaductd_request){
			.type = DAEMON_FILTER_ADD, .body = &body, .len = sizeof(body), .fds = &fd, .fd_count = fd >= 0},
		    &reply);
	if (ret < 0)
		return ret;
	id = (const struct daemon_filter_id *)(const void *)reply.body;
	ret = id->id && id->id <= INT32_MAX ? (int)id->id : -EPROTO;
	viaductd_reply_drop(&reply);
	return ret;
}

static void ask_del(struct net *n, const struct daemon_filter_ids *body)
{
	struct viaductd_request r = {.type = DAEMON_FILTER_DEL,
				     .body = body,
				     .len = (uint32_t)offsetof(struct daemon_filter_ids, others) +
					    body->more * (uint32_t)sizeof(body->others[0])};
	struct viaductd_reply reply;

	if (n->state == NET_UP && net_ask(n, &r, &reply) == 0)
		viaductd_reply_drop(&reply);
}

/* forget, and so does the driver. */
static void drop(const struct net *n, struct filter *f)
{
	struct daemon_filter body = body_of(f);
	bool mixed;

	if (net_chardev_used(n, &mixed))
		(void)net_chardev_filter(n, &body, -1, false);
	forget(f);
}

static void remove_locked(struct attached *a, struct filter *f)
{
	struct daemon_filter_ids body = {.id = f->id};

	drop(net_of(a), f);
	if (body.id != AT_DRIVER)
		ask_del(net_of(a), &body);
}

static bool connection_lives(struct attached *a, const struct filter *f)
{
	enum sock_proto proto = f->proto == IPPROTO_TCP ? SOCK_TCP : SOCK_UDP;
	const struct sock *k;
	bool yes;

	stack_enter(a);
	k = sock_lookup(a->s, proto, &f->local, &f->remote);
	/* the peer of a connection in TIME-WAIT hardly ever needs us any more */
	yes = k && (proto == SOCK_UDP || k->tcp.state != TCP_TIME_WAIT || in_use < FILTERS_MAX / 2);
	stack_leave(a);
	return yes;
}

static bool bound_lives(struct attached *a, const struct filter *f)
{
	bool yes;

	stack_enter(a);
	yes = sock_lookup_bound(a->s, f->proto == IPPROTO_TCP ? SOCK_TCP : SOCK_UDP, &f->local) != NULL;
	stack_leave(a);
	return yes;
}

/* With some new filters old ones are looked at, so that a program that binds the sockets of its many connections
 * does not come to the end of the table. Those that nobody needs go with one request: each alone would cost the
 * connection more than its frames. */
static void clean_some(struct attached *a, uint64_t now_us)
{
	static uint16_t hand;
	static uint32_t added;
	struct daemon_filter_ids old = {0};

	if (++added % CLEAN_EVERY || in_use < CLEAN_EVERY)
		return;
	for (uint32_t i = 0; i < CLEAN * CLEAN_EVERY && old.more < DAEMON_FILTERS_MORE; i++) {
		struct filter *f = &filters[hand = (uint16_t)(hand + 1 < mark ? hand + 1 : 1)];

		if (!f->id || f->stack != a->index || !f->remote.port || !older(f, now_us, CLEAN_US) ||
		    connection_lives(a, f))
			continue;
		if (old.id && f->id != AT_DRIVER)
			old.others[old.more++] = f->id;
		else if (f->id != AT_DRIVER)
			old.id = f->id;
		drop(net_of(a), f);
	}
	if (old.id)
		ask_del(net_of(a), &old);
}

/* viaductd is gone and has not answered. The next one learns with DAEMON_NAMED that we do not want what it finds. */
static void note_unsure(struct attached *a, uint16_t port)
{
	net_of(a)->doubts_end_us = 0;
	stack_enter(a);
	a->s->unsure_port[a->s->unsure_next++ % STACK_UNSURE] = port;
	stack_leave(a);
}

static int add_locked(struct attached *a, const struct filter *want, int fd, enum reason *reason)
{
	struct filter *f = find(want);
	int ret;

	if (f) {
		f->used_us = want->used_us;
		return (int)f->id;
	}
	ret = net_start_locked(a, reason);
	if (ret < 0)
		return ret;
	*reason = REASON_FILTER;
	sweep_every_us = SWEEP_US;
	clean_some(a, want->used_us);
	f = insert(want);
	if (!f)
		return -ENOBUFS;
	ret = ask_add(net_of(a), want, fd);
	if (ret < 0 && net_of(a)->state == NET_LOST)
		note_unsure(a, want->local.port);
	if (ret < 0)
		forget(f);
	else
		f->id = (uint32_t)ret;
	return ret;
}

int net_filter(struct attached *a, enum sock_proto proto, int family, int fd, const struct endpoint *local,
	       const struct endpoint *remote, uint16_t flags, enum reason *reason)
{
	struct filter want = {.stack = (uint8_t)a->index,
			      .proto = proto == SOCK_TCP ? IPPROTO_TCP : IPPROTO_UDP,
			      .family = (uint8_t)(is_v4(local->addr) ? 4 : family),
			      .flags = flags,
			      .used_us = clock_us(),
			      .local = *local};
	int ret;

	if (remote)
		want.remote = *remote;
	quiet_lock(&net_lock);
	if (remote && proto == SOCK_TCP && net_flow_enter(a, want.proto, local, remote) == 0)
		ret = INT32_MAX; /* no number of viaductd's */
	else
		ret = add_locked(a, &want, fd, reason);
	quiet_unlock(&net_lock);
	return ret;
}

int net_filter_ask(struct attached *a, uint8_t proto, uint8_t family, int fd, const struct endpoint *local,
		   const struct endpoint *remote, enum reason *reason)
{
	struct filter want = {.stack = (uint8_t)a->index,
			      .proto = proto,
			      .family = family,
			      .used_us = clock_us(),
			      .local = *local,
			      .remote = *remote};

	return add_locked(a, &want, fd, reason);
}

/* --- the end of bound sockets --- */

#define BATCH 64u
#define WAITS_MANY 256u /* in TIME-WAIT: their peers hardly ever need us any more, so many are not worth the time */

/* Up to BATCH connections of that port from number *at on. */
static uint32_t connections(struct attached *a, uint16_t port, uint32_t *at, struct filter *out)
{
	uint32_t n = 0;

	stack_enter(a);
	for (; *at < a->s->sock_pool.mark && n < BATCH; ++*at) {
		const struct sock *k = sock_at(a->s, *at);

		if (!k || k->proto != SOCK_TCP || k->local.port != port || !k->remote.port || k->vnic >= VNIC_MAX ||
		    k->tcp.state == TCP_CLOSED || (k->tcp.state == TCP_TIME_WAIT && a->s->tw_count > WAITS_MANY) ||
		    !vnic_is_network(stack_vnic(a->s, k->vnic)))
			continue;
		out[n++] = (struct filter){.local = k->local, .remote = k->remote};
	}
	stack_leave(a);
	return n;
}

static void keep_connections(struct attached *a, const struct filter *of)
{
	struct filter batch[BATCH];
	enum reason reason;
	uint32_t at = 1, n;

	do {
		n = connections(a, of->local.port, &at, batch);
		for (uint32_t i = 0; i < n; i++) {
			batch[i].stack = of->stack;
			batch[i].proto = of->proto;
			batch[i].family = is_v4(batch[i].local.addr) ? 4 : 6;
			batch[i].used_us = clock_us();
			if (net_flow_enter(a, of->proto, &batch[i].local, &batch[i].remote) < 0)
				(void)add_locked(a, &batch[i], -1, &reason);
		}
	} while (n == BATCH);
}

void net_unbound(struct attached *a, enum sock_proto proto, const struct endpoint *local)
{
	uint8_t p = proto == SOCK_TCP ? IPPROTO_TCP : IPPROTO_UDP;
	uint16_t i, next;

	if (!__atomic_load_n(&in_use, __ATOMIC_RELAXED))
		return;
	quiet_lock(&net_lock);
	for (i = *bucket(p, local->port); i; i = next) {
		struct filter *f = &filters[i];
		bool listens = proto == SOCK_TCP && f->flags & DAEMON_FILTER_SHARED;

		next = f->next;
		if (f->stack != a->index || f->proto != p || f->local.port != local->port)
			continue;
		if (f->remote.port ? proto == SOCK_TCP || connection_lives(a, f)
				   : (proto == SOCK_TCP && !listens) || bound_lives(a, f))
			continue;
		if (listens)
			keep_connections(a, f);
		next = f->next;
		remove_locked(a, f);
	}
	quiet_unlock(&net_lock);
}

void net_unsteer(struct attached *a, enum sock_proto proto, int family, const struct endpoint *local,
		 const struct endpoint *remote)
{
	struct filter want = {.stack = (uint8_t)a->index,
			      .proto = proto == SOCK_TCP ? IPPROTO_TCP : IPPROTO_UDP,
			      .family = (uint8_t)(is_v4(local->addr) ? 4 : family),
			      .local = *local,
			      .remote = *remote};
	struct filter *f;

	quiet_lock(&net_lock);
	f = find(&want);
	if (f)
		remove_locked(a, f);
	quiet_unlock(&net_lock);
}

/* --- sweeping --- */

static void ports_in_use(struct attached *a, uint64_t used[PORT_WORDS])
{
	stack_enter(a);
	for (uint32_t i = 1; i < a->s->sock_pool.mark; i++) {
		const struct sock *k = sock_at(a->s, i);

		if (k && k->proto == SOCK_TCP)
			used[k->local.port / 64] |= 1ull << k->local.port % 64;
	}
	stack_leave(a);
}

static void sweep_stack(struct attached *a, uint64_t now_us)
{
	static uint64_t used[PORT_WORDS]; /* under net_lock */

	memset(used, 0, sizeof(used));
	ports_in_use(a, used);
	for (uint16_t i = 1; i < mark; i++) {
		struct filter *f = &filters[i];
		uint16_t port = f->local.port;
		bool keep;

		if (!f->id || f->stack != a->index || !older(f, now_us, GRACE_US))
			continue;
		if (f->remote.port)
			keep = connection_lives(a, f);
		else if (f->proto == IPPROTO_UDP || f->flags & DAEMON_FILTER_SHARED)
			keep = bound_lives(a, f);
		else
			keep = used[port / 64] >> port % 64 & 1 || backing_holds_port(&f->local);
		if (keep)
			continue;
		remove_locked(a, f);
	}
}

uint64_t net_filters_sweep(uint64_t now_us)
{
	uint32_t before = __atomic_load_n(&in_use, __ATOMIC_RELAXED);

	if (!before)
		return 0;
	if (now_us - swept_us < sweep_every_us)
		return sweep_every_us - (now_us - swept_us);
	swept_us = now_us;
	quiet_lock(&net_lock);
	for (uint32_t i = 0; i < atomic_load(&attached_count); i++)
		if (net_of(attached[i])->state == NET_UP)
			sweep_stack(attached[i], now_us);
	/* an idle program is to be left alone */
	if (in_use == before && sweep_every_us < SWEEP_LAST_US)
		sweep_every_us *= 2;
	quiet_unlock(&net_lock);
	return sweep_every_us;
}

/* --- another viaductd, another process --- */

int net_descriptor_of(enum sock_proto sort, uint16_t port)
{
	int want = sort == SOCK_TCP ? IPPROTO_TCP : IPPROTO_UDP;
	DIR *d = opendir("/proc/self/fd");
	int found = -1;

	for (struct dirent *e; d && found < 0 && (e = readdir(d));) {
		int fd = atoi(e->d_name), proto = 0;
		socklen_t len = sizeof(proto);
		struct endpoint ep;

		if (e->d_name[0] != '.' && host_sys.getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &proto, &len) == 0 &&
		    proto == want && sock_kernel_name(fd, &ep) == 0 && ep.port == port)
			found = fd;
	}
	if (d)
		closedir(d);
	return found;
}

static int descriptor_of(const struct filter *f)
{
	return net_descriptor_of(f->proto == IPPROTO_TCP ? SOCK_TCP : SOCK_UDP, f->local.port);
}

/* Those of ports, or of flows. True: viaductd knows all of them. */
static bool name_filters(struct attached *a, bool flows)
{
	struct net *n = net_of(a);
	bool all = true;

	for (uint16_t i = 1; i < mark && n->state == NET_UP; i++) {
		struct filter *f = &filters[i];
		int id;

		if (!f->id || f->stack != a->index || flows != (f->remote.port != 0))
			continue;
		id = ask_add(n, f, flows ? -1 : descriptor_of(f));
		all &= id > 0;
		if (id > 0)
			f->id = (uint32_t)id;
	}
	return all && n->state == NET_UP;
}

/* Ports first: flows rest on their sockets. */
bool net_filters_resume(struct attached *a)
{
	bool ports = name_filters(a, false), flows = name_filters(a, true);

	udp_group_resume(a);
	return ports && flows && net_of(a)->state == NET_UP;
}

void net_filters_driver(struct attached *a)
{
	for (uint16_t i = 1; i < mark; i++) {
		struct filter *f = &filters[i];
		struct daemon_filter body = body_of(f);

		if (f->id && f->stack == a->index)
			(void)net_chardev_filter(net_of(a), &body, f->remote.port ? -1 : descriptor_of(f), true);
	}
}

bool net_filter_bound(const struct attached *a, uint32_t n, struct endpoint *local)
{
	for (uint16_t i = 1; i < mark; i++) {
		const struct filter *f = &filters[i];

		if (!f->id || f->stack != a->index || f->remote.port ||
		    (f->proto == IPPROTO_TCP && !(f->flags & DAEMON_FILTER_SHARED)) || n--)
			continue;
		*local = f->local;
		return true;
	}
	return false;
}

/* The end of an address "any" is not said on the way: by its family. */
static struct endpoint end_of(const uint8_t addr[16], uint16_t port, uint8_t family)
{
	struct endpoint ep = {.port = port};

	memcpy(ep.addr, addr, sizeof(ep.addr));
	if (is_any(addr) && family == 4)
		ep.addr[10] = ep.addr[11] = 0xff;
	return ep;
}

static void take(struct attached *a, uint32_t id, const struct daemon_filter *was)
{
	struct filter f = {.id = id,
			   .stack = (uint8_t)a->index,
			   .proto = was->proto,
			   .family = was->family,
			   .flags = was->flags,
			   .used_us = clock_us(),
			   .local = end_of(was->local, was->local_port, was->family)},
		      *have;

	if (was->remote_port)
		f.remote = end_of(was->remote, was->remote_port, was->family);
	have = find(&f);
	if (have)
		have->id = id;
	else
		(void)insert(&f);
}

void net_filters_inherit(struct attached *a)
{
	struct net *n = net_of(a);
	struct viaductd_reply reply;
	uint32_t count;

	sweep_every_us = SWEEP_US;
	do {
		const struct daemon_inherited *d = (const struct daemon_inherited *)(const void *)reply.body;

		if (n->state != NET_UP || net_ask(n, &(struct viaductd_request){.type = DAEMON_INHERIT}, &reply) < 0)
			return;
		count = d->count < DAEMON_INHERIT_MAX ? d->count : DAEMON_INHERIT_MAX;
		for (uint32_t i = 0; i < count; i++)
			if (d->was[i].id && d->was[i].id <= INT32_MAX)
				take(a, d->was[i].id, &d->was[i].filter);
		viaductd_reply_drop(&reply);
	} while (count == DAEMON_INHERIT_MAX);
}

void net_filters_after_fork(void)
{
	udp_group_after_fork();
	/* They are the parent's. */
	memset(buckets, 0, sizeof(buckets));
	free_head = 0;
	mark = 1;
	in_use = 0;
	sweep_every_us = SWEEP_US;
}
