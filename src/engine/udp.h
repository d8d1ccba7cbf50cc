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
struct stack;
struct sock;
struct frame;
struct endpoint;

/* Bytes that a datagram counts for in the receive buffer beside its payload, as the kernel counts its descriptors. */
#define UDP_RX_OVERHEAD 576u

/* What recvmsg tells beside a datagram's bytes (udp_sock.cmsgs): the socket layer's, kept here for a tree of processes.
 */
#define UDP_CMSG_PKTINFO 0x01u
#define UDP_CMSG_TTL 0x02u
#define UDP_CMSG_TOS 0x04u
#define UDP_CMSG_ORIGDST 0x08u
#define UDP_CMSG_PKTINFO6 0x10u
#define UDP_CMSG_HOPLIMIT 0x20u
#define UDP_CMSG_TCLASS 0x40u
#define UDP_CMSG_ORIGDST6 0x80u

/* A group that a socket has joined on an interface (udp_group.c). RFC 3376: from all but blocked sources, or from named
 * ones only, each in an entry of its own. */
enum udp_member_mode { UDP_MEMBER_NONE, UDP_MEMBER_ALL, UDP_MEMBER_SOURCE, UDP_MEMBER_BLOCKED };
struct udp_member {
	uint8_t group[16], source[16]; /* source all zero in UDP_MEMBER_ALL */
	uint32_t ifindex;
	uint32_t mode; /* enum udp_member_mode; NONE: unused */
};
#define UDP_MEMBERS 20u /* as many as Linux allows a socket (net.ipv4.igmp_max_memberships) */

struct udp_sock {
	uint32_t rx_dropped; /* datagrams lost to a full queue */
	uint32_t cmsgs;      /* UDP_CMSG_* */
	uint32_t members;    /* entries of member up to the last one used */
	/* sending to groups */
	uint32_t group_if, group_if6; /* IP_MULTICAST_IF, IPV6_MULTICAST_IF: 0 the route's, ~0 only the kernel knows */
	uint8_t group_from[16];       /* IP_MULTICAST_IF: source address; all zero: the interface's */
	uint16_t group_ttl, group_hops; /* plus 1; 0: 1, as the kernel */
	uint8_t loop_off, loop6_off;    /* IP_MULTICAST_LOOP, IPV6_MULTICAST_LOOP set to 0 */
	struct udp_member member[UDP_MEMBERS];
};

/* The vNIC that leads to a peer, VNIC_NONE if none is known (or it is gone). */
uint32_t udp_route_lookup(struct engine *e, const struct endpoint *remote);
/* The socket layer knows that remote is behind vnic. */
void udp_route_learn(struct engine *e, const struct endpoint *remote, uint32_t vnic);
/* Who was there refused a datagram: whatever says so, here and in the socket layer (stack.udp_refused), counts no more.
 */
void udp_route_forget(struct engine *e, const struct endpoint *remote);

/* --- groups (udp_group.c) --- */
/* An address of a group: 224/4, ff00::/8. */
bool udp_is_group(const uint8_t addr[16]);
/* The kernel has made the socket a member. 0; -ENOSPC: the kernel alone gives it that group's datagrams. */
int udp_join(struct sock *k, const struct udp_member *m);
/* It has left: everything of that group on the interface (UDP_MEMBER_ALL), or the one entry. True: it is no member of
 * that group there any more. */
bool udp_leave(struct sock *k, const struct udp_member *m);
/* Would the kernel give it a datagram that came to the group over the interface? */
bool udp_hears(const struct sock *k, const uint8_t group[16], const uint8_t source[16], uint32_t ifindex);
/* Is a socket of the stack with that local port a member of the group, on whatever interface? */
bool udp_group_lives(struct stack *s, const struct endpoint *group);
/* May we send to this address, if it is a group's? Not while members of this machine may want a copy: with
 * IP_MULTICAST_LOOP on, only the kernel knows them all. */
static inline bool udp_loops(const struct udp_sock *u, const uint8_t to[16])
{
	return udp_is_group(to) && !(to[0] == 0xff ? u->loop6_off : u->loop_off);
}
/* The interface and the source address of what the socket sends to a group; where it says nothing of them, *from stays.
 */
uint32_t udp_group_by(const struct sock *k, const uint8_t to[16], const uint8_t **from);
/* A datagram to a group: to each socket that hears it. */
void udp_group_input(struct engine *e, struct frame *f, uint32_t len);

#endif
