/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Kicks: telling the kernel that frames lie in a network's tx ring, one system call for all that lie there.
 *
 * A thread that was given several events at once (epoll_wait, poll) will probably answer each of them. Its frames are
 * then posted as always, but the kick waits for the last one: until as many frames were posted as there were events,
 * until the thread waits again, closes, forks, executes or exits, or until the first has waited for 50 us. A thread
 * that was given one event kicks at once. What is held back lies in a ring that all share: another thread's kick sends
 * it too, and so does viaductd when the process is killed.
 *
 * A program that computes for long in between does not come back here, so with the first frame that is held the helper
 * is asked to look in a millisecond (helper_alarm): without a helper nothing is held. And a thread whose answers follow
 * each other slowly does not hold them, because the first would wait for the work of the others.
 */
#ifndef VD_KICK_H
#define VD_KICK_H

#include <stdbool.h>
#include <stdint.h>

struct attached;
struct vnic;

#define KICK_VNICS 4u /* on which a thread may hold frames at a time */

struct kicks {
	uint32_t expected; /* frames that may still come, this one included; less than 2: nothing is held */
	uint32_t n;        /* entries of held */
	bool slow;         /* the last two frames of a batch had too much time between them */
	uint64_t since;    /* the first was held, clock_counter */
	uint64_t last;     /* the last was posted or kicked, clock_counter; 0: none of this batch */
	struct {
		struct attached *a;
		uint32_t vnic;
	} held[KICK_VNICS];
};

extern _Thread_local struct kicks kicks;

/* A network's vNIC has frames posted that the kernel, or the driver, was not told of. */
bool kick_due(const struct vnic *v);
/* This thread is given n events. */
void kick_expect_many(uint32_t n);
static inline void kick_expect(int n)
{
	if (__builtin_expect(n > 1, 0))
		kick_expect_many((uint32_t)n);
}

/* Kick what is held; the batch may go on. No lock is held. */
void kick_flush(void);
/* The batch is over. */
void kick_held(void);
static inline void kick_end(void)
{
	if (__builtin_expect(kicks.expected | kicks.n, 0))
		kick_held();
}

/* Frames were posted on a vNIC of a network: kick now, or hold. After the lock's release. */
void kick_posted(struct attached *a, uint32_t vnic);
/* Whatever lies in a ring of this process, whoever posted it: before fork, exec and exit. */
void kick_all(void);
/* One stack's. True: the kernel did not take all. */
bool kick_stack(struct attached *a);
void kick_after_fork(void);

#endif
