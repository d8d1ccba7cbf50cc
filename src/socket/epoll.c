/* SPDX-License-Identifier: BSD-2-Clause */
/* epoll sets: making, epoll_ctl, what closing, falling back and fork do to them. See epoll_set.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

#include "engine/bytes.h"
#include "socket/epoll_set.h"

static struct epset *all_sets;

/* --- sets --- */

struct epset *ep_new(int epfd)
{
	struct epset *set;

	items_lock();
	set = slab_get(&set_slab);
	if (set) {
		memset(set, 0, sizeof *set);
		set->epfd = epfd;
		set->halves = set->inner = set->kick = -1;
		set->id = wait_kernel_id();
		set->next = all_sets;
		all_sets = set;
		wait_on_news = on_news;
	}
	items_unlock();
	return set;
}

static void close_internal(struct epset *set)
{
	wait_kernel_closing();
	if (set->halves >= 0)
		host_fd_close(set->halves);
	if (set->inner >= 0)
		host_fd_close(set->inner);
	if (set->kick >= 0)
		host_fd_close(set->kick);
	set->halves = set->inner = set->kick = -1;
}

static void nested_remove(struct nested *n)
{
	struct nested **p;

	items_lock();
	for (p = &n->outer->nested; *p != n;)
		p = &(*p)->next;
	*p = n->next;
	for (p = &n->inner->outers; *p != n;)
		p = &(*p)->next_outer;
	*p = n->next_outer;
	slab_put(&nested_slab, n);
	items_unlock();
}

void ep_free(struct epset *set)
{
	struct epset **p;

	ctl_lock();
	while (set->items)
		item_remove(set->items);
	while (set->nested)
		nested_remove(set->nested);
	while (set->outers)
		nested_remove(set->outers);
	close_internal(set);
	items_lock();
	for (p = &all_sets; *p != set;)
		p = &(*p)->next;
	*p = set->next;
	slab_put(&set_slab, set);
	items_unlock();
	ctl_unlock();
}

void ep_moved(struct epset *set, int from, int to)
{
	if (__atomic_load_n(&set->epfd, __ATOMIC_RELAXED) != from)
		return;
	wait_kernel_closing();
	__atomic_store_n(&set->epfd, to, __ATOMIC_RELAXED);
}

bool ep_has_accelerated(const struct epset *set)
{
	return atomic_load_explicit(&set->items_n, memory_order_acquire) || set->nested;
}

int ep_halves(struct epset *set)
{
	return set->halves;
}

/* --- epoll_ctl --- */

/* The set's first accelerated member while other threads sleep in the kernel: they must come back and see it. */
static void recall_plain_waiters(struct epset *set)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = DATA_KICK};
	uint64_t one = 1;
	int fd;

	if (!atomic_load(&set->plain_waiters) || set->kicked)
		return;
	if (set->kick < 0) {
		fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		set->kick = fd < 0 ? -1 : host_fd_high(fd);
	}
	if (set->kick < 0 || host_sys.write(set->kick, &one, sizeof one) < 0)
		return;
	set->kicked = true; /* before the kick can be seen */
	if (host_sys.epoll_ctl(set->epfd, EPOLL_CTL_ADD, set->kick, &ev) < 0)
		set->kicked = false;
}

static int exclusive_error(int op, uint32_t events, const struct item *i)
{
	uint32_t allowed = EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;

	if (op == EPOLL_CTL_MOD && (events & EPOLLEXCLUSIVE || (i && i->events & EPOLLEXCLUSIVE)))
		return -EINVAL;
	if (op == EPOLL_CTL_ADD && events & EPOLLEXCLUSIVE && events & ~allowed)
		return -EINVAL;
	return 0;
}

static int sock_add(struct epset *set, int fd, vsock_t v, const struct epoll_event *event)
{
	struct item *i = item_new(set, fd, v);
	int r = 0;

	if (!i)
		return -ENOMEM;
	items_lock();
	i->data = event->data.u64;
	i->events = event->events | EPOLLERR | EPOLLHUP;
	items_unlock();
	vs_listener_interest(v, fd);
	if (vs_has_kernel_half(v))
		r = half_add(i);
	if (r < 0) {
		item_remove(i);
		return r;
	}
	recall_plain_waiters(set);
	item_check(i);
	return 0;
}

static int sock_mod(struct item *i, const struct epoll_event *event)
{
	int r = 0;

	items_lock();
	i->data = event->data.u64;
	i->events = event->events | EPOLLERR | EPOLLHUP;
	i->flags &= ~(uint32_t)(ITEM_DISABLED | ITEM_CLAIMED | ITEM_MISSED);
	items_unlock();
	if (vs_has_kernel_half(i->v))
		r = half_add(i);
	item_check(i);
	return r;
}

static int ctl_sock(struct epset *set, int op, int fd, vsock_t v, const struct epoll_event *event)
{
	struct item *i = item_find(set, fd, v);
	int r = event ? exclusive_error(op, event->events, i) : 0;

	if (r < 0)
		return r;
	switch (op) {
	case EPOLL_CTL_ADD:
		return i ? -EEXIST : sock_add(set, fd, v, event);
	case EPOLL_CTL_MOD:
		return i ? sock_mod(i, event) : -ENOENT;
	case EPOLL_CTL_DEL:
		if (!i)
			return -ENOENT;
		item_remove(i);
		return 0;
	default:
		return -EINVAL;
	}
}

static int ctl_kernel(struct epset *set, int op, int fd, struct epoll_event *event)
{
	if (host_sys.epoll_ctl(set->epfd, op, fd, event) < 0)
		return -errno;
	if (op == EPOLL_CTL_ADD)
		atomic_fetch_add(&set->kernel_n, 1);
	else if (op == EPOLL_CTL_DEL && atomic_load(&set->kernel_n))
		atomic_fetch_sub(&set->kernel_n, 1);
	set->kernel_busy = true;
	wake_waiters(set);
	return 0;
}

static struct nested *nested_find(struct epset *set, int fd)
{
	struct nested *n = set->nested;

	while (n && n->fd != fd)
		n = n->next;
	return n;
}

/* A set in a set: the kernel has it too, for the inner one's kernel members, and checks for loops. */
static int ctl_nested(struct epset *set, int op, int fd, struct epset *inner, struct epoll_event *event)
{
	struct nested *n = nested_find(set, fd);
	int r = ctl_kernel(set, op, fd, event);

	if (r < 0)
		return r;
	if (op == EPOLL_CTL_DEL) {
		if (n)
			nested_remove(n);
		return 0;
	}
	items_lock();
	if (!n && (n = slab_get(&nested_slab))) {
		*n = (struct nested){.outer = set, .inner = inner, .fd = fd};
		n->next = set->nested;
		set->nested = n;
		n->next_outer = inner->outers;
		inner->outers = n;
	}
	if (n) {
		n->data = event->data.u64;
		n->events = event->events;
	}
	items_unlock();
	recall_plain_waiters(set);
	return n ? 0 : -ENOMEM;
}

int ep_ctl(struct epset *set, int op, int fd, vsock_t v, struct epset *nested, struct epoll_event *event)
{
	int r;

	if (v == VS_NONE && !nested)
		return ctl_kernel(set, op, fd, event);
	if (op != EPOLL_CTL_DEL && bad_address(event))
		return -EFAULT;
	ctl_lock();
	r = nested ? ctl_nested(set, op, fd, nested, event) : ctl_sock(set, op, fd, v, event);
	ctl_unlock();
	return r;
}

/* --- what happens to sockets --- */

static struct item *first_item(vsock_t v)
{
	struct item **head = items_of(v), *i = head ? *head : NULL;

	while (i && i->v != v)
		i = i->sock_next;
	return i;
}

void ep_forget(vsock_t v)
{
	struct item *i;

	if (!first_item(v))
		return;
	ctl_lock();
	while ((i = first_item(v)))
		item_remove(i);
	ctl_unlock();
}

void ep_to_kernel(vsock_t v)
{
	struct epoll_event ev;
	struct epset *set;
	struct item *i;
	int fd;

	if (!first_item(v))
		return;
	ctl_lock();
	while ((i = first_item(v))) {
		ev.events = i->events;
		ev.data.u64 = i->data;
		set = i->set;
		fd = i->fd;
		item_remove(i);
		ctl_kernel(set, EPOLL_CTL_ADD, fd, &ev);
	}
	ctl_unlock();
}

void ep_refresh(vsock_t v)
{
	struct item *i = first_item(v);

	if (!i)
		return;
	vs_listener_interest(v, i->fd);
	ctl_lock();
	if (vs_has_kernel_half(v))
		for (i = first_item(v); i; i = i->sock_next)
			if (i->v == v && !(i->flags & ITEM_HALF))
				half_add(i);
	ctl_unlock();
}

/* --- fork --- */

void ep_fork_prepare(void)
{
	ctl_lock();
	items_lock();
}

void ep_fork_parent(void)
{
	items_unlock();
	ctl_unlock();
}

void ep_fork_child(void)
{
	for (struct epset *set = all_sets; set; set = set->next) {
		close_internal(set);
		set->forked = true;
		set->kicked = false;
		atomic_store(&set->sleepers, 0);
		atomic_store(&set->plain_waiters, 0);
	}
	items_unlock();
	ctl_unlock();
}

void set_rebuild(struct epset *set)
{
	ctl_lock();
	set->forked = false;
	for (struct item *i = set->items; i; i = i->set_next) {
		if (!(i->flags & ITEM_HALF))
			continue;
		i->flags &= ~(uint32_t)ITEM_HALF;
		atomic_fetch_sub(&set->halves_n, 1);
		half_add(i);
	}
	ctl_unlock();
}
