/* SPDX-License-Identifier: BSD-2-Clause */
/* For programs that run out of descriptors: a small limit, all of them taken, some given back. */
#ifndef LIMITS_H
#define LIMITS_H

#include <sys/resource.h>

#include "pair.h"

static int taken[2048], taken_count;

static void set_limit(void)
{
	struct rlimit r = {256, 256};

	setrlimit(RLIMIT_NOFILE, &r);
}

static void give_back(int n)
{
	while (n-- > 0 && taken_count)
		close(taken[--taken_count]);
}

/* So many are left to the program. */
static void take_all_but(int n)
{
	int fd;

	while ((fd = open("/dev/null", O_RDONLY)) >= 0)
		taken[taken_count++] = fd;
	give_back(n);
}

static void echo_once(int l)
{
	int fd = accept(l, NULL, NULL);
	char c = 0;

	if (fd < 0)
		show("accept", fd);
	show("read", read(fd, &c, 1));
	show("write", write(fd, &c, 1));
	close(fd);
}

#endif
