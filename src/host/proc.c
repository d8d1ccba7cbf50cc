/* SPDX-License-Identifier: BSD-2-Clause */
/* Does another process run under viaduct? Its maps tell (proc(5)), to whom the kernel lets look. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/host.h"

int proc_accelerated(pid_t pid)
{
	char path[40], *line = NULL;
	size_t size = 0;
	int found = 0;
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	FILE *f = fopen(path, "re");
	if (!f)
		return -errno;
	errno = 0;
	while (!found && getline(&line, &size, f) > 0)
		found = strstr(line, "/libviaduct.so") != NULL;
	int err = found ? 0 : errno;
	free(line);
	fclose(f);
	return err ? -err : found;
}
