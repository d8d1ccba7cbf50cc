/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a frame is, as far as steering goes: which flow, by its own header or by the packet that an ICMP error quotes.
 * Part of steer.bpf.c; a fuzz target compiles it too and compares it with the engine's own parser. Written for the
 * kernel's verifier: every access follows a comparison with the end, and no loops. RFC 791, 792, 8200, 4443, 802.1Q.
 */
#ifndef VD_STEER_PARSE_H
#define VD_STEER_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>

#include "daemon/steer_maps.h"

#define OFFSET 0x1fff
#define FRAGMENT 0x3fff /* offset, or more fragments to come */
#define VLAN_ID 0x0fff

/* RFC 792 and RFC 4443 agree on where things are; the kernel's headers would need the C library's, or clash with
 * the engine's (TCP). */
struct icmp_head {
	__u8 type, code;
	__u16 checksum;
	__u32 rest;
};

#define TCP_HEADER_MIN 20
#define FLAG_SYN 0x02
#define FLAG_ACK 0x10

enum { UNREACHABLE4 = 3, EXCEEDED4 = 11, PARAMETER4 = 12, ERROR6_FIRST = 1, ERROR6_LAST = 4 };

/* What a frame is, as far as it concerns us. */
struct parsed {
	struct steer_key key; /* local is the destination of a frame that came, the source of one that goes */
	__u32 vlan;
	__u8 opens;  /* a SYN: the flow is new */
	__u8 quoted; /* the key is that of the packet that an ICMP error quotes */
};

struct bytes {
	void *at, *end;
};

/* Endpoints as they stand in the packet: source in remote, destination in local. */
static __always_inline int take_ports(struct bytes b, __u8 proto, struct parsed *f)
{
	const struct udphdr *ports = b.at; /* TCP's are in the same place */

	if (b.at + 8 > b.end)
		return -1;
	f->key.proto = proto;
	f->key.remote_port = ports->source;
	f->key.local_port = ports->dest;
	return 0;
}

static __always_inline int take_transport(struct bytes b, __u8 proto, struct parsed *f)
{
	if (take_ports(b, proto, f))
		return -1;
	if (proto == IPPROTO_TCP) {
		const __u8 *flags = b.at + 13;

		if (b.at + TCP_HEADER_MIN > b.end)
			return -1;
		f->opens = (*flags & (FLAG_SYN | FLAG_ACK)) == FLAG_SYN;
		return 0;
	}
	return proto == IPPROTO_UDP ? 0 : -1;
}

static __always_inline void key_v4(__u8 to[16], __be32 addr)
{
	__u32 *word = (__u32 *)to;

	word[0] = 0;
	word[1] = 0;
	word[2] = bpf_htonl(0xffff);
	word[3] = addr;
}

static __always_inline void key_v6(__u8 to[16], const struct in6_addr *from)
{
	__builtin_memcpy(to, from, 16);
}

/* The quoted packet was sent by us: its source is local. */
static __always_inline int take_quoted_v4(struct bytes b, struct parsed *f)
{
	const struct iphdr *ip = b.at;

	if (b.at + sizeof(*ip) > b.end || ip->version != 4 || ip->ihl < 5 || ip->frag_off & bpf_htons(OFFSET))
		return -1;
	if (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP)
		return -1;
	b.at += ip->ihl * 4;
	if (take_ports(b, ip->protocol, f))
		return -1;
	key_v4(f->key.local, ip->saddr);
	key_v4(f->key.remote, ip->daddr);
	f->quoted = 1;
	return 0;
}

static __always_inline int take_quoted_v6(struct bytes b, struct parsed *f)
{
	const struct ipv6hdr *ip = b.at;

	if (b.at + sizeof(*ip) > b.end || ip->version != 6)
		return -1;
	if (ip->nexthdr != IPPROTO_TCP && ip->nexthdr != IPPROTO_UDP)
		return -1;
	b.at += sizeof(*ip);
	if (take_ports(b, ip->nexthdr, f))
		return -1;
	key_v6(f->key.local, &ip->saddr);
	key_v6(f->key.remote, &ip->daddr);
	f->quoted = 1;
	return 0;
}

/* Ports of a quoted packet stand the other way round. */
static __always_inline void turn_ports(struct steer_key *k)
{
	__be16 port = k->local_port;

	k->local_port = k->remote_port;
	k->remote_port = port;
}

static __always_inline int take_icmp(struct bytes b, struct parsed *f)
{
	const struct icmp_head *icmp = b.at;

	if (b.at + sizeof(*icmp) > b.end)
		return -1;
	if (icmp->type != UNREACHABLE4 && icmp->type != EXCEEDED4 && icmp->type != PARAMETER4)
		return -1;
	b.at += sizeof(*icmp);
	if (take_quoted_v4(b, f))
		return -1;
	turn_ports(&f->key);
	return 0;
}

static __always_inline int take_icmp6(struct bytes b, struct parsed *f)
{
	const struct icmp_head *icmp = b.at;

	if (b.at + sizeof(*icmp) > b.end || icmp->type < ERROR6_FIRST || icmp->type > ERROR6_LAST)
		return -1;
	b.at += sizeof(*icmp);
	if (take_quoted_v6(b, f))
		return -1;
	turn_ports(&f->key);
	return 0;
}

static __always_inline int take_v4(struct bytes b, struct parsed *f)
{
	const struct iphdr *ip = b.at;

	if (b.at + sizeof(*ip) > b.end || ip->version != 4 || ip->ihl < 5 || ip->frag_off & bpf_htons(FRAGMENT))
		return -1;
	f->key.family = 4;
	b.at += ip->ihl * 4;
	if (ip->protocol == IPPROTO_ICMP)
		return take_icmp(b, f);
	key_v4(f->key.remote, ip->saddr);
	key_v4(f->key.local, ip->daddr);
	return take_transport(b, ip->protocol, f);
}

static __always_inline int take_v6(struct bytes b, struct parsed *f)
{
	const struct ipv6hdr *ip = b.at;

	if (b.at + sizeof(*ip) > b.end || ip->version != 6)
		return -1;
	f->key.family = 6;
	b.at += sizeof(*ip);
	if (ip->nexthdr == IPPROTO_ICMPV6)
		return take_icmp6(b, f);
	key_v6(f->key.remote, &ip->saddr);
	key_v6(f->key.local, &ip->daddr);
	return take_transport(b, ip->nexthdr, f);
}

/* 0: f says what the frame is; -1: nothing for us. */
static __always_inline int take_frame(struct bytes b, struct parsed *f)
{
	const struct ethhdr *eth = b.at;
	__be16 type;

	if (b.at + sizeof(*eth) > b.end)
		return -1;
	type = eth->h_proto;
	b.at += sizeof(*eth);
	if (type == bpf_htons(ETH_P_8021Q)) {
		const __be16 *tag = b.at; /* TCI, then the type of what follows */

		if (b.at + 4 > b.end)
			return -1;
		f->vlan = bpf_ntohs(tag[0]) & VLAN_ID;
		type = tag[1];
		b.at += 4;
	}
	if (type == bpf_htons(ETH_P_IP))
		return take_v4(b, f);
	if (type == bpf_htons(ETH_P_IPV6))
		return take_v6(b, f);
	return -1;
}

#endif
