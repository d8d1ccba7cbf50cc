/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel's view of the network, mirrored from rtnetlink(7) into the page set of include/viaduct/netview.h, which
 * viaductd hands to every stack.
 *
 * The mirror reads everything at its start. Later a message of the kernel says only that something changed: interfaces,
 * addresses, routes and rules are then read again as a whole, because the kernel does not tell all (IPv4 routes vanish
 * without a word when an address or an interface goes). Neighbours change often and are told exactly, so
 * those messages are taken as they are. What comes out is published only if it differs from what is there. When
 * messages were lost the view says so at once (NETVIEW_REFUSE_BEHIND) and everything is read again.
 *
 * One thread, that of viaductd. It belongs to the network namespace in which mirror_start was called.
 */
#ifndef VD_MIRROR_H
#define VD_MIRROR_H

#include <stdbool.h>
#include <stdint.h>

#include "viaduct/netview.h"

struct mirror;

/* Make the view and fill it. 0 or -errno. */
int mirror_start(struct mirror **m);
void mirror_stop(struct mirror *m);
/* To poll: readable when mirror_run has something to do. */
int mirror_fd(const struct mirror *m);
/* Take in what came. 1: published something new; 0: nothing changed; -errno: the kernel can't be asked (the view then
 * says NETVIEW_REFUSE_BEHIND, and mirror_fd becomes readable for another attempt). */
int mirror_run(struct mirror *m);
/* Have interfaces or addresses changed in the view since this was asked last? */
bool mirror_moved(struct mirror *m);
/* The view's memfd, sealed so that nobody can write to it by any mapping made from now on; sizeof(struct netview). */
int mirror_view_fd(const struct mirror *m);
const struct netview *mirror_view(const struct mirror *m);
/* Which devices the interface's frames come in by: one, or all of a bond's, also those that are not active now. How
 * many. *sends: by which they leave. */
#define MIRROR_BELOW 8u
uint32_t mirror_below(const struct mirror *m, const struct netview_iface *f, uint32_t below[MIRROR_BELOW],
		      uint32_t *sends);
/* Have the kernel resolve this neighbour, or confirm that it is still there. 0; -EINVAL, -ENODEV. */
int mirror_resolve(struct mirror *m, uint32_t ifindex, const uint8_t addr[16]);
/* Which devices viaductd may attach to (NETVIEW_IF_ALLOWED), of those that can be. Without it, or NULL: all of them.
 * Asked again whenever interfaces change; call mirror_run after the answer itself may have changed. */
void mirror_allow(struct mirror *m, bool (*allowed)(const char *name, uint32_t ifindex, void *arg), void *arg);

#endif
