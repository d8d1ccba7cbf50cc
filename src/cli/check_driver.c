/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `viaduct check`: the kernel char driver (docs/driver.md). Its file is opened, as a program under Viaduct would, asked
 * for its version, and closed: a vNIC is not made of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cli/check.h"
#include "viaduct/vnic_ioctl.h"

void check_driver(struct check *c)
{
	struct viaduct_abi abi = {.size = sizeof(abi)};
	int fd = open(VIADUCT_DEVICE, O_RDWR | O_CLOEXEC);

	c->section = "driver";
	if (fd < 0 && (errno == EACCES || errno == EPERM))
		check_add(c, LEVEL_NOTE, "become a member of the group that owns it",
			  VIADUCT_DEVICE " is not for you: AF_XDP is used instead of the kernel's char driver");
	else if (fd < 0)
		check_add(c, LEVEL_OK, NULL, "%s: AF_XDP is used",
			  errno == ENOENT ? "no " VIADUCT_DEVICE : strerror(errno));
	else if (ioctl(fd, VIADUCT_IOC_ABI, &abi) < 0)
		check_add(c, LEVEL_NOTE, NULL,
			  VIADUCT_DEVICE " is not Viaduct's driver, or not one that this version knows: %s",
			  strerror(errno));
	else
		check_add(c, LEVEL_OK, NULL,
			  VIADUCT_DEVICE ": the kernel's char driver (version %u) is used, not AF_XDP", abi.version);
	if (fd >= 0)
		close(fd);
}
