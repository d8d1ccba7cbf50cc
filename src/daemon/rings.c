/* SPDX-License-Identifier: BSD-2-Clause */
/* See rings.h. */
#include "daemon/rings.h"

#include <stdlib.h>

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
	return rings;
}

void rings_forget(struct xdp_port *rings, uint32_t queues)
{
	for (uint32_t q = 0; rings && q < queues; q++)
		xsk_unmap(&rings[q]);
	free(rings);
}
