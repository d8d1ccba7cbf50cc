/* SPDX-License-Identifier: BSD-2-Clause */
/* The real time, for tests that wait for the kernel or for other processes. */
#ifndef VD_TEST_CLOCK_H
#define VD_TEST_CLOCK_H

#include <stdint.h>
#include <time.h>

/* CLOCK_MONOTONIC in us, as the engine's time. */
static inline uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000;
}

#endif
