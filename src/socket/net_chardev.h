/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vNICs of the kernel char driver (include/viaduct/vnic_ioctl.h) in the network half of the socket layer. Where
 * /dev/viaduct is there and may be opened, it takes the place of viaductd's AF_XDP sockets; routes and neighbours are
 * viaductd's still.
 */
#ifndef VD_NET_CHARDEV_H
#define VD_NET_CHARDEV_H

#include "socket/net_internal.h"

/* Under net_lock. A vNIC on the interface for *at, which is free. 0 or -errno; then *at is free as before. */
int net_chardev_attach(struct attached *a, struct net_if *at, uint32_t ifindex);
/* Under net_lock. Add to, or remove from, the vNICs of that kind the filter that daemon.h describes. fd: the backing
 * socket, -1 none. 0 or -errno: it stands nowhere. */
int net_chardev_filter(const struct net *n, const struct daemon_filter *f, int fd, bool add);
/* True if n has such vNICs; with others, too: *mixed. */
bool net_chardev_used(const struct net *n, bool *mixed);
/* Tell the driver of what was posted. */
void net_chardev_kick(const struct vnic *v);
/* The vNIC is gone for good: its memory, which threads may still look at, is replaced. */
void net_chardev_release(const struct vnic *v);

#endif
