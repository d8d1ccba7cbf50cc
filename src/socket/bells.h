/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bells: how a process of a tree wakes one other that shares a stack with it, and nobody else (bells.c).
 */
#ifndef VD_BELLS_H
#define VD_BELLS_H

#include "socket/process.h"

/* Relatives that sleep, have news, and were not rung for this sleep yet. */
struct bells_due {
	uint64_t who;            /* bit per slot */
	uint32_t naps[PROC_MAX]; /* of those */
};

/* Before fork, and without locks: make the stack's bells, if nobody has. Where that fails all goes by the doorbell. */
void bells_make(struct attached *a);
/* The descriptor that wakes the process of that entry: its bell or, where it can't be had, the stack's doorbell. */
int bells_of(const struct attached *a, uint32_t slot);
/* With the lock: who is to be rung; all: whoever sleeps. Returns due->who; what else is in *due counts for those only.
 */
uint64_t bells_look(const struct attached *a, struct bells_due *due, bool all);
/* With the lock: has this process mapped all wires of the stack? */
bool bells_see_all_wires(const struct attached *a);
/* After the lock's release: ring them. */
void bells_ring(struct attached *a, const struct bells_due *due);
/* Ring the threads of this process that sleep. Async-signal-safe. */
void bells_ring_own(const struct attached *a);
void bells_ring_fd(int fd);

#endif
