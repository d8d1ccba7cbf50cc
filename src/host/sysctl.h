/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the administrator has set for the kernel's TCP and IP (tcp(7), ip(7), Documentation/networking/ip-sysctl.rst)
 * holds for a stack as well: it is read once, when the stack is made, from this process's network namespace. A knob
 * that was set, or that the profile sets, goes before. A file that can't be read changes nothing.
 */
#ifndef VD_SYSCTL_H
#define VD_SYSCTL_H

#include "engine/sock.h"

void sysctls_apply(struct sock_defaults *d);

#endif
