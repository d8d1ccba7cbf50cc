/* SPDX-License-Identifier: BSD-2-Clause */
/* What each request of include/viaduct/daemon.h does. Called by server.c. */
#ifndef VD_REQUESTS_H
#define VD_REQUESTS_H

#include "daemon/protocol.h"
#include "daemon/tenant.h"

#define SERVER_CLIENTS 2048u
#define SERVER_PER_STACK 2u /* connections of one user: so many for each stack that he may have */
#define SERVER_LOOKERS 16u  /* ... and those of who only looks */

struct server;

struct client {
	int fd;
	uint32_t uid;
	uint32_t number; /* its own, never 0 */
	pid_t pid;
	bool greeted;
	int news;              /* eventfd: interfaces have changed; -1: nobody asked */
	struct tenant *tenant; /* NULL: only looks */
};

/* Answer the request; its descriptors are taken or closed. 0, or -errno: the connection is to be dropped. */
int request_serve(struct server *s, struct house *h, struct client *c, struct request *q);
/* Be told when process `at` of the tenant ends (server.c). */
int server_watch_process(struct server *s, const struct tenant *t, uint32_t at);

#endif
