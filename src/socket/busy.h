/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A socket that one thread closes while another waits in a call on it lives until that call ends, as in the kernel: the
 * reader still gets data or the end of the stream, and the peer sees the close then. Of connections only: a UDP
 * socket or a listener has a kernel half, whose descriptor is gone.
 */
#ifndef VD_BUSY_H
#define VD_BUSY_H

#include <stdbool.h>

#include "socket/vsock.h"

/* This thread is going to wait for v in a call, and is back. */
void busy_begin(vsock_t v);
void busy_end(vsock_t v);
/* v is to be closed. True: a thread of this process waits for it, and the last that does will close it. */
bool busy_defers_close(vsock_t v);
/* exit() has begun. */
bool busy_ending(void);
/* The process ends: nothing is deferred any more, and what was is closed. */
void busy_exit(void);
/* In the child after fork: the other threads are not there. */
void busy_after_fork(void);

#endif
