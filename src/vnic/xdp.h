/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The provider `xdp`: one queue of an AF_XDP socket as a vNIC (Documentation/networking/af_xdp.rst).
 *
 * The kernel's four rings (fill, completion, receive, transmit) take the place of ours. They, and the umem, are mapped
 * by the host layer (host/xsk.h) from descriptors that viaductd made; nothing here makes a system call. Positions of
 * ours are in struct vnic_state, so any process of the tree that has the rings mapped goes on where another stopped.
 * The kernel reads what lies in the rings when it is kicked (xdp_kick_due, then the host's xsk_kick), or by itself in
 * zero-copy mode.
 */
#ifndef VD_XDP_H
#define VD_XDP_H

#include "vnic/vnic.h"

/* One of the kernel's rings, as mapped. `entries` is a power of two; indices are free-running. */
struct xdp_ring {
	uint32_t *producer, *consumer, *flags;
	void *desc; /* struct xdp_desc for rx and tx, uint64_t umem offsets for fill and completion */
	uint32_t entries;
	void *map; /* the host's */
	size_t map_len;
};

/* What one process needs of one queue: made by the host layer, owned by struct vnic (priv) afterwards. */
struct xdp_port {
	struct xdp_ring rx, tx, fill, comp;
	uint8_t *umem;
	size_t umem_len;
	uint32_t chunk_size;
	uint32_t rx_first, rx_count, tx_first, tx_count; /* chunks of the umem */
	struct vnic_ctrl ctrl;                           /* nobody but us reads it */
};

/* What the vNIC is. */
struct xdp_about {
	uint32_t ifindex, mtu, features; /* VNIC_FEAT_* */
	uint16_t vlan, queue;
	uint8_t mac[6];
};

/* AF_XDP's frame limit: the kernel refuses to send more buffers as one frame (MAX_SKB_FRAGS + 1). */
#define XDP_PARTS_MAX 18u

/* Bind v and st (reset by this call) to the port, and give the kernel the rx buffers. 0; -EINVAL: a port that
 * contradicts itself. */
int xdp_attach(struct vnic *v, struct vnic_state *st, struct xdp_port *port, const struct xdp_about *about);
/* Another process of the tree, or viaductd after the program's death: map an existing state again, nothing is reset. */
int xdp_reattach(struct vnic *v, struct vnic_state *st, struct xdp_port *port);
/* Whoever last used st died in the middle of it: bring state and rings into line. No received frame is held afterwards;
 * what pkts say of tx buffers is the engine's to mend. Nothing in st is trusted. */
void xdp_recover(struct vnic *v);
/* The same for those who go on with it (engine/rebuild.c): rx and tx are the sets of buffers that pkts refer to. False:
 * that contradicts the state. */
bool xdp_rebuild(struct vnic *v, const uint64_t *rx, const uint64_t *tx);
/* The descriptor taken last is a part of a frame whose end has not been taken. */
bool xdp_mid_frame(const struct vnic *v);
/* After the lock's release: true if the kernel must be told that frames lie in the tx ring, or that it got buffers for
 * what it receives. True until it has taken them. */
bool xdp_kick_due(const struct vnic *v);

/* The word that changes when a frame arrives, for those who spin without the lock: pending if it differs from
 * st->evq_cons. */
static inline const uint32_t *xdp_arrivals(const struct xdp_port *port)
{
	return port->rx.producer;
}

#endif
