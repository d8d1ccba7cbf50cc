/* SPDX-License-Identifier: BSD-2-Clause */
/* What the kernel says of network interfaces, for `viaduct check`: rtnetlink, the netdev family, ethtool. Only looks.
 */
#ifndef VD_CLI_NETDEV_H
#define VD_CLI_NETDEV_H

#include <stdbool.h>
#include <stdint.h>

#define NETDEVS_MAX 64u

/* netdev.xdp, as the kernel's netdev family has it (Documentation/netlink/specs/netdev.yaml) */
#define NETDEV_XDP_BASIC 0x01u
#define NETDEV_XDP_REDIRECT 0x02u
#define NETDEV_XDP_XMIT 0x04u /* frames can be redirected to it */
#define NETDEV_XDP_ZEROCOPY 0x08u
#define NETDEV_XDP_RX_SG 0x20u /* frames of several buffers */

struct netdev {
	char name[16], kind[16], driver[32]; /* kind: "veth", "vlan", "bond", ...; "" of hardware */
	uint32_t ifindex, mtu, flags;        /* flags: IFF_* */
	uint16_t type;                       /* ARPHRD_* */
	uint16_t queues;                     /* that receive; 0 unknown */
	uint32_t lower;                      /* ifindex of what a VLAN lies on, else 0 */
	uint32_t master;                     /* of the bond or bridge that it belongs to, else 0 */
	uint32_t program;                    /* id of the XDP program on it, 0 none */
	bool generic;                        /* that program runs in the generic hook */
	bool xdp_known;                      /* the kernel tells what the driver can */
	bool lro;                            /* a receive offload that is on */
	uint64_t xdp;                        /* NETDEV_XDP_* */
};

/* All interfaces of this network namespace. How many, or -errno. */
int netdevs_read(struct netdev list[NETDEVS_MAX]);

#endif
