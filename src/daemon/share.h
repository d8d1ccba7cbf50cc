/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Program `steer` beside other XDP programs on an interface, by libxdp's dispatcher (option --share). libxdp keeps what
 * it attaches in /sys/fs/bpf, so there the program outlasts viaductd and stacks when both are killed; without their
 * sockets it lets every frame go on, and the next viaductd takes it off.
 */
#ifndef VD_SHARE_H
#define VD_SHARE_H

#include <stdbool.h>
#include <stdint.h>

struct steer;
struct xdp_program;

/* 0: *prog is attached, in the driver if *native. -errno. */
int share_attach(struct steer *s, uint32_t device, bool *native, struct xdp_program **prog);
void share_detach(struct xdp_program *prog, uint32_t device);
/* Our program among those that a dispatcher runs there: NULL or a copy of it. */
struct xdp_program *share_find(uint32_t device, const char *name, bool *native);
void share_forget(struct xdp_program *prog);
uint32_t share_program_id(const struct xdp_program *prog);
/* libxdp says nothing on standard error. */
void share_quiet(void);

#endif
