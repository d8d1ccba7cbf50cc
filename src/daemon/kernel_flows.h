/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections that the kernel has on a port which is about to be steered to a stack: of an earlier server, say, that
 * let SO_REUSEADDR give its port to the next one. The kernel finds those before any listener, so must we.
 */
#ifndef VD_KERNEL_FLOWS_H
#define VD_KERNEL_FLOWS_H

#include <stdint.h>

#include "daemon/steer_maps.h"

/* Can there be any? Without SO_REUSEADDR and SO_REUSEPORT the kernel gives nobody a port on which it has connections;
 * but one who listens already, before we are asked, may have accepted some. */
int kernel_flows_possible(int fd);
/* Those that the key of a port would take from the kernel (sock_diag(7)): the number, keys in flow; -E2BIG: more than
 * max; -EADDRINUSE: another user than uid listens, or is bound (UDP), there; other -errno. uid 0 takes from anybody. */
int kernel_flows(const struct steer_key *port, uint32_t uid, struct steer_key *flow, int max);
/* On which TCP ports somebody listens: a bit each, in host order. 0 or -errno. */
#define KERNEL_PORT_WORDS (65536 / 64)
int kernel_listening(uint64_t ports[KERNEL_PORT_WORDS]);

#endif
