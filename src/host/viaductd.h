/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Asking viaductd (include/viaduct/daemon.h): one connection, one request at a time, each with a bound on how long it
 * may take. Callers see to it that only one thread asks. After any error but a refusal (viaductd_reply.refused) the
 * connection is of no more use: answers might come late.
 */
#ifndef VD_VIADUCTD_H
#define VD_VIADUCTD_H

#include <stdbool.h>
#include <stdint.h>

#include "viaduct/daemon.h"

struct viaductd_request {
	enum daemon_type type;
	const void *body;
	uint32_t len;
	const int *fds; /* stay the caller's */
	uint32_t fd_count;
};

/* What came back. Descriptors are close-on-exec, with the numbers that the kernel gave them, and the caller's to close.
 */
struct viaductd_reply {
	uint32_t len; /* of body: what lies behind is 0 */
	uint32_t fd_count;
	int fds[DAEMON_FDS_MAX];
	bool refused; /* the daemon said no: the status is the result, its sentence in error */
	char error[256];
	uint8_t body[DAEMON_MESSAGE_MAX];
};

/* A connection to the viaductd of this network namespace: a descriptor, -ENOENT there is none, -EPERM: what answers is
 * neither root's nor this user's. */
int viaductd_connect(void);
/* 0, the daemon's status (then reply->refused), -ETIMEDOUT, -EPROTO, or what the connection says. */
int viaductd_ask(int fd, const struct viaductd_request *request, int timeout_ms, struct viaductd_reply *reply);
/* Close what the reply brought. */
void viaductd_reply_drop(struct viaductd_reply *reply);

#endif
