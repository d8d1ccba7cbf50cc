/* SPDX-License-Identifier: BSD-2-Clause */
/* Datagrams that the engine cuts: see udp_cut.c. */
#ifndef VD_UDP_CUT_H
#define VD_UDP_CUT_H

#include "engine/engine.h"

struct udp_cut {
	const struct endpoint *from, *to;
	const struct iovec *iov;
	int iovcnt;
	size_t total; /* bytes of payload */
	uint32_t mtu; /* of the path, 1280 at least */
	uint32_t id;  /* of all pieces */
};
/* How many tx buffers it takes. */
static inline uint32_t udp_cut_pieces(const struct udp_cut *c)
{
	return (uint32_t)(c->total + 8) / ((c->mtu - 48) & ~7u) + 1;
}
/* Send it over o's vNIC, an IPv6 network's, which has so many buffers. Bytes sent; -ENOLINK: too many pieces. */
ssize_t udp_send_cut(struct engine *e, const struct ip_out *o, const struct udp_cut *c);

#endif
