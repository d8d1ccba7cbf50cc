/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ethernet II: which protocol a frame carries. Called by engine_poll and engine_input with frame.hdr filled.
 *
 * Addresses are not compared with our own: a vNIC gets only what was steered to it. A frame to a group
 * address is dropped: RFC 1122, 3.3.6 wants no answer to one, and none of our sockets takes multicast.
 */
#include "engine/bytes.h"
#include "engine/engine.h"
#include "engine/inet.h"

void frame_input(struct engine *e, struct frame *f)
{
	uint16_t type;

	if (__builtin_expect(f->hdr_len < ETH_HEADER, 0)) {
		count(e->s, C_frame_truncated);
		return;
	}
	if (__builtin_expect(f->hdr[0] & 1, 0)) {
		count(e->s, C_eth_group);
		return;
	}
	type = get_be16(f->hdr + 12);
	if (type == ETH_IPV4)
		f->family = 4;
	else if (type == ETH_IPV6)
		f->family = 6;
	else {
		count(e->s, C_eth_unknown);
		return;
	}
	f->off = ETH_HEADER;
	ip_input(e, f);
}
