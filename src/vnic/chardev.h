/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The provider `chardev`: a vNIC of the kernel char driver (include/viaduct/vnic_ioctl.h, docs/driver.md). Its region
 * has the layout of vnic.h with one end; opening and mapping it, and the doorbell, are the socket layer's
 * (socket/net_chardev.c).
 */
#ifndef VD_CHARDEV_H
#define VD_CHARDEV_H

#include "vnic/vnic.h"

/* What the vNIC is, besides what its region says. */
struct chardev_about {
	uint32_t ifindex, mtu;
	uint8_t mac[6];
};

/* Bind v and st (reset by this call) to the region of len bytes at mem, fresh from the driver. 0; -EPROTO: its header
 * is not one that we speak. */
int chardev_attach(struct vnic *v, struct vnic_state *st, void *mem, size_t len, const struct chardev_about *about);
/* After the lock's release: true if frames lie in the tx ring that the driver was not told of. */
bool chardev_kick_due(const struct vnic *v);
/* It is told now: of all that was posted until here. */
void chardev_kicked(const struct vnic *v);

#endif
