/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who owns a port: questions to the kernel over NETLINK_SOCK_DIAG (sock_diag(7)), which any user may ask.
 *
 * diag_port_owner lets the kernel do its own lookup, the one that an arriving SYN or datagram would get (exact
 * address first, then any, IPv6 sockets that serve IPv4 included), so our idea of precedence can't differ from the
 * kernel's. For UDP the kernel takes source and destination the other way round (udp_dump_one, "for historical
 * reasons"). diag_port_inodes lists all sockets at a port. The answers come from the network namespace that
 * the calling thread is in. Each call opens and closes a netlink socket; answers are made while the request is
 * sent, so nothing here waits.
 */
#define _GNU_SOURCE
#include "host/host.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>

#include "engine/bytes.h"
#include "engine/tcp.h"

#define ALL_STATES 0xffffffffu

struct request {
	struct nlmsghdr nlh;
	struct inet_diag_req_v2 req;
};

static void fill_request(struct request *r, enum sock_proto proto, int af, uint16_t flags)
{
	memset(r, 0, sizeof(*r));
	r->nlh.nlmsg_len = sizeof(*r);
	r->nlh.nlmsg_type = SOCK_DIAG_BY_FAMILY;
	r->nlh.nlmsg_flags = NLM_F_REQUEST | flags;
	r->req.sdiag_family = (uint8_t)af;
	r->req.sdiag_protocol = proto == SOCK_TCP ? IPPROTO_TCP : IPPROTO_UDP;
	r->req.idiag_states = proto == SOCK_TCP ? 1u << TCP_LISTEN : ALL_STATES;
	r->req.id.idiag_cookie[0] = INET_DIAG_NOCOOKIE;
	r->req.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
}

static int send_request(struct request *r)
{
	int fd = host_sys.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (fd < 0)
		return -errno;
	struct iovec iov = {r, sizeof(*r)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	if (host_sys.sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		int err = -errno;
		host_sys.close(fd);
		return err;
	}
	return fd;
}

/* One datagram of answers, from the kernel and nobody else. Bytes, or -errno. */
static ssize_t receive(int fd, void *buf, size_t len)
{
	for (;;) {
		struct sockaddr_nl from;
		struct iovec iov = {buf, len};
		struct msghdr msg = {.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1};
		ssize_t n = host_sys.recvmsg(fd, &msg, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (msg.msg_flags & MSG_TRUNC)
			return -EMSGSIZE;
		if (msg.msg_namelen == sizeof(from) && from.nl_pid == 0)
			return n;
	}
}

/* Walks answers until `want` says true (1), the kernel says done (0) or an error (-errno). */
static int each_answer(int fd, bool (*want)(const struct inet_diag_msg *, void *), void *arg)
{
	_Alignas(struct nlmsghdr) char buf[32768];
	for (;;) {
		ssize_t n = receive(fd, buf, sizeof(buf));
		if (n < 0)
			return (int)n;
		int left = (int)n;
		for (struct nlmsghdr *h = (struct nlmsghdr *)buf; NLMSG_OK(h, (unsigned)left);
		     h = NLMSG_NEXT(h, left)) {
			if (h->nlmsg_type == NLMSG_DONE)
				return 0;
			if (h->nlmsg_type == NLMSG_ERROR) {
				if (h->nlmsg_len < NLMSG_LENGTH(sizeof(struct nlmsgerr)))
					return -EPROTO;
				return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
			}
			if (h->nlmsg_type != SOCK_DIAG_BY_FAMILY ||
			    h->nlmsg_len < NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
				continue;
			if (want(NLMSG_DATA(h), arg))
				return 1;
			if (!(h->nlmsg_flags & NLM_F_MULTI))
				return 0;
		}
	}
}

struct owner {
	enum sock_proto proto;
	uint16_t port;
	uint32_t uid;
	uint64_t inode;
};

static bool take_owner(const struct inet_diag_msg *m, void *arg)
{
	struct owner *o = arg;
	if (ntohs(m->id.idiag_sport) != o->port || (o->proto == SOCK_TCP && m->idiag_state != TCP_LISTEN))
		return false;
	o->uid = m->idiag_uid;
	o->inode = m->idiag_inode;
	return true;
}

int diag_port_owner(enum sock_proto proto, int family, const struct endpoint *local, uint32_t *uid, uint64_t *inode)
{
	struct request r;
	struct owner o = {.proto = proto, .port = local->port};
	bool v4 = family == 4 || family == AF_INET || is_v4(local->addr);
	fill_request(&r, proto, v4 ? AF_INET : AF_INET6, 0);
	void *addr = proto == SOCK_TCP ? r.req.id.idiag_src : r.req.id.idiag_dst;
	memcpy(addr, local->addr + (v4 ? 12 : 0), v4 ? 4 : 16);
	if (proto == SOCK_TCP)
		r.req.id.idiag_sport = htons(local->port);
	else
		r.req.id.idiag_dport = htons(local->port);
	int fd = send_request(&r);
	if (fd < 0)
		return fd;
	int rc = each_answer(fd, take_owner, &o);
	host_sys.close(fd);
	if (rc < 0)
		return rc;
	if (!rc)
		return -ENOENT;
	if (uid)
		*uid = o.uid;
	if (inode)
		*inode = o.inode;
	return 0;
}

struct inodes {
	uint16_t port;
	uint64_t *list;
	int count, max;
};

static bool take_inode(const struct inet_diag_msg *m, void *arg)
{
	struct inodes *l = arg;
	if (ntohs(m->id.idiag_sport) == l->port && l->count < l->max)
		l->list[l->count++] = m->idiag_inode;
	return l->count == l->max;
}

int diag_port_inodes(enum sock_proto proto, uint16_t port, uint64_t *inodes, int max)
{
	static const int families[] = {AF_INET, AF_INET6};
	struct inodes l = {.port = port, .list = inodes, .max = max};
	for (int i = 0; i < 2; i++) {
		struct request r;
		fill_request(&r, proto, families[i], NLM_F_DUMP);
		r.req.id.idiag_sport = htons(port);
		int fd = send_request(&r);
		if (fd < 0)
			continue;
		each_answer(fd, take_inode, &l);
		host_sys.close(fd);
	}
	return l.count;
}
