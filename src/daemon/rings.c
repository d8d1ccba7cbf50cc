/* SPDX-License-Identifier: BSD-2-Clause */
/* See rings.h. madvise(2), MADV_DONTFORK. */
#include "daemon/rings.h"

#include <stdlib.h>
#include <sys/mman.h>

struct xdp_port *rings_keep(const struct port *p, const struct daemon_vnic *v)
{
	struct xdp_port *rings = calloc(v->queues, sizeof(*rings));

	for (uint32_t q = 0; rings && q < v->queues; q++) {
		rings[q] = (struct xdp_port){.chunk_size = v->chunk_size,
					     .rx_first = v->queue[q].rx_first,
					     .rx_count = v->queue[q].rx_count,
					     .tx_first = v->queue[q].tx_first,
					     .tx_count = v->queue[q].tx_count};
		if (xsk_map(p->xsk[q], p->umem, v->umem_size, v->ring_size, &rings[q])) {
			rings_forget(rings, q);
			return NULL;
		}
	}
	if (rings)
		rings_inherit(rings, v->queues, false);
	return rings;
}

void rings_forget(struct xdp_port *rings, uint32_t queues)
{
	for (uint32_t q = 0; rings && q < queues; q++)
		xsk_unmap(&rings[q]);
	free(rings);
}

void rings_inherit(struct xdp_port *rings, uint32_t queues, bool yes)
{
	int advice = yes ? MADV_DOFORK : MADV_DONTFORK;

	for (uint32_t q = 0; rings && q < queues; q++) {
		const struct xdp_ring *each[] = {&rings[q].rx, &rings[q].tx, &rings[q].fill, &rings[q].comp};

		for (int i = 0; i < 4; i++)
			madvise(each[i]->map, each[i]->map_len, advice);
		madvise(rings[q].umem, rings[q].umem_len, advice);
	}
}
