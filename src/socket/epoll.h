/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * epoll sets. The program's epoll descriptor is a real one of the kernel, and its members that are not accelerated are
 * in it. Accelerated members are here. See epoll.c.
 *
 * Sets belong to a process; a forked child has its own copy of the accelerated members.
 */
#ifndef VD_EPOLL_H
#define VD_EPOLL_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "socket/vsock.h"

struct epset;

/* A set behind the kernel's epoll descriptor epfd; NULL: no memory. */
struct epset *ep_new(int epfd);
/* Its last descriptor is closed (before the kernel closes it). */
void ep_free(struct epset *set);
/* The kernel closes its descriptor `from`; `to` is another of the same. */
void ep_moved(struct epset *set, int from, int to);

/* epoll_ctl. The member is the accelerated socket v, or the set `nested`, or, if neither is given, the kernel's.
 * 0 or -errno. */
int ep_ctl(struct epset *set, int op, int fd, vsock_t v, struct epset *nested, struct epoll_event *event);
/* epoll_wait and its kin. timeout_us < 0: for ever. Number of events or -errno. */
int ep_wait(struct epset *set, struct epoll_event *events, int max, int64_t timeout_us, const sigset_t *sigmask);

/* This process's last descriptor of v is closed: it leaves all sets. */
void ep_forget(vsock_t v);
/* The kernel serves v from now on: its memberships move to the kernel's sets. */
void ep_to_kernel(vsock_t v);
/* v may have got a kernel half (listen, bind): watch it where v is a member. */
void ep_refresh(vsock_t v);

/* This thread is in the middle of a change of a set (it must not start another). */
bool ep_changing(void);
/* For poll and select on an epoll descriptor. True: accelerated members are ready. The kernel's members are seen by
 * the descriptor itself and by ep_halves (-1: there are none). */
bool ep_readable(struct epset *set);
bool ep_has_accelerated(const struct epset *set);
int ep_halves(struct epset *set);

/* Around fork: in the parent before it, then in both. */
void ep_fork_prepare(void);
void ep_fork_parent(void);
void ep_fork_child(void);

#endif
