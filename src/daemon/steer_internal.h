/* SPDX-License-Identifier: BSD-2-Clause */
/* What steer.c (programs) and steer_maps.c (what is in the maps) share. */
#ifndef VD_STEER_INTERNAL_H
#define VD_STEER_INTERNAL_H

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "daemon/steer.h"
#include "viaduct/daemon.h"
#include "steer.skel.h"

struct xdp_program;

#define STEER_DEVICES 16

/* A device that has the program. */
struct device {
	uint32_t ifindex; /* 0: free */
	uint32_t uses;    /* interfaces of stacks on it */
	int link;         /* -1: shared */
	struct xdp_program *shared;
	bool native;
};

struct steer {
	struct steer_bpf *skel;
	int keep; /* directory of the links */
	bool share, native, adopted;
	struct daemon_flow_set *table; /* vd_table, mapped at the first need */
	uint32_t adopted_xsks;         /* the kernel's number of vd_xsks: tells our links from those of others */
	struct device device[STEER_DEVICES];
	const struct netview *view; /* as of the last steer_view; NULL: never */
};

#endif
