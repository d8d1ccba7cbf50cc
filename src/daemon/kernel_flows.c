/* SPDX-License-Identifier: BSD-2-Clause */
/* See kernel_flows.h. */
#include "daemon/kernel_flows.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

/* All but those that wait for nothing but the end of TIME-WAIT. TCP_CLOSE are UDP's that are bound only. */
#define STATES                                                                                                         \
	(1u << TCP_ESTABLISHED | 1u << TCP_SYN_SENT | 1u << TCP_SYN_RECV | 1u << TCP_FIN_WAIT1 | 1u << TCP_LISTEN |    \
	 1u << TCP_CLOSE | 1u << TCP_FIN_WAIT2 | 1u << TCP_CLOSE_WAIT | 1u << TCP_LAST_ACK | 1u << TCP_CLOSING)

struct search {
	const struct steer_key *port;
	struct steer_key *flow;
	int count, max;
	uint32_t uid;
	bool others; /* another user owns the port there */
};

static int option(int fd, int name)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, name, &value, &len) ? 0 : value;
}

int kernel_flows_possible(int fd)
{
	return option(fd, SO_REUSEADDR) || option(fd, SO_REUSEPORT) || option(fd, SO_ACCEPTCONN);
}

/* An address of sock_diag as ours. */
static void take_address(uint8_t to[16], const __be32 from[4], uint8_t family)
{
	static const uint8_t v4[12] = {[10] = 0xff, [11] = 0xff};

	if (family == AF_INET6) {
		memcpy(to, from, 16);
		return;
	}
	memcpy(to, v4, 12);
	memcpy(to + 12, from, 4);
}

static bool all_zero(const uint8_t addr[16])
{
	static const uint8_t zero[16];

	return !memcmp(addr, zero, sizeof(zero));
}

static bool loopback(const struct steer_key *k)
{
	static const uint8_t one[16] = {[15] = 1};

	return k->family == 4 ? k->local[12] == 127 : !memcmp(k->local, one, sizeof(one));
}

/* An owner of the port: would he lose frames to who has the key? The exact address goes before any, here as there. */
static bool loses(const struct search *s, const struct steer_key *owner)
{
	if (all_zero(s->port->local))
		return owner->family == s->port->family && !loopback(owner);
	return !memcmp(owner->local, s->port->local, 16);
}

static int take_socket(const struct nlmsghdr *h, void *arg)
{
	static const uint8_t v4[12] = {[10] = 0xff, [11] = 0xff};
	const struct inet_diag_msg *m = mnl_nlmsg_get_payload(h);
	struct search *s = arg;
	struct steer_key k = {
	    .proto = s->port->proto, .local_port = m->id.idiag_sport, .remote_port = m->id.idiag_dport};

	if (mnl_nlmsg_get_payload_len(h) < sizeof(*m) || k.local_port != s->port->local_port)
		return MNL_CB_OK;
	take_address(k.local, m->id.idiag_src, m->idiag_family);
	take_address(k.remote, m->id.idiag_dst, m->idiag_family);
	k.family = memcmp(k.local, v4, sizeof(v4)) != 0 ? 6 : 4;
	if (!k.remote_port) {
		s->others |= s->uid && m->idiag_uid != s->uid && loses(s, &k);
		return MNL_CB_OK;
	}
	if (k.family != s->port->family || (!all_zero(s->port->local) && memcmp(k.local, s->port->local, 16) != 0))
		return MNL_CB_OK;
	if (s->count < s->max)
		s->flow[s->count] = k;
	s->count++;
	return MNL_CB_OK;
}

/* Every socket of that port (0: of all) goes to each. */
static int dump(struct mnl_socket *nl, uint8_t family, uint8_t proto, uint32_t states, uint16_t port, mnl_cb_t each,
		void *arg)
{
	char buf[32768];
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct inet_diag_req_v2 *r = mnl_nlmsg_put_extra_header(h, sizeof(*r));
	ssize_t n;
	int rc = MNL_CB_OK;

	h->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	h->nlmsg_seq = family;
	r->sdiag_family = family;
	r->sdiag_protocol = proto;
	r->idiag_states = states;
	r->id.idiag_sport = port; /* a hint: kernels may answer with all */
	if (mnl_socket_sendto(nl, h, h->nlmsg_len) < 0)
		return -errno;
	while (rc > MNL_CB_STOP) {
		n = mnl_socket_recvfrom(nl, buf, sizeof(buf));
		rc = n < 0 ? -1 : mnl_cb_run(buf, (size_t)n, family, mnl_socket_get_portid(nl), each, arg);
	}
	return rc < 0 ? -errno : 0;
}

int kernel_flows(const struct steer_key *port, uint32_t uid, struct steer_key *flow, int max)
{
	struct search s = {.port = port, .flow = flow, .max = max, .uid = uid};
	struct mnl_socket *nl = mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC);
	int rc;

	if (!nl)
		return -errno;
	rc = mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0 ? -errno : 0;
	/* sockets of IPv6 have connections of IPv4 too */
	if (!rc && port->family == 4)
		rc = dump(nl, AF_INET, port->proto, STATES, port->local_port, take_socket, &s);
	if (!rc)
		rc = dump(nl, AF_INET6, port->proto, STATES, port->local_port, take_socket, &s);
	mnl_socket_close(nl);
	if (rc)
		return rc;
	if (s.others)
		return -EADDRINUSE;
	return s.count > max ? -E2BIG : s.count;
}

static int take_port(const struct nlmsghdr *h, void *arg)
{
	const struct inet_diag_msg *m = mnl_nlmsg_get_payload(h);
	uint64_t *ports = arg;
	uint16_t port;

	if (mnl_nlmsg_get_payload_len(h) < sizeof(*m))
		return MNL_CB_OK;
	port = ntohs(m->id.idiag_sport);
	ports[port / 64] |= 1ull << port % 64;
	return MNL_CB_OK;
}

int kernel_listening(uint64_t ports[KERNEL_PORT_WORDS])
{
	struct mnl_socket *nl = mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC);
	int rc;

	memset(ports, 0, KERNEL_PORT_WORDS * sizeof(*ports));
	if (!nl)
		return -errno;
	rc = mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0 ? -errno : 0;
	if (!rc)
		rc = dump(nl, AF_INET, IPPROTO_TCP, 1u << TCP_LISTEN, 0, take_port, ports);
	if (!rc)
		rc = dump(nl, AF_INET6, IPPROTO_TCP, 1u << TCP_LISTEN, 0, take_port, ports);
	mnl_socket_close(nl);
	return rc;
}
