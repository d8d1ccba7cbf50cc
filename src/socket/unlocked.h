/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looks at a socket without the stack's lock: hints, for those who would otherwise take the lock only to learn that
 * they need not. Each is one read of one aligned word, which is either what was there before or what is there now; who
 * acts on it takes the lock and looks again. Writers hold the lock and know nothing of this, so to TSan these reads
 * are races: it is told here, and nowhere else, that they are meant.
 */
#ifndef VD_UNLOCKED_H
#define VD_UNLOCKED_H

#include "socket/process.h"

#define UNLOCKED __attribute__((no_sanitize("thread"))) static inline

UNLOCKED uint32_t unlocked_u32(const uint32_t *p)
{
	return *(const volatile uint32_t *)p;
}

UNLOCKED uint8_t unlocked_u8(const uint8_t *p)
{
	return *(const volatile uint8_t *)p;
}

/* The socket and its stack, if the name is not stale yet; else NULL. */
static inline struct sock *unlocked_sock(vsock_t v, struct attached **ap)
{
	struct attached *a = vs_attached(v);
	struct sock *k = a ? sock_at(a->s, vs_index_of(v)) : NULL;

	*ap = a;
	return k && unlocked_u8(&k->proto) != SOCK_FREE && unlocked_u32(&k->gen) == (uint32_t)v ? k : NULL;
}

/* The event queue as this process maps it, NULL none. Its memory stays readable (process.h). */
UNLOCKED struct vnic_desc *unlocked_evq(const struct vnic *v)
{
	return *(struct vnic_desc *const volatile *)&v->evq;
}

/* True if a blocking receive is worth a moment's wait for a frame: an open connection that has nothing to read. */
static inline bool unlocked_awaits(const struct sock *k)
{
	return !unlocked_u32(&k->rxq.bytes) && unlocked_u8(&k->tcp.state) == TCP_ESTABLISHED &&
	       !(unlocked_u32(&k->flags) & SOCKF_NONBLOCK);
}

#endif
