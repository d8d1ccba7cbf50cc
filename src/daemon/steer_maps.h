/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What steer.bpf.c and viaductd share: the layouts of the BPF maps. A later viaductd takes over the maps of an earlier
 * one (steer.c), so STEER_FORMAT, which is part of the programs' names, changes with any change here.
 *
 * Ports and numbers in keys are in network order where the packet has them so; addresses are 16 bytes, IPv4 as
 * ::ffff:a.b.c.d.
 */
#ifndef VD_STEER_MAPS_H
#define VD_STEER_MAPS_H

#include <linux/types.h>

#define STEER_FORMAT 2
#define STEER_STACKS 1024u  /* stacks at once */
#define STEER_IFACES 16u    /* interfaces with vNICs at once, VLANs counted one by one */
#define STEER_QUEUES 64u    /* receive queues of an interface on which a stack can have rings of its own */
#define STEER_FILTERS 65536 /* entries of the filter map */
#define STEER_GROUPS 256u   /* ports that several stacks share */
#define STEER_MEMBERS 64u   /* stacks of one group */
#define STEER_FLOWS 65536   /* remembered flows to shared ports */
#define STEER_INNER 16u     /* the inner end of a stack's veth has ifindex STEER_INNER + number of its port */

/*
 * A flow (remote set), a port at an address (remote all zero), or a port at any address (local all zero too; family
 * tells whose). Looked up in this order.
 */
struct steer_key {
	__u8 local[16], remote[16];
	__be16 local_port, remote_port;
	__u8 proto;
	__u8 family; /* 4 or 6 */
	__u16 zero;
};

/* Which kinds of keys there are: what there is none of is not looked up. */
struct steer_kinds {
	__u32 flows, addresses, anys;
	__u32 table; /* 1: stacks enter flows themselves (vd_table) */
};

#define STEER_SHARED 0xffffffffu /* steer_target.stack: one of the group's */
#define STEER_KERNEL 0xfffffffeu /* the kernel has this flow */

struct steer_target {
	__u32 stack;
	__u32 group; /* of a shared port, plus 1; 0: none */
};

/* Who shares a port. New flows go to one of them by hash. */
struct steer_group {
	__u32 count;
	__u32 reserved;
	__u32 stack[STEER_MEMBERS];
};

struct steer_if_key {
	__u32 ifindex; /* of the device */
	__u32 vlan;    /* 0: untagged; or steer_untagged */
};
#define STEER_WAYS 4096u /* such keys: a bond's frames come in by several devices */

/* Devices may take the tag out of what they receive and tell it to the kernel alone. So frames without one, of a flow
 * of a stack that has a VLAN on the device but not the device itself, are taken for the VLAN's. The kernel, too, takes
 * what is addressed to it from any interface. */
static inline __u32 steer_untagged(__u32 stack)
{
	return 0x10000u + stack;
}

struct steer_if {
	__u32 number;  /* 0 .. STEER_IFACES - 1 */
	__u32 ifindex; /* as routes name it */
	__u8 mac[6];
	__u16 mtu;  /* 0: not known, or no bound */
	__u32 skbs; /* generic XDP on a veth: what comes are skbs, as the other end's kernel has left them */
};

/* What a stack has on an interface; index steer_port_index. */
struct steer_port {
	__u32 mode;   /* enum daemon_mode; 0: nothing */
	__u32 outer;  /* behind a veth: ifindex of its outer end */
	__u64 cookie; /* of the AF_XDP socket of the first queue: who has it, owns the port */
	__u32 uid;
	__u32 first; /* receive queue of the device that the stack's first ring is for */
};

/* By the ifindex of a veth's outer end: whose frames come out of it, and where they go. */
struct steer_outer {
	__u32 stack;
	__u32 device; /* ifindex that they leave by */
	__u16 vlan;
	__u8 mac[6];
	__u64 sent, refused; /* frames that came out; those of them that no filter of the stack covers */
};

enum steer_stat {
	STEER_STAT_TO_STACK,
	STEER_STAT_TO_KERNEL,
	STEER_STAT_SENT,    /* by a stack behind a veth */
	STEER_STAT_REFUSED, /* from a stack behind a veth, that its filters don't cover */
	STEER_STATS
};

static inline __u32 steer_port_index(__u32 iface, __u32 stack)
{
	return iface * STEER_STACKS + stack;
}

#endif
