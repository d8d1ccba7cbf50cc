/* SPDX-License-Identifier: BSD-2-Clause */
/* See rings.h. */
#include "daemon/rings.h"

#include <stdlib.h>

struct xdp_port *rings_keep(const struct port *p, const struct daemon_vnic *v)
{
	struct xdp_port *rings = calloc(v->queues, sizeof(*rings));

	for (uint32_t q = 0; rings && q < v->queues; q++)
		if (xsk_map(p->xsk[q], p->umem, v, q, &rings[q])) {
			rings_forget(rings, q);
			return NULL;
		}
	return rings;
}

void rings_forget(struct xdp_port *rings, uint32_t queues)
{
	for (uint32_t q = 0; rings && q < queues; q++)
		xsk_unmap(&rings[q]);
	free(rings);
}
