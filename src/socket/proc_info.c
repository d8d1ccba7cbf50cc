/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads /proc/PID/task/TID/stat (proc(5)). The name in parentheses may hold anything, spaces and parentheses too:
 * fields are counted from the last one. Async-signal-safe: no allocation, no stdio stream.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "socket/proc_info.h"
#include "socket/raw.h"

#define STAT_STATE 3
#define STAT_START 22

int proc_thread_info(uint32_t pid, uint32_t tid, struct thread_info *out)
{
	char path[64], text[1024];
	char *p;
	long fd, n;

	snprintf(path, sizeof(path), "/proc/%u/task/%u/stat", pid, tid);
	fd = raw_call(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
	if (fd < 0)
		return (int)fd;
	n = raw_call(SYS_read, fd, (long)text, sizeof(text) - 1, 0, 0, 0);
	raw_call(SYS_close, fd, 0, 0, 0, 0, 0);
	if (n <= 0)
		return n < 0 ? (int)n : -ENODATA;
	text[n] = 0;
	p = strrchr(text, ')');
	if (!p || p[1] != ' ')
		return -EPROTO;
	p += 2;
	out->state = *p;
	for (int field = STAT_STATE; field < STAT_START; field++) {
		p = strchr(p, ' ');
		if (!p)
			return -EPROTO;
		p++;
	}
	out->start_time = strtoull(p, NULL, 10);
	return 0;
}

uint64_t proc_clock_ticks(void)
{
	struct timespec ts;
	long hz = sysconf(_SC_CLK_TCK);

	clock_gettime(CLOCK_BOOTTIME, &ts);
	if (hz <= 0)
		hz = 100;
	return (uint64_t)ts.tv_sec * (uint64_t)hz + (uint64_t)ts.tv_nsec / (1000000000u / (uint64_t)hz);
}
