/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See busy.h. Each thread that waits has an entry of `waits` that says for which socket. Whoever closes looks through
 * them. The waiter looks at the socket under the stack's lock after it has written its entry: either the close came
 * first, then it finds no socket; or it comes after, then the closer sees the entry.
 *
 * At the end of a wait the entry is cleared with a full barrier before `deferred_n` is read, and the closer counts
 * before it looks through the entries a second time, so one of the two sees the other.
 */
#include "socket/busy.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "socket/lock.h"

#define THREADS_MAX 1024u /* those beyond are not waited for */
#define DEFERRED_MAX 256u

static _Atomic vsock_t waits[THREADS_MAX];
static _Atomic uint32_t taken[THREADS_MAX], high;
static _Thread_local uint32_t mine; /* plus 1; 0: none yet */
static vsock_t deferred[DEFERRED_MAX];
static _Atomic uint32_t deferred_n;
static pthread_mutex_t deferred_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic bool ending;
static pthread_key_t at_thread_exit;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;

static void give_up(void *entry)
{
	atomic_store(&taken[(uintptr_t)entry - 1], 0);
}

static void make_key(void)
{
	pthread_key_create(&at_thread_exit, give_up);
}

static void take_entry(void)
{
	pthread_once(&key_once, make_key);
	for (uint32_t i = 0; i < THREADS_MAX && !mine; i++) {
		uint32_t none = 0, top = atomic_load(&high);

		if (!atomic_compare_exchange_strong(&taken[i], &none, 1))
			continue;
		while (top <= i && !atomic_compare_exchange_weak(&high, &top, i + 1))
			;
		mine = i + 1;
		pthread_setspecific(at_thread_exit, (void *)(uintptr_t)mine);
	}
}

void busy_begin(vsock_t v)
{
	if (__builtin_expect(!mine, 0))
		take_entry();
	if (mine)
		atomic_store_explicit(&waits[mine - 1], v, memory_order_relaxed);
}

static bool is_busy(vsock_t v)
{
	uint32_t n = atomic_load(&high);

	for (uint32_t i = 0; i < n; i++)
		if (atomic_load(&waits[i]) == v)
			return true;
	return false;
}

/* True: v was to be closed, nobody waits for it any more, and the caller is the one to close it. */
static bool take_deferred(vsock_t v)
{
	bool found = false;

	quiet_lock(&deferred_lock);
	for (uint32_t i = 0; i < DEFERRED_MAX && !found; i++) {
		if (deferred[i] != v || is_busy(v))
			continue;
		deferred[i] = VS_NONE;
		atomic_fetch_sub(&deferred_n, 1);
		found = true;
	}
	quiet_unlock(&deferred_lock);
	return found;
}

void busy_end(vsock_t v)
{
	if (!mine)
		return;
	atomic_exchange(&waits[mine - 1], VS_NONE);
	if (__builtin_expect(atomic_load_explicit(&deferred_n, memory_order_relaxed) && take_deferred(v), 0))
		vs_close(v, false);
}

bool busy_defers_close(vsock_t v)
{
	bool stored = false;

	if (!is_busy(v) || atomic_load(&ending))
		return false;
	quiet_lock(&deferred_lock);
	for (uint32_t i = 0; i < DEFERRED_MAX && !stored; i++) {
		if (deferred[i] != VS_NONE)
			continue;
		deferred[i] = v;
		atomic_fetch_add(&deferred_n, 1);
		stored = true;
	}
	quiet_unlock(&deferred_lock);
	return stored && !take_deferred(v);
}

bool busy_ending(void)
{
	return atomic_load_explicit(&ending, memory_order_relaxed);
}

void busy_exit(void)
{
	atomic_store(&ending, true);
	for (uint32_t i = 0; i < DEFERRED_MAX && atomic_load(&deferred_n); i++)
		if (deferred[i] != VS_NONE)
			vs_close(deferred[i], false);
}

void busy_after_fork(void)
{
	pthread_mutex_init(&deferred_lock, NULL);
	memset(deferred, 0, sizeof(deferred));
	atomic_store(&deferred_n, 0);
	for (uint32_t i = 0; i < THREADS_MAX; i++) {
		atomic_store(&waits[i], VS_NONE);
		atomic_store(&taken[i], i + 1 == mine);
	}
}
