/* SPDX-License-Identifier: BSD-2-Clause */
/* viaduct dump: runs viaduct-dump (src/dump), which links libpcap, from beside this very program. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

static const char name[] = "viaduct-dump";

int cmd_dump(int argc, char **argv)
{
	char path[PATH_MAX];
	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))
		return cmd_help(2, (char *[]){"help", "dump"});
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - sizeof(name));
	if (n < 0)
		return cli_error(EXIT_FAILED, "can't find out where viaduct itself is (is /proc mounted?): %s",
				 strerror(errno));
	path[n] = 0;
	memcpy(strrchr(path, '/') + 1, name, sizeof(name));
	execv(path, argv);
	return cli_error(EXIT_FAILED, "can't run %s: %s; install it beside viaduct", path, strerror(errno));
}
