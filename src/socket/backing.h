/* SPDX-License-Identifier: BSD-2-Clause */
/* Backing sockets and ports that are used again (backing.c has the theory of operation). */
#ifndef VD_BACKING_H
#define VD_BACKING_H

#include "socket/process.h"

/* A descriptor for a TCP socket, as socket(domain, SOCK_STREAM | flags, 0) gives it: a socket that was used before, or
 * a new one. `fresh`: no option may have been set on it. *entry: for struct sock.backing, once it has a name
 * (backing_own). Descriptor or -errno. */
int backing_socket(int domain, int flags, bool fresh, uint16_t *entry);
void backing_own(uint16_t entry, vsock_t v);

/* How the program leaves a backing socket behind. */
struct backing_left {
	uint16_t entry, port; /* struct sock.backing, .port_hold */
	uint8_t family;
	bool reusable; /* it may serve again: nothing was done to it that the next user would see */
	bool bound;    /* connect() has bound it to `local`: it may go on holding the port */
	bool options;  /* options were set that the engine answers for */
	bool nonblock;
	struct endpoint local;
};
/* v is closed here; fd is still open (-1: not any more). */
void backing_release(vsock_t v, int fd, const struct backing_left *left);

/* A port at local->addr that this process holds and that v may connect to remote from: local->port and the result for
 * struct sock.port_hold; 0: none. With no lock held. */
uint16_t backing_port(vsock_t v, int family, struct endpoint *local, const struct endpoint *remote);

/* fd holds the port of v's connection since before execve: for struct sock.port_hold, and it is ours; 0: no room. */
uint16_t backing_adopt_port(vsock_t v, int fd, uint8_t family, const struct endpoint *local);
/* The descriptor behind struct sock.port_hold: the caller's socket holds it. -1: none. */
int backing_port_fd(uint16_t entry);
/* True if we hold that port, used or idle: the filter that steers it stays. With no lock of a stack held. */
bool backing_holds_port(const struct endpoint *local);

/* The program wants a descriptor and there is none: close all that it can do without. With no lock held. */
void backing_give_way(void);

/* Close what has not been used for a while. Microseconds until it is worth calling again; 0: nothing is left. */
uint64_t backing_trim(void);
/* Around fork: see backing.c. */
void backing_fork_prepare(void);
void backing_after_fork(void);

#endif
