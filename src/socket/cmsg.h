/* SPDX-License-Identifier: BSD-2-Clause */
/* Control messages (cmsg(3)) that go to the program with a datagram or an error, written as Linux's put_cmsg does. */
#ifndef VD_CMSG_H
#define VD_CMSG_H

#include <stddef.h>
#include <stdint.h>

#include "engine/engine.h"

/* The program's control buffer. at NULL: it has none. */
struct cmsg_room {
	uint8_t *at;
	size_t left, used;
	int flags; /* MSG_CTRUNC: something did not fit */
};
void cmsg_put(struct cmsg_room *r, int level, int type, const void *data, size_t len);

/* A datagram as far as it is told of. */
struct cmsg_datagram {
	uint32_t cmsgs;       /* UDP_CMSG_*: what is wanted */
	int family;           /* of the socket */
	uint32_t ifindex;     /* it came by */
	uint8_t ours[16];     /* address to answer from (in_pktinfo.ipi_spec_dst) */
	struct udp_meta meta; /* from whom, to whom, TOS, TTL */
};
void cmsg_datagram(struct cmsg_room *r, const struct cmsg_datagram *d);
/* IP_RECVERR or IPV6_RECVERR, by the error's origin. */
void cmsg_error(struct cmsg_room *r, const struct cmsg_datagram *d, const struct sock_error *err);

/* What a program's control messages ask of a datagram that it sends. */
struct cmsg_sending {
	uint8_t from[16]; /* all zero: as usual */
	uint32_t ifindex; /* 0: as usual */
	int ttl, tos;     /* -1: as usual */
};
/* False: something that only the kernel follows, or refuses. family: of the socket. */
bool cmsg_parse(const void *control, size_t len, int family, struct cmsg_sending *s);

#endif
