/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * UDP (RFC 768): datagrams in, datagrams out. A received datagram is a chain of pkts (pkt.frag); its first pkt carries
 * where it came from and to which local address it was sent.
 *
 * A datagram to a peer goes over the vNIC that leads to the peer's process. The socket layer, which makes wires, says
 * so with udp_route_learn; a datagram received says it too, but never against the socket layer: a peer may write any
 * source address.
 */
#ifndef VD_UDP_H
#define VD_UDP_H

#include <stdbool.h>
#include <stdint.h>

struct engine;
struct endpoint;

/* Bytes that a datagram counts for in the receive buffer beside its payload, as the kernel counts its descriptors. */
#define UDP_RX_OVERHEAD 576u

struct udp_sock {
	uint32_t rx_dropped; /* datagrams lost to a full queue */
	uint32_t pad;
};

/* The vNIC that leads to a peer, VNIC_NONE if none is known (or it is gone). */
uint32_t udp_route_lookup(struct engine *e, const struct endpoint *remote);
/* The socket layer knows that remote is behind vnic. */
void udp_route_learn(struct engine *e, const struct endpoint *remote, uint32_t vnic);
/* Who was there refused a datagram: whatever says so, here and in the socket layer (stack.udp_refused), counts no more.
 */
void udp_route_forget(struct engine *e, const struct endpoint *remote);

#endif
