/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See netdev.h. Three sources: a dump of links (rtnetlink(7)), what each driver's XDP can (generic netlink, family
 * "netdev", since Linux 6.3), and ethtool's ioctls for driver, queues and offloads. A source that is missing leaves
 * its fields 0.
 */
#define _GNU_SOURCE
#include "cli/netdev.h"

#include <dirent.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/genetlink.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* linux/netdev.h, which older headers lack */
#define NETDEV_DEV_GET 1
#define NETDEV_A_IFINDEX 1
#define NETDEV_A_XDP_FEATURES 3

/* --- netlink --- */

/* An attribute's body; NULL: not there, or shorter than `least`. */
static const void *attribute(const void *from, size_t len, unsigned type, size_t least, size_t *body_len)
{
	const char *at = from;
	while (len >= sizeof(struct nlattr)) {
		struct nlattr a;
		memcpy(&a, at, sizeof(a));
		if (a.nla_len < sizeof(a) || a.nla_len > len)
			return NULL;
		if ((a.nla_type & NLA_TYPE_MASK) == type && a.nla_len - sizeof(a) >= least) {
			if (body_len)
				*body_len = a.nla_len - sizeof(a);
			return at + sizeof(a);
		}
		size_t step = NLA_ALIGN(a.nla_len);
		if (step >= len)
			return NULL;
		at += step;
		len -= step;
	}
	return NULL;
}

static bool attribute_u32(const void *from, size_t len, unsigned type, uint32_t *out)
{
	const void *body = attribute(from, len, type, sizeof(*out), NULL);
	if (body)
		memcpy(out, body, sizeof(*out));
	return body != NULL;
}

/* Always terminated; unprintable bytes become "?". */
static void attribute_text(const void *from, size_t len, unsigned type, char *out, size_t room)
{
	size_t n = 0, i = 0;
	const char *body = attribute(from, len, type, 1, &n);
	for (; body && i < n && i + 1 < room && body[i]; i++)
		out[i] = body[i] > ' ' && body[i] < 127 ? body[i] : '?';
	out[i] = 0;
}

typedef void each_message(void *arg, const struct nlmsghdr *h);

/* One datagram of answers. 1: more to come; 0: that was all; -errno. */
static int walk(const char *buf, ssize_t n, bool dump, each_message *each, void *arg)
{
	for (const struct nlmsghdr *h = (const void *)buf; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
		if (h->nlmsg_type == NLMSG_DONE)
			return 0;
		if (h->nlmsg_type == NLMSG_ERROR) {
			const struct nlmsgerr *e = NLMSG_DATA(h);
			return h->nlmsg_len < NLMSG_LENGTH(sizeof(*e)) ? -EPROTO : e->error;
		}
		each(arg, h);
		if (!dump)
			return 0;
	}
	return 1;
}

static int ask(int protocol, struct nlmsghdr *request, each_message *each, void *arg)
{
	static _Alignas(struct nlmsghdr) char buf[65536];
	struct timeval limit = {.tv_sec = 2};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), rc = 1;
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (send(fd, request, request->nlmsg_len, 0) < 0)
		rc = -errno;
	while (rc == 1) {
		ssize_t n = recv(fd, buf, sizeof(buf), 0);
		rc = n < 0 ? -errno : walk(buf, n, request->nlmsg_flags & NLM_F_DUMP, each, arg);
	}
	close(fd);
	return rc;
}

/* --- links --- */

struct links {
	struct netdev *list;
	unsigned count;
};

static void parse_xdp(const void *from, size_t len, struct netdev *d)
{
	size_t n = 0;
	const void *xdp = attribute(from, len, IFLA_XDP, 0, &n);
	const uint8_t *attached = xdp ? attribute(xdp, n, IFLA_XDP_ATTACHED, 1, NULL) : NULL;
	if (!attached || !*attached)
		return;
	d->generic = *attached == XDP_ATTACHED_SKB;
	if (!attribute_u32(xdp, n, IFLA_XDP_PROG_ID, &d->program))
		d->program = 1;
}

static void one_link(void *arg, const struct nlmsghdr *h)
{
	struct links *l = arg;
	const struct ifinfomsg *m = NLMSG_DATA(h);
	if (h->nlmsg_type != RTM_NEWLINK || h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)) || l->count == NETDEVS_MAX)
		return;
	struct netdev *d = &l->list[l->count++];
	const void *from = (const char *)m + NLMSG_ALIGN(sizeof(*m));
	size_t len = h->nlmsg_len - NLMSG_LENGTH(sizeof(*m)), n = 0;
	*d = (struct netdev){.ifindex = (uint32_t)m->ifi_index, .flags = m->ifi_flags, .type = m->ifi_type};
	attribute_text(from, len, IFLA_IFNAME, d->name, sizeof(d->name));
	attribute_u32(from, len, IFLA_MTU, &d->mtu);
	attribute_u32(from, len, IFLA_MASTER, &d->master);
	parse_xdp(from, len, d);
	const void *info = attribute(from, len, IFLA_LINKINFO, 0, &n);
	if (info)
		attribute_text(info, n, IFLA_INFO_KIND, d->kind, sizeof(d->kind));
	if (!strcmp(d->kind, "vlan"))
		attribute_u32(from, len, IFLA_LINK, &d->lower);
}

static int read_links(struct links *l)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg m;
	} request = {
	    .h = {.nlmsg_len = sizeof(request), .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP}};
	return ask(NETLINK_ROUTE, &request.h, one_link, l);
}

/* --- what the driver's XDP can --- */

struct generic {
	struct nlmsghdr h;
	struct genlmsghdr g;
	struct nlattr a;
	char body[16];
};

static void fill(struct generic *r, uint16_t type, uint8_t cmd, uint16_t attr, const void *body, uint16_t len)
{
	*r = (struct generic){.h = {.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST},
			      .g = {.cmd = cmd, .version = 1},
			      .a = {.nla_type = attr, .nla_len = (uint16_t)(sizeof(r->a) + len)}};
	memcpy(r->body, body, len);
	r->h.nlmsg_len = (uint32_t)(offsetof(struct generic, body) + NLA_ALIGN(len));
}

static const void *generic_attributes(const struct nlmsghdr *h, size_t *len)
{
	if (h->nlmsg_len < NLMSG_LENGTH(GENL_HDRLEN))
		return NULL;
	*len = h->nlmsg_len - NLMSG_LENGTH(GENL_HDRLEN);
	return (const char *)NLMSG_DATA(h) + GENL_HDRLEN;
}

static void family_number(void *arg, const struct nlmsghdr *h)
{
	size_t len;
	const void *from = generic_attributes(h, &len);
	const void *id = from ? attribute(from, len, CTRL_ATTR_FAMILY_ID, sizeof(uint16_t), NULL) : NULL;
	if (id)
		memcpy(arg, id, sizeof(uint16_t));
}

static void xdp_features(void *arg, const struct nlmsghdr *h)
{
	struct netdev *d = arg;
	size_t len;
	const void *from = generic_attributes(h, &len);
	const void *features = from ? attribute(from, len, NETDEV_A_XDP_FEATURES, sizeof(d->xdp), NULL) : NULL;
	if (!features)
		return;
	memcpy(&d->xdp, features, sizeof(d->xdp));
	d->xdp_known = true;
}

static void read_features(struct links *l)
{
	struct generic r;
	uint16_t family = 0;
	fill(&r, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, "netdev", sizeof("netdev"));
	if (ask(NETLINK_GENERIC, &r.h, family_number, &family) < 0 || !family)
		return;
	for (unsigned i = 0; i < l->count; i++) {
		fill(&r, family, NETDEV_DEV_GET, NETDEV_A_IFINDEX, &l->list[i].ifindex, sizeof(uint32_t));
		(void)ask(NETLINK_GENERIC, &r.h, xdp_features, &l->list[i]);
	}
}

/* --- ethtool --- */

static bool ethtool(int fd, const struct netdev *d, void *data)
{
	struct ifreq r = {.ifr_data = data};
	memcpy(r.ifr_name, d->name, sizeof(d->name));
	return ioctl(fd, SIOCETHTOOL, &r) == 0;
}

/* Directories rx-0, rx-1, ... of the interface: where the driver has no channels. */
static uint16_t count_queues(const char *name)
{
	char path[64];
	uint16_t n = 0;
	snprintf(path, sizeof(path), "/sys/class/net/%s/queues", name);
	DIR *dir = opendir(path);
	for (struct dirent *e; dir && (e = readdir(dir));)
		n += !strncmp(e->d_name, "rx-", 3);
	if (dir)
		closedir(dir);
	return n;
}

static void read_ethtool(struct netdev *d)
{
	struct ethtool_drvinfo driver = {.cmd = ETHTOOL_GDRVINFO};
	struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
	struct ethtool_value flags = {.cmd = ETHTOOL_GFLAGS};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (ethtool(fd, d, &driver))
		snprintf(d->driver, sizeof(d->driver), "%.31s", driver.driver);
	if (ethtool(fd, d, &channels))
		d->queues = (uint16_t)(channels.combined_count + channels.rx_count);
	if (!d->queues)
		d->queues = count_queues(d->name);
	if (ethtool(fd, d, &flags))
		d->lro = flags.data & ETH_FLAG_LRO;
	close(fd);
}

int netdevs_read(struct netdev list[NETDEVS_MAX])
{
	struct links l = {.list = list};
	int rc = read_links(&l);
	if (rc < 0)
		return rc;
	read_features(&l);
	for (unsigned i = 0; i < l.count; i++)
		read_ethtool(&list[i]);
	return (int)l.count;
}
