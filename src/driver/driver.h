/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * viaduct.ko, inside. A vNIC is an open file of /dev/viaduct:
 *
 *   main.c     the device: calls, their arguments
 *   vnic.c     a vNIC's life, events, waking
 *   region.c   its memory: layout, accounting, mmap
 *   port.c     interfaces with vNICs: the hook, their coming and going
 *   filter.c   which vNIC a packet belongs to
 *   owner.c    whether a socket really holds a port
 *   rx.c tx.c  frames
 *   poller.c   the thread that looks at a tx ring by itself
 *
 * Locks, outer first: rtnl (vNICs of an interface), tx_lock (a vNIC's tx ring; whether it has an
 * interface), filter_lock (the table), lock (event queue and receive buffers; bottom halves off).
 * Filters and vNICs are found under RCU.
 *
 * Everything in the region is the program's to change at any moment: it is read once, and what is
 * used is the copy. Positions and states are in struct vd_vnic, out of its reach.
 */
#ifndef VIADUCT_DRIVER_H
#define VIADUCT_DRIVER_H

#include <linux/cred.h>
#include <linux/eventfd.h>
#include <linux/fs.h>
#include <linux/in6.h>
#include <linux/mutex.h>
#include <linux/netdevice.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <net/ipv6.h>
#include <net/sock.h>

#include "viaduct/vnic_ioctl.h"

#define VD_VNICS_OF_USER 64u
#define VD_BUFS_MIN 16u
#define VD_BUFS_MAX 2048u
#define VD_EVQ_MAX 16384u
#define VD_BUF_SIZE_MIN 2048u
#define VD_BUF_SIZE_MAX 16384u
#define VD_PARTS_MAX 33u      /* of a frame of 64 KiB in the smallest buffers */
#define VD_FILTERS_MAX 16384u /* of a vNIC */
#define VD_FRAME_MAX (ETH_HLEN + 65535u)
#define VD_FEATURES                                                                    \
	(VIADUCT_FEAT_CSUM | VIADUCT_FEAT_TSO | VIADUCT_FEAT_LRO | VIADUCT_FEAT_ICMP | \
	 VIADUCT_FEAT_POLL | VIADUCT_FEAT_WRITE)

/* --- counters.c --- */

enum vd_counter {
#define VD_COUNTER(name, sentence) VD_##name,
#include "counters.def"
#undef VD_COUNTER
	VD_COUNTERS
};

struct vd_counters {
	u64 n[VD_COUNTERS];
};

DECLARE_PER_CPU(struct vd_counters, vd_total);
void vd_debugfs_make(void);
void vd_debugfs_remove(void);

/* --- rings: include/viaduct/vnic.h --- */

struct vd_ring {
	u64 *slots;  /* two words each, in the region */
	u32 entries; /* power of two */
	u32 at;
};

static inline u32 vd_ring_turn(const struct vd_ring *r, u32 at)
{
	return at / r->entries + 1;
}

static inline bool vd_ring_full(const struct vd_ring *r, u32 at)
{
	u64 second = READ_ONCE(r->slots[2 * (at & (r->entries - 1)) + 1]);

	return (u32)(second >> 32) == vd_ring_turn(r, at);
}

/* True if slot `at` is full; *d is then its one and only copy. */
static inline bool vd_ring_read(const struct vd_ring *r, u32 at, struct vnic_desc *d)
{
	const u64 *slot = r->slots + 2 * (at & (r->entries - 1));
	u64 first, second = smp_load_acquire(&slot[1]); /* before the first word */

	if ((u32)(second >> 32) != vd_ring_turn(r, at))
		return false;
	first = READ_ONCE(slot[0]);
	d->buf = (u32)first;
	d->off = (u16)(first >> 32);
	d->len = (u16)(first >> 48);
	d->type = (u8)second;
	d->flags = (u8)(second >> 8);
	d->gso_len = (u16)(second >> 16);
	return true;
}

static inline void vd_ring_write(const struct vd_ring *r, u32 at, const struct vnic_desc *d)
{
	u64 *slot = r->slots + 2 * (at & (r->entries - 1));

	WRITE_ONCE(slot[0], d->buf | (u64)d->off << 32 | (u64)d->len << 48);
	/* the slot is full when this is seen: the first word is, too */
	smp_store_release(&slot[1], d->type | (u64)d->flags << 8 | (u64)d->gso_len << 16 |
					    (u64)vd_ring_turn(r, at) << 32);
}

/* --- vnic.c --- */

/* Pages that the kernel and the program have mapped. */
struct vd_region {
	struct page **pages;
	unsigned long count;
	u8 *base;
};

struct vd_port;

struct vd_vnic {
	struct sock *sk;	  /* who pays for frames on their way; the opener's namespace */
	const struct cred *cred;  /* the opener's */
	struct file *file;	  /* whose vNIC it is; not after its release */
	struct user_struct *user; /* whose locked memory it is; NULL: nobody's */
	struct list_head all;	  /* in vd_vnics */
	/* ALLOC: one at a time */
	struct mutex setup;
	bool allocated; /* set once, with release order: what follows is there */

	struct vd_region region;
	struct vnic_ctrl *ctrl;
	struct vnic_taken *taken;
	u8 *tx_bufs, *rx_bufs;
	u32 tx_count, rx_count, buf_size;
	u64 features;
	u32 headroom; /* before a frame to be sent */

	/* the tx ring, and that there is an interface */
	struct mutex tx_lock;
	struct net_device *dev; /* NULL: gone. Written under rtnl and tx_lock, read under either */
	struct vd_ring tx;
	struct work_struct tx_work;
	struct task_struct *poller; /* NULL: none */
	bool tx_waiting;	    /* for room: frames are left in the ring */
	struct list_head on_port;   /* rtnl */

	/* the event queue and the receive buffers */
	spinlock_t lock;
	struct vd_ring evq, rx;
	u16 *rx_free; /* buffers that are ours */
	u32 rx_free_count;
	unsigned long *rx_out; /* those that the program has */
	struct eventfd_ctx *eventfd;

	wait_queue_head_t wait;
	bool gone;
	struct list_head filters; /* filter_lock */
	u32 filter_count;
	u64 tx_counts[VD_COUNTERS]; /* tx_lock */
	u64 rx_counts[VD_COUNTERS]; /* lock */
};

extern struct list_head vd_vnics; /* those that are allocated; under vd_vnics_lock */
extern struct mutex vd_vnics_lock;

static inline void vd_count(u64 *counts, enum vd_counter c, u64 n)
{
	counts[c] += n;
	this_cpu_add(vd_total.n[c], n);
}

int vd_proto_start(void);
void vd_proto_stop(void);
struct vd_vnic *vd_vnic_make(struct file *file);
void vd_vnic_end(struct vd_vnic *v);
int vd_vnic_alloc(struct vd_vnic *v, struct viaduct_alloc *want);
/* Write n events, of one frame or alone; with v->lock. */
void vd_events(struct vd_vnic *v, const struct vnic_desc *d, u32 n);
/* After events: wake who has armed. */
void vd_wake(struct vd_vnic *v);
void vd_link(struct vd_vnic *v, bool up);
/* The interface is going: under rtnl. */
void vd_vnic_detach(struct vd_vnic *v);

/* --- region.c --- */

int vd_region_make(struct vd_vnic *v, const struct viaduct_alloc *want, u32 mtu);
void vd_region_free(struct vd_vnic *v);

/* --- port.c --- */

/* Under rtnl. */
int vd_port_add(struct vd_vnic *v, struct net_device *dev);
void vd_port_remove(struct vd_vnic *v);
/* Every vNIC's interface is as gone, and there are no new ones; false: there are again. */
void vd_ports_retire(bool on);
bool vd_ports_retired(void);
int vd_ports_start(void);
void vd_ports_stop(void);

/* --- filter.c --- */

/* A packet's ends, as the vNIC sees them. Addresses of IPv4 are mapped. */
struct vd_flow {
	struct in6_addr local, remote;
	u16 local_port, remote_port;
	u8 proto, family;
};

struct vd_filter {
	struct hlist_node node;
	struct list_head of_vnic;
	struct vd_vnic *vnic;
	const struct net_device *dev;
	struct vd_flow flow;
	struct socket *sock; /* NULL: none is needed */
	struct rcu_head rcu;
};

int vd_filter_add(struct vd_vnic *v, const struct viaduct_filter *want);
int vd_filter_del(struct vd_vnic *v, const struct viaduct_filter *want);
void vd_filters_end(struct vd_vnic *v);
/* Whose packet came in on dev for that flow. Under RCU. */
struct vd_vnic *vd_filter_receiver(const struct net_device *dev, const struct vd_flow *flow);
/* True if v may send that. Under RCU. */
bool vd_filter_sends(const struct vd_vnic *v, const struct net_device *dev,
		     const struct vd_flow *flow);

/* --- owner.c --- */

/* 0; why that socket gives its owner no right to what comes to that local end. */
int vd_owner_check(struct vd_vnic *v, struct socket *sock, const struct vd_flow *flow);
bool vd_address_is_local(const struct net_device *dev, const struct vd_flow *flow);
/* The kernel has a TCP connection of that flow. Under RCU. */
bool vd_kernel_has(const struct net_device *dev, const struct vd_flow *flow);

/* --- rx.c, tx.c --- */

struct nf_hook_state;
unsigned int vd_ingress(void *priv, struct sk_buff *skb, const struct nf_hook_state *state);
/*
 * A packet for v, of len bytes of IP from skb->data on; it is ours no more. Bottom halves off,
 * under RCU.
 */
void vd_deliver(struct vd_vnic *v, struct sk_buff *skb, u32 len);
/*
 * Send what lies in the tx ring; who: what that counts as. 0; -EAGAIN: frames are left, and go
 * later by themselves; -EIO.
 */
int vd_transmit(struct vd_vnic *v, enum vd_counter who);
/* One frame, behind a struct virtio_net_hdr. Its length, or -errno: vnic_ioctl.h. */
ssize_t vd_write(struct vd_vnic *v, struct iov_iter *from);
void vd_tx_work(struct work_struct *work);
void vd_write_space(struct sock *sk);

/* --- poller.c --- */

/* It sleeps until it is woken first. 0 or -errno. */
int vd_poller_make(struct vd_vnic *v);
/* There is something for it to look at. Nothing is done if there is none. */
void vd_poller_wake(struct vd_vnic *v);
void vd_poller_end(struct vd_vnic *v);

static inline void vd_map4(struct in6_addr *to, __be32 addr)
{
	ipv6_addr_set_v4mapped(addr, to);
}

#endif
