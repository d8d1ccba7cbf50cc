/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The data path of the provider `verbs`.
 *
 * Sending: frames are gathered, and handed over as one chain of work requests by one ibv_post_send. Only the chain's
 * last one is signalled: its completion says that all before it are done (a send queue completes in order), and no
 * frame waits for a later one's. The send queue can't overflow: it has a place for each buffer.
 * Receiving: one buffer a frame; buffers that were released go back in chains. The completion queue has a place for
 * every buffer, so it can't overflow in honest use either.
 *
 * What the device says is checked like a peer's word. After an error nothing is sent until the queues were made anew
 * (device.c): frames that are posted meanwhile are lost, as on a wire.
 */
#include <errno.h>

#include "vnic/ring.h"
#include "vnic/verbs/nic.h"

static uint64_t address_of(const struct verbs_nic *nic, uint32_t buf)
{
	return (uint64_t)(uintptr_t)nic->mem + (uint64_t)buf * nic->buf_size;
}

/* --- sending --- */

static void return_sent(struct verbs_nic *nic, struct vnic_state *st, uint32_t end)
{
	if (end - st->comp_cons > st->tx_prod - st->comp_cons) {
		nic->n.bad_completion++;
		return;
	}
	for (; st->comp_cons != end; st->comp_cons++)
		vnic_take_return(st, nic->sent[st->comp_cons % NIC_BUFS].buf);
}

void queue_kick(struct vnic *v)
{
	struct verbs_nic *nic = nic_of(v);
	struct ibv_send_wr *bad = NULL;

	if (!nic->batch || nic->broken || nic->gone)
		return;
	v->st->posted = 0;
	nic->wr[nic->batch - 1].next = NULL;
	nic->wr[nic->batch - 1].send_flags |= IBV_SEND_SIGNALED;
	nic->n.doorbells++;
	if (ibv_post_send(nic->qp, nic->wr, &bad)) {
		nic->n.refused += bad ? nic->batch - (uint32_t)(bad - nic->wr) : nic->batch;
		nic->broken = true; /* the last one, which tells of all, is not on its way */
	}
	nic->batch = 0;
}

static void gather(struct verbs_nic *nic, struct vnic_state *st, const struct vnic_desc *d, int n)
{
	struct ibv_send_wr *wr = &nic->wr[nic->batch];
	struct ibv_sge *sge = nic->sge[nic->batch++];
	uint32_t len = 0;

	for (int i = 0; i < n; i++) {
		sge[i] = (struct ibv_sge){
		    .addr = address_of(nic, d[i].buf) + d[i].off, .length = d[i].len, .lkey = nic->mr->lkey};
		st->tx_state[d[i].buf] |= VNIC_TX_NIC;
		nic->sent[st->tx_prod % NIC_BUFS] = d[i];
		nic->sent[st->tx_prod++ % NIC_BUFS].type = VNIC_DESC_FRAME;
		len += d[i].len;
	}
	*wr = (struct ibv_send_wr){
	    .wr_id = NIC_SENT | st->tx_prod, .next = wr + 1, .sg_list = sge, .num_sge = n, .opcode = IBV_WR_SEND};
	wr->send_flags = d[0].flags & VNIC_F_CSUM_TX ? IBV_SEND_IP_CSUM : 0;
	if (len <= nic->max_inline) {
		wr->send_flags |= IBV_SEND_INLINE;
		nic->n.inlined++;
	}
	st->stats.tx_bytes += len;
	st->stats.tx_frames++;
	st->posted += (uint32_t)n;
}

static void verbs_post(struct vnic *v, const struct vnic_desc *d, int n)
{
	struct verbs_nic *nic = nic_of(v);

	if (v->st->dead || n <= 0)
		return;
	if (nic->broken || nic->gone || n > (int)NIC_PARTS) {
		nic->n.unsent++;
		return;
	}
	gather(nic, v->st, d, n);
	if (nic->batch == NIC_BATCH)
		queue_kick(v);
}

static struct vnic_desc verbs_posted(const struct vnic *v, uint32_t at)
{
	return nic_of(v)->sent[at % NIC_BUFS];
}

/* --- receiving --- */

static int give_buffers(struct verbs_nic *nic, const uint16_t *buf, uint32_t n)
{
	struct ibv_recv_wr wr[VNIC_RETURNS], *bad;
	struct ibv_sge sge[VNIC_RETURNS];

	for (uint32_t i = 0; i < n; i++) {
		sge[i] = (struct ibv_sge){
		    .addr = address_of(nic, NIC_BUFS + buf[i]), .length = nic->buf_size, .lkey = nic->mr->lkey};
		wr[i] = (struct ibv_recv_wr){
		    .wr_id = buf[i], .next = i + 1 < n ? &wr[i + 1] : NULL, .sg_list = &sge[i], .num_sge = 1};
	}
	return n ? -ibv_post_recv(nic->qp, wr, &bad) : 0;
}

static void verbs_flush(struct vnic *v)
{
	struct verbs_nic *nic = nic_of(v);
	uint32_t n = v->st->ret_count;

	v->st->ret_count = 0;
	if (!nic->broken && !nic->gone && give_buffers(nic, v->st->ret, n) < 0)
		nic->broken = true; /* new queues get all that we don't hold */
}

static void verbs_release(struct vnic *v, uint32_t buf)
{
	if (vnic_let_go(v->st, v->st->rx_count, buf))
		verbs_flush(v);
}

/* One completion. True: *ev is a frame. */
static bool take_completion(struct vnic *v, struct vnic_desc *ev)
{
	struct verbs_nic *nic = nic_of(v);
	struct ibv_cq_ex *cq = nic->cq;
	bool good;

	if (cq->status != IBV_WC_SUCCESS) {
		nic->n.failed_work += !nic->broken;
		nic->broken = true;
		return false;
	}
	if (cq->wr_id & NIC_SENT) {
		return_sent(nic, v->st, (uint32_t)cq->wr_id);
		return false;
	}
	*ev =
	    (struct vnic_desc){.buf = cq->wr_id < NIC_BUFS ? (uint32_t)cq->wr_id : UINT32_MAX, .type = VNIC_DESC_FRAME};
	ev->len = (uint16_t)(ibv_wc_read_byte_len(cq) <= nic->buf_size ? ibv_wc_read_byte_len(cq) : 0);
	good = nic->csum && ibv_wc_read_wc_flags(cq) & IBV_WC_IP_CSUM_OK;
	ev->flags = good ? VNIC_F_CSUM_OK : 0;
	if (!vnic_take_part(v, ev))
		return false;
	v->st->stats.rx_frames++;
	v->st->stats.rx_bytes += ev->len;
	return true;
}

static int verbs_poll(struct vnic *v, struct vnic_desc *ev, int max)
{
	struct verbs_nic *nic = nic_of(v);
	struct ibv_poll_cq_attr attr = {0};
	uint32_t looked = 0;
	int n = 0, ret;

	queue_kick(v);
	if (nic->link_news) {
		nic->link_news = false;
		ev[n++] = (struct vnic_desc){.type = VNIC_DESC_LINK, .len = !nic->down};
	}
	if (nic->gone || nic->broken || n == max)
		return n;
	ret = ibv_start_poll(nic->cq, &attr);
	if (ret) {
		nic->broken |= ret != ENOENT;
		return n;
	}
	/* no device can keep us here */
	do
		n += take_completion(v, &ev[n]);
	while (n < max && ++looked < 2 * NIC_BUFS && !ibv_next_poll(nic->cq));
	ibv_end_poll(nic->cq);
	return n;
}

static const struct vnic_ops verbs_ops = {
    .poll = verbs_poll,
    .post = verbs_post,
    .release = verbs_release,
    .flush = verbs_flush,
    .posted = verbs_posted,
};

/* --- */

static int give_all(struct vnic *v)
{
	uint16_t buf[VNIC_RETURNS];
	uint32_t n = 0;
	int ret = 0;

	v->st->ret_count = 0;
	for (uint32_t i = 0; i < NIC_BUFS && !ret; i++) {
		if (!v->st->rx_state[i])
			buf[n++] = (uint16_t)i;
		if (n == VNIC_RETURNS || i + 1 == NIC_BUFS) {
			ret = give_buffers(nic_of(v), buf, n);
			n = 0;
		}
	}
	return ret;
}

int queue_restart(struct vnic *v)
{
	struct verbs_nic *nic = nic_of(v);

	nic->batch = 0;
	return_sent(nic, v->st, v->st->tx_prod);
	return give_all(v);
}

int queue_attach(struct verbs_nic *nic, struct vnic *v, struct vnic_state *st)
{
	vnic_state_reset(st, VNIC_PROV_VERBS, 0, NIC_BUFS, NIC_BUFS, nic->buf_size);
	st->mtu = nic->about.mtu;
	st->features = nic->csum ? VNIC_FEAT_CSUM_TX : 0;
	st->ifindex = nic->about.ifindex;
	memcpy(st->mac, nic->about.mac, sizeof(st->mac));
	memset(st->peer_mac, 0, sizeof(st->peer_mac));
	st->tx_entries = st->rx_entries = NIC_BUFS;
	st->evq_entries = 2;
	v->st = st;
	v->tx = v->rx = NULL;
	v->evq = nic->none;
	v->ctrl = &nic->ctrl;
	v->peer_ctrl = NULL;
	v->tx_bufs = nic->mem;
	v->rx_bufs = nic->mem + (size_t)NIC_BUFS * nic->buf_size;
	v->map = NULL;
	v->map_len = 0;
	v->priv = nic;
	v->gen = st->gen;
	v->ops = &verbs_ops;
	return give_all(v);
}
