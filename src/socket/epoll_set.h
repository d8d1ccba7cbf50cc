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
 * Up to three kernel descriptors belong to a set:
 * - epfd, the program's own: its kernel members with the program's data;
 * - halves: members whose backing socket can become readable by itself (listeners, UDP), with our data;
 * - inner: holds both of them, for a waiting thread to look at. Made with halves, when there is such a member.
 *
 * Locks: `ctl` (changes of membership; may call vs_*), then the stack's lock, then `items` (lists; nothing is called
 * under it). News comes with or without the stack's lock held. Memory of items and sets is used again, never unmapped,
 * so a late reader sees a dead item, not a fault. An item that a wait has taken is pinned until it is settled.
 */
#ifndef VD_EPOLL_SET_H
#define VD_EPOLL_SET_H

#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>

#include "host/host.h"
#include "host/knobs.h"
#include "socket/epoll.h"
#include "socket/wait.h"

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
	uint64_t id; /* of what epfd and inner are now (wait_kernel_id) */
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

extern struct slab item_slab, nested_slab, set_slab;
extern _Atomic uint32_t items_word;

static inline void depth_out(void)
{
	if (--wait_lock_depth == 0 && wait_signal_pending && wait_signals_deferred)
		wait_signals_deferred();
}

static inline void items_lock(void)
{
	wait_lock_depth++;
	for (int spins = 0; atomic_exchange_explicit(&items_word, 1, memory_order_acquire); spins++)
		if (spins > 100)
			sched_yield();
}

static inline void items_unlock(void)
{
	atomic_store_explicit(&items_word, 0, memory_order_release);
	depth_out();
}

/* The engine says IN and OUT; a program may ask for RDNORM and WRNORM, which mean the same. */
static inline uint32_t spread(uint32_t events)
{
	if (events & EV_IN)
		events |= EV_RDNORM;
	if (events & EV_OUT)
		events |= EV_WRNORM;
	return events & LEVELS;
}

/* --- epoll_items.c --- */
void ctl_lock(void);
void ctl_unlock(void);
/* Memory, under items_lock. NULL: none. */
void *slab_get(struct slab *s);
void slab_put(struct slab *s, void *p);
/* The head of the list of a socket's items; NULL: it has never had one. */
struct item **items_of(vsock_t v);
/* The ready list, under items_lock. */
void ready_push(struct item *i);
void ready_remove(struct item *i);
void item_event(struct item *i);
void item_reap(struct item *i);
void on_news(vsock_t v, uint32_t edges);
/* Membership, under ctl. */
int half_add(struct item *i);
struct item *item_find(struct epset *set, int fd, vsock_t v);
struct item *item_new(struct epset *set, int fd, vsock_t v);
void item_remove(struct item *i);
void item_check(struct item *i);
void wake_waiters(const struct epset *set);

/* --- epoll.c --- */
/* After fork: what the parent's waits use must not be shared. */
void set_rebuild(struct epset *set);

#endif
