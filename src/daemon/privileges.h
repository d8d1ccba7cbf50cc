/* SPDX-License-Identifier: BSD-2-Clause */
/* What viaductd may do, at its start and afterwards (capabilities(7)). */
#ifndef VD_PRIVILEGES_H
#define VD_PRIVILEGES_H

#include <stdbool.h>
#include <stdint.h>

/* Raise the limits on memory that the kernel pins and on descriptors, as far as that is allowed. */
void privileges_start(void);
/* How many descriptors we may have. */
uint32_t privileges_descriptors(void);
/* Keep what requests need (share: and libxdp), for ever drop the rest. 0 or -errno. */
int privileges_drop(bool share);

#endif
