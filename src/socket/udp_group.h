/* SPDX-License-Identifier: BSD-2-Clause */
/* Groups that UDP sockets join: see udp_group.c. */
#ifndef VD_SOCKET_UDP_GROUP_H
#define VD_SOCKET_UDP_GROUP_H

#include "socket/process.h"

/* The kernel has taken the option on the backing socket. False: it is none of groups. */
bool udp_group_option(vsock_t v, int fd, int level, int name, const void *val, socklen_t len);
/* The socket is bound now: what it has joined before comes to its stack from here on. */
void udp_group_bound(vsock_t v, int fd);
/* It is closed, or the kernel's: its filters go. */
void udp_group_closed(struct attached *a, vsock_t v);
/* There is a new viaductd: it must hear of the stack's groups. Under net_lock. */
void udp_group_resume(struct attached *a);
/* In the child after fork: the filters are the parent's. */
void udp_group_after_fork(void);

#endif
