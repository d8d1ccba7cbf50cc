/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Groups (ip(7), ipv6(7), RFC 3678). A join goes to the kernel, on the backing socket: it speaks IGMP and MLD, programs
 * the device and checks the arguments. Then the engine is told what the kernel has agreed to (engine/udp_group.c), and
 * viaductd is asked for a filter for the group at the socket's port (daemon/groups.h). Whether frames then come to the
 * stack or to the backing socket is viaductd's to say at any moment: both are read from.
 *
 * Which interface a join means when it names none is asked of the kernel, by a socket connected to the group. Where
 * that gives no answer, and for IP_MSFILTER, which replaces all sources at once, the kernel's half serves the group.
 */
#define _GNU_SOURCE
#include "socket/udp_group.h"

#include <dirent.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "engine/bytes.h"
#include "socket/net_internal.h"
#include "socket/sockets.h"

#define STEERED_MAX 1024u

/* A filter of ours at viaductd. Under net_lock. */
static struct steered {
	uint32_t id; /* viaductd's; 0: unused */
	uint32_t stack;
	vsock_t owner;
	struct endpoint group;
} filters[STEERED_MAX];
static uint32_t filters_high;

/* --- what the option says --- */

enum action { JOIN, LEAVE, REPLACE };

struct change {
	enum action action;
	struct udp_member m;
	uint8_t by[16]; /* address of the interface; all zero: not said */
};

static bool take_ifindex_or_address(const uint8_t *val, socklen_t len, struct change *c)
{
	struct ip_mreqn r = {0};

	if (len < sizeof(struct ip_mreq))
		return false;
	memcpy(&r, val, len < sizeof(r) ? sizeof(struct ip_mreq) : sizeof(r));
	map_v4(c->m.group, &r.imr_multiaddr);
	if (r.imr_address.s_addr)
		map_v4(c->by, &r.imr_address);
	c->m.ifindex = (uint32_t)r.imr_ifindex;
	return true;
}

static bool take_source_v4(const uint8_t *val, socklen_t len, struct change *c)
{
	struct ip_mreq_source r;

	if (len < sizeof(r))
		return false;
	memcpy(&r, val, sizeof(r));
	map_v4(c->m.group, &r.imr_multiaddr);
	map_v4(c->m.source, &r.imr_sourceaddr);
	if (r.imr_interface.s_addr)
		map_v4(c->by, &r.imr_interface);
	return true;
}

static bool take_address(const struct sockaddr_storage *ss, uint8_t to[16])
{
	struct endpoint ep;
	int family;

	if (addr_from_sockaddr((const struct sockaddr *)ss, sizeof(*ss), &ep, &family) < 0)
		return false;
	memcpy(to, ep.addr, 16);
	return true;
}

static bool take_group_req(const uint8_t *val, socklen_t len, bool source, struct change *c)
{
	struct group_source_req r;

	if (len < (source ? sizeof(r) : sizeof(struct group_req)))
		return false;
	memcpy(&r, val, source ? sizeof(r) : sizeof(struct group_req));
	c->m.ifindex = r.gsr_interface;
	return take_address(&r.gsr_group, c->m.group) && (!source || take_address(&r.gsr_source, c->m.source));
}

static bool take_mreq_v6(const uint8_t *val, socklen_t len, struct change *c)
{
	struct ipv6_mreq r;

	if (len < sizeof(r))
		return false;
	memcpy(&r, val, sizeof(r));
	memcpy(c->m.group, &r.ipv6mr_multiaddr, 16);
	c->m.ifindex = r.ipv6mr_interface;
	return true;
}

struct option {
	int level, name;
	enum action action;
	enum udp_member_mode mode;
};

static const struct option options[] = {
    {IPPROTO_IP, IP_ADD_MEMBERSHIP, JOIN, UDP_MEMBER_ALL},
    {IPPROTO_IP, IP_DROP_MEMBERSHIP, LEAVE, UDP_MEMBER_ALL},
    {IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, JOIN, UDP_MEMBER_SOURCE},
    {IPPROTO_IP, IP_DROP_SOURCE_MEMBERSHIP, LEAVE, UDP_MEMBER_SOURCE},
    {IPPROTO_IP, IP_BLOCK_SOURCE, JOIN, UDP_MEMBER_BLOCKED},
    {IPPROTO_IP, IP_UNBLOCK_SOURCE, LEAVE, UDP_MEMBER_BLOCKED},
    {IPPROTO_IP, IP_MSFILTER, REPLACE, UDP_MEMBER_NONE},
    {IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, JOIN, UDP_MEMBER_ALL},
    {IPPROTO_IPV6, IPV6_DROP_MEMBERSHIP, LEAVE, UDP_MEMBER_ALL},
    /* at both levels */
    {-1, MCAST_JOIN_GROUP, JOIN, UDP_MEMBER_ALL},
    {-1, MCAST_LEAVE_GROUP, LEAVE, UDP_MEMBER_ALL},
    {-1, MCAST_JOIN_SOURCE_GROUP, JOIN, UDP_MEMBER_SOURCE},
    {-1, MCAST_LEAVE_SOURCE_GROUP, LEAVE, UDP_MEMBER_SOURCE},
    {-1, MCAST_BLOCK_SOURCE, JOIN, UDP_MEMBER_BLOCKED},
    {-1, MCAST_UNBLOCK_SOURCE, LEAVE, UDP_MEMBER_BLOCKED},
    {-1, MCAST_MSFILTER, REPLACE, UDP_MEMBER_NONE},
};

static const struct option *find_option(int level, int name)
{
	if (level != IPPROTO_IP && level != IPPROTO_IPV6)
		return NULL;
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		if (options[i].name == name && (options[i].level == level || options[i].level < 0))
			return &options[i];
	return NULL;
}

/* False: what the kernel has made of it we can't tell. */
static bool parse(const struct option *o, const void *val, socklen_t len, struct change *c)
{
	bool source = o->mode != UDP_MEMBER_ALL;

	*c = (struct change){.action = o->action, .m.mode = o->mode};
	if (o->action == REPLACE)
		return true;
	if (o->level < 0)
		return take_group_req(val, len, source, c);
	if (o->level == IPPROTO_IPV6)
		return take_mreq_v6(val, len, c);
	return source ? take_source_v4(val, len, c) : take_ifindex_or_address(val, len, c);
}

/* --- which interface --- */

static uint32_t device_of_route(const uint8_t group[16])
{
	struct endpoint to = {.port = 9}, from;
	struct sockaddr_storage ss;
	uint32_t device = 0;
	socklen_t len;
	int fd;

	memcpy(to.addr, group, 16);
	len = addr_to_sockaddr(&to, is_v4(group) ? 4 : 6, &ss);
	fd = host_sys.socket(is_v4(group) ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return 0;
	if (host_sys.connect(fd, (struct sockaddr *)&ss, len) == 0 && sock_kernel_name(fd, &from) == 0)
		device = addr_ifindex(from.addr);
	host_sys.close(fd);
	return device;
}

static uint32_t device_of(const struct change *c)
{
	static const uint8_t zero[16];

	if (c->m.ifindex)
		return c->m.ifindex;
	return memcmp(c->by, zero, sizeof(zero)) ? addr_ifindex(c->by) : device_of_route(c->m.group);
}

/* --- filters --- */

static struct steered *find_filter(vsock_t owner, const uint8_t group[16])
{
	for (uint32_t i = 0; i < filters_high; i++)
		if (filters[i].id && filters[i].owner == owner && addr_equal(filters[i].group.addr, group))
			return &filters[i];
	return NULL;
}

static int ask_add(struct net *n, const struct endpoint *group, int fd)
{
	struct daemon_filter body = {
	    .proto = IPPROTO_UDP, .family = is_v4(group->addr) ? 4 : 6, .local_port = group->port};
	struct viaductd_request r = {
	    .type = DAEMON_FILTER_ADD, .body = &body, .len = sizeof(body), .fds = &fd, .fd_count = 1};
	const struct daemon_filter_id *id;
	struct viaductd_reply reply;
	int ret;

	memcpy(body.local, group->addr, sizeof(body.local));
	ret = net_ask(n, &r, &reply);
	if (ret < 0)
		return ret;
	id = (const struct daemon_filter_id *)(const void *)reply.body;
	ret = id->id && id->id <= INT32_MAX ? (int)id->id : -EPROTO;
	viaductd_reply_drop(&reply);
	return ret;
}

static void ask_del(struct attached *a, uint32_t id)
{
	struct daemon_filter_ids body = {.id = id};
	struct viaductd_request r = {
	    .type = DAEMON_FILTER_DEL, .body = &body, .len = (uint32_t)offsetof(struct daemon_filter_ids, others)};
	struct viaductd_reply reply;

	if (net_of(a)->state == NET_UP && net_ask(net_of(a), &r, &reply) == 0)
		viaductd_reply_drop(&reply);
}

static struct steered *free_filter(void)
{
	for (uint32_t i = 0; i < STEERED_MAX; i++)
		if (!filters[i].id) {
			if (i >= filters_high)
				filters_high = i + 1;
			return &filters[i];
		}
	return NULL;
}

static void add_filter(struct attached *a, vsock_t v, int fd, const struct endpoint *group, uint32_t ifindex)
{
	struct steered *f;
	enum reason reason;
	int id;

	quiet_lock(&net_lock);
	f = find_filter(v, group->addr) ? NULL : free_filter();
	if (net_start_locked(a, &reason) == 0 && net_vnic_locked(a, ifindex, &reason) >= 0 && f) {
		id = ask_add(net_of(a), group, fd);
		if (id > 0)
			*f = (struct steered){.id = (uint32_t)id, .stack = a->index, .owner = v, .group = *group};
	}
	quiet_unlock(&net_lock);
}

/* group NULL: all of the socket's. */
static void remove_filters(struct attached *a, vsock_t v, const uint8_t *group)
{
	if (!__atomic_load_n(&filters_high, __ATOMIC_RELAXED))
		return;
	quiet_lock(&net_lock);
	for (uint32_t i = 0; i < filters_high; i++) {
		struct steered *f = &filters[i];

		if (!f->id || f->owner != v || (group && !addr_equal(f->group.addr, group)))
			continue;
		ask_del(a, f->id);
		f->id = 0;
	}
	quiet_unlock(&net_lock);
}

/* --- changes --- */

/* What the socket has joined. The number of entries; *port: its own. */
static uint32_t members(vsock_t v, struct udp_member out[UDP_MEMBERS], struct endpoint *at, bool *ours)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	uint32_t n = 0;

	if (!k)
		return 0;
	at->port = k->local.port;
	*ours = !(k->flags & SOCKF_KERNEL_ROUTE);
	for (uint32_t i = 0; i < k->udp.members && i < UDP_MEMBERS; i++)
		if (k->udp.member[i].mode == UDP_MEMBER_ALL || k->udp.member[i].mode == UDP_MEMBER_SOURCE)
			out[n++] = k->udp.member[i];
	stack_leave(a);
	return n;
}

void udp_group_bound(vsock_t v, int fd)
{
	struct udp_member m[UDP_MEMBERS];
	struct endpoint at = {0};
	bool ours = false;
	uint32_t n = members(v, m, &at, &ours);

	if (!at.port || !ours || rules_refuse(SOCK_UDP, RULE_SERVER, &at))
		return;
	for (uint32_t i = 0; i < n; i++) {
		memcpy(at.addr, m[i].group, 16);
		add_filter(vs_attached(v), v, fd, &at, m[i].ifindex);
	}
}

static void forget_all(vsock_t v)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);

	if (!k)
		return;
	k->udp.members = 0;
	memset(k->udp.member, 0, sizeof(k->udp.member));
	stack_leave(a);
	remove_filters(a, v, NULL);
}

static void join(vsock_t v, int fd, const struct udp_member *m)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	int ret;

	if (!k)
		return;
	ret = udp_join(k, m);
	stack_leave(a);
	if (ret == 0)
		udp_group_bound(v, fd);
	else if (m->mode == UDP_MEMBER_BLOCKED)
		forget_all(v); /* the kernel keeps that sender from it */
}

static void leave(vsock_t v, const struct udp_member *m)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	bool hears = false;

	if (!k)
		return;
	if (udp_leave(k, m))
		for (uint32_t i = 0; i < k->udp.members && i < UDP_MEMBERS; i++)
			hears |=
			    k->udp.member[i].mode != UDP_MEMBER_NONE && addr_equal(k->udp.member[i].group, m->group);
	else
		hears = true;
	stack_leave(a);
	if (!hears)
		remove_filters(a, v, m->group);
}

/* --- sending --- */

static uint32_t known(uint32_t ifindex)
{
	return ifindex ? ifindex : ~0u;
}

static void send_by_v4(struct sock *k, const uint8_t *val, socklen_t len)
{
	struct ip_mreqn r = {0};

	if (len >= sizeof(struct ip_mreq))
		memcpy(&r, val, len < sizeof(r) ? sizeof(struct ip_mreq) : sizeof(r));
	else
		memcpy(&r.imr_address, val, sizeof(r.imr_address));
	memset(k->udp.group_from, 0, sizeof(k->udp.group_from));
	k->udp.group_if = (uint32_t)r.imr_ifindex;
	if (!r.imr_address.s_addr)
		return;
	map_v4(k->udp.group_from, &r.imr_address);
	if (!r.imr_ifindex)
		k->udp.group_if = known(addr_ifindex(k->udp.group_from));
}

/* IP_MULTICAST_IF: the kernel has taken it, so it names an interface, or none. */
static bool send_by(vsock_t v, int level, int name, const void *val, socklen_t len)
{
	struct attached *a;
	struct sock *k;

	if (level == IPPROTO_IP ? name != IP_MULTICAST_IF : level != IPPROTO_IPV6 || name != IPV6_MULTICAST_IF)
		return false;
	k = len >= sizeof(int) ? vs_enter(v, &a) : NULL;
	if (!k)
		return true;
	if (level == IPPROTO_IP)
		send_by_v4(k, val, len);
	else
		memcpy(&k->udp.group_if6, val, sizeof(k->udp.group_if6));
	stack_leave(a);
	return true;
}

bool udp_group_option(vsock_t v, int fd, int level, int name, const void *val, socklen_t len)
{
	const struct option *o = find_option(level, name);
	struct change c;

	if (!o)
		return send_by(v, level, name, val, len);
	if (!parse(o, val, len, &c) || c.action == REPLACE || !(c.m.ifindex = device_of(&c))) {
		if (c.action != JOIN || c.m.mode == UDP_MEMBER_BLOCKED)
			forget_all(v); /* which of them still stand? */
	} else if (c.action == JOIN) {
		join(v, fd, &c.m);
	} else {
		leave(v, &c.m);
	}
	return true;
}

void udp_group_closed(struct attached *a, vsock_t v)
{
	remove_filters(a, v, NULL);
}

/* --- another viaductd, another process --- */

static uint64_t inode_of(vsock_t v)
{
	struct attached *a;
	struct sock *k = vs_enter(v, &a);
	uint64_t inode = k ? k->inode : 0;

	if (k)
		stack_leave(a);
	return inode;
}

/* A descriptor of this process for that socket: -1 none. Slow; only when viaductd was started anew. */
static int descriptor_of(uint64_t inode)
{
	DIR *d = opendir("/proc/self/fd");
	int found = -1;
	struct stat st;

	for (struct dirent *e; d && inode && found < 0 && (e = readdir(d));)
		if (e->d_name[0] != '.' && fstat(atoi(e->d_name), &st) == 0 && S_ISSOCK(st.st_mode) &&
		    st.st_ino == inode)
			found = atoi(e->d_name);
	if (d)
		closedir(d);
	return found;
}

void udp_group_resume(struct attached *a)
{
	for (uint32_t i = 0; i < filters_high; i++) {
		struct steered *f = &filters[i];
		int fd, id;

		if (!f->id || f->stack != a->index)
			continue;
		fd = descriptor_of(inode_of(f->owner));
		id = fd < 0 ? -EBADF : ask_add(net_of(a), &f->group, fd);
		f->id = id > 0 ? (uint32_t)id : 0;
	}
}

void udp_group_after_fork(void)
{
	memset(filters, 0, sizeof(filters));
	filters_high = 0;
}
