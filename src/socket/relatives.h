/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Processes of a tree that share a stack, and the wires that one of them has made there when the others were there
 * already: these map such a wire when they first need it (host/tree.h).
 */
#ifndef VD_RELATIVES_H
#define VD_RELATIVES_H

#include "socket/process.h"

/* This process has made a wire in a stack that it shares: it can be asked for it from now on. */
void relatives_serve(struct attached *a);
/* Somebody asks, at the descriptor that listens for it. The helper calls. */
void relatives_answer(struct attached *a, int listen_fd);
void relatives_after_fork(void);

#endif
