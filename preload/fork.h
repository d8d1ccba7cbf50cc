/* SPDX-License-Identifier: BSD-2-Clause */
/* Handlers around fork; see fork.c. */
#ifndef VD_FORK_H
#define VD_FORK_H

#include <stdint.h>

/* How many forks lie between this process and the one that the library was loaded in. */
extern uint32_t fork_generation;

/* Once, when acceleration is on. */
void fork_init(void);

#endif
