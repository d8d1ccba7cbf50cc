/* SPDX-License-Identifier: BSD-2-Clause */
/* Items of epoll sets: their memory, the lists they are on, and the kernel halves of listeners and UDP sockets. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "socket/epoll_set.h"

#define LEAF 4096u /* sockets per leaf of the table */

struct slab item_slab = {.size = sizeof(struct item)};
struct slab nested_slab = {.size = sizeof(struct nested)};
struct slab set_slab = {.size = sizeof(struct epset)};
_Atomic uint32_t items_word;
static struct item **leaves[VS_STACKS_MAX][(1u << 24) / LEAF];
static pthread_mutex_t ctl_mutex = PTHREAD_MUTEX_INITIALIZER;

static _Thread_local bool changing;

bool ep_changing(void)
{
	return changing;
}

void ctl_lock(void)
{
	wait_lock_depth++;
	pthread_mutex_lock(&ctl_mutex);
	changing = true;
}

void ctl_unlock(void)
{
	changing = false;
	pthread_mutex_unlock(&ctl_mutex);
	depth_out();
}

/* --- memory: under items_lock --- */

void *slab_get(struct slab *s)
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

void slab_put(struct slab *s, void *p)
{
	memcpy(p, &s->free, sizeof s->free);
	s->free = p;
}

/* The head of the list of a socket's items; NULL: it has never had one. */
struct item **items_of(vsock_t v)
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

void ready_push(struct item *i)
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

void ready_remove(struct item *i)
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

/* Something happened to the item: put it on the list. Who waits looks again after news from a stack. */
void item_event(struct item *i)
{
	if (i->flags & ITEM_CLAIMED)
		i->flags |= ITEM_MISSED;
	if (i->flags & (ITEM_DISABLED | ITEM_CLAIMED | ITEM_READY))
		return;
	ready_push(i);
}

void on_news(vsock_t v, uint32_t edges)
{
	struct item **head;

	items_lock();
	head = items_of(v);
	for (struct item *i = head ? *head : NULL; i; i = i->sock_next)
		if (i->v == v && (spread(edges) & i->events))
			item_event(i);
	items_unlock();
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
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};

	return host_sys.epoll_ctl(set->inner, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

/* Make halves, and inner around it and epfd. */
static int make_halves(struct epset *set)
{
	int halves = internal_epoll(), inner = halves < 0 ? -1 : internal_epoll();

	if (inner < 0) {
		if (halves >= 0)
			host_fd_close(halves);
		return halves < 0 ? halves : inner;
	}
	set->inner = inner;
	watch_in_inner(set, set->epfd);
	watch_in_inner(set, halves);
	set->halves = halves;
	set->id = wait_kernel_id();
	return 0;
}

/* Watch the kernel's half of an item. It reports readability only: a backing socket can always be written. */
int half_add(struct item *i)
{
	struct epset *set = i->set;
	struct epoll_event ev = {.data.u64 = half_data(i)};
	int op = i->flags & ITEM_HALF ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
	int r = set->halves < 0 ? make_halves(set) : 0;

	if (r < 0)
		return r;
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

struct item *item_find(struct epset *set, int fd, vsock_t v)
{
	struct item **head = items_of(v), *i;

	for (i = head ? *head : NULL; i; i = i->sock_next)
		if (i->set == set && i->fd == fd && i->v == v)
			return i;
	return NULL;
}

struct item *item_new(struct epset *set, int fd, vsock_t v)
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
void item_reap(struct item *i)
{
	if (i->flags & ITEM_DEAD && !i->pins)
		slab_put(&item_slab, i);
}

void item_remove(struct item *i)
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

/* A member was changed, not by news from a stack: other threads that wait must look again. */
void wake_waiters(const struct epset *set)
{
	if (atomic_load(&set->sleepers) || set->outers)
		wait_wake_all();
}

/* An item was added or changed: it is an event if it is ready already. */
void item_check(struct item *i)
{
	uint32_t level;

	atomic_thread_fence(memory_order_seq_cst); /* it is listed before its level is read: news in between finds it */
	level = spread(vs_poll(i->v)) & i->events;
	if (!level)
		return;
	items_lock();
	item_event(i);
	items_unlock();
	wake_waiters(i->set);
}
