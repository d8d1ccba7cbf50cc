/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A double of libibverbs: the calls that viaduct-verbs.so makes, over packet sockets on interfaces of a test's own
 * network namespace. It has libibverbs' name (SONAME), so it is what that object is linked with at run time.
 *
 * It is as strict as a device: work outside of the registered memory, with a wrong key, or more of it than was asked
 * for is refused, and a queue pair that is not ready to send does not. Faults are injected by double.h.
 */
#define _GNU_SOURCE
#include "verbs/double.h"

#include <arpa/inet.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/engine.h"

#undef ibv_reg_mr
#undef ibv_query_port

#define EXPORT __attribute__((visibility("default")))
#define DEVICES 4
#define QUEUE 1024u
#define RULES 64
#define KEY 0x1234u

struct completion {
	uint64_t wr_id;
	enum ibv_wc_status status;
	uint32_t len;
	unsigned flags;
};

struct cq {
	struct ibv_cq_ex ex;
	struct device *d;
	struct completion done[QUEUE];
	uint32_t head, tail;
};

struct qp {
	struct ibv_qp qp;
	struct device *d;
	struct cq *cq;
	struct ibv_recv_wr recv[QUEUE];
	struct ibv_sge room[QUEUE];
	uint32_t head, tail, most, inline_most, unsignalled;
};

struct rule {
	struct ibv_flow flow;
	struct device *d;
	uint8_t attr[512];
};

struct device {
	struct ibv_device dev;
	char name[IF_NAMESIZE];
	int packets, events[2];
	struct ibv_mr *mr;
	struct qp *qp;
	struct rule *rule[RULES];
	bool gone, down, qp_bad, cq_bad, refuse;
	struct double_counts n;
};

static struct device devices[DEVICES];
static int things, qps_refused, qps_error;

static struct device *device_of(struct ibv_context *ctx)
{
	return (struct device *)(void *)ctx->device;
}

static struct device *named(const char *name)
{
	for (int i = 0; i < DEVICES; i++)
		if (!strcmp(devices[i].name, name))
			return &devices[i];
	abort();
}

static void *thing(size_t size)
{
	void *p = calloc(1, size);

	if (!p)
		abort();
	things++;
	return p;
}

static int gone(void *p)
{
	free(p);
	things--;
	return 0;
}

/* --- what tests say --- */

EXPORT void double_add(const char *interface)
{
	struct device *d = named("");
	struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};

	to.sll_ifindex = (int)if_nametoindex(interface);
	d->packets = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (d->packets < 0 || bind(d->packets, (struct sockaddr *)&to, sizeof(to)) < 0 || pipe(d->events) < 0)
		abort();
	strncpy(d->name, interface, sizeof(d->name) - 1);
	memcpy(d->dev.name, d->name, sizeof(d->name));
}

static void say(struct device *d, enum ibv_event_type type)
{
	if (write(d->events[1], &type, sizeof(type)) != sizeof(type))
		abort();
}

EXPORT void double_inject(const char *device, enum double_fault fault)
{
	static const enum ibv_event_type said[] = {[DOUBLE_QP] = IBV_EVENT_QP_FATAL,
						   [DOUBLE_CQ] = IBV_EVENT_CQ_ERR,
						   [DOUBLE_REMOVED] = IBV_EVENT_DEVICE_FATAL,
						   [DOUBLE_DOWN] = IBV_EVENT_PORT_ERR,
						   [DOUBLE_UP] = IBV_EVENT_PORT_ACTIVE};
	struct device *d = named(device);

	d->qp_bad |= fault == DOUBLE_QP;
	d->cq_bad |= fault == DOUBLE_CQ;
	d->refuse |= fault == DOUBLE_SEND;
	d->gone |= fault == DOUBLE_REMOVED;
	d->down = (d->down || fault == DOUBLE_DOWN) && fault != DOUBLE_UP;
	if (fault != DOUBLE_SEND)
		say(d, said[fault]);
}

EXPORT void double_refuse_qps(int n, int err)
{
	qps_refused = n;
	qps_error = err;
}

EXPORT struct double_counts double_counts(const char *device)
{
	return named(device)->n;
}

EXPORT int double_open_things(void)
{
	return things;
}

/* --- steering --- */

static bool same(const void *val, const void *mask, const void *at, size_t n)
{
	const uint8_t *v = val, *m = mask, *f = at;

	for (size_t i = 0; i < n; i++)
		if ((v[i] ^ f[i]) & m[i])
			return false;
	return true;
}

static bool spec_fits(const uint8_t *spec, const uint8_t *frame)
{
	struct ibv_flow_spec_eth eth;
	struct ibv_flow_spec_ipv4 v4;
	struct ibv_flow_spec_ipv6 v6;
	struct ibv_flow_spec_tcp_udp l4;
	enum ibv_flow_spec_type type;
	bool four = frame[12] == 8 && frame[13] == 0;
	const uint8_t *ip = frame + 14;

	memcpy(&type, spec, sizeof(type));
	switch (type) {
	case IBV_FLOW_SPEC_ETH:
		memcpy(&eth, spec, sizeof(eth));
		return same(eth.val.dst_mac, eth.mask.dst_mac, frame, 6) &&
		       same(&eth.val.ether_type, &eth.mask.ether_type, frame + 12, 2);
	case IBV_FLOW_SPEC_IPV4:
		memcpy(&v4, spec, sizeof(v4));
		return four && same(&v4.val, &v4.mask, ip + 12, 8);
	case IBV_FLOW_SPEC_IPV6:
		memcpy(&v6, spec, sizeof(v6));
		return !four && same(&v6.val, &v6.mask, ip + 8, 32);
	case IBV_FLOW_SPEC_TCP:
	case IBV_FLOW_SPEC_UDP:
		memcpy(&l4, spec, sizeof(l4));
		return (four ? ip[9] : ip[6]) == (type == IBV_FLOW_SPEC_TCP ? IPPROTO_TCP : IPPROTO_UDP) &&
		       same(&l4.val.dst_port, &l4.mask.dst_port, ip + (four ? 22 : 42), 2) &&
		       same(&l4.val.src_port, &l4.mask.src_port, ip + (four ? 20 : 40), 2);
	default:
		return false;
	}
}

static bool rule_fits(const struct rule *r, const uint8_t *frame)
{
	struct ibv_flow_attr attr;
	const uint8_t *spec = r->attr + sizeof(attr);

	memcpy(&attr, r->attr, sizeof(attr));
	for (int i = 0; i < attr.num_of_specs; i++) {
		uint16_t size;

		if (!spec_fits(spec, frame))
			return false;
		memcpy(&size, spec + sizeof(enum ibv_flow_spec_type), sizeof(size));
		spec += size;
	}
	return true;
}

static bool steered(const struct device *d, const uint8_t *frame)
{
	for (int i = 0; i < RULES; i++)
		if (d->rule[i] && rule_fits(d->rule[i], frame))
			return true;
	return false;
}

static struct ibv_flow *create_flow(struct ibv_qp *qp, struct ibv_flow_attr *attr)
{
	struct device *d = device_of(qp->context);

	errno = d->gone ? EIO : ENOMEM;
	for (int i = 0; i < RULES && !d->gone; i++) {
		if (d->rule[i])
			continue;
		d->rule[i] = thing(sizeof(struct rule));
		d->rule[i]->flow.context = qp->context;
		d->rule[i]->d = d;
		memcpy(d->rule[i]->attr, attr, attr->size);
		return &d->rule[i]->flow;
	}
	return NULL;
}

static int destroy_flow(struct ibv_flow *flow)
{
	struct rule *r = (struct rule *)(void *)flow;

	for (int i = 0; i < RULES; i++)
		if (r->d->rule[i] == r)
			r->d->rule[i] = NULL;
	return gone(r);
}

/* --- frames --- */

/* The sum over the TCP or UDP part with its pseudo-header, folded: 0 where a right checksum is in it. *l4: where. */
static uint16_t l4_sum(const uint8_t *frame, uint32_t len, uint32_t *l4)
{
	const uint8_t *ip = frame + 14;
	bool four = ip[0] >> 4 == 4;
	uint8_t src[16] = {0}, dst[16] = {0};
	uint32_t sum, total;

	*l4 = four ? 14 + (ip[0] & 15u) * 4 : 54;
	total = four ? 14 + ((uint32_t)ip[2] << 8 | ip[3]) : len;
	if (total > len || total < *l4)
		return UINT16_MAX;
	len = total; /* not what fills a short frame up */
	src[10] = src[11] = dst[10] = dst[11] = 0xff;
	memcpy(four ? src + 12 : src, ip + (four ? 12 : 8), four ? 4 : 16);
	memcpy(four ? dst + 12 : dst, ip + (four ? 16 : 24), four ? 4 : 16);
	sum = csum_pseudo(four ? 4 : 6, src, dst, four ? ip[9] : ip[6], len - *l4);
	return csum_fold(csum_add(frame + *l4, len - *l4, sum));
}

static void fill_checksums(uint8_t *frame, uint32_t len)
{
	uint8_t *ip = frame + 14;
	bool four = ip[0] >> 4 == 4;
	uint32_t at = (four ? ip[9] : ip[6]) == IPPROTO_TCP ? 16 : 6, l4 = 0;
	uint16_t sum;

	if (four) {
		memset(ip + 10, 0, 2);
		sum = csum_fold(csum_add(ip, (ip[0] & 15u) * 4, 0));
		memcpy(ip + 10, &sum, 2);
	}
	l4 = four ? 14 + (ip[0] & 15u) * 4 : 54;
	memset(frame + l4 + at, 0, 2);
	sum = l4_sum(frame, len, &l4);
	memcpy(frame + l4 + at, &sum, 2);
}

static void complete(struct cq *cq, uint64_t wr_id, enum ibv_wc_status status, uint32_t len, unsigned flags)
{
	if (cq->tail - cq->head == QUEUE)
		abort(); /* overrun in honest use */
	cq->done[cq->tail++ % QUEUE] = (struct completion){wr_id, status, len, flags};
}

static void receive(struct device *d)
{
	static uint8_t frame[65536];
	struct qp *qp = d->qp;
	struct sockaddr_ll from = {0};
	ssize_t n = 0;
	uint32_t l4;

	for (int i = 0; qp && i < 64 && qp->head != qp->tail; i++) {
		socklen_t len = sizeof(from);
		struct ibv_sge *to = &qp->room[qp->head % QUEUE];

		n = recvfrom(d->packets, frame, sizeof(frame), 0, (struct sockaddr *)&from, &len);
		if (n < 0)
			return;
		if (from.sll_pkttype == PACKET_OUTGOING || d->down || n < 54 || n > to->length || !steered(d, frame))
			continue;
		memcpy((void *)(uintptr_t)to->addr, frame, (size_t)n);
		complete(qp->cq, qp->recv[qp->head++ % QUEUE].wr_id, IBV_WC_SUCCESS, (uint32_t)n,
			 l4_sum(frame, (uint32_t)n, &l4) == 0 ? IBV_WC_IP_CSUM_OK : 0);
		d->n.receives++;
	}
}

static bool in_region(const struct device *d, const struct ibv_sge *s)
{
	return d->mr && s->lkey == KEY && s->addr >= (uintptr_t)d->mr->addr &&
	       s->addr + s->length <= (uintptr_t)d->mr->addr + d->mr->length;
}

static int send_one(struct device *d, struct qp *qp, const struct ibv_send_wr *wr)
{
	static uint8_t frame[65536];
	uint32_t len = 0;

	if (d->gone || qp->qp.state != IBV_QPS_RTS || wr->num_sge < 1 || ++qp->unsignalled > qp->most)
		return d->gone ? EIO : ENOMEM;
	for (int i = 0; i < wr->num_sge; i++) {
		if (!in_region(d, &wr->sg_list[i]))
			return EINVAL;
		memcpy(frame + len, (void *)(uintptr_t)wr->sg_list[i].addr, wr->sg_list[i].length);
		len += wr->sg_list[i].length;
	}
	if (wr->send_flags & IBV_SEND_INLINE && len > qp->inline_most)
		return ENOMEM;
	if (wr->send_flags & IBV_SEND_IP_CSUM)
		fill_checksums(frame, len);
	d->n.sends++;
	d->n.inlined += !!(wr->send_flags & IBV_SEND_INLINE);
	d->n.checksums += !!(wr->send_flags & IBV_SEND_IP_CSUM);
	if (!d->down && !d->qp_bad)
		(void)!send(d->packets, frame, len, 0);
	if (wr->send_flags & IBV_SEND_SIGNALED || d->qp_bad) {
		complete(qp->cq, wr->wr_id, d->qp_bad ? IBV_WC_WR_FLUSH_ERR : IBV_WC_SUCCESS, 0, 0);
		d->n.signalled++;
		qp->unsignalled = 0;
	}
	return 0;
}

static int post_send(struct ibv_qp *ibv, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct qp *qp = (struct qp *)(void *)ibv;
	bool refuse = qp->d->refuse;
	int ret = 0;

	qp->d->n.doorbells++;
	qp->d->refuse = false;
	for (; wr && !ret; wr = wr->next) {
		*bad = wr;
		ret = refuse && !wr->next ? ENOMEM : send_one(qp->d, qp, wr);
	}
	return ret;
}

static int post_recv(struct ibv_qp *ibv, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct qp *qp = (struct qp *)(void *)ibv;

	for (; wr; wr = wr->next) {
		*bad = wr;
		if (qp->d->gone || wr->num_sge != 1 || qp->tail - qp->head == qp->most ||
		    !in_region(qp->d, wr->sg_list))
			return ENOMEM;
		qp->recv[qp->tail % QUEUE] = *wr;
		qp->room[qp->tail++ % QUEUE] = *wr->sg_list;
	}
	return 0;
}

/* --- the completion queue --- */

static int next_poll(struct ibv_cq_ex *ex)
{
	struct cq *cq = (struct cq *)(void *)ex;

	if (cq->head == cq->tail || cq->d->cq_bad || cq->d->gone)
		return ENOENT;
	ex->wr_id = cq->done[cq->head % QUEUE].wr_id;
	ex->status = cq->done[cq->head++ % QUEUE].status;
	return 0;
}

static int start_poll(struct ibv_cq_ex *ex, struct ibv_poll_cq_attr *attr)
{
	struct cq *cq = (struct cq *)(void *)ex;

	if (attr->comp_mask)
		return EINVAL;
	if (!cq->d->gone && !cq->d->cq_bad && !cq->d->qp_bad)
		receive(cq->d);
	return next_poll(ex);
}

static void end_poll(struct ibv_cq_ex *ex)
{
	(void)ex;
}

static const struct completion *current(struct ibv_cq_ex *ex)
{
	struct cq *cq = (struct cq *)(void *)ex;

	return &cq->done[(cq->head - 1) % QUEUE];
}

static uint32_t read_byte_len(struct ibv_cq_ex *ex)
{
	return current(ex)->len;
}

static unsigned read_wc_flags(struct ibv_cq_ex *ex)
{
	return current(ex)->flags;
}

static struct ibv_cq_ex *create_cq_ex(struct ibv_context *ctx, struct ibv_cq_init_attr_ex *init)
{
	struct cq *cq;

	errno = EIO;
	if (device_of(ctx)->gone || init->cqe > QUEUE)
		return NULL;
	cq = thing(sizeof(*cq));
	cq->d = device_of(ctx);
	cq->d->cq_bad = false;
	cq->ex = (struct ibv_cq_ex){.context = ctx,
				    .channel = init->channel,
				    .start_poll = start_poll,
				    .next_poll = next_poll,
				    .end_poll = end_poll,
				    .read_byte_len = read_byte_len,
				    .read_wc_flags = read_wc_flags};
	return &cq->ex;
}

EXPORT int ibv_destroy_cq(struct ibv_cq *cq)
{
	return gone(cq);
}

/* The channel is an epoll descriptor: armed, it has the packet socket in it, once. */
static int req_notify_cq(struct ibv_cq *cq, int solicited_only)
{
	struct device *d = device_of(cq->context);
	struct epoll_event ev = {.events = EPOLLIN | EPOLLONESHOT};

	(void)solicited_only;
	if (epoll_ctl(cq->channel->fd, EPOLL_CTL_MOD, d->packets, &ev) < 0)
		return epoll_ctl(cq->channel->fd, EPOLL_CTL_ADD, d->packets, &ev) < 0 ? errno : 0;
	return 0;
}

EXPORT int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **context)
{
	struct epoll_event ev;

	*cq = NULL;
	*context = NULL;
	return epoll_wait(channel->fd, &ev, 1, 0) == 1 ? 0 : -1;
}

EXPORT void ibv_ack_cq_events(struct ibv_cq *cq, unsigned n)
{
	(void)cq;
	(void)n;
}

EXPORT struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *ctx)
{
	struct ibv_comp_channel *c = thing(sizeof(*c));

	c->context = ctx;
	c->fd = epoll_create1(EPOLL_CLOEXEC);
	return c;
}

EXPORT int ibv_destroy_comp_channel(struct ibv_comp_channel *c)
{
	close(c->fd);
	return gone(c);
}

/* --- the rest --- */

EXPORT struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *init)
{
	struct device *d = device_of(pd->context);
	struct qp *qp;

	errno = d->gone ? EIO : qps_error;
	if (d->gone || qps_refused-- > 0)
		return NULL;
	qp = thing(sizeof(*qp));
	qp->qp.context = pd->context;
	qp->qp.state = IBV_QPS_RESET;
	qp->d = d;
	qp->cq = (struct cq *)(void *)init->send_cq;
	qp->most = init->cap.max_send_wr;
	qp->inline_most = init->cap.max_inline_data;
	d->qp = qp;
	d->qp_bad = false;
	return &qp->qp;
}

EXPORT int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	static const enum ibv_qp_state before[] = {
	    [IBV_QPS_INIT] = IBV_QPS_RESET, [IBV_QPS_RTR] = IBV_QPS_INIT, [IBV_QPS_RTS] = IBV_QPS_RTR};

	if (!(mask & IBV_QP_STATE) || attr->qp_state > IBV_QPS_RTS || qp->state != before[attr->qp_state])
		return EINVAL;
	qp->state = attr->qp_state;
	return 0;
}

EXPORT int ibv_destroy_qp(struct ibv_qp *qp)
{
	device_of(qp->context)->qp = NULL;
	return gone(qp);
}

EXPORT struct ibv_pd *ibv_alloc_pd(struct ibv_context *ctx)
{
	struct ibv_pd *pd = thing(sizeof(*pd));

	pd->context = ctx;
	return pd;
}

EXPORT int ibv_dealloc_pd(struct ibv_pd *pd)
{
	return gone(pd);
}

EXPORT struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
	struct ibv_mr *mr = thing(sizeof(*mr));

	*mr = (struct ibv_mr){.context = pd->context, .pd = pd, .addr = addr, .length = length, .lkey = KEY};
	if (access & IBV_ACCESS_LOCAL_WRITE)
		device_of(pd->context)->mr = mr;
	return mr;
}

EXPORT int ibv_dereg_mr(struct ibv_mr *mr)
{
	device_of(mr->context)->mr = NULL;
	return gone(mr);
}

EXPORT int ibv_get_async_event(struct ibv_context *ctx, struct ibv_async_event *event)
{
	return read(ctx->async_fd, &event->event_type, sizeof(event->event_type)) > 0 ? 0 : -1;
}

EXPORT void ibv_ack_async_event(struct ibv_async_event *event)
{
	(void)event;
}

static int query_device_ex(struct ibv_context *ctx, const struct ibv_query_device_ex_input *input,
			   struct ibv_device_attr_ex *attr, size_t size)
{
	(void)ctx;
	(void)input;
	memset(attr, 0, size);
	attr->orig_attr.max_sge = 16;
	attr->orig_attr.device_cap_flags = IBV_DEVICE_RAW_IP_CSUM;
	return 0;
}

EXPORT int ibv_query_device(struct ibv_context *ctx, struct ibv_device_attr *attr)
{
	(void)ctx;
	(void)attr;
	return EOPNOTSUPP; /* the extended call is there */
}

static int query_port(struct ibv_context *ctx, uint8_t port, struct ibv_port_attr *attr, size_t len)
{
	memset(attr, 0, len);
	attr->state = device_of(ctx)->down ? IBV_PORT_DOWN : IBV_PORT_ACTIVE;
	attr->link_layer = IBV_LINK_LAYER_ETHERNET;
	return port == 1 ? 0 : EINVAL;
}

EXPORT int ibv_query_port(struct ibv_context *ctx, uint8_t port, struct _compat_ibv_port_attr *attr)
{
	(void)ctx;
	(void)port;
	(void)attr;
	return EOPNOTSUPP; /* the same */
}

EXPORT struct ibv_device **ibv_get_device_list(int *n)
{
	struct ibv_device **list = thing((DEVICES + 1) * sizeof(*list));
	int count = 0;

	for (int i = 0; i < DEVICES; i++)
		if (devices[i].name[0])
			list[count++] = &devices[i].dev;
	if (n)
		*n = count;
	return list;
}

EXPORT void ibv_free_device_list(struct ibv_device **list)
{
	gone(list);
}

EXPORT const char *ibv_get_device_name(struct ibv_device *dev)
{
	return dev->name;
}

EXPORT struct ibv_context *ibv_open_device(struct ibv_device *dev)
{
	struct verbs_context *v = thing(sizeof(*v));

	v->sz = sizeof(*v);
	v->query_port = query_port;
	v->query_device_ex = query_device_ex;
	v->create_cq_ex = create_cq_ex;
	v->ibv_create_flow = create_flow;
	v->ibv_destroy_flow = destroy_flow;
	v->context.device = dev;
	v->context.abi_compat = __VERBS_ABI_IS_EXTENDED;
	v->context.async_fd = ((struct device *)(void *)dev)->events[0];
	v->context.ops.post_send = post_send;
	v->context.ops.post_recv = post_recv;
	v->context.ops.req_notify_cq = req_notify_cq;
	return &v->context;
}

EXPORT int ibv_close_device(struct ibv_context *ctx)
{
	return gone(verbs_get_ctx(ctx));
}
