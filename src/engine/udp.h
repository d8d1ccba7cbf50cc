/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * UDP (RFC 768): datagrams in, datagrams out. A received datagram is a chain of pkts (pkt.frag); where it
 * came from and to which local address it was sent stands in struct udp_from, in the headroom-free start of
 * the first private buffer or remembered beside the first pkt (udp.c decides).
 */
#ifndef VD_UDP_H
#define VD_UDP_H

#include <stdint.h>

struct udp_sock {
	uint32_t rx_dropped; /* datagrams lost to a full queue */
	uint32_t pad;
};

#endif
