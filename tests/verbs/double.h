/* SPDX-License-Identifier: BSD-2-Clause */
/* The double of libibverbs: what a test says to it. See double.c. */
#ifndef VD_VERBS_DOUBLE_H
#define VD_VERBS_DOUBLE_H

#include <stdbool.h>
#include <stdint.h>

enum double_fault {
	DOUBLE_QP,      /* the queue pair breaks: what is posted completes with errors; the device says so */
	DOUBLE_CQ,      /* the completion queue overruns: nothing is in it any more; the device says so */
	DOUBLE_SEND,    /* the next chain of sends is refused in its middle */
	DOUBLE_REMOVED, /* the device is gone: nothing moves, every call fails; the device says so */
	DOUBLE_DOWN,    /* the port loses its link */
	DOUBLE_UP,      /* ... and gets it back */
};

/* What the device was asked to do. */
struct double_counts {
	uint64_t doorbells, sends, signalled, inlined, checksums, receives;
};

/* Frames of the interface of that name come and go by an RDMA device of the same name. */
void double_add(const char *interface);
void double_inject(const char *device, enum double_fault fault);
/* So many queue pairs from now on can't be made: err, positive. */
void double_refuse_qps(int n, int err);
struct double_counts double_counts(const char *device);
/* Queue pairs, completion queues, regions, rules, channels, devices that are open: 0 after all was closed. */
int double_open_things(void);

#endif
