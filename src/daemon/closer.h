/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Closing descriptors that came from clients. The last close of a socket can wait for its peer (SO_LINGER), that of a
 * file for whoever serves the file system (FUSE): so threads of their own do it, one user's one after the other. A
 * user who makes them wait makes only himself wait; what waits counts as his (closer_waiting).
 */
#ifndef VD_CLOSER_H
#define VD_CLOSER_H

#include <stdint.h>

/* 0 or -errno. Before the first call of the others. */
int closer_start(void);
/* fd is gone: on return, unless its close waits, or an earlier one of the user; then sooner or later. So who is told
 * that a port is free can bind it. Memory's are closed at once: that never waits. */
void closer_close(uint32_t uid, int fd);
/* What is closed until closer_settle is waited for there, all at once: it costs one change of threads, not one each. Of
 * one user, and by one thread only. */
void closer_gather(void);
void closer_settle(uint32_t uid);
/* Descriptors of the user that are still to be closed. */
uint32_t closer_waiting(uint32_t uid);

#endif
