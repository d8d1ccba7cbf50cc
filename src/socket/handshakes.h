/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Answering those who ask for a wire. The helper calls; nothing waits here, so a process that connects and then says
 * nothing delays nobody.
 */
#ifndef VD_HANDSHAKES_H
#define VD_HANDSHAKES_H

#include "socket/process.h"

/* Somebody asks at the rendezvous descriptor of socket v. Who has not said hello yet is watched in epfd, with event
 * data `tag` plus a number below HANDSHAKES_MAX. */
#define HANDSHAKES_MAX 64u
void handshakes_begin(vsock_t v, int rdv_fd, int epfd, uint64_t tag);
/* The event with that number. */
void handshakes_step(uint32_t i);
/* Refuse those whose time is over. Milliseconds until the next one's is, -1: there is none. */
int handshakes_expire(void);
/* The program wants a descriptor and there is none: close what is under way here; those who asked go to the kernel. Any
 * thread, no locks held. */
void handshakes_give_way(void);
void handshakes_after_fork(void);

#endif
