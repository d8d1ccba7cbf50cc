/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The dead's connections. When the last process of a stack is gone, viaductd starts a child that maps the stack, runs
 * the same engine over it and ends its connections as the kernel would end them (orphan_finish.c).
 *
 * The dead could have written anything into that memory, so the child has nothing but it: no capability, no descriptor
 * but the stack's, the umems', the AF_XDP sockets' and a pipe, no system call but the few that the engine's loop takes,
 * bounded time. It is a fresh execution of viaductd's file, so nothing of the daemon's memory is in it. What it says
 * over the pipe is a stranger's word: viaductd does with it only what the dead itself could have asked for.
 *
 * All functions but orphan_main are the daemon's one thread's.
 */
#ifndef VD_ORPHAN_H
#define VD_ORPHAN_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/tenant.h"

#define ORPHAN_ARGUMENT "--finish-connections" /* viaductd's only argument: it is that child */

/* How a child's life goes. */
enum orphan_word_type {
	ORPHAN_FLOW = 1, /* a connection that goes on: it is steered by its own filter from now on */
	ORPHAN_READY,    /* all have been named: filters for whole ports are not needed any more */
	ORPHAN_RESOLVE,  /* a neighbour is wanted */
	ORPHAN_WAITS     /* nothing but TIME-WAIT is left: it may be ended when its queues are wanted */
};

/* What the child writes to the pipe, one at a time. */
struct orphan_word {
	uint32_t type; /* enum orphan_word_type */
	uint32_t ifindex;
	struct daemon_filter flow;
	uint8_t addr[16];
};

/* What the child is given besides descriptors: a memfd with this. Descriptors: enum orphan_fd, then for each vNIC the
 * umem and the sockets of its queues. */
#define ORPHAN_MAGIC 0x4f504856u
struct orphan_estate {
	uint32_t magic, vnics;
	struct daemon_vnic vnic[TENANT_VNICS];
};
enum orphan_fd { ORPHAN_FD_ESTATE = 3, ORPHAN_FD_MEMORY, ORPHAN_FD_VIEW, ORPHAN_FD_WORDS, ORPHAN_FD_VNICS };

/* Start a child for t, whose processes are all gone. 0: t->orphan is its pid, t->orphan_fd its pidfd, t->orphan_words
 * the pipe. -ENOENT: t has no vNIC, so there is nothing to finish; other -errno. */
int orphan_adopt(struct tenant *t);
/* The pipe is readable: do what it says. */
void orphan_hear(struct tenant *t);
/* Has the child ended? */
bool orphan_is_over(const struct tenant *t);
/* The child has ended (or must: it is killed): nothing of it is left. */
void orphan_end(struct tenant *t);
/* End those who only wait and whose queues are of this device. True if there was one. */
bool orphan_make_room(struct house *h, uint32_t device);

/* The child's life; the exit status. */
int orphan_main(void);

#endif
