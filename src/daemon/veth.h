/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stack's veth behind an interface, for processes that may not send as anybody, or that share the interface's queues
 * with others. The outer end is in our network namespace: the interface's program puts the stack's frames into it, and
 * program `outer` lets out what the stack's filters cover. The inner end is in the cellar, with the stack's AF_XDP
 * socket. No address is ever on either.
 */
#ifndef VD_VETH_H
#define VD_VETH_H

#include "daemon/cellar.h"
#include "daemon/port.h"
#include "daemon/steer.h"

#define VETH_NAME "viaduct" /* outer ends: with their number behind it */

/* A pair behind device. at: steer_port_index. The outer end's ifindex and the socket on the inner end. 0 or -errno. */
int veth_open(struct steer *s, struct cellar *c, uint32_t at, const struct port_device *device, uint32_t *outer,
	      struct port *p);
/* Both ends go. The port is closed by the caller. */
void veth_close(struct steer *s, uint32_t at, uint32_t outer);
/* Is this the name of an outer end? */
bool veth_is_ours(const char *name);

#endif
