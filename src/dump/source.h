/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tool's half of a capture (engine/capture.h): one stack, mapped for writing through the descriptor by which it was
 * found. Only the area of captures and the one word beside the lock are written. What the stack's processes write is
 * another user's word: sizes are checked, and the mapping can't shrink under us, or it is not taken.
 */
#ifndef VD_DUMP_SOURCE_H
#define VD_DUMP_SOURCE_H

#include "cli/view.h"
#include "engine/capture.h"

#define NO_INTERFACE UINT32_MAX

struct source {
	struct stack *s;          /* the mapping, writable */
	struct capture *c;        /* within */
	struct vnic_state *vnics; /* within: found by offsets that were checked, and may have changed since */
	size_t len;
	uint64_t inode;         /* of the memfd */
	uint64_t head, tail;    /* our own */
	uint64_t lost, dropped; /* records that made no sense; the stack's counter at the start */
	uint32_t pid;           /* its creator */
	char program[65];
	struct {
		uint32_t gen, number; /* of the pcapng interface that stands for the vNIC; NO_INTERFACE: none yet */
		uint64_t frames;      /* written */
	} interface[VNIC_MAX];
};

/* Begin. 0; -EBUSY: process *other captures it already; -ENOTSUP: it has no room for captures; -EACCES and others. */
int source_open(struct source *r, const struct view *w, uint32_t snap, uint32_t *other);
/* Say again that frames are wanted: at least every CAPTURE_LEASE - 1 units. */
void source_renew(struct source *r);
/* The next frame: its record, and bytes in frame. False: none waits. */
bool source_next(struct source *r, struct capture_record *record, uint8_t frame[CAPTURE_SNAP_MAX]);
uint64_t source_dropped(const struct source *r);
/* No more frames are wanted; those that wait can still be had. */
void source_stop(struct source *r);
/* After source_stop: unmap. */
void source_close(struct source *r);

#endif
