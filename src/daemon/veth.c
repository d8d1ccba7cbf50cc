/* SPDX-License-Identifier: BSD-2-Clause */
/* See veth.h. rtnetlink(7), veth(4). */
#include "daemon/veth.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE 1024
#define PAIR_MTU 65535u /* where large segments may come */

static void outer_name(uint32_t at, char name[IFNAMSIZ])
{
	snprintf(name, IFNAMSIZ, VETH_NAME "%u", at);
}

bool veth_is_ours(const char *name)
{
	size_t len = strlen(VETH_NAME);

	return !strncmp(name, VETH_NAME, len) && name[len] && name[len + strspn(name + len, "0123456789")] == 0;
}

/* --- rtnetlink --- */

/* Send a request in this thread's namespace and wait for its acknowledgement: 0 or -errno. */
static int ask(struct nlmsghdr *request)
{
	struct mnl_socket *nl = mnl_socket_open(NETLINK_ROUTE);
	char buf[MESSAGE * 8];
	ssize_t n = -1;
	int rc = -1;

	if (!nl)
		return -errno;
	request->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	request->nlmsg_seq = (uint32_t)time(NULL);
	if (mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) >= 0 && mnl_socket_sendto(nl, request, request->nlmsg_len) >= 0)
		n = mnl_socket_recvfrom(nl, buf, sizeof(buf));
	if (n >= 0)
		rc = mnl_cb_run(buf, (size_t)n, request->nlmsg_seq, mnl_socket_get_portid(nl), NULL, NULL);
	rc = rc < 0 ? -errno : 0;
	mnl_socket_close(nl);
	return rc;
}

static struct nlmsghdr *begin(char *buf, uint16_t type, uint32_t ifindex, unsigned int up)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct ifinfomsg *link;

	h->nlmsg_type = type;
	link = mnl_nlmsg_put_extra_header(h, sizeof(*link));
	link->ifi_index = (int)ifindex;
	link->ifi_flags = up;
	link->ifi_change = up;
	return h;
}

static void put_end(struct nlmsghdr *h, uint32_t at, uint32_t mtu)
{
	char name[IFNAMSIZ];

	outer_name(at, name);
	mnl_attr_put_strz(h, IFLA_IFNAME, name);
	mnl_attr_put_u32(h, IFLA_MTU, mtu);
	mnl_attr_put_u32(h, IFLA_NUM_RX_QUEUES, 1);
	mnl_attr_put_u32(h, IFLA_NUM_TX_QUEUES, 1);
}

/* Made from the cellar, because the end that is made first can be given an ifindex. */
static int make_pair(uint32_t at, uint32_t mtu, int outer_ns)
{
	char buf[MESSAGE] = {0};
	struct nlmsghdr *h = begin(buf, RTM_NEWLINK, STEER_INNER + at, 0);
	struct nlattr *info, *data, *peer;

	h->nlmsg_flags = NLM_F_CREATE | NLM_F_EXCL;
	put_end(h, at, mtu);
	info = mnl_attr_nest_start(h, IFLA_LINKINFO);
	mnl_attr_put_strz(h, IFLA_INFO_KIND, "veth");
	data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
	peer = mnl_attr_nest_start(h, VETH_INFO_PEER);
	mnl_nlmsg_put_extra_header(h, sizeof(struct ifinfomsg));
	put_end(h, at, mtu);
	mnl_attr_put_u32(h, IFLA_NET_NS_FD, (uint32_t)outer_ns);
	mnl_attr_nest_end(h, peer);
	mnl_attr_nest_end(h, data);
	mnl_attr_nest_end(h, info);
	return ask(h);
}

/* Up, and the kernel says nothing of its own there: neither ARP nor IPv6. */
static int bring_up(uint32_t ifindex)
{
	char buf[MESSAGE] = {0};
	struct nlmsghdr *h = begin(buf, RTM_SETLINK, ifindex, IFF_UP | IFF_NOARP);
	struct nlattr *families = mnl_attr_nest_start(h, IFLA_AF_SPEC);
	struct nlattr *inet6 = mnl_attr_nest_start(h, AF_INET6);
	int rc;

	mnl_attr_put_u8(h, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
	mnl_attr_nest_end(h, inet6);
	mnl_attr_nest_end(h, families);
	rc = ask(h);
	if (rc != -EAFNOSUPPORT)
		return rc;
	memset(buf, 0, sizeof(buf));
	return ask(begin(buf, RTM_SETLINK, ifindex, IFF_UP | IFF_NOARP));
}

static int delete_link(uint32_t ifindex)
{
	char buf[MESSAGE] = {0};

	return ask(begin(buf, RTM_DELLINK, ifindex, 0));
}

/* --- the inner end --- */

struct inner {
	struct steer *steer;
	struct port *port;
	uint32_t at, mtu;
	bool large;
	int outer_ns;
};

static int open_inner(void *arg)
{
	struct inner *i = arg;
	uint32_t ifindex = STEER_INNER + i->at;
	int rc = make_pair(i->at, i->large ? PAIR_MTU : i->mtu, i->outer_ns);

	if (!rc)
		rc = bring_up(ifindex);
	if (!rc)
		rc = steer_attach_inner(i->steer, i->at);
	return rc ? rc : port_open(ifindex, 1, i->mtu, i->port);
}

/* --- both --- */

int veth_open(struct steer *s, struct cellar *c, uint32_t at, const struct port_device *device, uint32_t *outer,
	      struct port *p)
{
	struct inner inner = {s, p, at, device->mtu, steer_by_skb(s, device->ifindex), cellar_home(c)};
	char name[IFNAMSIZ];
	int rc;

	*p = (struct port){.umem = -1};
	memset(p->xsk, -1, sizeof(p->xsk));
	outer_name(at, name);
	*outer = if_nametoindex(name);
	/* of a stack that died while no viaductd was there */
	if (*outer)
		delete_link(*outer);
	rc = cellar_call(c, open_inner, &inner);
	*outer = if_nametoindex(name);
	if (!rc)
		rc = steer_attach_outer(s, *outer, device->ifindex);
	if (!rc)
		rc = bring_up(*outer);
	if (rc) {
		port_close(p);
		veth_close(s, at, *outer);
	}
	return rc;
}

void veth_close(struct steer *s, uint32_t at, uint32_t outer)
{
	steer_detach_inner(s, at);
	if (outer)
		delete_link(outer);
}
