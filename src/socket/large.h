/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sending large segments (engine/large.h): a packet socket on the interface, which the kernel gives to whom it lets
 * send any frame anyway (CAP_NET_RAW). Without one everything goes over the rings.
 */
#ifndef VD_SOCKET_LARGE_H
#define VD_SOCKET_LARGE_H

#include <stdint.h>

#include "engine/large.h"

struct attached;

/* The vNIC leads to this interface, where large segments pass. The socket, or -errno: there are none. */
int large_open(struct attached *a, uint32_t vnic, uint32_t ifindex);
/* They leave by write(2) to that descriptor, as they do to such a socket. It is the vNIC's. */
void large_use(struct attached *a, uint32_t vnic, int fd);

/* What this thread has taken with it from under the lock (large_take), to send it now; NULL nothing. */
extern _Thread_local struct large *large_mine;
void large_send(void);

#endif
