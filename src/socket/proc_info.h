/* SPDX-License-Identifier: BSD-2-Clause */
/* What /proc says of a thread: enough to tell a living one from a dead one and from one that got its number. */
#ifndef VD_PROC_INFO_H
#define VD_PROC_INFO_H

#include <stdint.h>

struct thread_info {
	char state;          /* as in /proc/PID/stat: R, S, D, Z, X... */
	uint64_t start_time; /* clock ticks after boot (field 22) */
};

/* Thread tid of process pid. 0, or -errno when /proc can't be read. */
int proc_thread_info(uint32_t pid, uint32_t tid, struct thread_info *out);
/* Now, in the unit of start_time. */
uint64_t proc_clock_ticks(void);

#endif
