/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The intercepted calls: their declarations, exported, and libc's own behind `real`. Made from calls.def.
 *
 * Nothing in this library may reach libc's calls by their plain names: those are ours. `real` is filled by the
 * library's constructor, or by the first call that comes earlier (another library's constructor).
 */
#ifndef VD_CALLS_H
#define VD_CALLS_H

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define unlikely(x) __builtin_expect(!!(x), 0)

#define CALL(ret, name, params, sentence) EXPORT ret name params;
#define TWIN(name, target)
#include "calls.def"
#undef CALL
#undef TWIN

struct real_calls {
#define CALL(ret, name, params, sentence) ret(*name) params;
#define TWIN(name, target)
#include "calls.def"
#undef CALL
#undef TWIN
};

extern struct real_calls real_table;
extern bool real_ready;
void real_resolve(void);

static inline const struct real_calls *real_calls(void)
{
	if (unlikely(!real_ready))
		real_resolve();
	return &real_table;
}
#define real (*real_calls())

/* gcc wants an alias to have the attributes of what it stands for, nonnull and the like; clang does not know how. */
#if __has_attribute(copy)
#define COPY_OF(target) , copy(target)
#else
#define COPY_OF(target)
#endif

/* Another exported name of a function in the same file. */
#define TWIN_OF(target, name)                                                                                          \
	extern __typeof(target) name __attribute__((alias(#target), visibility("default") COPY_OF(target)))

/* Does the call have to fail with EFAULT before anything is looked at? (engine/bytes.h) The kernel's call does it. */
static inline bool bad_pointer(const void *p)
{
	return unlikely((intptr_t)p < 4096);
}

/* An address and its length, that a call fills in where both are given. */
static inline bool bad_name(const void *sa, const socklen_t *len)
{
	return bad_pointer(sa) || bad_pointer(len);
}

/* A wait of this thread's was ended: it may have been cancelled, and nothing of the call is left to be undone. */
void act_on_cancel(void);

/* A negative errno becomes -1 and errno. */
static inline long posix_result(long r)
{
	if (r >= 0)
		return r;
	if (r == -EINTR)
		act_on_cancel();
	errno = (int)-r;
	return -1;
}

#endif
