/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Large segments: consecutive full segments of a connection that are sent in one go leave as one, which the kernel cuts
 * only where somebody must have it cut (generic segmentation offload,
 * Documentation/networking/segmentation-offloads.rst). Over a veth nobody must: sender's and receiver's kernel take one
 * way with 64 KiB instead of 45.
 *
 * AF_XDP has no such frames. Where the process may make a packet socket, and where its vNIC is the char driver's, the
 * engine puts data segments one behind the other into memory of the process, headers of the first only, and the socket
 * layer (socket/large.c) writes what is there after the lock's release, with the header that packet(7) wants before it
 * (PACKET_VNET_HDR). To TCP they are segments as any: each has its pkt, counts in cwnd, and is sent again by itself,
 * over the rings. They are copies: no buffer is with a device, and a process that dies before it has sent them has lost
 * them as a network would have.
 */
#ifndef VD_LARGE_H
#define VD_LARGE_H

#include <stdbool.h>
#include <stdint.h>

struct engine;
struct sock;
struct ip_out;
struct vnic_desc;

#define LARGE_FRAMES 8u
#define LARGE_MAX 65535u             /* an IP packet */
#define LARGE_ROOM (LARGE_MAX + 64u) /* with all before it */
#define LARGE_BYTES (4 * LARGE_ROOM)
#define LARGE_LEAD 10u /* struct virtio_net_hdr */

struct large_frame {
	uint32_t vnic, sock;
	uint32_t at, len;  /* in bytes[], struct virtio_net_hdr first */
	uint32_t next_seq; /* of the segment that may follow */
	uint16_t mss;      /* payload of each segment but the last */
	uint16_t l4;       /* offset of the TCP header from `at` */
	uint16_t segments;
	uint8_t family, tos;
	bool open; /* another may follow */
};

/* What one hold of the lock has gathered. */
struct large {
	uint32_t frames, used;
	bool full;           /* there was no room for some */
	struct large *older; /* socket/large.c: to be sent first; whose it is */
	void *owner;
	struct large_frame frame[LARGE_FRAMES];
	uint8_t bytes[LARGE_BYTES];
};

/* A data segment, as for ip_output. more: others follow at once. False: it is not taken. */
bool large_add(struct engine *e, const struct sock *k, const struct ip_out *o, const struct vnic_desc *parts, int n,
	       uint32_t payload, bool more);
/* Lengths and sums of one that is complete. Needs no lock. */
void large_finish(struct large *g, uint32_t i);

#endif
