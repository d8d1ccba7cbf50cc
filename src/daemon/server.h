/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections of viaductd: takes requests, asks tenant.c, answers. One thread and one epoll descriptor; nobody is
 * waited for: a request is a packet, an answer that can't be sent at once ends its connection.
 */
#ifndef VD_SERVER_H
#define VD_SERVER_H

#include "daemon/tenant.h"

struct server;

/* listener: listening SOCK_SEQPACKET socket, taken. 0 or -errno. */
int server_start(struct server **s, struct house *h, int listener);
/* Serve until stop_fd (a signalfd, say) is readable, or (policy.transient) the last user has left. 0 or -errno. */
int server_run(struct server *s, int stop_fd);
/* Connections and descriptors are closed; what stacks need stays with them. */
void server_stop(struct server *s);

#endif
