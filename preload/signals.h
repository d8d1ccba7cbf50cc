/* SPDX-License-Identifier: BSD-2-Clause */
/* Signal handlers of the program: when they run, and how waits learn of them. See signals.c. */
#ifndef VD_SIGNALS_H
#define VD_SIGNALS_H

#include "socket/wait.h"

/* Between these two no handler of the program runs in this thread: a handler may make the very call that we are in. */
static inline void signals_defer(void)
{
	wait_lock_depth++;
}

static inline void signals_resume(void)
{
	if (--wait_lock_depth == 0 && wait_signal_pending)
		wait_signals_deferred();
}

/* Raise SIGPIPE in this thread, as the kernel does for a send that fails with EPIPE. */
void signals_sigpipe(void);
void signals_init(void);
/* fork: no thread changes a handler meanwhile. */
void signals_lock(void);
void signals_unlock(void);

#endif
