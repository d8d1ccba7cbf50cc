/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sockets that go over to another program: one that this process executes or spawns, or one that gets their descriptors
 * in a message. (handover.c has the theory of operation.)
 */
#ifndef VD_HANDOVER_H
#define VD_HANDOVER_H

#include "socket/process.h"

#define HANDOVER_MEMFD_NAME "viaduct:handover"
#define HANDOVER_WIRES 512u
#define HANDOVER_SOCKS 1024u

struct handover_stack {
	int memfd, doorbell[2];
	uint32_t slot; /* of the heir, in the stack's process table */
	uint32_t own;  /* 1: the heir makes its own sockets here, too */
	int alive_fd;  /* HEIR_FAR: tells the giver by hanging up that the heir is gone, or never came; the giver closes
			  its own */
	uint32_t at;   /* in the heir: where it is attached, plus 1 */
	uint8_t id[16];
};

struct handover_wire {
	uint32_t stack, vnic, gen;
	int memfd, life_fd, doorbell[2];
};

struct handover_sock {
	uint32_t stack, sock, gen;
	int rdv_fd, port_fd; /* where rendezvous come in; what holds the port of a connection; -1: none */
	uint64_t inode;      /* of the backing socket: tells which descriptor it is */
};

/* Written by the giver, only read by the heir. Descriptors: numbers in the heir, or places in the message. */
struct handover {
	uint64_t magic;
	uint32_t version, size;
	uint32_t heir;   /* enum heir */
	uint32_t places; /* HEIR_FAR: descriptors that travel along */
	uint32_t stacks, wires, socks;
	struct handover_stack stack[VS_STACKS_MAX];
	struct handover_wire wire[HANDOVER_WIRES];
	struct handover_sock sock[HANDOVER_SOCKS];
};

enum heir {
	HEIR_IMAGE, /* this very process, after execve: it keeps its place in the stacks */
	HEIR_CHILD, /* a process that is about to be made: it gets a place of its own */
	HEIR_FAR,   /* whoever receives the message that the descriptors travel in: the same */
};

/* An empty one in shared memory, whose descriptor is one of ours. NULL: no memory. */
struct handover *handover_new(enum heir heir, int *memfd);
/* Unmap it, close the descriptor (-1: leave it). */
void handover_free(struct handover *h, int memfd);
/* Add socket v, whose descriptor is fd, and what it needs; all_wires: not only its own. 0, or -EOPNOTSUPP: it can't go
 * over, viaductd knows this process as its user; -ENOBUFS: no room. */
int handover_add(struct handover *h, vsock_t v, int fd, bool all_wires);
/* Call fn for each descriptor of ours that the heir needs. */
void handover_each_fd(struct handover *h, void (*fn)(int *fd, void *arg), void *arg);
/* HEIR_CHILD: the heir is process pid, or 0: there is none. */
void handover_done(struct handover *h, int pid);

/* In the heir, HEIR_FAR: the descriptors of a message, n of them without the memfd, go where h, a copy of what that
 * says, has them; those that it does not name are closed. False: it makes no sense, and all are closed. */
bool handover_place(struct handover *h, int *fds, uint32_t n);
/* In the heir: check a copy of what was handed over, and map all of it; the descriptors are ours from here on. 0 or
 * -errno (then all is as before, but for descriptors, which are closed). */
int handover_adopt(struct handover *h);
/* The adopted socket number i, or VS_NONE. */
vsock_t handover_sock_name(const struct handover *h, uint32_t i);
/* Nothing of this process is it: its hold goes. */
void handover_unclaimed(vsock_t v);

#endif
