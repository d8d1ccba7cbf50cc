/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Waiting with a signal mask (ppoll, pselect, epoll_pwait). While it sleeps the kernel swaps the mask, but a thread
 * that spins must have it too: a signal that the program blocks for this call must not end it, and one that it lets
 * through only here must. A handler that runs as soon as the mask is set counts as having come during the wait.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>

#include "host/host.h"
#include "socket/wait.h"

int wait_for_masked(struct wait *w)
{
	const sigset_t *mask = w->sigmask;
	uint32_t before[2] = {wait_signals[0], wait_signals[1]};
	sigset_t old;
	int r;

	if (!mask)
		return wait_for(w);
	host_sys.sigmask(SIG_SETMASK, mask, &old);
	w->sigmask = NULL;
	w->kernel_ready = false;
	if (wait_signals[0] != before[0] || (!w->restart && wait_signals[1] != before[1]))
		r = -EINTR;
	else
		r = wait_for(w);
	w->sigmask = mask;
	host_sys.sigmask(SIG_SETMASK, &old, NULL);
	return r;
}
