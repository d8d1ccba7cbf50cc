/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What each descriptor of this process is to us: one 64-bit word per descriptor, read without a lock.
 *
 *   bits 63..62  enum fd_kind
 *   bits 61..0   FD_ACCELERATED: the vsock_t; FD_EPOLL: pointer to the set; FD_KERNEL_SOCKET: enum reason
 *
 * The table is private memory, so a forked child has its own copy. Descriptors that were made from each other with dup
 * form a ring (`next`), so that the last close is noticed and a socket that falls back to the kernel does so under
 * all of its numbers. Changes are made under fd_lock, with signal handlers deferred. A stale word (a close that we did
 * not see) is replaced when the kernel gives the number out again.
 */
#ifndef VD_FDTABLE_H
#define VD_FDTABLE_H

#include <stdatomic.h>
#include <stdint.h>

#include "socket/epoll.h"
#include "socket/vsock.h"

#define FD_KIND_SHIFT 62
#define FD_VALUE_MASK ((1ull << FD_KIND_SHIFT) - 1)

extern _Atomic uint64_t *fd_table;
extern uint32_t fd_limit; /* descriptors that the table can hold; 0 before init and where acceleration is off */

static inline uint64_t fd_word(int fd)
{
	return (uint32_t)fd < fd_limit ? atomic_load_explicit(&fd_table[fd], memory_order_relaxed) : 0;
}

static inline enum fd_kind fd_word_kind(uint64_t word)
{
	return (enum fd_kind)(word >> FD_KIND_SHIFT);
}

/* The accelerated socket of a descriptor, VS_NONE if it has none. The test of every hot call. */
static inline vsock_t fd_vsock(int fd)
{
	uint64_t word = fd_word(fd);

	return fd_word_kind(word) == FD_ACCELERATED ? word & FD_VALUE_MASK : VS_NONE;
}

static inline struct epset *fd_epset(int fd)
{
	uint64_t word = fd_word(fd);

	return fd_word_kind(word) == FD_EPOLL ? (struct epset *)(uintptr_t)(word & FD_VALUE_MASK) : NULL;
}

/* Make the table. False: no memory, everything stays with the kernel. */
bool fd_table_init(void);

/* A new description under a new number. */
void fd_set_socket(int fd, vsock_t v);
void fd_set_kernel(int fd, enum reason reason);
/* `fd` was made in another program, or came in a message: tools find it by the socket, not in our table. */
void fd_adopt_socket(int fd, vsock_t v);
void fd_set_epoll(int fd, struct epset *set);
/* `fd` is a number that the kernel just gave out for something that is not ours. */
void fd_set_other(int fd);
/* `fd` is a duplicate of `old`. */
void fd_set_dup(int old, int fd);

/* Forget the descriptor before it is closed; ends the socket or set if it was the last one. */
void fd_closing(int fd);
/* Forget all descriptors in [first, last]. */
void fd_closing_range(unsigned first, unsigned last);
/* Counts descriptors that went over to the kernel: who has sorted descriptors must sort them again. */
extern _Atomic uint32_t fd_moves;
/* The kernel serves v from now on, under all descriptors that name it. */
void fd_to_kernel(int fd, vsock_t v, enum reason reason);

/* A descriptor of v; -1: none. */
int fd_of_socket(vsock_t v);
/* The first descriptor from `fd` on that has an accelerated socket; -1: none. */
int fd_first_ours(int fd);

/* One entry per accelerated socket, whatever the number of its descriptors, in memory of its own (exit may come from a
 * signal handler, so not malloc'ed). NULL if there is none. */
vsock_t *fd_all_sockets(size_t *n);
void fd_free_all(vsock_t *all, size_t n);

/* sockets.c: for vs_connect_in_kernel. */
bool connect_in_kernel(vsock_t v, const struct sockaddr *sa, socklen_t len, enum reason reason);

/* fork: no thread changes the table meanwhile. */
void fd_lock(void);
void fd_unlock(void);

#endif
