/* SPDX-License-Identifier: BSD-2-Clause */
/* Handlers around fork; see fork.c. */
#ifndef VD_FORK_H
#define VD_FORK_H

/* Once, when acceleration is on. */
void fork_init(void);

#endif
