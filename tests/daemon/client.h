/* SPDX-License-Identifier: BSD-2-Clause */
/* A plain client of viaductd, for its tests: one request, one answer. */
#ifndef VD_TEST_DAEMON_CLIENT_H
#define VD_TEST_DAEMON_CLIENT_H

#include <stddef.h>

#include "viaduct/daemon.h"

struct answer {
	struct daemon_head head;
	union {
		struct daemon_welcome welcome;
		struct daemon_vnic vnic;
		struct daemon_filter_id id;
		struct daemon_status status;
		struct daemon_inherited inherited;
		struct daemon_flows flows;
		struct daemon_stack stack;
		struct daemon_error error;
	} body;
	int fd[DAEMON_FDS_MAX], fds;
};

int client_connect(void); /* -errno */
/* The answer's status, or -ECONNRESET when the daemon hung up. */
int client_ask(int sock, uint16_t type, const void *body, size_t len, const int *fds, int count, struct answer *a);
void answer_close(struct answer *a);
/* Say HELLO with a stack of sorts and a pidfd of this process. The daemon's status. */
int client_hello(int sock);
/* The inode of the stack's memory that the last HELLO showed. */
uint64_t client_memory(void);
/* Connect, HELLO. */
int client_make(void);
int client_open(int sock, uint32_t ifindex, struct answer *a); /* as an older library: bound at once */
/* flags: DAEMON_OPEN_*, besides BINDS. */
int client_open_unbound(int sock, uint32_t ifindex, uint32_t flags, struct answer *a);
int client_bind(int sock, uint32_t ifindex, struct answer *a);
/* Steer proto local:port to the stack; fd owns it. The id or a negative status. */
int client_filter(int sock, uint8_t proto, const char *local, uint16_t port, int fd, uint16_t flags);

#endif
