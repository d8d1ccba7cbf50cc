/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The provider `verbs`: an RDMA device's raw packet queue pair as a vNIC (ibv_create_qp(3), IBV_QPT_RAW_PACKET).
 *
 * It is a shared object of its own, viaduct-verbs.so, because it needs libibverbs, which no program is to get that
 * does not use such a device. Whoever wants it loads it and finds the one symbol `viaduct_verbs`, the table below.
 *
 * One queue pair, one completion queue for both directions and one region of registered memory per vNIC. Flow rules
 * bring the frames of a stack's filters here; all else stays with the kernel. Queues belong to the process that made
 * them: after fork the child can't use them.
 *
 * All calls need the stack's lock, but open and close. poll, post, release (vnic_ops) make no system call on a device
 * with user-level queues; arm, tend and flow calls may.
 */
#ifndef VD_VERBS_H
#define VD_VERBS_H

#include "vnic/vnic.h"

#define VERBS_VERSION 1u

struct verbs_nic;

/* Which device, and what the vNIC is to be. */
struct verbs_about {
	char device[64]; /* as in /sys/class/infiniband */
	uint8_t port;    /* from 1 */
	uint32_t ifindex, mtu;
	uint8_t mac[6];
};

/* Frames for local (from remote; port 0: from all). Addresses as in struct endpoint: IPv4 as ::ffff:a.b.c.d. */
struct verbs_flow {
	uint8_t proto; /* IPPROTO_TCP or IPPROTO_UDP */
	uint8_t local[16], remote[16];
	uint16_t local_port, remote_port; /* host order */
};

struct verbs_counters {
#define VERBS_COUNTER(name, sentence) uint64_t name;
#include "vnic/verbs.def"
#undef VERBS_COUNTER
};

struct verbs_api {
	uint32_t version; /* VERBS_VERSION */
	/* 0, or -errno: -ENODEV no such device, -EPERM CAP_NET_RAW is missing, -EOPNOTSUPP it has no raw packets. */
	int (*open)(const struct verbs_about *about, struct verbs_nic **nic);
	/* Bind v and st (reset by this call) to it; the device gets the receive buffers. 0 or -errno. */
	int (*attach)(struct verbs_nic *nic, struct vnic *v, struct vnic_state *st);
	/* Steer frames here. 0, or -errno: it stands not; -ENOSPC: there are too many. A second one like it is none. */
	int (*flow_add)(struct verbs_nic *nic, const struct verbs_flow *f);
	void (*flow_remove)(struct verbs_nic *nic, const struct verbs_flow *f);
	/* Hand what was posted to the device. poll does it, too. */
	void (*kick)(struct vnic *v);
	/* Have the first descriptor become readable when a frame comes. Poll once more afterwards, then sleep. */
	int (*arm)(struct vnic *v);
	/* [0] readable when frames wait, [1] when there is something to tend. */
	void (*fds)(const struct verbs_nic *nic, int fd[2]);
	/* Hear what the device has to say, and mend what is broken. 0; -ENODEV: the device is gone, the vNIC is dead
	 * for good; other -errno: not mended yet, try again. */
	int (*tend)(struct vnic *v);
	/* True: tend has something to do that no descriptor tells of. */
	bool (*trouble)(const struct verbs_nic *nic);
	const struct verbs_counters *(*counters)(const struct verbs_nic *nic);
	/* Everything goes, the buffers as well: no vNIC may refer to it any more. */
	void (*close)(struct verbs_nic *nic);
};

#endif
