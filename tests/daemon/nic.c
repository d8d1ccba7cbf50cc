/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Preloaded into viaductd by a test: what no virtual interface has, flow rules. For w0 ethtool's ioctls are answered as
 * by a NIC whose RSS uses NIC_RSS queues, with a table of rules in the file $TEST_NIC, which outlives viaductd as the
 * NIC would; all others reach the kernel. Nothing is steered: a test sees where frames should have gone by the rules.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "nic.h"

static struct nic *table(void)
{
	const char *path = getenv("TEST_NIC");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

	return fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(struct nic), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

static int insert(struct nic *n, struct ethtool_rxnfc *c)
{
	uint32_t at = c->fs.location;

	if (n->full || at >= NIC_RULES || n->used[at])
		return -ENOSPC;
	n->used[at] = 1;
	n->rule[at] = c->fs;
	return 0;
}

static int rules(struct nic *n, struct ethtool_rxnfc *c)
{
	uint32_t at = c->fs.location, count = 0;

	for (uint32_t i = 0; i < NIC_RULES; i++) {
		if (n->used[i] && c->cmd == ETHTOOL_GRXCLSRLALL)
			c->rule_locs[count] = i;
		count += n->used[i] != 0;
	}
	if (c->cmd == ETHTOOL_GRXCLSRLALL || c->cmd == ETHTOOL_GRXCLSRLCNT) {
		c->rule_cnt = count;
		c->data = NIC_RULES;
		return 0;
	}
	if (c->cmd == ETHTOOL_SRXCLSRLINS)
		return insert(n, c);
	if (at >= NIC_RULES || !n->used[at])
		return -ENOENT;
	if (c->cmd == ETHTOOL_GRXCLSRULE)
		c->fs = n->rule[at];
	else
		n->used[at] = 0;
	return 0;
}

/* 1: not one of ours. */
static int answer(struct nic *n, void *command)
{
	struct ethtool_value *value = command;
	struct ethtool_rxfh_indir *indir = command;

	switch (value->cmd) {
	case ETHTOOL_GFLAGS:
		value->data = ETH_FLAG_NTUPLE;
		return 0;
	case ETHTOOL_GRXFHINDIR:
		for (uint32_t i = 0; i < NIC_RSS && indir->size; i++)
			indir->ring_index[i] = i;
		indir->size = NIC_RSS;
		return 0;
	case ETHTOOL_GRXCLSRLCNT:
	case ETHTOOL_GRXCLSRLALL:
	case ETHTOOL_GRXCLSRULE:
	case ETHTOOL_SRXCLSRLINS:
	case ETHTOOL_SRXCLSRLDEL:
		return rules(n, command);
	default:
		return 1;
	}
}

int ioctl(int fd, unsigned long request, ...)
{
	static int (*real)(int, unsigned long, ...);
	struct nic *n = MAP_FAILED;
	struct ifreq *ifr;
	va_list args;
	int rc = 1;

	va_start(args, request);
	ifr = va_arg(args, struct ifreq *);
	va_end(args);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "ioctl");
	if (request == SIOCETHTOOL && !strcmp(ifr->ifr_name, "w0"))
		n = table();
	if (n != MAP_FAILED) {
		rc = answer(n, ifr->ifr_data);
		munmap(n, sizeof(*n));
	}
	if (rc == 1)
		return real(fd, request, ifr);
	errno = -rc;
	return rc ? -1 : 0;
}
