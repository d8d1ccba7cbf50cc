/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Captures: copies of the frames that a stack sends and receives, for a tool that looks from outside (`viaduct dump`).
 *
 * An area of the stack's memory, never touched while nobody captures, holds the tool's wishes and a ring of records.
 * The tool maps the stack's memory, as whoever may read the process's memory can, and sets stack.capture to a time in
 * the near future; it does so again and again as long as it wants frames. So a tool that dies costs a few seconds at
 * most.
 *
 * The stack never waits for the tool, nor believes it: a record that finds no room is counted and lost; positions
 * are reduced to the ring's size, which is a constant. There is one writer, whoever holds the stack's lock, and one
 * reader. While stack.capture is 0 a burst costs one load of a word that lies beside the lock.
 *
 * Received frames are copied when they are taken in; sent ones are read back from the vNIC's tx ring, at the end of the
 * call that posted them or before the next frames are taken in, while their buffers can't have been used again.
 */
#ifndef VD_CAPTURE_H
#define VD_CAPTURE_H

#include "engine/engine.h"

#define CAPTURE_RING (4u << 20) /* bytes; power of two */
#define CAPTURE_SNAP_MAX 65664u /* of one frame: the largest IP packet, Ethernet header and tag */
#define CAPTURE_LEASE 3u        /* what a tool adds to the clock, in units of capture_clock */

/* Before each frame's bytes. Records begin at multiples of 8. */
struct capture_record {
	uint32_t size;   /* of the record, this header included; multiple of 8 */
	uint32_t caplen; /* bytes of the frame that follow */
	uint32_t len;    /* bytes of the frame */
	uint32_t gen;    /* vnic_state.gen: tells the vNICs that used a slot */
	uint64_t us;     /* CLOCK_MONOTONIC, as of the call into the engine */
	uint16_t vnic;
	uint8_t sent; /* 1 sent, 0 received */
	uint8_t pad[5];
};

struct capture {
	/* the tool's */
	_Alignas(64) uint32_t epoch; /* another one: a new capture begins */
	uint32_t snap;               /* bytes wanted of each frame; 0: all */
	uint32_t pid;                /* of the tool, for the next one */
	uint64_t tail;               /* all before it has been read */
	/* the stack's */
	_Alignas(64) uint32_t seen; /* the epoch for which `sent` holds */
	uint64_t head;              /* all before it may be read; free-running */
	uint64_t dropped;           /* frames that found no room */
	struct {
		uint32_t gen, next; /* position in the tx ring of what was not looked at yet */
	} sent[VNIC_MAX];
	_Alignas(4096) uint8_t ring[CAPTURE_RING];
};

/* The area, or NULL: this stack has none. */
static inline struct capture *stack_capture(struct stack *s)
{
	return s->off_capture ? (struct capture *)(void *)((char *)s + s->off_capture) : NULL;
}

/* The unit of stack.capture: about a second. Never 0. */
static inline uint32_t capture_clock(uint64_t now_us)
{
	return (uint32_t)(now_us >> 20) | 1;
}

static inline bool capture_on(const struct stack *s)
{
	return __builtin_expect(__atomic_load_n(&s->capture, __ATOMIC_RELAXED) != 0, 0);
}

/* Where capture_on: what was posted on the vNIC and not recorded yet. */
void capture_sent(struct engine *e, uint32_t vnic);
/* Where capture_on: n parts that came in one burst and are held. */
void capture_received(struct engine *e, uint32_t vnic, const struct vnic_desc *part, int n);

#endif
