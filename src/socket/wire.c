/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How wires come and go (wire.h).
 *
 * Cache: per attached stack, remote endpoint -> vNIC, four ways in sets by hash. An entry is a hint: it is checked
 * against the vNIC's generation at use, and a refused connection removes it. A refused datagram is known to the engine
 * alone, which counts them: what was vouched for before the last one is vouched for anew, at the cost of a rendezvous.
 *
 * Spinning threads look at rings without the stack's lock (process.h), so a wire's memory is never unmapped: it is
 * replaced by zero pages of the same length and kept for the next wire. A vNIC that died leaves the list of active
 * ones at once; its slot, descriptors and memory follow after REAP_US, when no thread can still be about to ring
 * its doorbell, and when no unread data lies in its buffers.
 */
#define _GNU_SOURCE
#include "socket/wire.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "host/knobs.h"
#include "host/tree.h"
#include "socket/helper.h"
#include "socket/relatives.h"
#include "socket/net.h"
#include "socket/net_chardev.h"

#define CACHE_SETS 64u
#define CACHE_WAYS 4u
#define REAP_US 1000000u
#define SPARE_MAX VNIC_MAX

struct cached {
	struct endpoint remote;
	uint8_t proto; /* enum sock_proto; 0: unused */
	uint16_t vnic;
	uint32_t gen;
	uint32_t refused; /* UDP: stack.udp_refused when it was vouched for */
};

static struct cached cache[VS_STACKS_MAX][CACHE_SETS][CACHE_WAYS];
static uint8_t cache_next;
static pthread_mutex_t rendezvous = PTHREAD_MUTEX_INITIALIZER; /* one at a time, so that two threads share a wire */
static pthread_mutex_t cache_lock = PTHREAD_MUTEX_INITIALIZER;

static void *spare[SPARE_MAX];
static uint32_t spares;
static pthread_mutex_t spare_lock = PTHREAD_MUTEX_INITIALIZER;

struct dying {
	struct attached *a; /* NULL: unused */
	uint32_t vnic, gen; /* which wire in the slot */
	uint64_t since_us;
};
static struct dying dying[VNIC_MAX];
static _Atomic uint32_t dying_count; /* entries in use: the helper looks often */
static pthread_mutex_t dying_lock = PTHREAD_MUTEX_INITIALIZER;

/* --- cache --- */

static struct cached *cache_set(struct attached *a, const struct endpoint *r)
{
	uint32_t h = r->port;

	for (int i = 0; i < 16; i++)
		h = h * 31 + r->addr[i];
	h ^= h >> 16;
	return cache[a->index][h % CACHE_SETS];
}

static bool same_endpoint(const struct endpoint *x, const struct endpoint *y)
{
	return x->port == y->port && !memcmp(x->addr, y->addr, sizeof(x->addr));
}

static struct cached *cache_find(struct attached *a, enum sock_proto proto, const struct endpoint *remote)
{
	struct cached *set = cache_set(a, remote);

	for (uint32_t i = 0; i < CACHE_WAYS; i++)
		if (set[i].proto == proto && same_endpoint(&set[i].remote, remote))
			return &set[i];
	return NULL;
}

static bool lives(struct attached *a, uint32_t vnic, uint32_t gen)
{
	const struct vnic *v = &a->e.vnic[vnic];
	bool yes;

	stack_enter(a);
	yes = v->ops && v->gen == gen && v->st->gen == gen && !v->st->dead;
	stack_leave(a);
	return yes;
}

static uint32_t refusals(const struct attached *a)
{
	return __atomic_load_n(&a->s->udp_refused, __ATOMIC_RELAXED);
}

/* A vNIC that was vouched for and still lives; -1 none. */
static int cache_get(struct attached *a, enum sock_proto proto, const struct endpoint *remote)
{
	struct cached *c, found = {0};

	quiet_lock(&cache_lock);
	c = cache_find(a, proto, remote);
	if (c)
		found = *c;
	quiet_unlock(&cache_lock);
	if (!c)
		return -1;
	if (lives(a, found.vnic, found.gen) && (proto != SOCK_UDP || found.refused == refusals(a)))
		return found.vnic;
	wire_forget(a, proto, remote);
	return -1;
}

static void cache_put(struct attached *a, enum sock_proto proto, const struct endpoint *remote, uint32_t vnic,
		      uint32_t refused)
{
	struct cached *c, *set;

	quiet_lock(&cache_lock);
	c = cache_find(a, proto, remote);
	set = cache_set(a, remote);
	for (uint32_t i = 0; !c && i < CACHE_WAYS; i++)
		if (!set[i].proto)
			c = &set[i];
	if (!c)
		c = &set[cache_next++ % CACHE_WAYS];
	c->remote = *remote;
	c->vnic = (uint16_t)vnic;
	c->gen = a->e.vnic[vnic].gen;
	c->refused = refused;
	c->proto = (uint8_t)proto;
	quiet_unlock(&cache_lock);
}

void wire_forget(struct attached *a, enum sock_proto proto, const struct endpoint *remote)
{
	struct cached *c;

	quiet_lock(&cache_lock);
	c = cache_find(a, proto, remote);
	if (c)
		c->proto = 0;
	quiet_unlock(&cache_lock);
}

/* --- memory --- */

static void *map_wire(int memfd)
{
	size_t len = wire_size();
	void *at = NULL, *mem;

	quiet_lock(&spare_lock);
	if (spares)
		at = spare[--spares];
	quiet_unlock(&spare_lock);
	mem = mmap(at, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | (at ? MAP_FIXED : 0), memfd, 0);
	return mem == MAP_FAILED ? NULL : mem;
}

static void retire_memory(void *mem)
{
	if (mmap(mem, wire_size(), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) ==
	    MAP_FAILED)
		return;
	quiet_lock(&spare_lock);
	if (spares < SPARE_MAX)
		spare[spares++] = mem;
	quiet_unlock(&spare_lock);
}

static void close_wire_fds(const struct rdv_wire *w)
{
	host_fd_close(w->memfd);
	host_fd_close(w->doorbell[0]);
	host_fd_close(w->doorbell[1]);
	host_fd_close(w->life_fd);
}

/* --- attach --- */

/* Others look at views without the lock. */
static void view_set(struct spin_view *at, const struct spin_view *x)
{
	__atomic_store_n(&at->arrivals, x->arrivals, __ATOMIC_RELAXED);
	__atomic_store_n(&at->evq, x->evq, __ATOMIC_RELAXED);
	__atomic_store_n(&at->st, x->st, __ATOMIC_RELAXED);
	__atomic_store_n(&at->ctrl, x->ctrl, __ATOMIC_RELAXED);
	__atomic_store_n(&at->peer, x->peer, __ATOMIC_RELAXED);
}

void process_activate(struct attached *a, uint32_t i)
{
	static const struct vnic_ctrl nobody;
	struct vnic *v = &a->e.vnic[i];
	struct spin_view view = {.evq = v->evq, .st = v->st, .ctrl = v->ctrl, .peer = v->peer_ctrl};

	if (v->st->provider == VNIC_PROV_XDP)
		view.arrivals = xdp_arrivals(v->priv);
	if (!view.peer)
		view.peer = &nobody;
	a->vnic[a->active] = (uint16_t)i;
	view_set(&a->view[a->active], &view);
	__atomic_store_n(&a->active, a->active + 1, __ATOMIC_RELEASE);
}

static void deactivate(struct attached *a, uint32_t vnic)
{
	for (uint32_t i = 0; i < a->active; i++) {
		if (a->vnic[i] != vnic)
			continue;
		a->vnic[i] = a->vnic[a->active - 1];
		view_set(&a->view[i], &a->view[a->active - 1]);
		__atomic_store_n(&a->active, a->active - 1, __ATOMIC_RELEASE);
		return;
	}
}

/* This process gives up its mapping of a wire: what belongs to it is stored in *old, to be released without the lock.
 * With the lock. */
static void unmap_locked(struct attached *a, uint32_t vnic, struct vnic *old)
{
	deactivate(a, vnic);
	*old = a->e.vnic[vnic];
	memset(&a->e.vnic[vnic], 0, sizeof(*old));
}

static void release_mapping(const struct vnic *old)
{
	struct rdv_wire w = {.memfd = -1, .doorbell = {old->doorbell_fd[0], old->doorbell_fd[1]}};

	if (!old->ops)
		return;
	if (old->wake_fd) {
		if (old->map)
			net_chardev_release(old);
		else
			net_release_port(old->priv);
		return;
	}
	w.life_fd = old->life_fd;
	w.memfd = old->wire_fd - 1;
	close_wire_fds(&w);
	retire_memory(old->map);
}

/* Another process of the tree has freed slots whose old wires we still have mapped, maybe in the list of active ones:
 * they must go before a slot is used again. With the lock. */
static void unmap_stale(struct attached *a)
{
	for (uint32_t i = 0; i < a->s->vnic_high && i < VNIC_MAX; i++) {
		struct vnic old;

		if (!a->e.vnic[i].ops || a->e.vnic[i].gen == stack_vnic(a->s, i)->gen)
			continue;
		unmap_locked(a, i, &old);
		release_mapping(&old);
	}
}

/* With the lock. */
static int attach_locked(struct attached *a, const struct rdv_wire *w, void *mem)
{
	struct vnic *v;
	int i;

	unmap_stale(a);
	i = engine_vnic_alloc(&a->e);
	if (i < 0)
		return i;
	v = &a->e.vnic[i];
	wire_attach(v, stack_vnic(a->s, (uint32_t)i), mem, w->end);
	v->doorbell_fd[0] = w->doorbell[0];
	v->doorbell_fd[1] = w->doorbell[1];
	v->life_fd = w->life_fd;
	v->wire_fd = a->s->procs > 1 || host_fd_plenty() ? w->memfd + 1 : 0;
	v->st->peer_pid = w->link.pid;
	v->st->peer_uid = w->link.uid;
	v->st->maker_pid = a->s->proc[a->slot].pid;
	memcpy(v->st->link, w->link.nonce, sizeof(v->st->link));
	memcpy(v->st->peer_stack, w->link.stack, sizeof(v->st->peer_stack));
	process_activate(a, (uint32_t)i);
	count(a->s, C_wire_made);
	return i;
}

int wire_add(struct attached *a, struct rdv_wire *w)
{
	void *mem = map_wire(w->memfd);
	bool kept, shared;
	int i;

	if (!mem || wire_check(mem, wire_size()) < 0) {
		if (mem)
			retire_memory(mem);
		close_wire_fds(w);
		return mem ? -EPROTO : -ENOMEM;
	}
	stack_enter(a);
	i = attach_locked(a, w, mem);
	shared = a->s->procs > 1;
	kept = i >= 0 && a->e.vnic[i].wire_fd;
	stack_leave(a);
	if (i < 0) {
		retire_memory(mem);
		close_wire_fds(w);
		wire_reap();
		return i;
	}
	if (shared)
		relatives_serve(a);
	if (!kept)
		host_fd_close(w->memfd);
	w->memfd = -1;
	helper_watch_life(a, (uint32_t)i);
	process_helper_kick(); /* it has not armed this one's doorbell */
	return i;
}

/* --- wires of relatives --- */

struct unmapped {
	struct rdv_link link; /* pid: of its maker */
	uint32_t vnic, gen;
};

/* Is it one, and of whom? */
static bool is_unmapped(struct attached *a, uint32_t vnic, struct unmapped *u)
{
	const struct vnic *v = &a->e.vnic[vnic];
	const struct vnic_state *st = stack_vnic(a->s, vnic);
	bool yes;

	stack_enter(a);
	yes = st->provider == VNIC_PROV_LOCAL && !st->dead && (!v->ops || v->gen != st->gen) && st->maker_pid;
	*u = (struct unmapped){.link = {.pid = st->maker_pid}, .vnic = vnic, .gen = st->gen};
	memcpy(u->link.nonce, st->link, sizeof(u->link.nonce));
	stack_leave(a);
	return yes;
}

/* With the lock. */
static bool map_locked(struct attached *a, const struct unmapped *u, const struct rdv_wire *w, void *mem)
{
	struct vnic *v = &a->e.vnic[u->vnic];
	struct vnic_state *st = stack_vnic(a->s, u->vnic);

	unmap_stale(a);
	if (st->gen != u->gen || st->dead || st->provider != VNIC_PROV_LOCAL || v->ops)
		return false;
	wire_reattach(v, st, mem);
	v->doorbell_fd[0] = w->doorbell[0];
	v->doorbell_fd[1] = w->doorbell[1];
	v->life_fd = w->life_fd;
	v->wire_fd = w->memfd + 1; /* for heirs; relatives ask its maker */
	process_activate(a, u->vnic);
	return true;
}

/* Map a wire of the stack with the descriptors that we were given, which become ours, also on failure. */
static int map_given(struct attached *a, const struct unmapped *u, const struct rdv_wire *w)
{
	void *mem = map_wire(w->memfd);
	int ret = mem ? wire_check(mem, wire_size()) : -ENOMEM;

	if (ret == 0) {
		stack_enter(a);
		ret = map_locked(a, u, w, mem) ? 0 : -ENOENT;
		stack_leave(a);
	}
	if (ret == 0) {
		helper_watch_life(a, u->vnic);
		return 0;
	}
	if (mem)
		retire_memory(mem);
	close_wire_fds(w);
	return ret;
}

static int fetch(struct attached *a, const struct unmapped *u)
{
	struct rdv_wire w;
	int ret = tree_fetch(a->s->id, u->link.nonce, u->link.pid, (int)knob[K_HANDSHAKE_MS], &w);

	if (ret == 0)
		ret = map_given(a, u, &w);
	if (ret == 0)
		process_helper_kick();
	return ret;
}

int wire_adopt(struct attached *a, uint32_t vnic, uint32_t gen, const struct rdv_wire *w)
{
	return map_given(a, &(struct unmapped){.vnic = vnic % VNIC_MAX, .gen = gen}, w);
}

int wire_map(struct attached *a, uint32_t vnic)
{
	struct unmapped u;
	int ret = 0;

	if (helper_start() < 0)
		return -ENOMEM;
	quiet_lock(&rendezvous); /* two threads may want it */
	if (is_unmapped(a, vnic % VNIC_MAX, &u))
		ret = fetch(a, &u);
	quiet_unlock(&rendezvous);
	return ret;
}

/* --- the way to an address --- */

static enum reason reason_of(int err, bool squatted)
{
	switch (-err) {
	case EPERM:
	case EACCES:
		return squatted ? REASON_SQUATTED : REASON_OTHER_USER;
	case EPROTO:
		return REASON_VERSION;
	case ETIMEDOUT:
		return REASON_HANDSHAKE;
	case EUSERS:
		return REASON_PEER_FULL;
	case ENOBUFS:
		return REASON_NO_VNICS;
	case EMFILE:
	case ENFILE:
	case ENOMEM:
		return REASON_NO_STACK;
	default:
		return REASON_NO_LISTENER;
	}
}

/* --- wires that both sides have --- */

/* A wire that this process has made from stack a to that stack in that process. Children of either have it too, but
 * call themselves by their own pid: they make wires of their own. With the lock. */
static int known_wire(struct attached *a, const struct rdv_link *l, bool exact)
{
	for (uint32_t i = 0; i < a->active && l->pid; i++) {
		const struct vnic *v = &a->e.vnic[a->vnic[i]];
		const struct vnic_state *st = v->st;

		if (st->provider == VNIC_PROV_LOCAL && st->gen == v->gen && !st->dead && st->peer_pid == l->pid &&
		    st->peer_uid == l->uid && st->maker_pid == a->s->proc[a->slot].pid &&
		    !memcmp(st->peer_stack, l->stack, sizeof(l->stack)) &&
		    (!exact || !memcmp(st->link, l->nonce, sizeof(l->nonce))))
			return a->vnic[i];
	}
	return -1;
}

static bool find_wire(void *arg, struct rdv_link *l, bool exact)
{
	struct attached *a = arg;
	int i;

	stack_enter(a);
	i = known_wire(a, l, exact);
	if (i >= 0)
		memcpy(l->nonce, a->e.vnic[i].st->link, sizeof(l->nonce));
	stack_leave(a);
	return i >= 0;
}

void wire_self(struct attached *a, struct rdv_self *self)
{
	*self = (struct rdv_self){.doorbell = {a->doorbell[0], a->doorbell[1]},
				  .any_user = knob[K_PEERS] == PEERS_ANY,
				  .find = find_wire,
				  .arg = a};
	memcpy(self->stack, a->s->id, sizeof(self->stack));
}

static int use_known(struct attached *a, const struct rdv_link *l)
{
	int i;

	stack_enter(a);
	i = known_wire(a, l, true);
	if (i >= 0)
		count(a->s, C_wire_shared);
	stack_leave(a);
	return i < 0 ? -ECONNREFUSED : i; /* it has died since we agreed: so has its process */
}

static int make_wire(struct attached *a, enum sock_proto proto, int family, const struct endpoint *remote,
		     enum reason *reason)
{
	struct rdv_self self;
	struct rdv_wire w;
	uint32_t refused = refusals(a);
	bool squatted = false;
	int ret;

	wire_self(a, &self);
	ret = rdv_connect(proto, family, remote, &self, (int)knob[K_HANDSHAKE_MS], &w, &squatted);
	if (ret == RDV_KNOWN)
		ret = use_known(a, &w.link);
	else if (ret == 0)
		ret = wire_add(a, &w);
	if (ret < 0)
		*reason = reason_of(ret, squatted);
	else
		cache_put(a, proto, remote, (uint32_t)ret, refused);
	return ret;
}

int wire_to(struct attached *a, enum sock_proto proto, int family, const struct endpoint *remote, bool *fresh,
	    enum reason *reason)
{
	int vnic = cache_get(a, proto, remote);

	*fresh = false;
	if (vnic >= 0)
		return vnic;
	quiet_lock(&rendezvous);
	vnic = cache_get(a, proto, remote);
	if (vnic < 0) {
		*fresh = true;
		vnic = make_wire(a, proto, family, remote, reason);
	}
	quiet_unlock(&rendezvous);
	return vnic;
}

/* --- the end --- */

/* The entry of a vNIC, or an unused one; NULL none. */
static struct dying *dying_entry(struct attached *a, uint32_t vnic)
{
	struct dying *unused = NULL;

	for (uint32_t i = 0; i < VNIC_MAX; i++) {
		if (dying[i].a == a && dying[i].vnic == vnic)
			return &dying[i];
		if (!dying[i].a && !unused)
			unused = &dying[i];
	}
	return unused;
}

static void put_dying(struct attached *a, uint32_t vnic, uint32_t gen, uint64_t now)
{
	struct dying *d;

	quiet_lock(&dying_lock);
	d = dying_entry(a, vnic);
	if (d && !d->a)
		dying_count++;
	if (d)
		*d = (struct dying){.a = a, .vnic = vnic, .gen = gen, .since_us = now};
	quiet_unlock(&dying_lock);
}

void wire_gone(struct attached *a, uint32_t vnic, uint32_t gen)
{
	uint64_t now = clock_us();
	struct vnic *v = &a->e.vnic[vnic];
	bool ours;

	stack_enter(a);
	ours = v->ops && v->gen == gen;
	if (ours) {
		if (v->st->gen == gen && !v->st->dead)
			engine_vnic_dead(&a->e, vnic, now);
		deactivate(a, vnic);
		count(a->s, C_wire_gone);
	}
	stack_leave(a);
	if (!ours)
		return;
	put_dying(a, vnic, gen, now);
	/* a thread that was about to sleep may have missed the vNIC that took this one's place in the list of views */
	wait_wake_all();
}

void wire_rung(struct attached *a, uint32_t vnic, uint32_t gen)
{
	const struct vnic *v = &a->e.vnic[vnic];
	int life_fd;

	stack_enter(a);
	life_fd = v->ops && v->gen == gen ? v->life_fd : -1;
	stack_leave(a);
	/* The helper itself, who calls, looks at all stacks when it has seen its events. */
	if (life_fd >= 0 && rdv_rung(life_fd) >> VNIC_ARMED_THREAD & 1)
		wait_wake_all();
}

/* True when it is gone for good, or the slot has another wire by now. */
static bool reap(struct attached *a, uint32_t vnic, uint32_t gen)
{
	struct vnic *v = &a->e.vnic[vnic], old = {0};
	int ret = 0;

	stack_enter(a);
	if (v->ops && v->gen == gen) {
		struct vnic mapped = *v; /* engine_vnic_free forgets it */

		if (v->st->gen == gen && v->st->provider != VNIC_PROV_NONE)
			ret = engine_vnic_free(&a->e, vnic);
		if (ret == 0) {
			unmap_locked(a, vnic, &old);
			old = mapped;
		}
	}
	stack_leave(a);
	release_mapping(&old);
	return ret == 0;
}

uint64_t wire_reap(void)
{
	uint64_t now, next = 0;

	if (!dying_count)
		return 0;
	now = clock_us();
	quiet_lock(&dying_lock);
	for (uint32_t i = 0; i < VNIC_MAX; i++) {
		struct dying *d = &dying[i];

		if (!d->a)
			continue;
		if (now - d->since_us < REAP_US) {
			next = REAP_US;
		} else if (reap(d->a, d->vnic, d->gen)) {
			d->a = NULL;
			dying_count--;
		}
	}
	quiet_unlock(&dying_lock);
	return next;
}

void wire_after_fork(void)
{
	pthread_mutex_init(&rendezvous, NULL);
	pthread_mutex_init(&cache_lock, NULL);
	pthread_mutex_init(&spare_lock, NULL);
	pthread_mutex_init(&dying_lock, NULL);
}
