/* SPDX-License-Identifier: BSD-2-Clause */
/* The helper thread of this process (helper.c has its theory of operation). */
#ifndef VD_HELPER_H
#define VD_HELPER_H

#include "socket/process.h"

/* Start it if this process has none yet. 0 or -errno (the sockets then work without, but for timers). */
int helper_start(void);
/* The wire behind a vNIC may hang up. */
void helper_watch_life(struct attached *a, uint32_t vnic);
/* Wires may be asked for at this rendezvous descriptor, for the listening or bound socket v. */
int helper_watch_listener(vsock_t v, int rdv_fd);
void helper_forget_fd(int fd);
/* Relatives may ask for wires of stack a at this descriptor. */
void helper_watch_relatives(struct attached *a, int fd);
/* Stack a's connection to viaductd may hang up. */
void helper_watch_daemon(struct attached *a, int fd);
/* viaductd tells of interfaces by it. */
void helper_watch_news(struct attached *a, int fd);
/* A process of the tree: when it dies, its entry in stack a is dropped. */
void helper_watch_process(struct attached *a, uint32_t slot);
/* The same where nobody knows yet which process it will be: the entry stands as long as the descriptor that is
 * returned, or a copy of it, is open anywhere. -1: it can't be watched. */
int helper_watch_far(struct attached *a, uint32_t slot);
/* Have the helper look for held kicks (kick.h) in a millisecond; asked again before that costs nothing. False: nobody
 * will look. */
bool helper_alarm(void);
/* This thread is the helper. */
extern _Thread_local bool helper_self;
/* Around execve, which kills it: from here on it works in no stack, until it is resumed. */
void helper_pause(void);
void helper_resume(void);
/* Sockets came from elsewhere (handover.c). The helper starts when a thread first waits for one, or sets a timer: most
 * programs that inherit a socket never touch it. */
void helper_owe(void);
extern bool helper_owed;
/* In the child after fork: there is no helper here. */
void helper_after_fork(void);

#endif
