/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What tests of the engine stand on: stacks in memory of this process, and what their vNICs lead to: a wire, a
 * simulated link, or a device that only records. The time is the test's.
 *
 * Nothing here knows of a test framework (the simulation, the fuzz targets and the benchmark use it too): what can't be
 * made aborts with a message. A stack or a wire ends at a page that can't be touched, so that running over it crashes.
 *
 *	struct stack_config cfg = test_config();     as Linux comes; change what the test is about
 *	test_stack_new(&e, &cfg, now_us);            process 0 holds it
 *	vnic = test_wire_join(wire, 0, &e);          or test_link_join, test_device_join
 *	...
 *	test_stack_free(&e);
 */
#ifndef VD_TEST_STACK_H
#define VD_TEST_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/engine.h"
#include "vnic/sim.h"

/* Zeroed memory whose end is guarded. */
void *test_memory(size_t len);
/* The same memory zeroed again, at the same place; NULL: anywhere. For what must repeat exactly. */
void *test_memory_again(void *mem, size_t len);
void test_memory_free(void *mem, size_t len);

/* Buffers, timers and limits as Linux has them, in a stack of 512 sockets. */
struct stack_config test_config(void);
/* Format a stack and attach *e to it. */
void test_stack_new(struct engine *e, const struct stack_config *cfg, uint64_t now_us);
/* The same, reusing the memory that *e has (all zero at first) for the same configuration. */
void test_stack_again(struct engine *e, const struct stack_config *cfg, uint64_t now_us);
void test_stack_free(struct engine *e);

/* 10.0.0.host, or fd00::host. */
struct endpoint test_addr4(uint8_t host, uint16_t port);
struct endpoint test_addr6(uint8_t host, uint16_t port);

/* A wire, wire_size() bytes; NULL or one that was made before, to be made anew at the same place. */
void *test_wire_new(void *again);
void test_wire_free(void *wire);
/* A new vNIC of e on that end of the wire (0 or 1); its number. */
uint32_t test_wire_join(void *wire, int end, struct engine *e);

struct sim *test_link_new(const struct sim_config *cfg);
void test_link_free(struct sim *link);
uint32_t test_link_join(struct sim *link, int end, struct engine *e);

/* A device without receivers: frames that are posted are shown to `sent`, then their buffers come back at once (never
 * while `hold` is set). Frames come in through engine_input. */
struct test_device {
	void (*sent)(void *arg, struct vnic *v, const struct vnic_desc *d, int n);
	void *arg;
	uint32_t features, mtu; /* VNIC_FEAT_* */
	uint32_t bufs, buf_size;
	bool hold;
	uint8_t *mem;             /* the device's own */
	struct vnic_desc none[2]; /* an event queue that stays empty */
};

/* A new vNIC of e with that device behind it, which must stay where it is; its number. */
uint32_t test_device_join(struct test_device *d, struct engine *e);
void test_device_free(struct test_device *d);

#endif
