/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * AF_XDP sockets over a umem memfd (Documentation/networking/af_xdp.rst), and what a device can do. Pure kernel work:
 * who may have it is decided elsewhere.
 *
 * One memfd holds the chunks of all queues of a vNIC. Each socket registers its part of it, and has four rings: a umem
 * that is shared would cost the kernel a record of each chunk for each of the queues. The kernel pins the pages, so the
 * daemon's mapping is needed only for the registration.
 */
#ifndef VD_PORT_H
#define VD_PORT_H

#include <stdbool.h>
#include <stdint.h>

#include "viaduct/daemon.h"

#define PORT_CHUNK 4096u
#define PORT_RING 2048u
#define PORT_CHUNKS 2048u      /* of a queue, for each direction, ... */
#define PORT_CHUNKS_LEAST 256u /* ... and down to this where there are many */

/* What the kernel says of a device. */
struct port_device {
	uint32_t ifindex, queues, mtu;
	bool partial;         /* received checksums may be the pseudo-header's sum alone, ... */
	bool partial_generic; /* ... in the kernel's generic hook, as the driver's own XDP mends them */
	bool up;
};

struct port {
	int umem; /* memfd, sealed */
	int xsk[DAEMON_QUEUES_MAX];
	uint32_t queues;
	uint32_t first; /* the device's queue that xsk[0] is for; may be set until it is bound */
	uint32_t ifindex, mtu;
	uint32_t ready;    /* sockets that are bound, */
	bool bound;        /* and all are */
	uint32_t features; /* DAEMON_VNIC_SCATTER, _ZEROCOPY: known when it is bound */
	uint64_t cookie;   /* of xsk[0] */
};

/* What this kernel lets others do with a socket that we pass. */
struct port_kernel {
	bool keeps_device; /* who holds one that is not bound can bind it to our device alone (SO_BINDTODEVICE) */
	bool maps_bound;   /* the rings of one that is bound can be mapped (Linux 6.4) */
};

/* 0 or -ENODEV. sock: any socket of the device's network namespace. */
int port_device(int sock, uint32_t ifindex, struct port_device *d);
/* Try it out, on the loopback of this thread's network namespace, where nobody else has sockets. */
struct port_kernel port_kernel(void);
/* Sockets for queues 0 .. queues - 1 of the device, in this thread's network namespace, with their rings, not bound
 * yet, and to that device alone if the kernel keeps to it. 0 or -errno; on failure nothing is open. */
int port_open(uint32_t ifindex, uint32_t queues, uint32_t mtu, struct port *p);
/* In any thread. 0; -EBUSY: another socket has one of the queues, or the holder has bound ours; -ENETDOWN; -EOPNOTSUPP:
 * no scatter where the MTU needs it; other -errno. After -EBUSY it may be tried again. */
int port_bind(struct port *p);
void port_close(struct port *p);
/* The layout that goes to the client. */
void port_describe(const struct port *p, struct daemon_vnic *v);
uint64_t socket_cookie(int sock);
bool socket_sends_anything(int sock, uint64_t netns); /* a packet socket of that namespace */
uint64_t socket_netns(int sock);                      /* cookie of its network namespace */

#endif
