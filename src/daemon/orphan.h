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
 * Before Linux 6.4 the rings of a bound socket can't be mapped, so there viaductd maps them before (rings.h) and the
 * child goes on as it was forked, with what is in the daemon's memory (no keys, and no other stack's rings) but without
 * its rights. Stacks that an earlier viaductd has bound are not finished there: the kernel resets their connections.
 *
 * When viaductd dies the child goes on: it holds what pins the programs, and needs nothing else. It listens on a Unix
 * socket whose abstract name begins with ORPHAN_NAME; the next viaductd finds it by that (orphan_resume.c), is shown
 * its rings as a living stack would show them, and hears its words from then on. A child whose viaductd is gone does
 * not stay for TIME-WAIT alone.
 *
 * All functions but orphan_main are the daemon's one thread's.
 */
#ifndef VD_ORPHAN_H
#define VD_ORPHAN_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/tenant.h"

#define ORPHAN_NAME "viaduct1/finish/"         /* then a number that no other has */
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
enum orphan_fd {
	ORPHAN_FD_ESTATE = 3,
	ORPHAN_FD_MEMORY,
	ORPHAN_FD_VIEW,
	ORPHAN_FD_WORDS,
	ORPHAN_FD_LISTEN, /* bound; the child listens, so that the kernel tells who it is (SO_PEERCRED) */
	ORPHAN_FD_KEEP,   /* steer_keep() */
	ORPHAN_FD_VNICS
};

/* What the child says to a later viaductd that has connected: one packet per vNIC, with umem and sockets. The answer to
 * the last one is ORPHAN_MAGIC, with the view's descriptor and steer_keep(); then come the child's words, all again. */
struct orphan_show {
	uint32_t magic, vnics;
	struct daemon_vnic vnic;
};

/* Start a child for t, whose processes are all gone. 0: t->orphan is its pid, t->orphan_fd its pidfd, t->orphan_words
 * the pipe. -ENOENT: t has no vNIC, so there is nothing to finish; other -errno. */
int orphan_adopt(struct tenant *t);
/* The pipe is readable: do what it says. */
void orphan_hear(struct tenant *t);
/* Has the child ended? */
bool orphan_is_over(const struct tenant *t);
/* The child has ended (or must: it is killed): nothing of it is left. */
void orphan_end(struct tenant *t);
/* Children of an earlier viaductd's that nobody has are ours from now on, and so is what is left of the stacks whose
 * connections they finish: at most `max` tenants. */
uint32_t orphan_find(struct house *h, struct tenant **found, uint32_t max);
/* End one who only waits and has this device's own queues. True if there was one. */
bool orphan_make_room(struct house *h, uint32_t device);

/* The child's life; the exit status. rings: of each vNIC, where they were mapped before; NULL: by the descriptors. */
int orphan_main(const struct xdp_port *const rings[TENANT_VNICS]);

#endif
