/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Wires of this process: made by rendezvous (host.h), attached to a stack as a vNIC, looked up again by the address
 * that they lead to, taken away when the other end is gone.
 */
#ifndef VD_SOCKET_WIRE_H
#define VD_SOCKET_WIRE_H

#include "host/host.h"
#include "socket/process.h"

/* A vNIC of stack a that leads to whoever listens at remote: known, or made now (*fresh). Blocks up to knob
 * HANDSHAKE_MS where a new one is made. Number of the vNIC, or -errno with *reason: the kernel must serve. */
int wire_to(struct attached *a, enum sock_proto proto, int family, const struct endpoint *remote, bool *fresh,
	    enum reason *reason);
/* Whoever was at remote is not there any more. */
void wire_forget(struct attached *a, enum sock_proto proto, const struct endpoint *remote);
/* Attach a wire that was just made; its descriptors become ours, also on failure. vNIC number or -errno. */
int wire_add(struct attached *a, struct rdv_wire *w);
/* A vNIC of stack a that a relative has made and this process has not mapped: map it now. Blocks as wire_to does. 0 or
 * -errno. */
int wire_map(struct attached *a, uint32_t vnic);
/* Map the wire that vNIC number vnic of stack a is, in its generation gen, with these descriptors, which become ours,
 * also on failure (handover.c). 0 or -errno. */
int wire_adopt(struct attached *a, uint32_t vnic, uint32_t gen, const struct rdv_wire *w);
/* What a rendezvous needs to know of us, for wires of stack a. */
void wire_self(struct attached *a, struct rdv_self *self);
/* The other end rang by the wire's connection. */
void wire_rung(struct attached *a, uint32_t vnic, uint32_t gen);
/* The other end hung up: connections end, and the vNIC is freed once nothing refers to its buffers. */
void wire_gone(struct attached *a, uint32_t vnic, uint32_t gen);
/* Try again to free what has died. Microseconds until it is worth trying again, 0 nothing is left. */
uint64_t wire_reap(void);
/* In the child after fork: nothing that another thread was doing counts. */
void wire_after_fork(void);

#endif
