/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Flows that the stack steers to itself, without asking viaductd: DAEMON_FLOWS in include/viaduct/daemon.h. For
 * connections from ports that the program bound, each of which needs a filter of its own (net_filter.c): a conversation
 * would cost more than all the rest of a short connection.
 *
 * The port stays taken as long as the flow is entered: by the program's descriptor, then by a duplicate of it that is
 * held here until the connection is gone, TIME-WAIT included. When HELD_MAX are held the oldest in TIME-WAIT, or gone,
 * is let go: its peer needs us no more, or hardly. One that lives is handed to viaductd.
 *
 * The table is shared with other stacks and, after fork, with the processes of this one; places are taken atomically.
 * What was missed (a process that died, a connect that failed) is found by a sweep. All under net_lock.
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "engine/bytes.h"
#include "socket/net_internal.h"
#include "socket/sockets.h"

#define HELD_MAX 128u
#define LIMIT_MIN 1024u   /* with fewer descriptors allowed none are held */
#define GRACE_MS 5000u    /* between entering a flow and the connection's being there */
#define SWEEP_US 2000000u /* between sweeps, twice as long after each, ... */
#define SWEEP_LAST_US 128000000u

#define LOOK_US 100000u       /* after a port was held, and twice as long after each look, ... */
#define LOOK_LAST_US 5000000u /* ... until it is this long */

struct held {
	int fd;
	uint8_t stack, proto, family;
	struct endpoint local, remote;
};

/* Oldest first, from `first` on. */
static struct held held[HELD_MAX];
static uint32_t first, held_n;
static bool entered; /* since the last sweep */
static uint64_t swept_us, sweep_every_us = SWEEP_US, look_us = LOOK_US;

/* --- the table --- */

static void map_table(struct net *n, int fd, const struct daemon_flows *d)
{
	void *mem;

	if (d->sets != DAEMON_FLOW_SETS || d->set_size != sizeof(struct daemon_flow_set))
		return;
	mem = mmap(NULL, (size_t)d->sets * d->set_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED)
		return;
	n->flows = mem;
	n->flow_stack = d->stack;
}

/* Asked for once. */
static bool have_table(struct net *n)
{
	struct viaductd_reply reply;

	if (n->flows || n->flows_asked || n->state != NET_UP)
		return n->flows != NULL;
	n->flows_asked = true;
	if (net_ask(n, &(struct viaductd_request){.type = DAEMON_FLOWS}, &reply) < 0)
		return false;
	if (reply.fd_count == 1)
		map_table(n, reply.fds[0], (const struct daemon_flows *)(const void *)reply.body);
	viaductd_reply_drop(&reply);
	return n->flows != NULL;
}

static uint32_t flow_of(uint8_t proto, const struct endpoint *local, const struct endpoint *remote,
			struct daemon_flow *f)
{
	uint32_t word[DAEMON_FLOW_WORDS];

	*f = (struct daemon_flow){.local_port = htons(local->port),
				  .remote_port = htons(remote->port),
				  .proto = proto,
				  .family = is_v4(remote->addr) ? 4 : 6};
	memcpy(f->local, local->addr, sizeof(f->local));
	memcpy(f->remote, remote->addr, sizeof(f->remote));
	memcpy(word, f, sizeof(word));
	return daemon_flow_hash(word);
}

/* The place of the flow in its set; DAEMON_FLOW_WAYS: it is not entered. */
static uint32_t find(const struct daemon_flow_set *set, uint32_t hash, const struct daemon_flow *f)
{
	uint32_t i = 0;

	while (i < DAEMON_FLOW_WAYS && (__atomic_load_n(&set->tag[i], __ATOMIC_ACQUIRE) != (hash | 1) ||
					memcmp(&set->flow[i], f, sizeof(*f)) != 0))
		i++;
	return i;
}

static bool take_place(struct daemon_flow_set *set, uint32_t i, uint32_t tag)
{
	return __atomic_compare_exchange_n(&set->tag[i], &tag, DAEMON_FLOW_BUSY, false, __ATOMIC_ACQ_REL,
					   __ATOMIC_RELAXED);
}

/* True if the flow at that place is ours and nobody needs it. */
static bool is_stale(struct attached *a, const struct daemon_flow_set *set, uint32_t i, uint32_t now_ms, bool waits_too)
{
	const struct net *n = net_of(a);
	struct endpoint local, remote;
	const struct sock *k;
	bool stale;

	if (set->stack[i] != n->flow_stack || now_ms - set->born[i] < GRACE_MS)
		return false;
	local.port = ntohs(set->flow[i].local_port);
	remote.port = ntohs(set->flow[i].remote_port);
	memcpy(local.addr, set->flow[i].local, sizeof(local.addr));
	memcpy(remote.addr, set->flow[i].remote, sizeof(remote.addr));
	stack_enter(a);
	k = sock_lookup(a->s, set->flow[i].proto == IPPROTO_TCP ? SOCK_TCP : SOCK_UDP, &local, &remote);
	stale = !k || (waits_too && k->tcp.state == TCP_TIME_WAIT);
	stack_leave(a);
	return stale;
}

static uint32_t free_place(struct attached *a, struct daemon_flow_set *set, uint32_t now_ms)
{
	uint32_t i;

	for (i = 0; i < DAEMON_FLOW_WAYS; i++)
		if (take_place(set, i, 0))
			return i;
	for (i = 0; i < DAEMON_FLOW_WAYS; i++) {
		uint32_t tag = __atomic_load_n(&set->tag[i], __ATOMIC_ACQUIRE);

		if (tag & 1 && is_stale(a, set, i, now_ms, true) && take_place(set, i, tag))
			break;
	}
	return i;
}

int net_flow_enter(struct attached *a, uint8_t proto, const struct endpoint *local, const struct endpoint *remote)
{
	struct net *n = net_of(a);
	struct daemon_flow_set *set;
	struct daemon_flow f;
	uint32_t hash, i, now_ms = (uint32_t)(clock_us() >> 10);

	if (!have_table(n))
		return -ENOENT;
	hash = flow_of(proto, local, remote, &f);
	set = n->flows + daemon_flow_set_of(hash);
	i = find(set, hash, &f);
	if (i < DAEMON_FLOW_WAYS) {
		if (set->stack[i] != n->flow_stack)
			return -EADDRINUSE;
		set->born[i] = now_ms;
		return 0;
	}
	i = free_place(a, set, now_ms);
	if (i == DAEMON_FLOW_WAYS)
		return -ENOSPC;
	set->stack[i] = n->flow_stack;
	set->born[i] = now_ms;
	set->flow[i] = f;
	__atomic_store_n(&set->tag[i], hash | 1, __ATOMIC_RELEASE);
	entered = true;
	return 0;
}

/* True: it was entered, by this stack. */
static bool leave(const struct net *n, uint8_t proto, const struct endpoint *local, const struct endpoint *remote,
		  bool remove)
{
	struct daemon_flow_set *set;
	struct daemon_flow f;
	uint32_t hash = flow_of(proto, local, remote, &f), i;

	set = n->flows + daemon_flow_set_of(hash);
	i = find(set, hash, &f);
	if (i == DAEMON_FLOW_WAYS || set->stack[i] != n->flow_stack)
		return false;
	if (remove)
		__atomic_store_n(&set->tag[i], 0, __ATOMIC_RELEASE);
	return true;
}

/* --- ports held --- */

enum need { NEED_NONE, NEED_WAITS, NEED_LIVES };

static enum need needed(struct attached *a, const struct held *h)
{
	const struct sock *k;
	enum need need;

	stack_enter(a);
	k = sock_lookup(a->s, SOCK_TCP, &h->local, &h->remote);
	need = !k ? NEED_NONE : k->tcp.state == TCP_TIME_WAIT ? NEED_WAITS : NEED_LIVES;
	stack_leave(a);
	return need;
}

static void let_go(struct held *h, bool lives)
{
	struct attached *a = process_stack(h->stack);
	enum reason reason;

	if (lives)
		(void)net_filter_ask(a, h->proto, h->family, h->fd, &h->local, &h->remote, &reason);
	(void)leave(net_of(a), h->proto, &h->local, &h->remote, true);
	vs_publish_fd(h->fd, FD_OTHER, VS_NONE, REASON_NONE);
	host_fd_close(h->fd);
	h->fd = -1;
}

/* Let those at the head go whose connections need no more than `most`; no more than `n`. */
static void drop(enum need most, uint32_t n)
{
	for (; held_n && n; n--) {
		struct held *h = &held[first];
		enum need need = needed(process_stack(h->stack), h);

		if (need > most)
			return;
		let_go(h, need == NEED_LIVES);
		first = (first + 1) % HELD_MAX;
		held_n--;
	}
}

/* All whose connections are over. True if there were some. */
static bool drop_over(void)
{
	uint32_t n = held_n, left = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct held *h = &held[(first + i) % HELD_MAX];

		if (needed(process_stack(h->stack), h) == NEED_NONE)
			let_go(h, false);
		else
			held[(first + left++) % HELD_MAX] = *h;
	}
	held_n = left;
	return left < n;
}

bool net_flows_give_way(void)
{
	bool some;

	if (!__atomic_load_n(&held_n, __ATOMIC_RELAXED))
		return false;
	quiet_lock(&net_lock);
	some = drop_over();
	quiet_unlock(&net_lock);
	return some;
}

/* Looked at now and then: it hardly changes. */
static bool may_hold(void)
{
	static uint32_t asked;
	static bool may;
	struct rlimit lim;

	if (asked++ % HELD_MAX == 0)
		may = getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur >= LIMIT_MIN;
	return may;
}

/* h's connection goes on without the program's descriptor fd. */
static void hold(struct held *h, int fd)
{
	enum reason reason;

	drop(NEED_NONE, 2);
	if (held_n == HELD_MAX)
		drop(NEED_LIVES, 1);
	h->fd = may_hold() ? host_fd_dup_high(fd) : -EMFILE;
	if (h->fd >= 0) {
		vs_publish_fd(h->fd, FD_OWN, VS_NONE, REASON_NONE);
		held[(first + held_n++) % HELD_MAX] = *h;
		look_us = LOOK_US;
		process_helper_expect(clock_us() + LOOK_US);
		return;
	}
	if (net_filter_ask(process_stack(h->stack), h->proto, h->family, fd, &h->local, &h->remote, &reason) > 0)
		(void)leave(net_of(process_stack(h->stack)), h->proto, &h->local, &h->remote, true);
}

void net_flow_closing(struct attached *a, int fd, const struct endpoint *local, const struct endpoint *remote)
{
	struct held h = {.stack = (uint8_t)a->index,
			 .proto = IPPROTO_TCP,
			 .family = is_v4(remote->addr) ? 4 : 6,
			 .local = *local,
			 .remote = *remote};
	const struct net *n = net_of(a);
	bool lives;

	if (!__atomic_load_n(&n->flows, __ATOMIC_ACQUIRE) || !remote->port)
		return;
	quiet_lock(&net_lock);
	if (leave(n, h.proto, local, remote, false)) {
		lives = needed(a, &h) != NEED_NONE;
		if (lives && fd >= 0)
			hold(&h, fd);
		else if (!lives)
			(void)leave(n, h.proto, local, remote, true);
	}
	quiet_unlock(&net_lock);
}

/* --- sweeping --- */

static uint32_t sweep_table(struct attached *a)
{
	struct daemon_flow_set *set = net_of(a)->flows;
	uint32_t now_ms = (uint32_t)(clock_us() >> 10), left = 0;

	for (uint32_t s = 0; s < DAEMON_FLOW_SETS; s++, set++)
		for (uint32_t i = 0; i < DAEMON_FLOW_WAYS; i++) {
			uint32_t tag = __atomic_load_n(&set->tag[i], __ATOMIC_ACQUIRE);

			if (!(tag & 1) || set->stack[i] != net_of(a)->flow_stack)
				continue;
			if (is_stale(a, set, i, now_ms, false) && take_place(set, i, tag))
				__atomic_store_n(&set->tag[i], 0, __ATOMIC_RELEASE);
			else
				left++;
		}
	return left;
}

/* Microseconds until the next look at the ports held, 0: there are none. */
static uint64_t look_at_held(uint64_t now_us)
{
	static uint64_t next_us;
	uint64_t again;

	if (!__atomic_load_n(&held_n, __ATOMIC_RELAXED))
		return 0;
	if (now_us < next_us && next_us - now_us <= look_us)
		return next_us - now_us;
	quiet_lock(&net_lock);
	drop_over();
	again = held_n ? look_us : 0;
	next_us = now_us + look_us;
	look_us = look_us < LOOK_LAST_US ? 2 * look_us : look_us;
	quiet_unlock(&net_lock);
	return again;
}

static uint64_t sweep(uint64_t now_us)
{
	uint32_t left = 0;

	if (!__atomic_load_n(&entered, __ATOMIC_RELAXED))
		return 0;
	if (now_us - swept_us < sweep_every_us)
		return sweep_every_us - (now_us - swept_us);
	quiet_lock(&net_lock);
	entered = false;
	for (uint32_t i = 0; i < atomic_load(&attached_count); i++)
		if (net_of(attached[i])->flows)
			left += sweep_table(attached[i]);
	/* until all are gone, ever more rarely: an idle program is to be left alone */
	sweep_every_us = !left ? SWEEP_US : sweep_every_us < SWEEP_LAST_US ? 2 * sweep_every_us : sweep_every_us;
	entered |= left != 0;
	swept_us = now_us;
	quiet_unlock(&net_lock);
	return left ? sweep_every_us : 0;
}

uint64_t net_flows_sweep(uint64_t now_us)
{
	uint64_t held_us = look_at_held(now_us), sweep_us = sweep(now_us);

	return held_us && (!sweep_us || held_us < sweep_us) ? held_us : sweep_us;
}

void net_flows_relative_gone(struct attached *a)
{
	if (!net_of(a)->flows)
		return;
	entered = true;
	sweep_every_us = SWEEP_US;
}

void net_flows_after_fork(void)
{
	/* They are the parent's. */
	for (; held_n; held_n--, first = (first + 1) % HELD_MAX)
		host_fd_close(held[first].fd);
	first = 0;
}
