/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: what clients of viaductd can say. Several connections of two users send any packets with any
 * descriptors; the kernel's side (maps, veths, AF_XDP sockets, the mirror) is played here in memory. Whatever comes:
 * every request has one answer or ends its connection, no flow is two stacks', the kernel's map holds what the table
 * says, and when all are gone no filter, port or descriptor is left.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/closer.h"
#include "daemon/hearers.h"
#include "daemon/kernel_flows.h"
#include "daemon/orphan.h"
#include "daemon/requests.h"
#include "daemon/rings.h"
#include "daemon/veth.h"
#include "fuzz.h"

#define CLIENTS 4
#define FAKE_FILTERS 512

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* --- the kernel --- */

static struct {
	struct steer_key key[FAKE_FILTERS];
	struct steer_target target[FAKE_FILTERS];
	uint32_t filters;
	struct steer_kinds kinds; /* at the last change between none and some */
	struct steer_group group[STEER_GROUPS];
	struct steer_port port[STEER_IFACES * STEER_STACKS];
	uint32_t ports, veths, attached;
	bool taken;
} kernel;

static struct house house;

/* Frames are let in only to sockets that are bound. */
static bool is_bound(uint32_t iface, uint32_t stack)
{
	for (uint32_t i = 0; i < STEER_STACKS; i++)
		for (uint32_t v = 0; house.tenant[i] && house.tenant[i]->number == stack && v < TENANT_VNICS; v++)
			if (house.tenant[i]->vnic[v].ifindex && house.tenant[i]->vnic[v].iface == iface)
				return house.tenant[i]->vnic[v].port.bound;
	return false;
}

static struct netview view;
static int view_fd = -1, keep_fd = -1;

static int find(const struct steer_key *key)
{
	for (uint32_t i = 0; i < kernel.filters; i++)
		if (!memcmp(&kernel.key[i], key, sizeof(*key)))
			return (int)i;
	return -1;
}

int steer_filter_set(struct steer *s, const struct steer_key *key, const struct steer_target *target)
{
	int at = find(key);

	(void)s;
	if (at < 0 && kernel.filters == FAKE_FILTERS)
		return -E2BIG;
	if (at < 0)
		at = (int)kernel.filters++;
	kernel.key[at] = *key;
	kernel.target[at] = *target;
	return 0;
}

void steer_filter_clear(struct steer *s, const struct steer_key *key)
{
	int at = find(key);

	(void)s;
	if (at < 0)
		return;
	kernel.filters--;
	kernel.key[at] = kernel.key[kernel.filters];
	kernel.target[at] = kernel.target[kernel.filters];
}

int steer_filter_get(struct steer *s, const struct steer_key *key, struct steer_target *target)
{
	int at = find(key);

	(void)s;
	if (at >= 0)
		*target = kernel.target[at];
	return at < 0 ? -ENOENT : 0;
}

int steer_filter_next(struct steer *s, const struct steer_key *key, struct steer_key *next)
{
	(void)s;
	(void)key;
	(void)next;
	return -ENOENT;
}

int steer_kinds_set(struct steer *s, const struct steer_kinds *kinds)
{
	(void)s;
	kernel.kinds = *kinds;
	return 0;
}

int steer_group_set(struct steer *s, uint32_t group, const struct steer_group *g)
{
	(void)s;
	fuzz_require(group < STEER_GROUPS && g->count <= STEER_MEMBERS);
	kernel.group[group] = *g;
	return 0;
}

int steer_group_get(struct steer *s, uint32_t group, struct steer_group *g)
{
	(void)s;
	*g = kernel.group[group];
	return 0;
}

int steer_port_get(struct steer *s, uint32_t iface, uint32_t stack, struct steer_port *port)
{
	(void)s;
	fuzz_require(iface < STEER_IFACES && stack < STEER_STACKS);
	*port = kernel.port[steer_port_index(iface, stack)];
	return 0;
}

int steer_port_set(struct steer *s, uint32_t iface, uint32_t stack, const struct steer_port *port)
{
	struct steer_port was;

	steer_port_get(s, iface, stack, &was);
	fuzz_require(is_bound(iface, stack));
	kernel.ports += !was.mode;
	kernel.port[steer_port_index(iface, stack)] = *port;
	return 0;
}

void steer_port_clear(struct steer *s, uint32_t iface, uint32_t stack)
{
	struct steer_port was;

	steer_port_get(s, iface, stack, &was);
	kernel.ports -= was.mode != 0;
	kernel.port[steer_port_index(iface, stack)].mode = 0;
}

int steer_attach(struct steer *s, uint32_t device, bool *native)
{
	(void)s;
	(void)device;
	*native = true;
	kernel.attached++;
	return 0;
}

void steer_detach(struct steer *s, uint32_t device)
{
	(void)s;
	(void)device;
	kernel.attached--;
}

int steer_iface(struct steer *s, const struct steer_if_key *where, uint32_t ifindex, const uint8_t mac[6])
{
	(void)s;
	(void)where;
	(void)mac;
	return (int)ifindex % (int)STEER_IFACES;
}

void steer_iface_gone(struct steer *s, const struct steer_if_key *where)
{
	(void)s;
	(void)where;
}

int steer_xsk(struct steer *s, uint32_t iface, uint32_t stack, uint32_t queue, int xsk)
{
	(void)s;
	(void)xsk;
	fuzz_require(iface < STEER_IFACES && stack < STEER_STACKS && queue < STEER_QUEUES);
	return 0;
}

int steer_veth(struct steer *s, uint32_t iface, uint32_t stack, uint32_t outer, const struct steer_outer *o)
{
	(void)s;
	(void)iface;
	(void)outer;
	fuzz_require(o->stack == stack);
	return 0;
}

int steer_veth_get(struct steer *s, uint32_t outer, struct steer_outer *o)
{
	(void)s;
	(void)outer;
	*o = (struct steer_outer){.sent = 2, .refused = 1};
	return 0;
}

void steer_veth_gone(struct steer *s, uint32_t iface, uint32_t stack, uint32_t outer)
{
	(void)s;
	(void)iface;
	(void)stack;
	(void)outer;
}

bool steer_by_skb(struct steer *s, uint32_t device)
{
	(void)s;
	(void)device;
	return false;
}

int steer_attach_outer(struct steer *s, uint32_t ifindex, uint32_t device)
{
	(void)s;
	(void)ifindex;
	(void)device;
	return 0;
}

int steer_table(const struct steer *s)
{
	(void)s;
	return keep_fd;
}

bool steer_table_has(struct steer *s, const struct steer_key *flow, uint32_t stack)
{
	(void)s;
	return (flow->remote_port ^ stack) & 1;
}

void steer_table_clear(struct steer *s, uint32_t stack)
{
	(void)s;
	fuzz_require(stack < STEER_STACKS);
}

int steer_keep(const struct steer *s)
{
	(void)s;
	return keep_fd;
}

bool steer_adopted(const struct steer *s)
{
	(void)s;
	return false;
}

void steer_settle(struct steer *s)
{
	(void)s;
}

void steer_view(struct steer *s, const struct netview *v)
{
	(void)s;
	(void)v;
}

static uint64_t next_cookie;

int port_device(int sock, uint32_t ifindex, struct port_device *d)
{
	(void)sock;
	*d = (struct port_device){.ifindex = ifindex, .queues = 1 + ifindex % 6, .mtu = 1500, .up = true};
	return 0;
}

int port_open(uint32_t ifindex, uint32_t queues, uint32_t mtu, struct port *p)
{
	(void)ifindex;
	(void)mtu;
	fuzz_require(queues && queues <= DAEMON_QUEUES_MAX);
	*p = (struct port){.umem = dup(keep_fd), .queues = queues, .cookie = ++next_cookie};
	for (uint32_t q = 0; q < DAEMON_QUEUES_MAX; q++)
		p->xsk[q] = q < queues ? dup(keep_fd) : -1;
	return 0;
}

/* Never twice, and sometimes the queues are a stranger's. */
int port_bind(struct port *p)
{
	fuzz_require(p->umem >= 0 && !p->bound);
	if (kernel.taken)
		return -EBUSY;
	p->bound = true;
	p->features = DAEMON_VNIC_SCATTER;
	return 0;
}

struct xdp_port *rings_keep(const struct port *p, const struct daemon_vnic *v)
{
	(void)v;
	fuzz_require(p->umem >= 0);
	return malloc(1);
}

void rings_forget(struct xdp_port *rings, uint32_t queues)
{
	(void)queues;
	free(rings);
}

void port_close(struct port *p)
{
	for (uint32_t q = 0; q < DAEMON_QUEUES_MAX; q++)
		if (p->xsk[q] >= 0)
			close(p->xsk[q]);
	if (p->umem >= 0)
		close(p->umem);
	*p = (struct port){.umem = -1, .xsk = {-1, -1, -1, -1}};
}

void port_describe(const struct port *p, struct daemon_vnic *v)
{
	v->queues = p->queues;
}

uint64_t socket_cookie(int sock)
{
	(void)sock;
	return 0;
}

bool socket_sends_anything(int sock, uint64_t netns)
{
	(void)netns;
	return sock & 1;
}

uint64_t socket_netns(int sock)
{
	(void)sock;
	return 1;
}

int veth_open(struct steer *s, struct cellar *c, uint32_t at, const struct port_device *device, uint32_t *outer,
	      struct port *p)
{
	(void)s;
	(void)c;
	kernel.veths++;
	*outer = 100 + at;
	return port_open(*outer, 1, device->mtu, p);
}

void veth_close(struct steer *s, uint32_t at, uint32_t outer)
{
	(void)s;
	fuzz_require(outer == 100 + at);
	kernel.veths--;
}

const struct netview *mirror_view(const struct mirror *m)
{
	(void)m;
	return &view;
}

/* Interface 4 is a bond over devices 1 and 2. */
uint32_t mirror_below(const struct mirror *m, const struct netview_iface *f, uint32_t below[MIRROR_BELOW],
		      uint32_t *sends)
{
	uint32_t n = 0;

	(void)m;
	*sends = f->ifindex == 4 ? 4 : f->device;
	if (f->ifindex == 4 && view.copy[1].iface[1].ifindex == 2)
		below[n++] = 2;
	below[n++] = f->ifindex == 4 ? 1 : f->device;
	return n;
}

int mirror_view_fd(const struct mirror *m)
{
	(void)m;
	return view_fd;
}

int mirror_resolve(struct mirror *m, uint32_t ifindex, const uint8_t addr[16])
{
	(void)m;
	(void)addr;
	return ifindex ? 0 : -ENODEV;
}

/* Nobody hears a group that nobody can join here. */
int hearers_ask(__be16 port, struct hearers *p)
{
	p->port = port;
	p->count = 0;
	return 0;
}

bool hearers_forwards(uint8_t family)
{
	return family == 6;
}

int kernel_flows_possible(int fd)
{
	return fd % 2;
}

int kernel_listening(uint64_t ports[KERNEL_PORT_WORDS])
{
	memset(ports, 0x5a, KERNEL_PORT_WORDS * sizeof(*ports));
	return 0;
}

int kernel_flows(const struct steer_key *port, uint32_t uid, struct steer_key *flow, int max)
{
	(void)uid;
	int n = port->local_port % 4;

	if (port->local_port % 8 == 7)
		return -EADDRINUSE;
	for (int i = 0; i < n && i < max; i++) {
		flow[i] = *port;
		fuzz_address(flow[i].local, 1);
		fuzz_address(flow[i].remote, (uint8_t)(i + 1));
		flow[i].remote_port = htons((uint16_t)(i + 1));
	}
	return n > max ? -E2BIG : n;
}

void closer_close(uint32_t uid, int fd)
{
	(void)uid;
	if (fd >= 0)
		close(fd);
}

void closer_gather(void)
{
}

void closer_settle(uint32_t uid)
{
	(void)uid;
}

uint32_t closer_waiting(uint32_t uid)
{
	(void)uid;
	return 0;
}

void orphan_end(struct tenant *t)
{
	fuzz_require(!t->orphan);
}

bool orphan_make_room(struct house *h, uint32_t device)
{
	(void)h;
	(void)device;
	return false;
}

int server_watch_process(struct server *s, const struct tenant *t, uint32_t at)
{
	(void)s;
	fuzz_require(at < TENANT_PROCESSES && t->process[at] >= 0);
	return 0;
}

/* --- descriptors that clients may pass --- */

enum { FD_MEMFD, FD_PIDFD, FD_TCP4, FD_UDP4, FD_TCP6, FD_UDP_UNBOUND, FD_NULL, FD_KINDS };
static int source[FD_KINDS];
static uint16_t bound_port[FD_KINDS];

static int bound(int family, int type, int kind)
{
	struct sockaddr_in6 sa = {.sin6_family = (sa_family_t)family};
	socklen_t len = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(sa);
	int fd = socket(family, type | SOCK_CLOEXEC, 0);

	fuzz_require(fd >= 0 && !bind(fd, (struct sockaddr *)&sa, len));
	fuzz_require(!getsockname(fd, (struct sockaddr *)&sa, &len));
	bound_port[kind] = ntohs(sa.sin6_port);
	return fd;
}

static void prepare(void)
{
	static struct netview_copy *c = &view.copy[1];

	if (view_fd >= 0)
		return;
	view.version = 1;
	c->ifaces = 6;
	for (uint32_t i = 0; i < c->ifaces; i++)
		c->iface[i] = (struct netview_iface){.ifindex = i + 1, .device = i + 1, .flags = NETVIEW_IF_ALLOWED};
	c->iface[0].flags = NETVIEW_IF_LOOPBACK;
	c->iface[4].flags = 0;
	c->iface[5].device = 3;
	c->iface[5].vlan = 7;
	view_fd = memfd_create("view", MFD_CLOEXEC);
	keep_fd = memfd_create("keep", MFD_CLOEXEC);
	source[FD_MEMFD] = memfd_create("stack", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	source[FD_PIDFD] = (int)syscall(SYS_pidfd_open, getpid(), 0);
	source[FD_TCP4] = bound(AF_INET, SOCK_STREAM, FD_TCP4);
	source[FD_UDP4] = bound(AF_INET, SOCK_DGRAM, FD_UDP4);
	source[FD_TCP6] = bound(AF_INET6, SOCK_STREAM, FD_TCP6);
	source[FD_UDP_UNBOUND] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	source[FD_NULL] = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static uint32_t open_descriptors(void)
{
	int fd = dup(keep_fd);

	fuzz_require(fd >= 0);
	close(fd);
	return (uint32_t)fd; /* the lowest free one */
}

/* --- one run --- */

struct peer {
	struct client *client; /* NULL: hung up */
	int end;
};

static void fill_filter(struct input *in, struct daemon_filter *f)
{
	uint8_t kind = in_u8(in) % FD_KINDS, choice = in_u8(in);

	f->proto = choice & 1 ? IPPROTO_TCP : IPPROTO_UDP;
	f->family = choice & 2 ? 4 : 6;
	f->local_port = choice & 4 ? in_u16(in) : bound_port[kind];
	f->flags = choice >> 6;
	if (choice & 8)
		fuzz_address(f->local, in_u8(in) & 3);
	if (choice & 16) {
		fuzz_address(f->remote, in_u8(in) & 3);
		f->remote_port = in_u8(in) & 3;
	}
}

static size_t fill_packet(struct input *in, char *packet)
{
	struct daemon_head head = {
	    .type = in_u8(in) % (DAEMON_TYPES + 2), .protocol = DAEMON_PROTOCOL, .seq = in_u8(in)};
	char *body = packet + sizeof(head);
	uint8_t shape = in_u8(in);
	size_t len = 0;

	if (head.type == DAEMON_FILTER_ADD && shape & 1) {
		struct daemon_filter f = {0};

		fill_filter(in, &f);
		memcpy(body, &f, sizeof(f));
		len = sizeof(f);
	} else if (shape & 2) {
		uint8_t word = in_u8(in);
		uint32_t small[2] = {word & 15, word >> 6}; /* an ifindex and flags, or a filter's number */

		memcpy(body, small, sizeof(small));
		len = sizeof(small);
	} else {
		for (len = in_u8(in) & 127; in_more(in) && (size_t)(body - packet) < sizeof(head) + len;)
			*body++ = (char)in_u8(in);
	}
	head.size = (uint32_t)(sizeof(head) + len);
	if (shape & 64)
		head.size = in_u32(in);
	if (shape & 128)
		head.protocol = in_u16(in);
	memcpy(packet, &head, sizeof(head));
	return sizeof(head) + len;
}

static void send_packet(struct input *in, int to)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(24 * sizeof(int))] = {0};
	char packet[512] = {0};
	struct iovec iov = {packet, fill_packet(in, packet)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	uint8_t shape = in_u8(in), count = shape & 8 ? shape % 24 : shape & 3;
	int fds[24];

	for (uint8_t i = 0; i < count; i++)
		fds[i] = source[shape & 4 ? i % FD_KINDS : in_u8(in) % FD_KINDS];
	if (count) {
		struct cmsghdr *c;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	}
	fuzz_require(sendmsg(to, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0);
}

/* One answer came: with this number, and a status that is none or an error. Its descriptors are closed. */
static void take_answer(int from, uint32_t seq)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(DAEMON_FDS_MAX * sizeof(int))];
	char packet[DAEMON_MESSAGE_MAX];
	struct iovec iov = {packet, sizeof(packet)};
	struct msghdr msg = {
	    .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(from, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct daemon_head head;

	fuzz_require(n >= (ssize_t)sizeof(head));
	memcpy(&head, packet, sizeof(head));
	fuzz_require(head.size == (uint32_t)n && head.seq == seq && head.status <= 0);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
		for (size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int)) {
			int fd;

			memcpy(&fd, (char *)c + at, sizeof(fd));
			close(fd);
		}
	fuzz_require(recv(from, packet, sizeof(packet), MSG_DONTWAIT) < 0);
}

static void hang_up(struct peer *p)
{
	struct tenant *t = p->client->tenant;

	close(p->client->fd);
	if (p->client->news >= 0)
		close(p->client->news);
	close(p->end);
	/* others may speak for the same stack */
	if (t)
		tenant_client_gone(t, p->client->number);
	free(p->client);
	p->client = NULL;
	if (t && !t->clients)
		tenant_free(t);
}

static void connect_peer(struct peer *p, uint32_t uid)
{
	int ends[2];

	fuzz_require(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
	p->client = calloc(1, sizeof(*p->client));
	*p->client = (struct client){.fd = ends[0], .news = -1, .uid = uid};
	p->end = ends[1];
}

static void one_request(struct input *in, struct peer *p)
{
	struct request q;
	int rc;

	send_packet(in, p->end);
	rc = request_receive(p->client->fd, p->client->uid, &q);
	if (!rc)
		rc = request_serve(NULL, &house, p->client, &q);
	if (rc)
		hang_up(p);
	else
		take_answer(p->end, q.head.seq);
}

/* The table and the kernel's map agree. */
static void check(void)
{
	uint32_t to_kernel = 0;

	for (uint32_t i = 0; i < kernel.filters; i++)
		to_kernel += kernel.target[i].stack == STEER_KERNEL;
	fuzz_require(kernel.filters - to_kernel == filters_count(house.filters));
	for (uint32_t i = 0; i < kernel.filters; i++) {
		const struct steer_target *t = &kernel.target[i];
		const struct steer_key *k = &kernel.key[i];

		fuzz_require(k->remote_port ? kernel.kinds.flows : kernel.kinds.addresses || kernel.kinds.anys);
		if (t->stack == STEER_KERNEL)
			continue;
		if (t->stack == STEER_SHARED) {
			fuzz_require(t->group && kernel.group[t->group - 1].count);
			continue;
		}
		fuzz_require(t->stack < STEER_STACKS && house.number[t->stack].used);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = {data, data + len};
	struct peer peer[CLIENTS] = {0};
	uint32_t before;

	prepare();
	before = open_descriptors();
	house = (struct house){.netns = 1, .descriptors = 160, .kernel.keeps_device = len & 1};
	kernel.taken = false;
	view.copy[1].iface[1].ifindex = 2;
	policy_defaults(&house.policy);
	house.policy.stacks = 3;
	house.policy.filters = 20;
	house.filters = filters_new(NULL);
	house.groups = groups_new(house.filters);
	while (in_more(&in)) {
		uint8_t which = in_u8(&in);
		struct peer *p = &peer[which % CLIENTS];

		if (!p->client)
			connect_peer(p, which % CLIENTS == 3 ? 1000 : 0);
		else if (which >= 240)
			hang_up(p);
		else if (which >= 224 && which < 232)
			kernel.taken = which & 4;
		else if (which >= 232) { /* interface 2 goes or comes */
			view.copy[1].iface[1].ifindex ^= 0x80;
			house_view(&house);
			(void)house_check_ports(&house);
		} else
			one_request(&in, p);
		check();
	}
	for (uint32_t i = 0; i < CLIENTS; i++)
		if (peer[i].client)
			hang_up(&peer[i]);
	fuzz_require(!kernel.kinds.flows && !kernel.kinds.addresses && !kernel.kinds.anys);
	fuzz_require(!kernel.filters && !kernel.ports && !kernel.veths && !kernel.attached);
	for (uint32_t i = 0; i < STEER_STACKS; i++)
		fuzz_require(!house.tenant[i] && !house.number[i].used);
	fuzz_require(open_descriptors() == before);
	groups_free(house.groups);
	filters_free(house.filters);
	return 0;
}
