/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * System calls that have no place in host_sys: futex and the like. They go to the kernel directly where we know how,
 * because the preload library interposes libc's syscall(). Results are 0 or more, or a negative errno.
 */
#ifndef VD_RAW_H
#define VD_RAW_H

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline long raw_call(long nr, long a, long b, long c, long d, long e, long f)
{
#ifdef __x86_64__
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
#else
	long ret = syscall(nr, a, b, c, d, e, f);

	return ret < 0 ? -errno : ret;
#endif
}

#endif
