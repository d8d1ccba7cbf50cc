/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The memory layout of a vNIC: what a stack and whatever stands behind it (another process, later
 * a kernel driver) share. Usable from user space and from a kernel.
 *
 * A vNIC region starts with struct vnic_header and holds, for each end, three rings of
 * struct vnic_desc, one control line and one area of packet buffers of equal size:
 *
 *   tx ring      the end's stack writes frames to send                    (stack -> device)
 *   rx ring      the end's stack gives back buffers it has finished with  (stack -> device)
 *   event queue  frames received, tx buffers completed, link changes      (device -> stack)
 *
 * A wire (provider `local`) has two ends and no device between them: the tx ring and the rx ring of
 * one end ARE the event queue of the other (same offset, one producer). So a frame and the return of
 * a buffer travel in one ring, often in one cache line. A kernel driver gives each its own ring.
 *
 * Ring rules. One producer, one consumer, free-running 32-bit indices kept privately by each side;
 * slot = index % entries, entries a power of two. A slot is full when its `turn` equals
 * index / entries + 1. The producer writes all other fields first and stores `turn` last with release
 * order; the consumer loads `turn` with acquire order, copies the descriptor once, and checks the copy.
 * An open frame (VNIC_F_OPEN, of one part, on a wire) may grow until it is taken: the producer exchanges the slot's
 * first word, compared with what it was, for one with a greater len; the consumer takes it by exchanging that word with
 * 0. Its IP header's length is 0: the frame's is meant, as in packets whose device has not cut them yet.
 * No index is shared. A ring cannot overflow in honest use: entries >= tx buffers + rx buffers, and
 * each buffer is at most once in a ring.
 *
 * All fields are little-endian (host order on the machines supported). Nothing in the region may be
 * trusted by either side: sizes and offsets are checked once, at attach, and copied.
 *
 * A side works on its rings with one thread at a time (a stack: under its lock); only the control line, and the first
 * word of an open frame's slot, are exchanged by both. There are no errors to return: a descriptor that breaks the
 * rules is ignored and counted by whoever reads it, and can cost its sender's traffic alone. docs/vnic.md has pictures.
 */
#ifndef VIADUCT_VNIC_H
#define VIADUCT_VNIC_H

#ifdef __KERNEL__
#include <linux/types.h>
typedef __u64 vnic_u64;
typedef __u32 vnic_u32;
typedef __u16 vnic_u16;
typedef __u8 vnic_u8;
#else
#include <stdint.h>
typedef uint64_t vnic_u64;
typedef uint32_t vnic_u32;
typedef uint16_t vnic_u16;
typedef uint8_t vnic_u8;
#endif

#define VNIC_MAGIC 0x43494e56u /* "VNIC" */
#define VNIC_VERSION 2u
#define VNIC_LINE 64u /* cache line: alignment of rings, control lines and buffers */

/* What a descriptor means (vnic_desc.type). */
enum vnic_desc_type {
	VNIC_DESC_FRAME = 1,  /* a frame, or a part of one: buf, off, len in the sender's area */
	VNIC_DESC_RETURN = 2, /* buf of the receiver-of-this-event's own tx area is free again */
	VNIC_DESC_LINK = 3,   /* link state: len is 1 for up, 0 for down */
};

/* vnic_desc.flags */
#define VNIC_F_MORE 0x01u    /* the frame continues in the next descriptor */
#define VNIC_F_CSUM_OK 0x02u /* rx: the device has verified IP and TCP/UDP checksums */
#define VNIC_F_CSUM_TX 0x04u /* tx: the device fills in the TCP/UDP checksum */
#define VNIC_F_OPEN 0x08u    /* wires: the sender may still lengthen the frame, see above */

/* One entry of any ring. 16 bytes. */
struct vnic_desc {
	vnic_u32 buf;     /* buffer index, 0 .. buf_count - 1 */
	vnic_u16 off;     /* first byte, relative to the buffer's start */
	vnic_u16 len;     /* bytes; off + len <= buf_size */
	vnic_u8 type;     /* enum vnic_desc_type */
	vnic_u8 flags;    /* VNIC_F_* */
	vnic_u16 gso_len; /* tx: payload bytes per segment if the device is to cut it, else 0 */
	vnic_u32 turn;    /* lap of the ring, from 1; written last */
};

/* vnic_end.features */
#define VNIC_FEAT_LOSSLESS 0x1u /* delivers every frame once, in order, unaltered */
#define VNIC_FEAT_CSUM_TX 0x2u  /* checksums need not be computed on transmit */
#define VNIC_FEAT_SCATTER 0x4u  /* a frame may span several buffers (VNIC_F_MORE) */
#define VNIC_FEAT_CSUM_PARTIAL                                                                                         \
	0x8u /* received TCP and UDP checksums may be the pseudo-header's sum alone (veth, tap) */

/* Where one end's parts are. Offsets are bytes from the start of the region. */
struct vnic_end {
	vnic_u64 tx_off;      /* tx ring */
	vnic_u64 rx_off;      /* rx (buffer return) ring */
	vnic_u64 evq_off;     /* event queue */
	vnic_u64 ctrl_off;    /* struct vnic_ctrl */
	vnic_u64 bufs_off;    /* this end's tx buffers; on a wire the other end's rx buffers */
	vnic_u32 tx_entries;  /* power of two */
	vnic_u32 rx_entries;  /* power of two */
	vnic_u32 evq_entries; /* power of two */
	vnic_u32 buf_size;    /* bytes, multiple of VNIC_LINE, at most 65536 - VNIC_LINE */
	vnic_u32 buf_count;
	vnic_u32 mtu;      /* largest IP packet, bytes */
	vnic_u32 features; /* VNIC_FEAT_* */
	vnic_u32 reserved;
};

/* vnic_ctrl.armed */
#define VNIC_ARMED_NO 0u     /* the stack polls its event queue: no wake-up wanted */
#define VNIC_ARMED_THREAD 1u /* a thread of the program sleeps: ring the first doorbell */
#define VNIC_ARMED_HELPER 2u /* only the helper sleeps: ring the second doorbell */

/*
 * One line per end, written by that end's stack, read by the device or the other end. The reader
 * exchanges `armed` with 0 and rings the doorbell it named, so one sleep costs one doorbell.
 */
struct vnic_ctrl {
	vnic_u32 armed; /* VNIC_ARMED_* */
	vnic_u32 cpu;   /* CPU the stack last polled from, plus 1; 0 unknown. A hint for waiting. */
	/* Connections that this end's listener takes without being asked (engine/tcp_open.c). */
	vnic_u32 open_limit; /* number of the last one, free-running */
	vnic_u32 open_seen;  /* number of the last that has come in */
	vnic_u16 open_port;  /* the listener's; 0: none */
	vnic_u8 open_wscale; /* its window scale */
	vnic_u8 open_pad;
	vnic_u8 open_addr[16]; /* its address; IPv4 as ::ffff:a.b.c.d */
	vnic_u32 pad[7];
};

/*
 * A device's only, the line behind the control line. evq: how far the stack has come in the event queue, counted as
 * slots are. The stack writes it after it took events; poll(2) on the device is all that looks at it. polling: the
 * device writes 1 while it looks at the tx ring by itself. It writes 0, and looks once more, before it stops; so the
 * stack reads it after a full barrier behind its frames, and kicks when it is 0.
 */
struct vnic_taken {
	vnic_u32 evq;
	vnic_u32 polling;
	vnic_u32 pad[14];
};

/* The start of a region. */
struct vnic_header {
	vnic_u32 magic;       /* VNIC_MAGIC */
	vnic_u16 version;     /* VNIC_VERSION */
	vnic_u16 header_size; /* sizeof(struct vnic_header): newer ones only append */
	vnic_u64 total_size;  /* bytes of the region */
	vnic_u32 ends;        /* 2 for a wire, 1 for a device */
	vnic_u32 reserved;
	struct vnic_end end[2];
};

_Static_assert(sizeof(struct vnic_desc) == 16, "vnic_desc is 16 bytes");
_Static_assert(sizeof(struct vnic_ctrl) == 64, "vnic_ctrl is one line");
_Static_assert(sizeof(struct vnic_taken) == 64, "vnic_taken is one line");
_Static_assert(sizeof(struct vnic_end) == 72, "vnic_end has no hidden padding");
_Static_assert(sizeof(struct vnic_header) == 168, "vnic_header has no hidden padding");

#endif
