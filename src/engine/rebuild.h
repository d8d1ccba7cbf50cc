/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Making a stack right again whose lock's owner died in the middle of a change (rebuild.c). The socket layer calls it
 * (src/socket/repair.c) with the lock, and with memory to work in: the engine has none.
 */
#ifndef VD_REBUILD_H
#define VD_REBUILD_H

#include "engine/engine.h"

/* Bytes of zeroed memory that stack_rebuild needs. */
size_t stack_rebuild_room(const struct stack *s);
/* Reset what was being changed (lock.changing, lock.vnic), and derive all lists, tables and pools anew from the other
 * sockets. 0; -EUCLEAN: more is wrong than one death explains, all must be reset. */
int stack_rebuild(struct engine *e, void *room, uint64_t now_us);

/* For the provider local (src/vnic/local_rebuild.c): bit sets of buffers that pkts refer to. Its own state, and what is
 * half in the rings, is brought into line with them. False: they contradict each other. */
#define VNIC_SET_WORDS (VNIC_BUFS_MAX / 64)
bool wire_rebuild(struct vnic *v, const uint64_t *rx, const uint64_t *tx);
/* The event taken last is a part of a frame whose end has not been taken. */
bool wire_mid_frame(const struct vnic *v);

#endif
