/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vNIC as the engine uses it: bursts of descriptors out, bursts of events in.
 *
 * Two halves. struct vnic_state lives in the stack's shared region: ring positions, the free list
 * of tx buffers, who holds which buffer. struct vnic is one process's mapping of it: pointers and the
 * provider's operations. After fork both processes have a struct vnic over the same state; whoever
 * holds the stack's lock may use it. All calls here require that lock; none makes a system call,
 * except `doorbell`, which the socket layer calls after it has released the lock.
 *
 * Buffers. A tx buffer is in exactly one of: free list; used by a pkt (VNIC_TX_PKT); with the peer
 * (VNIC_TX_NIC); both. It returns to the free list when both bits are clear. An rx buffer is held from
 * the event that brought it until vnic_release(). A peer that returns what it does not have, sends a
 * buffer that we still hold, or points outside of a buffer is counted (bad_*) and ignored.
 */
#ifndef VD_VNIC_H
#define VD_VNIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "viaduct/vnic.h"

#define VNIC_MAX 256u       /* vNICs of a stack */
#define VNIC_BUFS_MAX 2048u /* tx (and rx) buffers of a vNIC */
#define VNIC_NONE 0xffffu
#define VNIC_BURST 32
#define VNIC_RETURNS 32u /* returned rx buffers that may wait for a frame to travel with */
#define FRAME_PARTS 20u  /* buffers of one frame: 64 KiB in buffers of 4 KiB, and room for headers */

/* Geometry of a wire made by the `local` provider. */
#define WIRE_BUFS 2048u
#define WIRE_BUF_SIZE 4096u
#define WIRE_RING 4096u
#define WIRE_MTU 65535u

enum vnic_provider {
	VNIC_PROV_NONE,
	VNIC_PROV_LOCAL,
	VNIC_PROV_SIM,
	VNIC_PROV_XDP,
	VNIC_PROV_CHARDEV,
	VNIC_PROV_VERBS
};

/* tx_state bits */
#define VNIC_TX_PKT 1u /* a pkt of the engine refers to it */
#define VNIC_TX_NIC 2u /* posted, not yet returned */

struct vnic_stats {
	uint64_t tx_frames, tx_bytes, rx_frames, rx_bytes; /* frames and bytes with headers */
	uint64_t tx_no_buffer;                             /* a tx buffer was wanted and none was free */
	uint64_t bad_desc;                                 /* descriptor out of range, or of unknown type: ignored */
	uint64_t bad_return;                               /* return of a buffer that was not out: ignored */
	uint64_t bad_reuse;                                /* frame in a buffer that we still hold: ignored */
	uint64_t doorbells;                                /* wake-ups sent to the other end */
};

/* The shared half. Written under the stack's lock only. Index in struct stack = interface number. */
struct vnic_state {
	uint8_t provider; /* enum vnic_provider; NONE: slot free */
	uint8_t end;      /* which end of the wire is ours: 0 or 1 */
	uint8_t dead;     /* other end gone: nothing more is posted; events already here still count */
	uint8_t pad;
	uint32_t gen; /* goes up each time that the slot is used for a new vNIC */
	uint32_t mtu, features;
	uint32_t buf_size, tx_count, rx_count;
	uint32_t tx_entries, rx_entries, evq_entries;
	uint32_t tx_prod, rx_prod, evq_cons; /* tx_prod serves both where tx and rx are one ring */
	uint32_t one_ring;                   /* tx ring and rx ring are the same */
	uint32_t free_top;                   /* entries of tx_free in use */
	uint32_t rx_held;                    /* rx buffers that we hold */
	uint32_t posted;                   /* descriptors posted that the peer should hear of; who rings sets it to 0 */
	uint32_t ret_count;                /* entries of ret in use */
	uint32_t ret_quiet;                /* buffers given back since the peer was last told (a frame, or `posted`) */
	uint32_t idle_polls;               /* polls in a row that found nothing while returns waited */
	uint32_t grow_prod;                /* tx_prod behind the open frame that was posted last (wire.h) */
	uint32_t grow_slot;                /* where its descriptor is */
	uint32_t grow_buf;                 /* what that says */
	uint16_t grow_off, grow_len;       /* grow_len 0: there is none */
	uint16_t ret[VNIC_RETURNS];        /* rx buffers released, not yet in the ring */
	uint32_t txwait_head, txwait_tail; /* sockets that wait for a tx buffer (engine/txwait.c), by index */
	uint32_t txheld_head, txheld_tail; /* those that wait until many are free */
	uint32_t open_sock, open_gen;      /* listener with an offer out (engine/tcp_open.c); 0: none */
	uint32_t open_limit, open_seen;    /* what it has offered, and how much of that was used, free-running */
	uint32_t open_used;                /* how much of the peer's was used by us */
	uint32_t open_wscale;              /* of the offer */
	uint32_t last_sock;                /* of the last TCP segment (engine/tcp_fast.c): a hint */
	uint32_t peer_pid;                 /* who is behind it; 0 unknown */
	uint32_t peer_uid;
	uint32_t maker_pid;     /* which process of ours made it */
	uint8_t link[16];       /* wires: a nonce, the same at both ends */
	uint8_t peer_stack[16]; /* wires: identity of the stack at the other end */
	uint8_t mac[6], peer_mac[6];
	uint32_t ifindex;   /* network: the interface that its frames leave by, as routes name it; 0: a wire */
	uint16_t vlan;      /* network: tag of its frames, 0 none */
	uint16_t queue;     /* network: of the interface */
	uint32_t comp_cons; /* network: completions taken */
	struct vnic_stats stats;
	uint16_t tx_free[VNIC_BUFS_MAX]; /* LIFO: the hottest buffer is used next */
	uint8_t tx_state[VNIC_BUFS_MAX];
	uint8_t rx_state[VNIC_BUFS_MAX]; /* 1: held by us */
};

struct vnic;

struct vnic_ops {
	/* Take up to max events; returns how many frame parts were stored in ev; 0 only if nothing was there.
	 * Returns are handled inside. Every stored descriptor is checked: buf, off, len are in range, len is not 0
	 * and the buffer is now held. A frame is not split between two calls unless it has more than max parts;
	 * a frame that breaks off (the last part stored has VNIC_F_MORE) is the peer's fault: drop it. */
	int (*poll)(struct vnic *v, struct vnic_desc *ev, int max);
	/* Post the n parts of one frame. The tx buffers get VNIC_TX_NIC. Never fails (see ring rules). */
	void (*post)(struct vnic *v, const struct vnic_desc *d, int n);
	/* Give one held rx buffer back. It may wait for the next frame, for some more of its kind, or for vnic_arm. */
	void (*release)(struct vnic *v, uint32_t buf);
	/* Let nothing that was released wait any longer. NULL: nothing ever waits. vnic_arm calls it. */
	void (*flush)(struct vnic *v);
	/* What was posted at `at` (counted as tx_prod is), unchecked; another type than FRAME: no frame. For captures;
	 * NULL: can't be told. */
	struct vnic_desc (*posted)(const struct vnic *v, uint32_t at);
};

/* One process's mapping. ops == NULL: this process has not mapped the vNIC. */
struct vnic {
	const struct vnic_ops *ops;
	struct vnic_state *st;
	struct vnic_desc *tx, *rx, *evq;
	struct vnic_ctrl *ctrl, *peer_ctrl; /* peer_ctrl NULL where there is none */
	uint8_t *tx_bufs, *rx_bufs;
	void *map;
	size_t map_len;
	int doorbell_fd[2]; /* [0] wakes a thread of the peer, [1] its helper; -1 none */
	int life_fd;        /* socket that hangs up when the peer is gone; -1 none */
	int wire_fd;        /* a wire's memory, for relatives and heirs (src/socket/handover.c), plus 1; 0 none */
	int wake_fd;  /* network: readable when events wait, and kicked after frames were posted (plus 1; 0 none) */
	uint32_t gen; /* st->gen when it was mapped */
	void *priv;   /* the provider's own */
	uint64_t
	    alive_us; /* wires: when this process last saw that the other end lives (socket/connect.c, udp_socket.c) */
};

static inline uint8_t *vnic_tx_buf(const struct vnic *v, uint32_t buf)
{
	return v->tx_bufs + (size_t)buf * v->st->buf_size;
}

/* Have the line at p brought to this core for writing. A hint; an old processor takes it for a nop. */
static inline void fetch_for_write(const void *p)
{
#ifdef __x86_64__
	__asm__ volatile("prefetchw %0"
			 :
			 : "m"(*(const char *)p)); /* the builtin fetches for reading, without -mprfchw */
#else
	__builtin_prefetch(p, 1);
#endif
}

/*
 * The same for n bytes of a tx buffer from off on. The peer's core has read them last, and the lock's release waits for
 * every store that still waits for its line: a writer of small pieces would wait for one line after the other.
 */
static inline void vnic_fetch_tx(const struct vnic *v, uint32_t buf, uint32_t off, uint32_t n)
{
	uint32_t end = off + n < v->st->buf_size ? off + n : v->st->buf_size;

	for (; off < end; off += 64)
		fetch_for_write(vnic_tx_buf(v, buf) + off);
}

static inline uint8_t *vnic_rx_buf(const struct vnic *v, uint32_t buf)
{
	return v->rx_bufs + (size_t)buf * v->st->buf_size;
}

/* Take a free tx buffer (it gets VNIC_TX_PKT). Returns its index or -1 when none is free. */
int vnic_tx_alloc(struct vnic *v);
/* The pkt lets go of it; it becomes free once the peer has too. */
void vnic_tx_free(struct vnic *v, uint32_t buf);
/* True while the peer (or the device) may still read the buffer: it must not be rewritten. */
static inline bool vnic_tx_busy(const struct vnic *v, uint32_t buf)
{
	return (v->st->tx_state[buf] & VNIC_TX_NIC) != 0;
}

/* True if the vNIC leads to a network, not to a process of this machine. */
static inline bool vnic_is_network(const struct vnic_state *st)
{
	return st->ifindex != 0;
}

/* True if an event waits: one load, for the spinning path; also usable without the lock as a hint. */
bool vnic_pending(const struct vnic *v);

/* --- the local provider: a wire between two processes (src/vnic/local.c) --- */

/* Bytes of a wire's region. */
size_t wire_size(void);
/* Write the header into zeroed memory of wire_size() bytes. */
void wire_format(void *mem);
/* 0, or -EPROTO if the header is not one that we speak (the geometry must be exactly ours). */
int wire_check(const void *mem, size_t len);
/* Bind `end` (0 or 1) of the wire at mem to state st (reset by this call) and mapping v. fds are the caller's. */
void wire_attach(struct vnic *v, struct vnic_state *st, void *mem, int end);
/* After fork, or in another process of the tree: map an existing state again without resetting it. */
void wire_reattach(struct vnic *v, struct vnic_state *st, void *mem);

/* Announce that this end sleeps (kind = VNIC_ARMED_*); the caller polls once more before it sleeps. */
void vnic_arm(struct vnic *v, uint32_t kind);
/* Which doorbell to ring for what was posted: VNIC_ARMED_* taken from the peer (exchanged with NO).
 * The caller has issued a full barrier since the last post (the lock's release is one). */
uint32_t vnic_take_armed(struct vnic *v);

#endif
