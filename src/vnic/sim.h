/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The provider `sim`: two vNICs joined by a simulated link, in memory, in virtual time, from a seed.
 *
 * It is the device behind both vNICs: it consumes their tx and rx rings and fills their event queues, through the
 * ring layout of include/viaduct/vnic.h. Like a NIC it copies each frame into rx buffers of the receiving end and
 * completes tx buffers when the frame has left. What it does to a frame on the way is in struct sim_dir. The same
 * calls at the same times with the same seed give the same events.
 *
 * Memory is the caller's; nothing is allocated. Calls are not thread-safe; with engines on the vNICs, one thread
 * drives everything.
 */
#ifndef VD_SIM_H
#define VD_SIM_H

#include "vnic/vnic.h"

/* One direction of the link. Probabilities are in parts per million. */
struct sim_dir {
	uint32_t delay_us;    /* propagation */
	uint32_t jitter_us;   /* up to this much more, order kept */
	uint64_t rate;        /* bytes per second; 0: infinite */
	uint32_t queue_bytes; /* waiting for the rate; more is dropped at the tail; 0: no limit */
	uint32_t loss_ppm;
	uint32_t burst_ppm;   /* a burst of loss begins */
	uint32_t burst_len;   /* frames lost in a burst, at most */
	uint32_t dup_ppm;     /* delivered twice */
	uint32_t reorder_ppm; /* leaves the order: up to reorder_us later than the rest */
	uint32_t reorder_us;
	uint32_t corrupt_ppm; /* an error burst of at most 15 bits: what the Internet checksum always catches */
	uint32_t hold_us;     /* tx buffers are completed this much after the frame has left */
	uint32_t ce_ppm;      /* packets that allow it (ECT) get the mark of congestion (RFC 3168) */
};

struct sim_config {
	uint64_t seed;
	uint32_t mtu;              /* largest IP packet; a longer frame is dropped and counted */
	uint32_t features;         /* VNIC_FEAT_*; the link loses frames all the same if told to */
	uint32_t buf_size;         /* multiple of VNIC_LINE */
	uint32_t tx_bufs, rx_bufs; /* of each end, at most VNIC_BUFS_MAX */
	uint32_t flights;          /* frames under way at once, both directions; more are dropped */
	struct sim_dir dir[2];     /* [i]: frames that end i sends */
};

struct sim_stats {
	uint64_t frames, delivered, lost, queue_drops, duplicated, reordered, corrupted;
	uint64_t marked;       /* with CE */
	uint64_t no_rx_buffer; /* dropped: the receiver has not given buffers back */
	uint64_t too_long;     /* dropped: longer than the MTU */
	uint64_t rewritten;    /* a tx buffer was changed before its completion: a fault of the sender */
	uint64_t bad_desc;     /* descriptors that a device refuses: a fault of the sender */
};

/* What became of a frame, for traces. */
enum sim_fate { SIM_SENT, SIM_LOST, SIM_QUEUE_FULL, SIM_TOO_LONG, SIM_DELIVERED, SIM_NO_BUFFER };
typedef void (*sim_tap)(void *arg, uint64_t now_us, int from, const uint8_t *frame, uint32_t len, enum sim_fate fate);

/* A middlebox: may change a frame that is about to be delivered, not its length. */
typedef void (*sim_middlebox)(void *arg, int from, uint8_t *frame, uint32_t len);

struct sim;

/* Bytes of memory that a link of this configuration takes; 0 if the configuration is out of range. */
size_t sim_size(const struct sim_config *cfg);
/* Make a link in mem (aligned to VNIC_LINE). NULL: configuration out of range, memory too small. */
struct sim *sim_create(void *mem, size_t len, const struct sim_config *cfg);
/* Bind end 0 or 1 to a vNIC (its state is reset). */
void sim_attach(struct sim *s, int end, struct vnic *v, struct vnic_state *st);
/* Take what the ends posted and deliver what is due by now_us. */
void sim_step(struct sim *s, uint64_t now_us);
/* When something is due next; UINT64_MAX: nothing is under way. */
uint64_t sim_next(const struct sim *s);
/* The link's properties may be changed at any time. */
struct sim_dir *sim_direction(struct sim *s, int from);
const struct sim_stats *sim_statistics(const struct sim *s);
void sim_set_tap(struct sim *s, sim_tap tap, void *arg);
void sim_set_middlebox(struct sim *s, sim_middlebox box, void *arg);

/* The generator behind it (splitmix64), for those who want the same sort of numbers. */
uint64_t sim_random(uint64_t *state);
/* 0 .. n-1; n of 0 gives 0. */
uint32_t sim_below(uint64_t *state, uint32_t n);

#endif
