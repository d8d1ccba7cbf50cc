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

#endif
