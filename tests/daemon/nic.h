/* SPDX-License-Identifier: BSD-2-Clause */
/* The rules of the NIC that nic.c pretends: a file that the test and viaductd map. */
#ifndef VD_TEST_DAEMON_NIC_H
#define VD_TEST_DAEMON_NIC_H

#include <linux/ethtool.h>
#include <stdint.h>

#define NIC_RULES 16u
#define NIC_RSS 3u /* queues; those behind are spare */

struct nic {
	uint32_t full; /* takes no more */
	uint32_t used[NIC_RULES];
	struct ethtool_rx_flow_spec rule[NIC_RULES];
};

#endif
