/* SPDX-License-Identifier: BSD-2-Clause */
/* The rings of a vNIC that viaductd opened, driven by hand: one frame in, one frame out. */
#ifndef VD_TEST_DAEMON_RINGS_H
#define VD_TEST_DAEMON_RINGS_H

#include "client.h"
#include "host/xsk.h"

struct rings {
	struct xdp_port port;
	int xsk;
	uint32_t sent;
};

/* Map queue q of the answer to OPEN and give the kernel its buffers. 0 or -errno. */
int rings_map(struct rings *r, const struct answer *a, uint32_t q);
/* Open a vNIC, map its first queue, bind it: the order that every kernel takes. The first status that is not 0. */
int rings_open(struct rings *r, int sock, uint32_t ifindex, struct answer *a);
void rings_unmap(struct rings *r);
/* The next frame's length, copied to `frame`; 0: none came within the time. */
uint32_t rings_receive(struct rings *r, void *frame, uint32_t size, int timeout_ms);
void rings_send(struct rings *r, const void *frame, uint32_t len);

/* An IPv4 UDP datagram, checksums included. Returns its length. macs: destination, source. */
struct datagram {
	uint8_t to[6], from[6];
	const char *saddr, *daddr;
	uint16_t sport, dport;
	uint8_t proto;
	const char *text;
};
uint32_t make_datagram(uint8_t *frame, const struct datagram *d);

#endif
