/* SPDX-License-Identifier: BSD-2-Clause */
/* Sizes in bytes and numbers of the Internet protocols' headers: Ethernet II types, RFC 791, RFC 8200, RFC 768, RFC
 * 792, and IANA's protocol numbers. */
#ifndef VD_INET_H
#define VD_INET_H

#define ETH_HEADER 14u
#define ETH_VLAN 0x8100u
#define VLAN_TAG 4u
#define ETH_IPV4 0x0800u
#define ETH_IPV6 0x86ddu
#define IPV4_HEADER 20u
#define IPV6_HEADER 40u
#define UDP_HEADER 8u
#define ICMP_HEADER 8u

#define PROTO_HOPOPTS 0u
#define PROTO_ICMP 1u
#define PROTO_TCP 6u
#define PROTO_UDP 17u
#define PROTO_ROUTING 43u
#define PROTO_FRAGMENT 44u
#define PROTO_ICMPV6 58u
#define PROTO_DSTOPTS 60u

#endif
