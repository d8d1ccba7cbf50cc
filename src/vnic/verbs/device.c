/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Making, mending and unmaking what lies behind a vNIC of the provider `verbs`.
 *
 * The buffers are one shared anonymous mapping, registered once: fork copies none of its pages, so the device and the
 * parent go on with the same ones.
 *
 * There is one way to mend: queue pair and completion queue are unmade and made again, whatever was wrong with them.
 * What was on its way is lost, as on a wire. A device that is gone stays gone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vnic/verbs/nic.h"

#define BUF_MIN 2048u
#define BUF_MAX 16384u
#define BUF_ROOM 512u /* beside an IP packet: headers of the engine's */

static int failed(void)
{
	return errno ? -errno : -EIO;
}

/* --- the queues --- */

static void unmake_queues(struct verbs_nic *nic)
{
	flows_drop(nic);
	if (nic->qp)
		(void)ibv_destroy_qp(nic->qp);
	nic->qp = NULL;
	if (nic->cq && nic->cq_events)
		ibv_ack_cq_events(ibv_cq_ex_to_cq(nic->cq), nic->cq_events);
	nic->cq_events = 0;
	if (nic->cq)
		(void)ibv_destroy_cq(ibv_cq_ex_to_cq(nic->cq));
	nic->cq = NULL;
}

static int start_qp(struct verbs_nic *nic)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = nic->about.port};
	int ret = ibv_modify_qp(nic->qp, &attr, IBV_QP_STATE | IBV_QP_PORT);

	attr.qp_state = IBV_QPS_RTR;
	if (!ret)
		ret = ibv_modify_qp(nic->qp, &attr, IBV_QP_STATE);
	attr.qp_state = IBV_QPS_RTS;
	if (!ret)
		ret = ibv_modify_qp(nic->qp, &attr, IBV_QP_STATE);
	return -ret;
}

static int make_qp(struct verbs_nic *nic)
{
	struct ibv_qp_init_attr init = {.send_cq = ibv_cq_ex_to_cq(nic->cq),
					.recv_cq = ibv_cq_ex_to_cq(nic->cq),
					.cap = {.max_send_wr = NIC_BUFS,
						.max_recv_wr = NIC_BUFS,
						.max_send_sge = NIC_PARTS,
						.max_recv_sge = 1,
						.max_inline_data = NIC_INLINE},
					.qp_type = IBV_QPT_RAW_PACKET};

	errno = 0;
	nic->qp = ibv_create_qp(nic->pd, &init);
	if (!nic->qp && errno == EINVAL) { /* one that can't inline may say so */
		init.cap.max_inline_data = 0;
		nic->qp = ibv_create_qp(nic->pd, &init);
	}
	if (!nic->qp)
		return failed();
	nic->max_inline = init.cap.max_inline_data;
	return start_qp(nic);
}

static int make_queues(struct verbs_nic *nic)
{
	struct ibv_cq_init_attr_ex init = {.cqe = 2 * NIC_BUFS,
					   .channel = nic->channel,
					   .wc_flags = IBV_WC_EX_WITH_BYTE_LEN,
					   .comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS,
					   .flags = IBV_CREATE_CQ_ATTR_SINGLE_THREADED};
	int ret;

	errno = 0;
	nic->cq = ibv_create_cq_ex(nic->ctx, &init);
	ret = nic->cq ? make_qp(nic) : failed();
	if (!ret)
		ret = flows_restore(nic);
	if (ret < 0)
		unmake_queues(nic);
	return ret;
}

/* --- opening --- */

static struct ibv_context *open_named(const char *name)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *ctx = NULL;

	errno = ENODEV;
	for (int i = 0; list && list[i] && !ctx; i++)
		if (!strcmp(ibv_get_device_name(list[i]), name))
			ctx = ibv_open_device(list[i]);
	if (list)
		ibv_free_device_list(list);
	return ctx;
}

static int learn(struct verbs_nic *nic)
{
	struct ibv_device_attr_ex attr = {0};
	struct ibv_port_attr port = {0};
	int ret = ibv_query_device_ex(nic->ctx, NULL, &attr);

	if (!ret)
		ret = ibv_query_port(nic->ctx, nic->about.port, &port);
	if (ret)
		return -ret;
	if (port.link_layer != IBV_LINK_LAYER_ETHERNET || attr.orig_attr.max_sge < (int)NIC_PARTS)
		return -EOPNOTSUPP;
	nic->csum = attr.orig_attr.device_cap_flags & IBV_DEVICE_RAW_IP_CSUM;
	nic->down = port.state != IBV_PORT_ACTIVE;
	nic->link_news = nic->down;
	return 0;
}

static int make_memory(struct verbs_nic *nic)
{
	nic->buf_size = BUF_MIN;
	while (nic->buf_size < nic->about.mtu + BUF_ROOM)
		nic->buf_size *= 2;
	if (nic->buf_size > BUF_MAX)
		return -EMSGSIZE;
	nic->mem_len = 2 * (size_t)NIC_BUFS * nic->buf_size;
	/* whole huge pages, where the machine has some to give */
	nic->mem = mmap(NULL, nic->mem_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (nic->mem == MAP_FAILED)
		nic->mem = mmap(NULL, nic->mem_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (nic->mem == MAP_FAILED) {
		nic->mem = NULL;
		return -ENOMEM;
	}
	errno = 0;
	nic->mr = ibv_reg_mr(nic->pd, nic->mem, nic->mem_len, IBV_ACCESS_LOCAL_WRITE);
	return nic->mr ? 0 : failed();
}

static int make(struct verbs_nic *nic)
{
	int ret;

	nic->ctx = open_named(nic->about.device);
	if (!nic->ctx)
		return failed();
	ret = learn(nic);
	if (ret < 0)
		return ret;
	nic->pd = ibv_alloc_pd(nic->ctx);
	nic->channel = nic->pd ? ibv_create_comp_channel(nic->ctx) : NULL;
	if (!nic->channel)
		return failed();
	if (fcntl(nic->channel->fd, F_SETFL, O_NONBLOCK) < 0 || fcntl(nic->ctx->async_fd, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	ret = make_memory(nic);
	return ret < 0 ? ret : make_queues(nic);
}

static void nic_close(struct verbs_nic *nic)
{
	unmake_queues(nic);
	if (nic->mr)
		(void)ibv_dereg_mr(nic->mr);
	if (nic->mem)
		munmap(nic->mem, nic->mem_len);
	if (nic->channel)
		(void)ibv_destroy_comp_channel(nic->channel);
	if (nic->pd)
		(void)ibv_dealloc_pd(nic->pd);
	if (nic->ctx)
		(void)ibv_close_device(nic->ctx);
	free(nic);
}

static int nic_open(const struct verbs_about *about, struct verbs_nic **out)
{
	struct verbs_nic *nic;
	int ret;

	if (!about->ifindex || !about->mtu || !about->port || !memchr(about->device, 0, sizeof(about->device)))
		return -EINVAL;
	nic = calloc(1, sizeof(*nic));
	if (!nic)
		return -ENOMEM;
	nic->about = *about;
	ret = make(nic);
	if (ret < 0)
		nic_close(nic);
	else
		*out = nic;
	return ret;
}

/* --- while it runs --- */

static void hear(struct verbs_nic *nic, enum ibv_event_type type)
{
	switch (type) {
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
		nic->n.qp_fatal++;
		nic->broken = true;
		break;
	case IBV_EVENT_CQ_ERR:
		nic->n.cq_error++;
		nic->broken = true;
		break;
	case IBV_EVENT_PORT_ERR:
	case IBV_EVENT_PORT_ACTIVE:
		nic->down = type == IBV_EVENT_PORT_ERR;
		nic->link_news = true;
		nic->n.port_down += nic->down;
		nic->n.port_up += !nic->down;
		break;
	case IBV_EVENT_DEVICE_FATAL:
		nic->n.device_gone += !nic->gone;
		nic->gone = true;
		break;
	default:
		break;
	}
}

static int mend(struct vnic *v)
{
	struct verbs_nic *nic = nic_of(v);
	int ret;

	unmake_queues(nic);
	ret = make_queues(nic);
	if (!ret)
		ret = queue_restart(v);
	nic->n.remade += !ret;
	nic->n.remake_failed += !!ret;
	nic->broken = ret < 0;
	return ret;
}

static int nic_tend(struct vnic *v)
{
	struct verbs_nic *nic = nic_of(v);
	struct ibv_async_event event;

	while (!ibv_get_async_event(nic->ctx, &event)) {
		enum ibv_event_type type = event.event_type;

		ibv_ack_async_event(&event);
		hear(nic, type);
	}
	if (nic->gone)
		return -ENODEV;
	return nic->broken ? mend(v) : 0;
}

static int nic_arm(struct vnic *v)
{
	struct verbs_nic *nic = nic_of(v);
	struct ibv_cq *cq;
	void *context;

	if (nic->gone || nic->broken)
		return -EIO;
	while (!ibv_get_cq_event(nic->channel, &cq, &context))
		nic->cq_events++;
	nic->n.armed++;
	return -ibv_req_notify_cq(ibv_cq_ex_to_cq(nic->cq), 0);
}

static void nic_fds(const struct verbs_nic *nic, int fd[2])
{
	fd[0] = nic->channel->fd;
	fd[1] = nic->ctx->async_fd;
}

static bool nic_trouble(const struct verbs_nic *nic)
{
	return nic->broken && !nic->gone;
}

static const struct verbs_counters *nic_counters(const struct verbs_nic *nic)
{
	return &nic->n;
}

__attribute__((visibility("default"))) extern const struct verbs_api viaduct_verbs;

const struct verbs_api viaduct_verbs = {
    .version = VERBS_VERSION,
    .open = nic_open,
    .attach = queue_attach,
    .flow_add = flow_add,
    .flow_remove = flow_remove,
    .kick = queue_kick,
    .arm = nic_arm,
    .fds = nic_fds,
    .tend = nic_tend,
    .trouble = nic_trouble,
    .counters = nic_counters,
    .close = nic_close,
};
