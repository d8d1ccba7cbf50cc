/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vNIC's rings, mapped by viaductd for whoever will finish the connections of the dead. Only before Linux 6.4, which
 * lets nobody map them once the sockets are bound: there that child (orphan.h) has them from its parent (and forgets
 * all others' at once: MADV_DONTFORK can't be undone for such mappings).
 */
#ifndef VD_RINGS_H
#define VD_RINGS_H

#include "daemon/port.h"
#include "host/xsk.h"

/* The rings of the vNIC's queues, in order, and the umem. NULL: the kernel refuses. */
struct xdp_port *rings_keep(const struct port *p, const struct daemon_vnic *v);
void rings_forget(struct xdp_port *rings, uint32_t queues);

#endif
