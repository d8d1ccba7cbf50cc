/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sockets go over to an heir: the program that this process executes, one that it spawns, or a process that gets their
 * descriptors in a message (SCM_RIGHTS).
 *
 * The heir stands afterwards where a forked child would: it has mapped the stacks and the wires, has an entry in the
 * stacks' process tables, and holds the sockets. It can't inherit memory, so it gets descriptors: of each stack
 * (memory, doorbells), of each wire (memory, life, doorbells), of the rendezvous of listeners. struct handover says
 * which is what. After execve it is the same process, so it keeps its entry, and the stack that was its own stays its
 * own. Any other heir's entry is made by the giver, who names it after the heir as soon as it knows it, and gives it
 * hold of the sockets at once: from then on none can go away, whoever closes it first.
 *
 * Which descriptor of the heir is which socket, the backing socket's inode tells: descriptors may have been moved
 * since.
 *
 * What is not handed over: sockets of a stack of which viaductd knows. It watches over what it has given to this
 * process, and finishes the connections when that is gone.
 *
 * The heir is of the same user, whom the kernel lets do with it what it likes anyway. Still, what it reads is checked,
 * because a program may have another's environment, or a message may come from somebody else.
 */
#define _GNU_SOURCE
#include "socket/handover.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "socket/backing.h"
#include "socket/net.h"
#include "socket/relatives.h"
#include "socket/sockets.h"

#define HANDOVER_MAGIC 0x52564f4854434456ull /* "VDCTHOVR" */
#define HANDOVER_VERSION 1u

/* --- the giver --- */

struct handover *handover_new(enum heir heir, int *memfd)
{
	int high = host_fd_own(memfd_create(HANDOVER_MEMFD_NAME, MFD_CLOEXEC));
	struct handover *h = MAP_FAILED;

	if (high >= 0 && ftruncate(high, (off_t)sizeof(*h)) == 0)
		h = mmap(NULL, sizeof(*h), PROT_READ | PROT_WRITE, MAP_SHARED, high, 0);
	if (h == MAP_FAILED) {
		host_fd_close(high);
		return NULL;
	}
	h->magic = HANDOVER_MAGIC;
	h->version = HANDOVER_VERSION;
	h->size = sizeof(*h);
	h->heir = heir;
	*memfd = high;
	return h;
}

void handover_free(struct handover *h, int memfd)
{
	if (h)
		munmap(h, sizeof(*h));
	host_fd_close(memfd);
}

/* The stack's number in h; -errno. */
static int add_stack(struct handover *h, struct attached *a)
{
	struct handover_stack *to;

	for (uint32_t i = 0; i < h->stacks; i++)
		if (!memcmp(h->stack[i].id, a->s->id, sizeof(a->s->id)))
			return (int)i;
	if (h->stacks == VS_STACKS_MAX)
		return -ENOBUFS;
	to = &h->stack[h->stacks];
	*to = (struct handover_stack){.memfd = a->memfd,
				      .doorbell = {a->doorbell[0], a->doorbell[1]},
				      .slot = a->slot,
				      .own = h->heir == HEIR_IMAGE && a == process_settled()};
	memcpy(to->id, a->s->id, sizeof(to->id));
	to->alive_fd = h->heir == HEIR_IMAGE ? a->alive_fd - 1 : -1;
	if (h->heir != HEIR_IMAGE) {
		stack_enter(a);
		/* ours, until there is another; nobody's, for whoever may get it: our end is not its end */
		to->slot = process_slot_alloc(a->s, h->heir == HEIR_FAR ? PROC_FAR : (uint32_t)getpid());
		stack_leave(a);
	}
	if (to->slot >= PROC_MAX)
		return -ENOBUFS;
	if (h->heir == HEIR_FAR)
		to->alive_fd = helper_watch_far(a, to->slot);
	return (int)h->stacks++;
}

static bool has_wire(const struct handover *h, uint32_t stack, uint32_t vnic)
{
	for (uint32_t i = 0; i < h->wires; i++)
		if (h->wire[i].stack == stack && h->wire[i].vnic == vnic)
			return true;
	return false;
}

/* Wires of a that are mapped here: all, or only vNIC `only`. With the lock. 0, -ENOBUFS, -EOPNOTSUPP: `only` is none.
 */
static int add_wires(struct handover *h, struct attached *a, uint32_t stack, uint32_t only, bool all)
{
	for (uint32_t i = 0; i < a->active; i++) {
		uint32_t n = a->vnic[i];
		const struct vnic *v = &a->e.vnic[n];

		if ((!all && n != only) || has_wire(h, stack, n))
			continue;
		if (v->st->provider != VNIC_PROV_LOCAL || !v->wire_fd) {
			if (n == only)
				return -EOPNOTSUPP;
			continue;
		}
		if (h->wires == HANDOVER_WIRES)
			return -ENOBUFS;
		h->wire[h->wires++] = (struct handover_wire){.stack = stack,
							     .vnic = n,
							     .gen = v->gen,
							     .memfd = v->wire_fd - 1,
							     .life_fd = v->life_fd,
							     .doorbell = {v->doorbell_fd[0], v->doorbell_fd[1]}};
	}
	return 0;
}

int handover_add(struct handover *h, vsock_t v, int fd, bool all_wires)
{
	struct attached *a = vs_attached(v);
	struct handover_sock *to = &h->sock[h->socks];
	int stack, ret = 0;
	struct sock *k;

	if (!a || net_involved(a))
		return -EOPNOTSUPP;
	if (h->socks == HANDOVER_SOCKS)
		return -ENOBUFS;
	stack = add_stack(h, a);
	if (stack < 0)
		return stack;
	*to = (struct handover_sock){.stack = (uint32_t)stack,
				     .sock = vs_index_of(v),
				     .gen = (uint32_t)v,
				     .rdv_fd = rendezvous_fd(v),
				     .port_fd = -1,
				     .inode = sock_inode(fd)};
	k = vs_enter(v, &a);
	if (!k)
		return -EBADF;
	ret = add_wires(h, a, (uint32_t)stack, k->vnic, all_wires);
	if (ret == 0 && h->heir != HEIR_IMAGE)
		k->holders |= 1ull << h->stack[stack].slot;
	if (h->heir == HEIR_IMAGE && k->port_hold && a == process_settled())
		to->port_fd = backing_port_fd(k->port_hold);
	k->flags |= SOCKF_BACKING_SPOILT; /* another process may have it */
	stack_leave(a);
	h->socks += ret == 0;
	return ret;
}

static void each(int *fd, void (*fn)(int *fd, void *arg), void *arg)
{
	if (*fd >= 0)
		fn(fd, arg);
}

void handover_each_fd(struct handover *h, void (*fn)(int *fd, void *arg), void *arg)
{
	for (uint32_t i = 0; i < h->stacks; i++) {
		each(&h->stack[i].memfd, fn, arg);
		each(&h->stack[i].doorbell[0], fn, arg);
		each(&h->stack[i].doorbell[1], fn, arg);
		each(&h->stack[i].alive_fd, fn, arg);
	}
	for (uint32_t i = 0; i < h->wires; i++) {
		each(&h->wire[i].memfd, fn, arg);
		each(&h->wire[i].life_fd, fn, arg);
		each(&h->wire[i].doorbell[0], fn, arg);
		each(&h->wire[i].doorbell[1], fn, arg);
	}
	for (uint32_t i = 0; i < h->socks; i++) {
		each(&h->sock[i].rdv_fd, fn, arg);
		each(&h->sock[i].port_fd, fn, arg);
	}
}

/* The stack of that identity, if it is attached. */
static struct attached *attached_as(const uint8_t id[16])
{
	for (uint32_t i = 0; i < atomic_load(&attached_count); i++)
		if (!memcmp(attached[i]->s->id, id, sizeof(attached[i]->s->id)))
			return attached[i];
	return NULL;
}

/* The entry is the heir's, or nobody's. */
static void settle_slot(const struct handover_stack *x, int pid)
{
	struct attached *a = attached_as(x->id);

	if (!a)
		return;
	stack_enter(a);
	if (pid > 0)
		process_slot_name(a->s, x->slot, (uint32_t)pid);
	else
		process_slot_drop(a, x->slot, stack_now(a));
	stack_leave(a);
	if (pid > 0)
		helper_watch_process(a, x->slot);
}

void handover_done(struct handover *h, int pid)
{
	for (uint32_t i = 0; i < h->stacks; i++)
		settle_slot(&h->stack[i], pid);
}

/* --- the heir --- */

static bool sane(const struct handover *h)
{
	if (h->magic != HANDOVER_MAGIC || h->version != HANDOVER_VERSION || h->size != sizeof(*h) ||
	    h->heir > HEIR_FAR || h->stacks > VS_STACKS_MAX || h->wires > HANDOVER_WIRES || h->socks > HANDOVER_SOCKS)
		return false;
	for (uint32_t i = 0; i < h->stacks; i++)
		if (h->stack[i].slot >= PROC_MAX)
			return false;
	for (uint32_t i = 0; i < h->wires; i++)
		if (h->wire[i].stack >= h->stacks || h->wire[i].vnic >= VNIC_MAX)
			return false;
	for (uint32_t i = 0; i < h->socks; i++)
		if (h->sock[i].stack >= h->stacks)
			return false;
	return true;
}

static void close_one(int *fd, void *arg)
{
	(void)arg;
	host_fd_close(*fd);
	*fd = -1;
}

/* Above the program's usual numbers. What is not open, or can't be moved, is none. */
static void own_one(int *fd, void *arg)
{
	int high = host_fd_high(*fd);

	(void)arg;
	if (high < 0)
		host_sys.close(*fd);
	*fd = high < 0 ? -1 : high;
}

/* After execve nothing sleeps, and what was news is looked for anew. */
static bool keep_slot(struct attached *a, uint32_t slot)
{
	struct stack_proc *p = &a->s->proc[slot];

	if (p->pid != (uint32_t)getpid())
		return false;
	p->sleepers = p->has_bell = 0;
	p->dirty_head = p->dirty_tail;
	p->dirty_overflow = 1;
	p->looked = 0;
	return true;
}

/* The entry that the giver made for us is ours, or, where we have one already, what it holds is; the giver frees it
 * when we close its alive_fd. With the lock. */
static void take_slot(struct handover *h, uint32_t stack, struct attached *a, bool fresh)
{
	uint32_t given = h->stack[stack].slot;

	if (fresh) {
		process_slot_name(a->s, given, (uint32_t)getpid());
		return;
	}
	for (uint32_t i = 0; i < h->socks; i++) {
		struct sock *k = h->sock[i].stack == stack ? sock_at(a->s, h->sock[i].sock) : NULL;

		if (k && k->proto != SOCK_FREE && k->gen == h->sock[i].gen && k->holders >> given & 1)
			k->holders = (k->holders & ~(1ull << given)) | 1ull << a->slot;
	}
}

/* What is mapped is believed: it must be this user's, or root's. */
static bool may_trust(int memfd)
{
	struct stat st;

	return memfd >= 0 && fstat(memfd, &st) == 0 && (st.st_uid == geteuid() || st.st_uid == 0);
}

/* 0 or -errno: it is not mapped. */
static int adopt_stack(struct handover *h, uint32_t i)
{
	struct handover_stack *from = &h->stack[i];
	struct attached *a = attached_as(from->id);
	bool fresh = !a, yes = true;

	if (h->heir == HEIR_FAR && !may_trust(from->memfd))
		return -EPERM;
	if (fresh)
		a = process_attach(from->memfd, from->doorbell, from->slot, from->id);
	if (!a)
		return -EPROTO;
	if (fresh)
		from->memfd = from->doorbell[0] = from->doorbell[1] = -1; /* its */
	stack_enter(a);
	if (h->heir == HEIR_IMAGE)
		yes = keep_slot(a, from->slot);
	else
		take_slot(h, i, a, fresh);
	stack_leave(a);
	if (fresh && yes) {
		a->alive_fd = from->alive_fd + 1;
		from->alive_fd = -1;
	}
	if (!yes)
		return -EPROTO;
	if (h->heir == HEIR_IMAGE && from->own)
		process_settle(a);
	from->at = a->index + 1;
	return 0;
}

static void adopt_wire(struct handover *h, uint32_t i)
{
	struct handover_wire *from = &h->wire[i];
	struct attached *a = process_stack(h->stack[from->stack].at - 1);
	struct rdv_wire w = {
	    .memfd = from->memfd, .doorbell = {from->doorbell[0], from->doorbell[1]}, .life_fd = from->life_fd};

	if (!a)
		return;
	from->memfd = from->life_fd = from->doorbell[0] = from->doorbell[1] = -1; /* the wire's, or closed */
	(void)wire_adopt(a, from->vnic, from->gen, &w);
}

vsock_t handover_sock_name(const struct handover *h, uint32_t i)
{
	struct attached *a = process_stack(h->stack[h->sock[i].stack].at - 1);

	if (!a || h->sock[i].sock >= a->s->cfg.max_socks)
		return VS_NONE;
	return (vsock_t)a->index << 56 | (vsock_t)h->sock[i].sock << 32 | h->sock[i].gen;
}

static void adopt_sock(struct handover *h, uint32_t i)
{
	struct handover_sock *from = &h->sock[i];
	vsock_t v = handover_sock_name(h, i);
	struct attached *a;
	struct sock *k = v == VS_NONE ? NULL : vs_enter(v, &a);
	struct endpoint local;
	uint8_t proto, family;

	if (!k)
		return;
	k->inode = from->inode; /* for tools: we publish no table of descriptors in somebody else's stack */
	k->interest &= ~(1ull << a->slot);
	k->waiters = 0;
	proto = k->proto;
	family = k->family;
	local = k->local;
	stack_leave(a);
	if (from->rdv_fd >= 0 && rendezvous_adopt(v, from->rdv_fd, proto) == 0)
		from->rdv_fd = -1;
	if (from->port_fd >= 0) {
		uint16_t entry = backing_adopt_port(v, from->port_fd, family, &local);

		k = entry ? vs_enter(v, &a) : NULL;
		if (k) {
			k->port_hold = entry;
			stack_leave(a);
			from->port_fd = -1;
		}
	}
}

int handover_adopt(struct handover *h)
{
	int ret = 0;

	if (!sane(h))
		return -EPROTO;
	handover_each_fd(h, own_one, NULL);
	for (uint32_t i = 0; i < h->stacks; i++)
		h->stack[i].at = 0;
	for (uint32_t i = 0; i < h->stacks && ret == 0; i++)
		ret = adopt_stack(h, i);
	for (uint32_t i = 0; i < h->wires && ret == 0; i++)
		adopt_wire(h, i);
	for (uint32_t i = 0; i < h->socks && ret == 0; i++)
		adopt_sock(h, i);
	handover_each_fd(h, close_one, NULL); /* what nothing wanted */
	for (uint32_t i = 0; i < h->stacks && ret == 0; i++) {
		struct attached *a = process_stack(h->stack[i].at - 1);

		if (a->s->procs > 1)
			relatives_serve(a);
	}
	helper_owe();
	return ret;
}

struct places {
	int *fds;
	uint32_t n;
};

/* Each goes to one place: whoever names it again gets none. */
static void from_place(int *fd, void *arg)
{
	const struct places *p = arg;
	uint32_t at = (uint32_t)*fd;

	*fd = -1;
	if (at >= p->n)
		return;
	*fd = p->fds[at];
	p->fds[at] = -1;
}

bool handover_place(struct handover *h, int *fds, uint32_t n)
{
	struct places p = {fds, n};
	bool good = sane(h) && h->places == n;

	if (good)
		handover_each_fd(h, from_place, &p);
	for (uint32_t i = 0; i < n; i++)
		if (fds[i] >= 0)
			host_sys.close(fds[i]);
	return good;
}

void handover_unclaimed(vsock_t v)
{
	vs_close(v, false);
}
