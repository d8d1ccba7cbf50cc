/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * epoll sets, with the semantics of epoll(7).
 *
 * An item is a member: (descriptor, socket) in a set. Items of a socket form a list, found through the socket's number,
 * so news of a socket costs no search. News puts items whose events match on their set's ready list. A wait takes items
 * from the list and asks each for its level: it reports those that are ready now and drops the others. Level-triggered
 * items that were reported go back to the end of the list, edge-triggered ones leave it, one-shot ones are switched
 * off. So a wait costs what is ready, and the list's order makes it fair.
 *
 * Three kernel descriptors belong to a set:
 *   epfd    the program's own; its kernel members with the program's data
 *   halves  members whose backing socket can become readable by itself (listeners, UDP), with our data; made when
 * needed inner   what a waiting thread sleeps on: epfd, halves, the stacks' doorbells, and a kick for other threads of
 *           this process that make a member ready; made at the first wait
 *
 * Locks: `ctl` (changes of membership; may call vs_*), then the stack's lock, then `items` (lists; nothing is called
 * under it). News comes with or without the stack's lock held. Memory of items and sets is used again, never unmapped,
 * so a late reader sees a dead item, not a fault. An item that a wait has taken is pinned until it is settled.
 */
#define _GNU_SOURCE
#include "socket/epoll.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "host/host.h"
#include "host/knobs.h"
#include "socket/wait.h"

#define BATCH 64                      /* items that a wait takes at a time */
#define HALF_EVENTS 32                /* kernel halves looked at a time */
#define LEAF 4096u                    /* sockets per leaf of the table */
#define DATA_KERNEL 1ull              /* in inner: epfd or halves has something */
#define DATA_KICK 0x6b69636b766964ull /* in epfd: the set has just got its first accelerated member */
#define LEVELS (EV_IN | EV_PRI | EV_OUT | EV_ERR | EV_HUP | EV_RDNORM | EV_RDBAND | EV_WRNORM | EV_WRBAND | EV_RDHUP)

enum item_flag {
	ITEM_READY = 1,    /* on the ready list */
	ITEM_DISABLED = 2, /* one-shot, and reported */
	ITEM_CLAIMED = 4,  /* one-shot, taken by a wait: nobody else may report it */
	ITEM_MISSED = 8,   /* news came while claimed */
	ITEM_HALF = 16,    /* the backing socket is in halves */
	ITEM_DEAD = 32,
};

struct item {
	vsock_t v;
	struct epset *set;
	struct item *sock_next, *ready_next, *ready_prev;
	uint64_t data;
	uint32_t events;
	uint32_t half_level; /* what the kernel last said of the half */
	uint32_t flags;
	uint32_t pins;
	int fd;
	uint16_t gen;
	struct item *set_next, *set_prev; /* set_next also links free items */
};

/* The set `inner` is a member of the set `outer`. */
struct nested {
	struct epset *outer, *inner;
	struct nested *next;       /* of outer */
	struct nested *next_outer; /* of inner */
	uint64_t data;
	uint32_t events;
	int fd;
};

struct epset {
	struct item *ready_head, *ready_tail;
	_Atomic uint32_t ready_n, items_n;
	_Atomic uint32_t sleepers;      /* threads in wait_for */
	_Atomic uint32_t plain_waiters; /* threads in the kernel's wait: the set had no accelerated member */
	_Atomic uint32_t kernel_n, halves_n;
	uint64_t looked;  /* at the kernel, clock_cycles */
	bool kernel_busy; /* the last look found something: look first next time */
	bool kicked;      /* the kick is in epfd */
	bool forked;      /* halves and inner must be made anew */
	int epfd, halves, inner, kick;
	uint32_t watched_generation;
	struct item *items;
	struct nested *nested; /* members that are sets */
	struct nested *outers; /* sets that this one is a member of */
	struct epset *next;    /* all sets, or free */
};

struct slab {
	void *free; /* linked through the first word */
	char *fresh;
	size_t fresh_n, size;
};

static struct slab item_slab = {.size = sizeof(struct item)};
static struct slab nested_slab = {.size = sizeof(struct nested)};
static struct slab set_slab = {.size = sizeof(struct epset)};
static struct item **leaves[VS_STACKS_MAX][(1u << 24) / LEAF];
static struct epset *all_sets;
static _Atomic bool any_set;
static _Atomic uint32_t items_word;
static pthread_mutex_t ctl_mutex = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local struct epset *waiting_in;

/* --- locks --- */

static void depth_out(void)
{
	if (--wait_lock_depth == 0 && wait_signal_pending && wait_signals_deferred)
		wait_signals_deferred();
}

static void items_lock(void)
{
	wait_lock_depth++;
	for (int spins = 0; atomic_exchange_explicit(&items_word, 1, memory_order_acquire); spins++)
		if (spins > 100)
			sched_yield();
}

static void items_unlock(void)
{
	atomic_store_explicit(&items_word, 0, memory_order_release);
	depth_out();
}

static void ctl_lock(void)
{
	wait_lock_depth++;
	pthread_mutex_lock(&ctl_mutex);
}

static void ctl_unlock(void)
{
	pthread_mutex_unlock(&ctl_mutex);
	depth_out();
}

/* --- memory: under items_lock --- */

static void *slab_get(struct slab *s)
{
	void *p = s->free;
	size_t chunk = 65536;

	if (p) {
		memcpy(&s->free, p, sizeof s->free);
		return p;
	}
	if (!s->fresh_n) {
		p = mmap(NULL, chunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			return NULL;
		s->fresh = p;
		s->fresh_n = chunk / s->size;
	}
	p = s->fresh;
	s->fresh += s->size;
	s->fresh_n--;
	return p;
}

static void slab_put(struct slab *s, void *p)
{
	memcpy(p, &s->free, sizeof s->free);
	s->free = p;
}

/* The head of the list of a socket's items; NULL: it has never had one. */
static struct item **items_of(vsock_t v)
{
	uint32_t stack = vs_stack_of(v), index = vs_index_of(v);

	if (stack >= VS_STACKS_MAX || !leaves[stack][index / LEAF])
		return NULL;
	return &leaves[stack][index / LEAF][index % LEAF];
}

static bool make_leaf(vsock_t v)
{
	uint32_t stack = vs_stack_of(v), index = vs_index_of(v);
	void *p;

	if (stack >= VS_STACKS_MAX)
		return false;
	if (leaves[stack][index / LEAF])
		return true;
	p = mmap(NULL, LEAF * sizeof(struct item *), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return false;
	leaves[stack][index / LEAF] = p;
	return true;
}

/* --- ready list: under items_lock --- */

static void kick(struct epset *set)
{
	uint64_t one = 1;
	uint32_t others = atomic_load(&set->sleepers) - (waiting_in == set ? 1 : 0);
	ssize_t r;

	if (!others || set->kick < 0)
		return;
	r = host_sys.write(set->kick, &one, sizeof one); /* full is as good as written */
	(void)r;
}

static void ready_push(struct item *i)
{
	struct epset *set = i->set;

	if (i->flags & ITEM_READY)
		return;
	i->flags |= ITEM_READY;
	i->ready_next = NULL;
	i->ready_prev = set->ready_tail;
	if (set->ready_tail)
		set->ready_tail->ready_next = i;
	else
		set->ready_head = i;
	set->ready_tail = i;
	atomic_store_explicit(&set->ready_n, set->ready_n + 1, memory_order_release);
}

static void ready_remove(struct item *i)
{
	struct epset *set = i->set;

	if (!(i->flags & ITEM_READY))
		return;
	i->flags &= ~(uint32_t)ITEM_READY;
	if (i->ready_prev)
		i->ready_prev->ready_next = i->ready_next;
	else
		set->ready_head = i->ready_next;
	if (i->ready_next)
		i->ready_next->ready_prev = i->ready_prev;
	else
		set->ready_tail = i->ready_prev;
	atomic_store_explicit(&set->ready_n, set->ready_n - 1, memory_order_release);
}

/* Something happened to the item: put it on the list and wake who sleeps for it. */
static void item_event(struct item *i)
{
	if (i->flags & ITEM_CLAIMED)
		i->flags |= ITEM_MISSED;
	if (i->flags & (ITEM_DISABLED | ITEM_CLAIMED | ITEM_READY))
		return;
	ready_push(i);
	kick(i->set);
	for (struct nested *n = i->set->outers; n; n = n->next_outer)
		kick(n->outer);
}

/* The engine says IN and OUT; a program may ask for RDNORM and WRNORM, which mean the same. */
static uint32_t spread(uint32_t events)
{
	if (events & EV_IN)
		events |= EV_RDNORM;
	if (events & EV_OUT)
		events |= EV_WRNORM | EV_WRBAND;
	return events & LEVELS;
}

static void on_news(vsock_t v, uint32_t edges)
{
	struct item **head;

	if (!atomic_load_explicit(&any_set, memory_order_acquire))
		return;
	items_lock();
	head = items_of(v);
	for (struct item *i = head ? *head : NULL; i; i = i->sock_next)
		if (i->v == v && (spread(edges) & i->events))
			item_event(i);
	items_unlock();
}

__attribute__((constructor)) static void hook(void)
{
	wait_on_news = on_news;
}

/* --- kernel halves: under ctl --- */

static uint64_t half_data(const struct item *i)
{
	return (uint64_t)i->gen << 48 | (uintptr_t)i;
}

static int internal_epoll(void)
{
	int fd = host_sys.epoll_create1(EPOLL_CLOEXEC), high;

	if (fd < 0)
		return -errno;
	high = host_fd_high(fd);
	return high < 0 ? fd : high;
}

static int watch_in_inner(struct epset *set, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = DATA_KERNEL};

	return host_sys.epoll_ctl(set->inner, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

/* Watch the kernel's half of an item. It reports readability only: a backing socket can always be written. */
static int half_add(struct item *i)
{
	struct epset *set = i->set;
	struct epoll_event ev = {.data.u64 = half_data(i)};
	int op = i->flags & ITEM_HALF ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (set->halves < 0) {
		set->halves = internal_epoll();
		if (set->halves < 0)
			return set->halves;
		if (set->inner >= 0)
			watch_in_inner(set, set->halves);
	}
	ev.events = i->events & ~(uint32_t)(EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND | EPOLLHUP | EPOLLERR);
	if (ev.events & EPOLLEXCLUSIVE)
		ev.events &= EPOLLIN | EPOLLET | EPOLLEXCLUSIVE;
	if (host_sys.epoll_ctl(set->halves, op, i->fd, &ev) < 0)
		return -errno;
	if (op == EPOLL_CTL_ADD)
		atomic_fetch_add(&set->halves_n, 1);
	i->flags |= ITEM_HALF;
	set->kernel_busy = true;
	return 0;
}

static void half_remove(struct item *i)
{
	struct epoll_event none = {0};

	if (!(i->flags & ITEM_HALF))
		return;
	if (i->set->halves >= 0)
		host_sys.epoll_ctl(i->set->halves, EPOLL_CTL_DEL, i->fd, &none);
	atomic_fetch_sub(&i->set->halves_n, 1);
	i->flags &= ~(uint32_t)ITEM_HALF;
}

/* --- items: under ctl --- */

static struct item *item_find(struct epset *set, int fd, vsock_t v)
{
	struct item **head = items_of(v), *i;

	for (i = head ? *head : NULL; i; i = i->sock_next)
		if (i->set == set && i->fd == fd && i->v == v)
			return i;
	return NULL;
}

static struct item *item_new(struct epset *set, int fd, vsock_t v)
{
	struct item *i = NULL, **head;
	uint16_t gen;

	items_lock();
	if (make_leaf(v))
		i = slab_get(&item_slab);
	if (i) {
		head = items_of(v);
		gen = (uint16_t)(i->gen + 1);
		memset(i, 0, sizeof *i);
		*i = (struct item){.v = v, .set = set, .fd = fd, .gen = gen};
		i->sock_next = *head;
		*head = i;
		i->set_next = set->items;
		if (set->items)
			set->items->set_prev = i;
		set->items = i;
		atomic_fetch_add(&set->items_n, 1);
	}
	items_unlock();
	return i;
}

/* Give the memory back once no wait holds the item: under items_lock. */
static void item_reap(struct item *i)
{
	if (i->flags & ITEM_DEAD && !i->pins)
		slab_put(&item_slab, i);
}

static void item_remove(struct item *i)
{
	struct item **p;

	half_remove(i);
	items_lock();
	ready_remove(i);
	for (p = items_of(i->v); *p != i;)
		p = &(*p)->sock_next;
	*p = i->sock_next;
	if (i->set_prev)
		i->set_prev->set_next = i->set_next;
	else
		i->set->items = i->set_next;
	if (i->set_next)
		i->set_next->set_prev = i->set_prev;
	atomic_fetch_sub(&i->set->items_n, 1);
	i->flags |= ITEM_DEAD;
	i->gen++;
	item_reap(i);
	items_unlock();
}

/* An item was added or changed: it is an event if it is ready already. */
static void item_check(struct item *i)
{
	uint32_t level;

	atomic_thread_fence(memory_order_seq_cst); /* it is listed before its level is read: news in between finds it */
	level = spread(vs_poll(i->v)) & i->events;
	if (!level)
		return;
	items_lock();
	item_event(i);
	items_unlock();
}

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
		set->next = all_sets;
		all_sets = set;
		atomic_store(&any_set, true);
	}
	items_unlock();
	return set;
}

static void close_internal(struct epset *set)
{
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
	if (host_sys.epoll_ctl(set->epfd, EPOLL_CTL_ADD, set->kick, &ev) == 0)
		set->kicked = true;
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
	if (op != EPOLL_CTL_DEL && !event)
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

/* --- waiting --- */

/* Take up to `max` items off the ready list: under items_lock. */
static int take(struct epset *set, struct item **out, int max)
{
	struct item *i;
	int n = 0;

	while (n < max && (i = set->ready_head)) {
		ready_remove(i);
		if (i->events & EPOLLONESHOT)
			i->flags |= ITEM_CLAIMED;
		i->pins++;
		out[n++] = i;
	}
	return n;
}

/* What becomes of an item that was taken and found at `level`: under items_lock. Returns the events to report. */
static uint32_t settle(struct item *i, uint32_t level, bool peek)
{
	uint32_t events = (spread(level) | i->half_level) & i->events & LEVELS;
	bool lost_claim = i->events & EPOLLONESHOT && !(i->flags & ITEM_CLAIMED);

	i->pins--;
	if (i->flags & ITEM_DEAD) {
		item_reap(i);
		return 0;
	}
	if (lost_claim || i->flags & ITEM_DISABLED)
		return 0; /* changed meanwhile: epoll_ctl has put it back if it is ready */
	if (!events) {
		if (i->flags & ITEM_MISSED)
			ready_push(i);
		i->flags &= ~(uint32_t)(ITEM_CLAIMED | ITEM_MISSED);
		return 0;
	}
	i->flags &= ~(uint32_t)(ITEM_CLAIMED | ITEM_MISSED);
	if (peek) {
		ready_push(i);
		return events;
	}
	i->half_level = 0;
	if (i->events & EPOLLONESHOT)
		i->flags |= ITEM_DISABLED;
	else if (!(i->events & EPOLLET))
		ready_push(i);
	return events;
}

/* Report what is ready, at most `max`; events NULL: only tell whether something is, and leave it as it is. */
static int collect(struct epset *set, struct epoll_event *events, int max)
{
	struct item *taken[BATCH];
	uint32_t level[BATCH], left = atomic_load_explicit(&set->ready_n, memory_order_acquire);
	int n = 0;

	while (n < max && left) {
		int want = max - n < BATCH ? max - n : BATCH, got;

		if ((uint32_t)want > left)
			want = (int)left;
		items_lock();
		got = take(set, taken, want);
		items_unlock();
		if (!got)
			break;
		left -= (uint32_t)got;
		for (int i = 0; i < got; i++)
			level[i] = vs_poll(taken[i]->v);
		items_lock();
		for (int i = 0; i < got; i++) {
			uint64_t data = taken[i]->data;
			uint32_t report = settle(taken[i], level[i], !events);

			if (!report)
				continue;
			if (events)
				events[n] = (struct epoll_event){.events = report, .data.u64 = data};
			n++;
		}
		items_unlock();
	}
	return n;
}

/* Members that are sets with something ready. */
static int collect_nested(struct epset *set, struct epoll_event *events, int n, int max)
{
	for (struct nested *m = set->nested; m && n < max; m = m->next) {
		uint32_t report = m->events & (EPOLLIN | EPOLLRDNORM);

		if (report && ep_readable(m->inner))
			events[n++] = (struct epoll_event){.events = report, .data.u64 = m->data};
	}
	return n;
}

bool ep_readable(struct epset *set)
{
	if (atomic_load_explicit(&set->ready_n, memory_order_acquire) && collect(set, NULL, 1) > 0)
		return true;
	for (struct nested *m = set->nested; m; m = m->next)
		if (ep_readable(m->inner))
			return true;
	return false;
}

/* Ask the kernel about the halves and put those that are ready on the list. */
static void look_at_halves(struct epset *set)
{
	struct epoll_event ev[HALF_EVENTS];
	int n = host_sys.epoll_pwait(set->halves, ev, HALF_EVENTS, 0, NULL);

	if (n <= 0)
		return;
	items_lock();
	for (int k = 0; k < n; k++) {
		struct item *i = (struct item *)(uintptr_t)(ev[k].data.u64 & ((1ull << 48) - 1));

		if (i->gen != ev[k].data.u64 >> 48 || i->set != set || i->flags & ITEM_DEAD)
			continue;
		i->half_level = spread(ev[k].events);
		item_event(i);
	}
	items_unlock();
}

/* Take our own kick out of the program's events. */
static int filter_kick(struct epset *set, struct epoll_event *events, int n)
{
	int kept = 0;

	for (int i = 0; i < n; i++)
		if (!set->kicked || events[i].data.u64 != DATA_KICK)
			events[kept++] = events[i];
	return kept;
}

static bool due(struct epset *set)
{
	uint64_t now = clock_cycles();

	if (now - set->looked < knob[K_POLL_KERNEL_US] * clock_cycles_per_us())
		return false;
	set->looked = now;
	return true;
}

static void rebuild(struct epset *set);

/* What is ready now: accelerated members, and kernel members if they are due, or `must` be asked. */
static int gather(struct epset *set, struct epoll_event *events, int max, bool must)
{
	bool kernel = atomic_load_explicit(&set->kernel_n, memory_order_relaxed) != 0;
	bool halves = atomic_load_explicit(&set->halves_n, memory_order_relaxed) != 0;
	bool look = (kernel || halves) && (set->kernel_busy || (must && kernel) || due(set));
	int n, r = 0;

	if (look && halves) {
		if (set->forked)
			rebuild(set);
		look_at_halves(set);
	}
	n = collect(set, events, max);
	if (set->nested)
		n = collect_nested(set, events, n, max);
	if (look && kernel && n < max) {
		r = host_sys.epoll_pwait(set->epfd, events + n, max - n, 0, NULL);
		r = r > 0 ? filter_kick(set, events + n, r) : 0;
	}
	if (look)
		set->kernel_busy = r > 0;
	return n + r;
}

/* After fork: what the parent's waits use must not be shared. */
static void rebuild(struct epset *set)
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

static int make_inner(struct epset *set)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.u64 = WAIT_DOORBELL};
	int fd, r = 0;

	ctl_lock();
	if (set->inner < 0) {
		fd = internal_epoll();
		if (fd < 0) {
			ctl_unlock();
			return fd;
		}
		set->inner = fd;
		set->watched_generation = wait_generation() - 1;
		if (set->kick < 0 && (fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) >= 0) {
			set->kick = host_fd_high(fd);
			set->kick = set->kick < 0 ? fd : set->kick;
		}
		if (set->kick >= 0)
			host_sys.epoll_ctl(set->inner, EPOLL_CTL_ADD, set->kick, &ev);
		r = watch_in_inner(set, set->epfd);
		if (set->halves >= 0)
			watch_in_inner(set, set->halves);
	}
	if (set->watched_generation != wait_generation()) {
		set->watched_generation = wait_generation();
		r = wait_watch(set->inner);
	}
	ctl_unlock();
	return r;
}

static bool set_ready(void *arg)
{
	struct epset *set = arg;

	if (atomic_load_explicit(&set->ready_n, memory_order_acquire))
		return true;
	for (struct nested *m = set->nested; m; m = m->next)
		if (ep_readable(m->inner))
			return true;
	return false;
}

/* Something is left for the next waiter. */
static void pass_on(struct epset *set)
{
	if (atomic_load(&set->sleepers) && atomic_load(&set->ready_n))
		kick(set);
}

static int wait_blocking(struct epset *set, struct epoll_event *events, int max, int64_t timeout_us,
			 const sigset_t *sigmask)
{
	uint64_t start = timeout_us > 0 ? clock_us() : 0;
	int64_t left = timeout_us;
	int r, n;

	if (set->forked)
		rebuild(set);
	for (;;) {
		struct wait w = {.ready = set_ready, .arg = set, .timeout_us = left, .sigmask = sigmask};

		r = make_inner(set);
		if (r < 0)
			return r;
		w.kernel_fd = set->inner;
		atomic_fetch_add(&set->sleepers, 1);
		waiting_in = set;
		r = wait_for(&w);
		waiting_in = NULL;
		atomic_fetch_sub(&set->sleepers, 1);
		if (w.kernel_ready)
			set->kernel_busy = true;
		n = gather(set, events, max, w.kernel_ready);
		if (n)
			return n;
		if (r < 0)
			return r == -ETIMEDOUT ? 0 : r;
		if (timeout_us > 0) {
			uint64_t spent = clock_us() - start;

			left = spent >= (uint64_t)timeout_us ? 0 : timeout_us - (int64_t)spent;
		}
	}
}

/* No accelerated member: the kernel waits. Returns -EAGAIN when the set got one meanwhile and nothing was ready. */
static int wait_plain(struct epset *set, struct epoll_event *events, int max, int64_t timeout_us,
		      const sigset_t *sigmask)
{
	int64_t ms = timeout_us < 0 ? -1 : (timeout_us + 999) / 1000;
	int r, kept;

	atomic_fetch_add(&set->plain_waiters, 1);
	if (ep_has_accelerated(set)) {
		atomic_fetch_sub(&set->plain_waiters, 1);
		return -EAGAIN;
	}
	r = host_sys.epoll_pwait(set->epfd, events, max, ms > INT32_MAX ? INT32_MAX : (int)ms, sigmask);
	r = r < 0 ? -errno : r;
	atomic_fetch_sub(&set->plain_waiters, 1);
	if (r <= 0 || !set->kicked)
		return r;
	kept = filter_kick(set, events, r);
	return kept ? kept : -EAGAIN;
}

/* The last thread that slept in the kernel is back: the kick has done its work. */
static void unkick(struct epset *set)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.u64 = WAIT_DOORBELL};

	ctl_lock();
	if (set->kicked && !atomic_load(&set->plain_waiters)) {
		host_sys.epoll_ctl(set->epfd, EPOLL_CTL_DEL, set->kick, &ev);
		if (set->inner >= 0)
			host_sys.epoll_ctl(set->inner, EPOLL_CTL_ADD, set->kick, &ev);
		set->kicked = false;
	}
	ctl_unlock();
}

int ep_wait(struct epset *set, struct epoll_event *events, int max, int64_t timeout_us, const sigset_t *sigmask)
{
	int n;

	if (max <= 0)
		return -EINVAL;
	if (!ep_has_accelerated(set)) {
		n = wait_plain(set, events, max, timeout_us, sigmask);
		if (n != -EAGAIN)
			return n;
	}
	if (set->kicked)
		unkick(set);
	wait_poll_stacks();
	n = gather(set, events, max, timeout_us == 0);
	if (!n && timeout_us)
		n = wait_blocking(set, events, max, timeout_us, sigmask);
	if (n > 0)
		pass_on(set);
	return n;
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
	waiting_in = NULL;
	items_unlock();
	ctl_unlock();
}
