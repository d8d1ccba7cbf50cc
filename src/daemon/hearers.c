/* SPDX-License-Identifier: BSD-2-Clause */
/* See hearers.h. sock_diag(7). */
#include "daemon/hearers.h"

#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int take_v6only(const struct nlattr *attr, void *arg)
{
	bool *only = arg;

	if (mnl_attr_get_type(attr) == INET_DIAG_SKV6ONLY && mnl_attr_validate(attr, MNL_TYPE_U8) >= 0)
		*only = mnl_attr_get_u8(attr);
	return MNL_CB_OK;
}

static bool v6only(const struct nlmsghdr *h)
{
	bool only = false;

	mnl_attr_parse(h, sizeof(struct inet_diag_msg), take_v6only, &only);
	return only;
}

static int take_socket(const struct nlmsghdr *h, void *arg)
{
	static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff}, zero[16];
	const struct inet_diag_msg *m = mnl_nlmsg_get_payload(h);
	struct hearers *p = arg;
	struct hearer *s = &p->at[p->count];

	if (mnl_nlmsg_get_payload_len(h) < sizeof(*m) || m->id.idiag_sport != p->port || p->count == HEARERS)
		return MNL_CB_OK;
	*s = (struct hearer){.inode = m->idiag_inode, .family = m->idiag_family == AF_INET ? 4 : 6};
	if (s->family == 4) {
		memcpy(s->addr, prefix, sizeof(prefix));
		memcpy(s->addr + 12, m->id.idiag_src, 4);
	} else {
		memcpy(s->addr, m->id.idiag_src, 16);
		if (!memcmp(s->addr, zero, sizeof(zero)) && !v6only(h))
			s->family = 0;
	}
	p->count++;
	return MNL_CB_OK;
}

static int dump(struct mnl_socket *nl, uint8_t family, struct hearers *p)
{
	char buf[32768];
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct inet_diag_req_v2 *r = mnl_nlmsg_put_extra_header(h, sizeof(*r));
	int rc = MNL_CB_OK;

	h->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	h->nlmsg_seq = family;
	r->sdiag_family = family;
	r->sdiag_protocol = IPPROTO_UDP;
	r->idiag_states = ~0u;
	r->id.idiag_sport = p->port;
	if (mnl_socket_sendto(nl, h, h->nlmsg_len) < 0)
		return -errno;
	while (rc > MNL_CB_STOP) {
		ssize_t n = mnl_socket_recvfrom(nl, buf, sizeof(buf));

		rc = n < 0 ? -1 : mnl_cb_run(buf, (size_t)n, family, mnl_socket_get_portid(nl), take_socket, p);
	}
	return rc < 0 ? -errno : 0;
}

int hearers_ask(__be16 port, struct hearers *p)
{
	struct mnl_socket *nl = mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC);
	int rc;

	p->port = port;
	p->count = 0;
	if (!nl)
		return -errno;
	rc = mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0 ? -errno : 0;
	if (!rc)
		rc = dump(nl, AF_INET, p);
	if (!rc)
		rc = dump(nl, AF_INET6, p);
	mnl_socket_close(nl);
	return rc;
}

bool hearers_forwards(uint8_t family)
{
	int fd = open(family == 4 ? "/proc/sys/net/ipv4/conf/all/mc_forwarding"
				  : "/proc/sys/net/ipv6/conf/all/mc_forwarding",
		      O_RDONLY | O_CLOEXEC);
	char on = '0';

	if (fd < 0)
		return false;
	if (read(fd, &on, 1) != 1)
		on = '0';
	close(fd);
	return on != '0';
}
