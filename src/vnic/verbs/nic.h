/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of viaduct-verbs.so share: see vnic/verbs.h. device.c makes, mends and unmakes what lies behind a
 * vNIC, queue.c is the data path, flow.c the steering. */
#ifndef VD_VERBS_NIC_H
#define VD_VERBS_NIC_H

#include <infiniband/verbs.h>

#include "vnic/verbs.h"

#define NIC_BUFS 512u /* each way */
#define NIC_BATCH 32u /* frames of one doorbell */
#define NIC_PARTS 4u  /* buffers of one frame */
#define NIC_FLOWS 256u
#define NIC_INLINE 128u       /* bytes: a segment without data, with options */
#define NIC_SENT (1ull << 32) /* wr_id: a send; below it the position behind the batch. Else: an rx buffer. */

struct nic_flow {
	struct verbs_flow want;
	struct ibv_flow *rule; /* NULL: the slot is free, or the rule waits for a new queue pair */
	bool used;
};

struct verbs_nic {
	struct verbs_about about;
	struct ibv_context *ctx;
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	struct ibv_comp_channel *channel;
	struct ibv_cq_ex *cq;
	struct ibv_qp *qp;
	uint8_t *mem; /* tx buffers, then rx buffers */
	size_t mem_len;
	uint32_t buf_size, max_inline;
	bool csum;
	uint32_t cq_events;                 /* taken, not acknowledged */
	bool broken, gone, link_news, down; /* link_news: poll has to tell of it */
	struct ibv_send_wr wr[NIC_BATCH];
	struct ibv_sge sge[NIC_BATCH][NIC_PARTS];
	uint32_t batch;                  /* frames gathered */
	struct vnic_desc sent[NIC_BUFS]; /* by position */
	struct vnic_desc none[2];        /* an event queue that stays empty: what comes is in the completion queue */
	struct vnic_ctrl ctrl;
	struct nic_flow flow[NIC_FLOWS];
	struct verbs_counters n;
};

static inline struct verbs_nic *nic_of(const struct vnic *v)
{
	return v->priv;
}

/* queue.c */
int queue_attach(struct verbs_nic *nic, struct vnic *v, struct vnic_state *st);
void queue_kick(struct vnic *v);
/* The queues are new: what the old ones had is ours, and the device gets the receive buffers that we don't hold. */
int queue_restart(struct vnic *v);
/* flow.c */
int flow_add(struct verbs_nic *nic, const struct verbs_flow *f);
void flow_remove(struct verbs_nic *nic, const struct verbs_flow *f);
void flows_drop(struct verbs_nic *nic);
/* All that stand, for a new queue pair. 0 or -errno. */
int flows_restore(struct verbs_nic *nic);

#endif
