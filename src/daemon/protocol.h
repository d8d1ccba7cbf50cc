/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Messages of include/viaduct/daemon.h as viaductd reads and writes them. What comes is hostile: request_parse is pure
 * and bounded (and fuzzed), and every descriptor that came is either taken (request_take) or closed.
 */
#ifndef VD_PROTOCOL_H
#define VD_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>

#include "viaduct/daemon.h"

struct request {
	struct daemon_head head;
	union {
		struct daemon_hello hello;
		struct daemon_open open;
		struct daemon_bind bind;
		struct daemon_vnic resume;
		struct daemon_filter filter;
		struct daemon_filter_ids filter_ids;
		struct daemon_resolve resolve;
		struct daemon_stack_ask stack;
	} body;
	int fd[DAEMON_FDS_MAX];
	int fds;
	uint32_t uid; /* who sent it: what is closed is closed at his expense (closer.h) */
};

/* One packet. 0, or -EPROTO: not ours. q->fd is left alone. */
int request_parse(const void *packet, size_t len, struct request *q);
/* The next packet of the connection: 0; -EAGAIN none waits; -ECONNRESET the end; -EPROTO not our protocol, or more
 * descriptors than can be; -EMFILE no descriptor was left for those that came: the request can be answered. */
int request_receive(int sock, uint32_t uid, struct request *q);
/* Descriptor i of the request becomes the caller's; -1: it did not come. */
int request_take(struct request *q, int i);
/* Close what was not taken. */
void request_done(struct request *q);

/* Answer with a body. 0, or -errno: the asker does not read (or is gone), and is to be dropped. */
int reply_send(int sock, const struct daemon_head *to, const void *body, size_t len, const int *fds, int count);
/* Answer that it failed, and why. */
int reply_error(int sock, const struct daemon_head *to, int status, const char *text);

#endif
