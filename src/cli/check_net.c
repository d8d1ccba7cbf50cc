/* SPDX-License-Identifier: BSD-2-Clause */
/* viaduct check: viaductd, and each interface with what its driver offers. See check.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/check.h"
#include "cli/start.h"
#include "engine/route.h"
#include "engine/stack.h"
#include "host/viaductd.h"

#define ANSWER_MS 2000
#define CONFIG "/etc/viaduct/viaductd.conf"
#define ONE_BUFFER_MTU 3498u /* what a chunk of 4 KiB holds beside the kernel's headroom */
#define KERNEL_SCATTER (6u << 8 | 6u)

/* --- viaductd --- */

static void map_view(struct check *c, struct viaductd_reply *reply)
{
	struct daemon_welcome w;
	memcpy(&w, reply->body, sizeof(w));
	if (!reply->fd_count)
		return;
	void *mem = mmap(NULL, sizeof(struct netview), PROT_READ, MAP_SHARED, reply->fds[0], 0);
	if (mem == MAP_FAILED)
		return;
	if (w.netview_size >= sizeof(struct netview) && netview_check(mem, sizeof(struct netview)) == 0)
		c->view = mem;
	else
		munmap(mem, sizeof(struct netview));
}

static int hello(struct check *c, int fd)
{
	struct daemon_hello body = {.stack_version = STACK_VERSION};
	struct viaductd_request r = {.type = DAEMON_HELLO, .body = &body, .len = sizeof(body)};
	static struct viaductd_reply reply;
	struct daemon_welcome w;
	int rc = viaductd_ask(fd, &r, ANSWER_MS, &reply);
	if (rc < 0) {
		check_add(c, LEVEL_LACK, "restart viaductd in the version of viaduct", "it does not greet: %.200s",
			  reply.refused ? reply.error : strerror(-rc));
		return rc;
	}
	memcpy(&w, reply.body, sizeof(w));
	map_view(c, &reply);
	viaductd_reply_drop(&reply);
	if (w.stack_version != STACK_VERSION)
		check_add(c, LEVEL_NOTE, "restart viaductd in the version of viaduct",
			  "it is of another version: it can't finish the connections of programs that end");
	check_add(c, LEVEL_OK, NULL, "it runs, version %u.%u.%u", w.version >> 16, w.version >> 8 & 255,
		  w.version & 255);
	return 0;
}

static void status(struct check *c, int fd)
{
	/* with CAP_NET_RAW: what programs show, too */
	int licence = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	struct viaductd_request r = {.type = DAEMON_STATUS, .fds = &licence, .fd_count = licence >= 0};
	static struct viaductd_reply reply;
	int rc = viaductd_ask(fd, &r, ANSWER_MS, &reply);
	if (licence >= 0)
		close(licence);
	if (rc < 0) {
		check_add(c, LEVEL_LACK, NULL, "it does not say how it is: %.200s",
			  reply.refused ? reply.error : strerror(-rc));
		return;
	}
	memcpy(&c->status, reply.body, sizeof(c->status));
	c->daemon = true;
	check_add(c, LEVEL_OK, NULL,
		  "process %u of user %u serves %u stacks with %u filters, and finishes %u dead ones", c->status.pid,
		  c->status.uid, c->status.stacks, c->status.filters, c->status.orphans);
	if (c->status.kernel & DAEMON_KERNEL_NO_RINGS)
		check_add(
		    c, LEVEL_LACK, "boot a release of this kernel of July 2023 or later, or Linux 6.4",
		    "it can give no program rings: this kernel maps them only before they are bound, and binds them "
		    "for anybody to any interface");
	if (!c->status.allowed)
		check_add(c, LEVEL_LACK, "name the user in " CONFIG " (user NAME) and restart viaductd",
			  "it does not serve your user");
	else if (c->status.direct)
		check_add(c, LEVEL_OK, NULL, "it gives you an interface's own queues (direct) where one is free");
	else
		check_add(c, LEVEL_NOTE,
			  "if he may send as anybody, name the user in " CONFIG " (direct NAME) and restart viaductd",
			  "it gives you a veth of your own behind the interface: about 2 us more a round trip");
}

/* By its unit, where one is installed; else by its path, which need not be in root's PATH. */
static const char *start_command(void)
{
	static char command[MEND_LEN];
	static const char *const units[] = {
	    "/etc/systemd/system/viaductd.socket", "/usr/local/lib/systemd/system/viaductd.socket",
	    "/usr/lib/systemd/system/viaductd.socket", "/lib/systemd/system/viaductd.socket"};
	for (unsigned i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (access(units[i], F_OK) == 0)
			return "sudo systemctl start viaductd.socket";
	char path[PATH_MAX];
	if (start_find_viaductd(path) && snprintf(command, sizeof(command), "sudo %s", path) < (int)sizeof(command))
		return command;
	return "sudo viaductd";
}

void check_daemon(struct check *c)
{
	const char *network = getenv("VIADUCT_NETWORK");
	c->section = "viaductd";
	int fd = viaductd_connect();
	if (network && !strcmp(network, "off"))
		check_add(c, LEVEL_LACK, "unset VIADUCT_NETWORK",
			  "VIADUCT_NETWORK=off leaves the network to the kernel");
	if (fd >= 0) {
		if (hello(c, fd) == 0)
			status(c, fd);
		close(fd);
	} else if (fd == -EPERM) {
		check_add(c, LEVEL_LACK, "find who holds it: ss -xlp | grep viaduct1/daemon",
			  "somebody answers to its name who is neither root nor you");
	} else if (c->may_start) {
		check_add(c, LEVEL_OK, NULL,
			  "it does not run in this network namespace; \"viaduct run\" will start it");
	} else {
		check_add(c, LEVEL_LACK, start_command(),
			  "it does not run in this network namespace, and \"viaduct run\" can't start it");
	}
}

/* --- interfaces --- */

static const struct netdev *by_index(const struct check *c, uint32_t ifindex)
{
	for (int i = 0; i < c->devs; i++)
		if (c->dev[i].ifindex == ifindex)
			return &c->dev[i];
	return NULL;
}

/* 1: viaductd may attach to it, 0: not, -1: nobody said. */
static int allowed(const struct check *c, uint32_t ifindex)
{
	if (!c->view)
		return -1;
	const struct netview_copy *copy = &c->view->copy[__atomic_load_n(&c->view->version, __ATOMIC_ACQUIRE) & 1];
	for (uint32_t i = 0; i < copy->ifaces && i < NETVIEW_IFACES; i++)
		if (copy->iface[i].ifindex == ifindex)
			return (copy->iface[i].flags & NETVIEW_IF_ALLOWED) != 0;
	return -1;
}

static const char *mode_text(const struct netdev *d)
{
	if (!d->xdp_known)
		return "XDP mode unknown (older kernel)";
	if (!(d->xdp & NETDEV_XDP_BASIC) || !(d->xdp & NETDEV_XDP_REDIRECT))
		return "generic XDP (the driver has none)";
	if (!strcmp(d->driver, "veth"))
		return "generic XDP (faster than the driver's; Linux before 6.6: native)";
	return d->xdp & NETDEV_XDP_ZEROCOPY ? "native XDP, zero-copy" : "native XDP, copying";
}

/* What hurts, each with its remedy. d: the device whose queues carry the frames. */
static void check_offloads(struct check *c, const struct netdev *d)
{
	char mend[64];
	if (d->lro) {
		snprintf(mend, sizeof(mend), "ethtool -K %s lro off", d->name);
		check_add(c, LEVEL_NOTE, mend, "%s: LRO joins segments before XDP sees them; native XDP may be refused",
			  d->name);
	}
	if (d->xdp_known && !(d->xdp & NETDEV_XDP_BASIC))
		check_add(c, LEVEL_NOTE, "use an interface whose driver has XDP (see docs/network.md)",
			  "%s: in generic mode a frame costs the kernel's socket buffer as well", d->name);
	if (d->queues > DAEMON_QUEUES_MAX) {
		snprintf(mend, sizeof(mend), "ethtool -L %s combined %u", d->name, DAEMON_QUEUES_MAX);
		check_add(c, LEVEL_NOTE, mend,
			  "%s: it has %u receive queues and a stack receives on %u: viaductd "
			  "gives stacks a veth of their own there",
			  d->name, d->queues, DAEMON_QUEUES_MAX);
	}
	if (d->program && !c->daemon)
		check_add(c, LEVEL_NOTE, "see whose it is: bpftool net show",
			  "%s: an XDP program (id %u) is on it already", d->name, d->program);
}

/* The largest IP packet fits into what the driver hands to XDP. */
static bool mtu_fits(const struct check *c, const struct netdev *d)
{
	return d->mtu <= ONE_BUFFER_MTU ||
	       (c->version >= KERNEL_SCATTER &&
		(!d->xdp_known || d->xdp & NETDEV_XDP_RX_SG || !(d->xdp & NETDEV_XDP_BASIC)));
}

/* True: the network path can use it. */
static bool check_interface(struct check *c, const struct netdev *d)
{
	const struct netdev *lower = d->lower ? by_index(c, d->lower) : NULL, *device = lower ? lower : d;
	char mend[64], over[48] = "";
	if (!strcmp(d->kind, "veth") && !strncmp(d->name, "viaduct", strlen("viaduct"))) {
		check_add(c, LEVEL_OK, NULL, "%s: viaductd's own, of a stack behind an interface", d->name);
		return false;
	}
	if (!(d->flags & IFF_UP) || !(d->flags & IFF_RUNNING)) {
		check_add(c, LEVEL_OK, NULL, "%s: it is down", d->name);
		return false;
	}
	if (d->type != ARPHRD_ETHER) {
		check_add(c, LEVEL_OK, NULL, "%s: no Ethernet; it is left to the kernel", d->name);
		return false;
	}
	if (allowed(c, d->ifindex) == 0) {
		check_add(c, LEVEL_NOTE, "name it in " CONFIG " (interface NAME) and restart viaductd",
			  "%s: viaductd may not use it", d->name);
		return false;
	}
	if (!mtu_fits(c, device)) {
		snprintf(mend, sizeof(mend), "ip link set %s mtu %u", device->name, ONE_BUFFER_MTU);
		check_add(c, LEVEL_NOTE, mend,
			  "%s: its MTU of %u does not fit into one buffer, and its driver's XDP or this "
			  "kernel has no frames of several: it is left out",
			  d->name, device->mtu);
		return false;
	}
	if (lower)
		snprintf(over, sizeof(over), " (VLAN over %s)", lower->name);
	check_add(c, LEVEL_OK, NULL, "%s%s: %s, driver %s, MTU %u, %u receive queue%s", d->name, over,
		  mode_text(device), *device->driver ? device->driver : "?", d->mtu, device->queues,
		  device->queues == 1 ? "" : "s");
	if (!lower)
		check_offloads(c, d);
	return true;
}

void check_interfaces(struct check *c)
{
	unsigned good = 0;
	c->section = "interfaces";
	c->devs = netdevs_read(c->dev);
	if (c->devs < 0) {
		check_add(c, LEVEL_LACK, NULL, "the kernel does not list its interfaces: %s", strerror(-c->devs));
		c->devs = 0;
		return;
	}
	for (int i = 0; i < c->devs; i++)
		if (!(c->dev[i].flags & IFF_LOOPBACK))
			good += check_interface(c, &c->dev[i]);
	if (!good)
		check_add(c, LEVEL_LACK, "bring one up: ip link set INTERFACE up",
			  "there is no interface that can be used");
}
