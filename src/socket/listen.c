/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Passive open: listen, accept, and who answers for a listener in a tree of processes.
 *
 * A listener is four things at once: the kernel's listening socket (the backing one, for plain clients), the engine's
 * listener, a rendezvous descriptor on which processes ask for wires, and an entry in the table below that ties them
 * together. accept takes from the engine first; the kernel gets its turn every KERNEL_TURN connections, and whenever
 * the engine has none.
 *
 * After fork. A child that shows interest in an inherited listener (accept, poll, epoll) gets a clone of it: a listener
 * of the same address in its own stack. Its helper answers on the inherited rendezvous descriptor; whoever's helper is
 * first makes the wire, so workers share the clients. From the fork on, the parent answers only if it shows interest
 * itself (sock.interest): its children do not have the wires that it makes. In the parent's stack the listener stays,
 * so a client with a wire to the parent can still connect, and every process of the tree accepts from it: one that has
 * not mapped the wire does so then.
 */
#include <poll.h>
#include <pthread.h>
#include <string.h>

#include "engine/bytes.h"
#include "socket/backing.h"
#include "socket/net.h"
#include "socket/sockets.h"
#include "socket/unlocked.h"

#define KERNEL_TURN 32u
#define TABLE_MAX 4096u

struct listening {
	vsock_t v;     /* VS_NONE: unused */
	vsock_t clone; /* in this process's own stack; VS_NONE: v is ours */
	int rdv_fd;
	bool steered; /* what comes over networks comes to it */
};
static struct listening table[TABLE_MAX];
static uint32_t table_used; /* entries ever used */
static _Atomic uint32_t clones;
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint32_t turn;

static struct listening *find(vsock_t v)
{
	for (uint32_t i = 0; i < table_used; i++)
		if (table[i].v == v)
			return &table[i];
	return NULL;
}

/* Without the lock: is it worth taking? Nobody else enters or removes v while we have it in hand. */
static bool listed(vsock_t v)
{
	uint32_t n = __atomic_load_n(&table_used, __ATOMIC_ACQUIRE);

	for (uint32_t i = 0; i < n; i++)
		if (__atomic_load_n(&table[i].v, __ATOMIC_RELAXED) == v)
			return true;
	return false;
}

/* The same for clones. */
static bool listed_clone(vsock_t v)
{
	uint32_t n = __atomic_load_n(&table_used, __ATOMIC_ACQUIRE);

	for (uint32_t i = 0; i < n; i++)
		if (__atomic_load_n(&table[i].clone, __ATOMIC_RELAXED) == v)
			return true;
	return false;
}

/* --- rendezvous descriptors --- */

static int remember(vsock_t v, int fd)
{
	struct listening *l;

	quiet_lock(&table_lock);
	l = find(VS_NONE);
	if (!l && table_used < TABLE_MAX)
		l = &table[table_used++];
	if (l)
		*l = (struct listening){.v = v, .rdv_fd = fd};
	quiet_unlock(&table_lock);
	return l ? 0 : -ENFILE;
}

int rendezvous_open(vsock_t v, enum sock_proto proto, int family, const struct endpoint *local, bool v6only)
{
	int fd = rdv_listen(proto, family, local, v6only), ret;

	if (fd < 0)
		return fd;
	ret = remember(v, fd);
	if (ret == 0) {
		ret = helper_watch_listener(v, fd);
		if (ret < 0)
			rendezvous_close(v);
	} else {
		host_fd_close(fd);
	}
	return ret;
}

void rendezvous_close(vsock_t v)
{
	struct listening *l, old = {.rdv_fd = -1};

	if (!listed(v))
		return;
	quiet_lock(&table_lock);
	l = find(v);
	if (l) {
		old = *l;
		l->v = VS_NONE;
	}
	quiet_unlock(&table_lock);
	if (l) {
		helper_forget_fd(old.rdv_fd);
		host_fd_close(old.rdv_fd);
	}
}

int rendezvous_fd(vsock_t v)
{
	const struct listening *l;
	int fd = -1;

	if (!listed(v))
		return -1;
	quiet_lock(&table_lock);
	l = find(v);
	if (l)
		fd = l->rdv_fd;
	quiet_unlock(&table_lock);
	return fd;
}

/* For a listener our helper answers when the program shows interest. */
int rendezvous_adopt(vsock_t v, int fd, enum sock_proto proto)
{
	int ret = listed(v) ? -EEXIST : remember(v, fd);

	if (ret == 0 && proto == SOCK_UDP)
		(void)helper_watch_listener(v, fd);
	return ret;
}

/* --- listen --- */

/* What is known of a socket that is to listen. */
struct starting {
	vsock_t v;
	int fd, backlog, family;
	bool v6only, kernel_only; /* kernel_only: on networks */
	bool listens;             /* the kernel's socket does */
	uint32_t device;          /* to which it is bound, 0 none */
	struct endpoint local;
};

/* True if the socket may (still) listen; false: errno EINVAL as the kernel says it. */
static int may_listen(struct starting *l, bool *again)
{
	struct attached *a;
	struct sock *k = vs_enter(l->v, &a);
	int ret = 0;

	if (!k)
		return -EBADF;
	if (k->proto != SOCK_TCP)
		ret = -EOPNOTSUPP;
	else if ((k->tcp.state != TCP_CLOSED && k->tcp.state != TCP_LISTEN) || k->remote.port)
		ret = -EINVAL; /* a connection that has ended, too */
	*again = k->tcp.state == TCP_LISTEN;
	l->v6only = k->flags & SOCKF_V6ONLY;
	l->kernel_only = k->flags & SOCKF_KERNEL_ROUTE || k->dst.ifindex;
	l->device = k->dst.ifindex;
	l->family = k->family;
	l->local = k->local;
	stack_leave(a);
	return ret;
}

static int engine_listen(vsock_t v, int fd, const struct endpoint *local, int backlog)
{
	uint64_t inode = sock_inode(fd);
	int v6only = 0, ret;
	socklen_t len = sizeof(v6only);
	struct attached *a;
	struct sock *k;

	/* of those bound to one address the kernel says so, too, and their connections tell */
	(void)host_sys.getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, &len);
	k = vs_enter(v, &a);
	if (!k)
		return -EBADF;
	if (local)
		k->local = *local;
	k->inode = inode;
	k->flags |= SOCKF_BACKING_SPOILT | (v6only ? SOCKF_V6ONLY : 0);
	ret = tcp_listen(&a->e, k, backlog);
	stack_leave(a);
	return ret;
}

/* Have what comes over networks to the listener's address steered to its stack, too. It may be one of several that
 * have the port: forked processes, SO_REUSEPORT. False: the kernel accepts what comes from there. */
static bool listen_on_networks(const struct starting *l)
{
	struct attached *a = vs_attached(l->v);
	enum reason reason;
	uint16_t flags = DAEMON_FILTER_SHARED;

	if (l->kernel_only)
		return false;
	if (l->family == 6 && is_any(l->local.addr) && !l->v6only)
		flags |= DAEMON_FILTER_BOTH;
	return net_open_for(a, &l->local, &reason) > 0 &&
	       net_filter(a, SOCK_TCP, l->family, l->fd, &l->local, NULL, flags, &reason) > 0;
}

/* The networks know the listener, or do not. */
static void note_steered(vsock_t v, bool steered)
{
	struct listening *l;

	quiet_lock(&table_lock);
	l = find(v);
	if (l)
		l->steered = steered;
	quiet_unlock(&table_lock);
}

/* Of this process's own in stack a, from number *at on: one that no network knows. */
static bool next_unsteered(const struct attached *a, uint32_t *at, vsock_t *v)
{
	*v = VS_NONE;
	quiet_lock(&table_lock);
	for (; *at < table_used && !*v; ++*at)
		if (table[*at].v && table[*at].clone == VS_NONE && !table[*at].steered &&
		    vs_attached(table[*at].v) == a)
			*v = table[*at].v;
	quiet_unlock(&table_lock);
	return *v != VS_NONE;
}

void listeners_look_again(struct attached *a)
{
	struct starting l = {0};
	enum reason reason;
	bool listens;

	for (uint32_t at = 0; next_unsteered(a, &at, &l.v);) {
		if (may_listen(&l, &listens) < 0 || !listens || net_open_for(a, &l.local, &reason) <= 0)
			continue;
		l.fd = net_descriptor_of(SOCK_TCP, l.local.port);
		if (l.fd >= 0)
			note_steered(l.v, listen_on_networks(&l));
	}
}

static int listen_in_kernel(struct starting *l)
{
	if (!l->listens && host_sys.listen(l->fd, l->backlog) < 0)
		return -errno;
	l->listens = true;
	return 0;
}

/* The engine's half does not listen after all. */
static void stop_listening(const struct starting *l)
{
	struct attached *a;
	struct sock *k = vs_enter(l->v, &a);

	if (!k)
		return;
	if (k->tcp.state == TCP_LISTEN)
		tcp_abort(&a->e, k, 0, stack_now(a));
	stack_leave(a);
	net_unbound(a, SOCK_TCP, &l->local);
}

static int only_kernel(struct starting *l, enum reason why, enum reason *reason)
{
	int ret = listen_in_kernel(l);

	stop_listening(l);
	return ret < 0 ? ret : sock_to_kernel(l->v, why, reason);
}

/* The engine and the networks come first: no connection may begin in the kernel and go on here. */
static int start_listening(struct starting *l, enum reason *reason)
{
	uint32_t line = rules_refuse(SOCK_TCP, RULE_SERVER, &l->local);
	bool networks;
	int ret;

	if (line)
		return only_kernel(l, reason_with(REASON_RULE, line), reason);
	if (l->device > LOOPBACK_IFINDEX)
		return only_kernel(l, REASON_OPTION, reason);
	if (engine_listen(l->v, l->fd, &l->local, l->backlog) < 0)
		return only_kernel(l, REASON_REUSEPORT, reason);
	networks = listen_on_networks(l);
	ret = listen_in_kernel(l);
	if (ret < 0) {
		stop_listening(l);
		return ret;
	}
	ret = rendezvous_open(l->v, SOCK_TCP, l->family, &l->local, l->v6only);
	if (ret == 0)
		note_steered(l->v, networks);
	if (ret == 0 || (ret == -EADDRINUSE && networks)) /* another process has the port, too, and the wires to it */
		return 0;
	return only_kernel(l, ret == -EADDRINUSE ? REASON_REUSEPORT : REASON_NO_STACK, reason);
}

int vs_listen(vsock_t v, int fd, int backlog, enum reason *reason)
{
	struct starting l = {.v = v, .fd = fd, .backlog = backlog};
	bool again;
	int ret = may_listen(&l, &again);

	if (ret < 0)
		return ret;
	if (again) {
		ret = listen_in_kernel(&l);
		return ret < 0 ? ret : engine_listen(v, fd, NULL, backlog);
	}
	if (sock_kernel_name(fd, &l.local) == 0 && !l.local.port) { /* listen(2) chooses the port */
		ret = listen_in_kernel(&l);
		if (ret == 0)
			ret = sock_kernel_name(fd, &l.local);
	}
	return ret < 0 ? ret : start_listening(&l, reason);
}

/* --- listeners taken over --- */

vsock_t listener_clone(vsock_t v)
{
	struct listening *l;
	vsock_t clone = VS_NONE;

	if (!atomic_load_explicit(&clones, memory_order_relaxed) || !listed(v))
		return VS_NONE;
	quiet_lock(&table_lock);
	l = find(v);
	if (l)
		clone = l->clone;
	quiet_unlock(&table_lock);
	return clone;
}

vsock_t listener_program_name(vsock_t v)
{
	vsock_t name = v;

	if (!atomic_load_explicit(&clones, memory_order_relaxed) || !listed_clone(v))
		return v;
	quiet_lock(&table_lock);
	for (uint32_t i = 0; i < table_used; i++)
		if (table[i].v && table[i].clone == v)
			name = table[i].v;
	quiet_unlock(&table_lock);
	return name;
}

void listener_drop(vsock_t v)
{
	vsock_t clone = listener_clone(v);
	struct endpoint local;
	struct attached *a;
	struct sock *k;

	if (clone == VS_NONE)
		return;
	k = vs_enter(clone, &a);
	if (!k)
		return;
	local = k->local;
	sock_let_go(a, k, stack_now(a));
	stack_leave(a);
	net_unbound(a, SOCK_TCP, &local);
}

/* A listener like `like` in our own stack. VS_NONE: could not be made. */
static vsock_t make_clone(const struct sock *like)
{
	struct attached *a = process_home();
	struct sock *k;
	vsock_t v = VS_NONE;

	if (!a)
		return VS_NONE;
	stack_enter(a);
	k = sock_alloc(&a->e, SOCK_TCP, like->family);
	if (k) {
		k->holders = 1ull << a->slot;
		k->flags = like->flags & ~(SOCKF_HASHED | SOCKF_ORPHAN);
		k->local = like->local;
		k->rcvbuf = like->rcvbuf;
		k->sndbuf = like->sndbuf;
		k->inode = like->inode;
		k->created_us = clock_us();
		memcpy(k->backing_options, like->backing_options, sizeof(k->backing_options));
		k->tcp.flags |= like->tcp.flags & TCPF_NODELAY;
		if (tcp_listen(&a->e, k, (int)like->tcp.backlog) == 0)
			v = vs_name(a, k);
		else
			sock_let_go(a, k, clock_us());
	}
	stack_leave(a);
	return v;
}

/* Our helper answers from now on. Children inherited the descriptor with the table. */
static void take_over(vsock_t v, int program_fd, const struct sock *like)
{
	struct starting start = {.fd = program_fd,
				 .family = like->family,
				 .v6only = like->flags & SOCKF_V6ONLY,
				 .kernel_only = like->flags & SOCKF_KERNEL_ROUTE || like->dst.ifindex,
				 .local = like->local};
	struct listening *l;
	vsock_t clone = listed(v) ? make_clone(like) : VS_NONE;
	int fd = -1;

	if (clone == VS_NONE)
		return;
	start.v = clone;
	quiet_lock(&table_lock);
	l = find(v);
	if (l && !l->clone) {
		l->clone = clone;
		fd = l->rdv_fd;
		atomic_fetch_add(&clones, 1);
	}
	quiet_unlock(&table_lock);
	if (fd < 0)
		return;
	helper_watch_listener(clone, fd);
	(void)listen_on_networks(&start);
}

/* Our helper may have stopped answering when we had not shown interest yet, or has not begun to (after execve). */
static void answer_again(vsock_t v)
{
	struct listening *l;
	int fd;

	quiet_lock(&table_lock);
	l = find(v);
	fd = l ? l->rdv_fd : -1;
	quiet_unlock(&table_lock);
	if (fd >= 0)
		helper_watch_listener(v, fd);
}

void vs_listener_interest(vsock_t v, int fd)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a), copy;
	bool foreign;

	if (!k)
		return;
	if (k->proto != SOCK_TCP || k->tcp.state != TCP_LISTEN || k->interest >> a->slot & 1) {
		stack_leave(a);
		return;
	}
	k->interest |= 1ull << a->slot;
	copy = *k;
	stack_leave(a);
	foreign = a != process_home();
	if (foreign)
		take_over(v, fd, &copy);
	else
		answer_again(v);
}

void listener_after_fork(void)
{
	pthread_mutex_init(&table_lock, NULL);
	/* Clones are in the parent's own stack, which is now one more that we inherited: they stay its. */
}

/* --- accept --- */

struct accepting {
	vsock_t v;
	int fd, flags;
	struct sockaddr *sa;
	socklen_t *len;
	vsock_t child;
	int result; /* descriptor, or -errno; -EAGAIN: nobody yet */
	bool blocking_fd;
	bool ask_kernel; /* when the engine has nobody */
	bool had_bed;    /* this thread had its descriptor to sleep on before the call */
	struct wait *w;  /* the wait under way: it watches the kernel's queue and tells */
};

/* No descriptor is left: give back what this very call, or the helper meanwhile, has taken for a while. */
static void make_room(const struct accepting *c)
{
	backing_give_way();
	if (!c->had_bed)
		wait_give_way();
}

/* The next connection of listener v, with a descriptor for it. */
static int from_engine(struct accepting *c, vsock_t v)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a), *child;
	uint32_t kept[SOCK_OPTION_WORDS];
	bool inherits = false;
	struct endpoint remote;
	uint16_t entry;
	uint32_t vnic;
	int family, fd, i;

	if (!k)
		return v == c->v ? -EBADF : -EAGAIN;
	stack_take_in(a);
	family = k->family;
	i = k->tcp.state != TCP_LISTEN ? -EINVAL : (tcp_accept_pending(&a->e, k) ? 0 : -EAGAIN);
	vnic = i == -EAGAIN ? tcp_accept_elsewhere(&a->e, k) : VNIC_NONE;
	stack_leave(a);
	if (vnic != VNIC_NONE && wire_map(a, vnic) == 0) /* made by a relative */
		i = 0;
	if (i < 0)
		return i;
	fd = backing_socket(family == 6 ? AF_INET6 : AF_INET, c->flags, false, &entry);
	if (fd == -EMFILE) {
		make_room(c);
		fd = backing_socket(family == 6 ? AF_INET6 : AF_INET, c->flags, false, &entry);
	}
	if (fd < 0)
		return fd;
	k = vs_enter(v, &a);
	i = k ? tcp_accept(&a->e, k) : -EBADF;
	child = i > 0 ? sock_at(a->s, (uint32_t)i) : NULL;
	if (child) {
		child->holders = 1ull << a->slot;
		child->flags = (child->flags & ~SOCKF_NONBLOCK) | (c->flags & SOCK_NONBLOCK ? SOCKF_NONBLOCK : 0);
		child->backing = entry;
		c->child = vs_name(a, child);
		remote = child->remote;
		inherits = options_kept(child);
		memcpy(kept, child->backing_options, sizeof(kept));
	}
	if (k)
		stack_leave(a);
	backing_own(entry, child ? c->child : VS_NONE);
	if (!child) {
		backing_release(VS_NONE, -1, &(struct backing_left){.entry = entry});
		host_sys.close(fd);
		return i < 0 ? i : -EAGAIN;
	}
	if (inherits)
		options_inherit(c->fd, fd, kept);
	sock_name_out(&remote, family, c->sa, c->len);
	return fd;
}

static int from_kernel(struct accepting *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	int fd;

	if (c->blocking_fd && host_sys.poll(&p, 1, 0) <= 0)
		return -EAGAIN;
	fd = host_sys.accept4(c->fd, c->sa, c->len, c->flags);
	if (fd < 0 && errno == EMFILE) {
		make_room(c);
		fd = host_sys.accept4(c->fd, c->sa, c->len, c->flags);
	}
	return fd < 0 ? -errno : fd;
}

/* One try of everything. True: c->result says how it ended. While we wait, wait_for looks at the kernel's queue now and
 * then, in its sleep at the latest, and we ask only when it has seen somebody there. */
static bool accept_step(void *arg)
{
	struct accepting *c = arg;
	vsock_t clone = listener_clone(c->v);
	bool kernel_first = atomic_load_explicit(&turn, memory_order_relaxed) % KERNEL_TURN == KERNEL_TURN - 1;

	c->child = VS_NONE;
	c->result = kernel_first ? from_kernel(c) : -EAGAIN;
	if (c->result == -EAGAIN && clone)
		c->result = from_engine(c, clone);
	if (c->result == -EAGAIN)
		c->result = from_engine(c, c->v);
	if (c->result == -EAGAIN && !kernel_first && (c->ask_kernel || (c->w && c->w->watch_ready))) {
		if (c->w)
			c->w->watch_ready = false;
		c->result = from_kernel(c);
	}
	return c->result != -EAGAIN;
}

/* Why the kernel has a connection that it has accepted. */
static enum reason why_plain(vsock_t v, int fd)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	enum reason reason = REASON_NOT_STEERED;
	struct endpoint remote;
	int family;

	if (host_sys.getpeername(fd, (struct sockaddr *)&ss, &len) < 0 ||
	    addr_from_sockaddr((struct sockaddr *)&ss, len, &remote, &family) < 0 || addr_is_local(remote.addr))
		return REASON_PLAIN_PEER;
	return net_start(vs_attached(v), &reason) < 0 ? reason : REASON_NOT_STEERED;
}

int vs_accept(vsock_t v, int fd, struct sockaddr *sa, socklen_t *len, int flags, bool wait, vsock_t *child,
	      enum reason *reason)
{
	struct accepting c = {.v = v, .fd = fd, .flags = flags, .sa = sa, .len = len};
	struct wait w = {.ready = accept_step, .arg = &c, .timeout_us = -1, .kernel_fd = -1, .restart = true};
	struct attached *a;
	const struct sock *k = unlocked_sock(v, &a);
	int ret = 0;

	*child = VS_NONE;
	*reason = REASON_PLAIN_PEER;
	if (!k || unlocked_u8(&k->proto) != SOCK_TCP)
		return k ? -EOPNOTSUPP : -EBADF;
	vs_listener_interest(v, fd);
	c.blocking_fd = !(k->flags & SOCKF_NONBLOCK);
	wait = wait && c.blocking_fd;
	c.ask_kernel = !wait;
	c.had_bed = wait_has_bed();
	if (!accept_step(&c) && wait) {
		if (k->rcvtimeo_us) {
			w.timeout_us = (int64_t)k->rcvtimeo_us;
			w.restart = false;
		}
		w.watch_fd = fd;
		w.watch_events = POLLIN;
		c.w = &w;
		ret = wait_for(&w);
		c.ask_kernel = true;
		if (ret == -ETIMEDOUT && accept_step(&c))
			ret = 0;
	}
	if (ret < 0 && c.result < 0)
		return ret == -ETIMEDOUT ? -EAGAIN : ret;
	if (c.result >= 0)
		atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed);
	if (c.result >= 0 && c.child == VS_NONE)
		*reason = why_plain(v, c.result);
	*child = c.child;
	return c.result;
}
