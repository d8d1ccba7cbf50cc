/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The system calls of AF_XDP sockets, for the provider `xdp` (vnic/xdp.h) in programs and in viaductd: mapping a
 * queue's rings and umem, and kicking the kernel. Descriptors stay the caller's.
 */
#ifndef VD_XSK_H
#define VD_XSK_H

#include "vnic/xdp.h"

struct daemon_vnic;

/* Map the four rings of the socket of queue q and its part of the umem, as viaductd describes them. 0 or -errno; on
 * failure nothing stays mapped. */
int xsk_map(int xsk_fd, int umem_fd, const struct daemon_vnic *d, uint32_t q, struct xdp_port *port);
void xsk_unmap(struct xdp_port *port);
/* Have the kernel send what lies in the tx ring: until it has taken all, or says that it can't. 0, or what it says
 * (-ENETDOWN: the interface is down; -EAGAIN, -ENOBUFS: later): frames stay in the ring, and xdp_kick_due true. */
int xsk_kick(int xsk_fd, const struct xdp_port *port);

#endif
