/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VD_CLI_START_H
#define VD_CLI_START_H

#include <limits.h>
#include <stdbool.h>

/* Where viaductd lies: beside this executable, or where it is installed. */
bool start_find_viaductd(char path[PATH_MAX]);
/* Start viaductd if it is missing, this user may, and the knobs want the network. Returns when it answers. */
void start_viaductd(void);

#endif
