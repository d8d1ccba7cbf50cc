/* SPDX-License-Identifier: BSD-2-Clause */
/* See port.h. */
#include "daemon/port.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_xdp.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* Linux 6.6; headers of older ones lack it. */
#ifndef XDP_USE_SG
#define XDP_USE_SG (1 << 4)
#endif

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

#define XDP_HEADROOM 256u /* that the kernel leaves before a received frame */
#define FRAME_EXTRA 22u   /* Ethernet with a tag, checksum */
#define UMEM_NAME "viaduct:umem"
#define NO_DEVICE 0x7ffffff0u /* an interface number that none has */

/* --- devices --- */

static int ethtool(int sock, const char name[IFNAMSIZ], void *command)
{
	struct ifreq ifr = {0};

	memcpy(ifr.ifr_name, name, sizeof(ifr.ifr_name));
	ifr.ifr_data = command;
	return ioctl(sock, SIOCETHTOOL, &ifr) ? -errno : 0;
}

/* Behind a veth, a tap, or a virtual machine's NIC is another kernel, which may leave the checksum to a device that
 * never comes. */
int port_device(int sock, uint32_t ifindex, struct port_device *d)
{
	struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
	struct ethtool_drvinfo driver = {.cmd = ETHTOOL_GDRVINFO};
	struct ifreq ifr = {.ifr_ifindex = (int)ifindex};

	*d = (struct port_device){.ifindex = ifindex, .queues = 1};
	if (ioctl(sock, SIOCGIFNAME, &ifr) || ioctl(sock, SIOCGIFMTU, &ifr))
		return -ENODEV;
	d->mtu = (uint32_t)ifr.ifr_mtu;
	if (!ethtool(sock, ifr.ifr_name, &channels) && channels.combined_count + channels.rx_count)
		d->queues = channels.combined_count + channels.rx_count;
	if (!ethtool(sock, ifr.ifr_name, &driver)) {
		d->partial = !strcmp(driver.driver, "veth") || !strcmp(driver.driver, "tun");
		d->partial_generic = !strcmp(driver.driver, "virtio_net");
	}
	if (!ioctl(sock, SIOCGIFFLAGS, &ifr))
		d->up = ifr.ifr_flags & IFF_UP;
	return 0;
}

/* --- the umem --- */

/*
 * Chunks of a queue for one direction. More than four queues share what four have, as far as that goes: about 70 MiB in
 * all. What a stack opens it sends by the first queue, which has as many as ever.
 */
static uint32_t chunks_of(uint32_t queues)
{
	uint32_t n = PORT_CHUNKS;

	while (n > PORT_CHUNKS_LEAST && n * queues > 4 * PORT_CHUNKS)
		n /= 2;
	return n;
}

static uint32_t tx_chunks_of(uint32_t queues, uint32_t q)
{
	return q ? chunks_of(queues) : PORT_CHUNKS;
}

/* Where the part of queue q begins; of q == queues: where all end. */
static uint32_t first_chunk(uint32_t queues, uint32_t q)
{
	return q ? PORT_CHUNKS + (2 * q - 1) * chunks_of(queues) : 0;
}

static size_t umem_size(uint32_t queues)
{
	return (size_t)first_chunk(queues, queues) * PORT_CHUNK;
}

static int umem_make(size_t size)
{
	int fd = memfd_create(UMEM_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (!ftruncate(fd, (off_t)size) && !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return fd;
	int rc = -errno;

	close(fd);
	return rc;
}

static int set_option(int xsk, int name, const void *value, socklen_t len)
{
	return setsockopt(xsk, SOL_XDP, name, value, len) ? -errno : 0;
}

static int umem_register(int xsk, const struct port *p, uint32_t queue)
{
	off_t from = (off_t)first_chunk(p->queues, queue) * PORT_CHUNK;
	size_t size = (size_t)first_chunk(p->queues, queue + 1) * PORT_CHUNK - (size_t)from;
	struct xdp_umem_reg reg = {.len = size, .chunk_size = PORT_CHUNK};
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, p->umem, from);
	int rc;

	if (mem == MAP_FAILED)
		return -errno;
	reg.addr = (uint64_t)(uintptr_t)mem;
	rc = set_option(xsk, XDP_UMEM_REG, &reg, sizeof(reg));
	munmap(mem, size);
	return rc;
}

/* --- sockets --- */

static int make_rings(int xsk)
{
	static const int rings[] = {XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING, XDP_TX_RING};
	uint32_t entries = PORT_RING;
	int rc = 0;

	for (unsigned int i = 0; i < sizeof(rings) / sizeof(rings[0]) && !rc; i++)
		rc = set_option(xsk, rings[i], &entries, sizeof(entries));
	return rc;
}

static int bind_to(int xsk, uint32_t ifindex, uint32_t queue, int flags)
{
	struct sockaddr_xdp sa = {
	    .sxdp_family = AF_XDP, .sxdp_flags = (uint16_t)flags, .sxdp_ifindex = ifindex, .sxdp_queue_id = queue};

	return bind(xsk, (struct sockaddr *)&sa, sizeof(sa)) ? -errno : 0;
}

/* The first one chooses: scatter where the kernel has it, zero copy where the driver has it. */
static int bind_first(struct port *p)
{
	struct xdp_options options = {0};
	socklen_t len = sizeof(options);
	int xsk = p->xsk[0], rc = bind_to(xsk, p->ifindex, p->first, XDP_USE_NEED_WAKEUP | XDP_USE_SG);

	if (!rc)
		p->features |= DAEMON_VNIC_SCATTER;
	else if (rc == -EINVAL || rc == -EOPNOTSUPP)
		rc = bind_to(xsk, p->ifindex, p->first, XDP_USE_NEED_WAKEUP);
	if (!rc && !getsockopt(xsk, SOL_XDP, XDP_OPTIONS, &options, &len) && options.flags & XDP_OPTIONS_ZEROCOPY)
		p->features |= DAEMON_VNIC_ZEROCOPY;
	return rc;
}

int port_bind(struct port *p)
{
	int rc = p->ready ? 0 : bind_first(p), flags;

	p->ready += !rc && !p->ready;
	flags = XDP_USE_NEED_WAKEUP | (p->features & DAEMON_VNIC_SCATTER ? XDP_USE_SG : 0);
	while (!rc && p->ready < p->queues) {
		rc = bind_to(p->xsk[p->ready], p->ifindex, p->first + p->ready, flags);
		p->ready += !rc;
	}
	if (!rc && !(p->features & DAEMON_VNIC_SCATTER) && p->mtu + FRAME_EXTRA > PORT_CHUNK - XDP_HEADROOM)
		rc = -EOPNOTSUPP;
	p->bound = !rc;
	return rc;
}

static int open_queue(struct port *p, uint32_t queue)
{
	int xsk = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0), rc;

	if (xsk < 0)
		return -errno;
	p->xsk[queue] = xsk;
	rc = setsockopt(xsk, SOL_SOCKET, SO_BINDTOIFINDEX, &p->ifindex, sizeof(p->ifindex)) ? -errno : 0;
	if (!rc)
		rc = umem_register(xsk, p, queue);
	return rc ? rc : make_rings(xsk);
}

int port_open(uint32_t ifindex, uint32_t queues, uint32_t mtu, struct port *p)
{
	int rc = 0;

	*p = (struct port){.umem = -1, .queues = queues, .ifindex = ifindex, .mtu = mtu};
	memset(p->xsk, -1, sizeof(p->xsk));
	if (!queues || queues > DAEMON_QUEUES_MAX)
		return -EINVAL;
	p->umem = umem_make(umem_size(queues));
	if (p->umem < 0)
		return p->umem;
	for (uint32_t q = 0; q < queues && !rc; q++)
		rc = open_queue(p, q);
	if (!rc)
		p->cookie = socket_cookie(p->xsk[0]);
	if (rc)
		port_close(p);
	return rc;
}

/* -EINVAL only if it looks at what the socket was bound to before it looks for the device. */
static bool keeps_device(void)
{
	int xsk = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0), rc;
	uint32_t loopback = 1;

	if (xsk < 0)
		return false;
	rc = setsockopt(xsk, SOL_SOCKET, SO_BINDTOIFINDEX, &loopback, sizeof(loopback));
	rc = rc ? rc : bind_to(xsk, NO_DEVICE, 0, 0);
	close(xsk);
	return rc == -EINVAL;
}

static bool maps_bound(void)
{
	struct port p;
	void *ring = MAP_FAILED;

	if (port_open(1, 1, 0, &p))
		return false;
	if (!port_bind(&p))
		ring = mmap(NULL, PORT_CHUNK, PROT_READ, MAP_SHARED, p.xsk[0], XDP_PGOFF_RX_RING);
	if (ring != MAP_FAILED)
		munmap(ring, PORT_CHUNK);
	port_close(&p);
	return ring != MAP_FAILED;
}

struct port_kernel port_kernel(void)
{
	return (struct port_kernel){.keeps_device = keeps_device(), .maps_bound = maps_bound()};
}

void port_close(struct port *p)
{
	for (uint32_t q = 0; q < DAEMON_QUEUES_MAX; q++) {
		if (p->xsk[q] >= 0)
			close(p->xsk[q]);
		p->xsk[q] = -1;
	}
	if (p->umem >= 0)
		close(p->umem);
	p->umem = -1;
}

void port_describe(const struct port *p, struct daemon_vnic *v)
{
	v->features |= p->features | DAEMON_VNIC_APART;
	v->queues = p->queues;
	v->chunk_size = PORT_CHUNK;
	v->ring_size = PORT_RING;
	v->umem_size = umem_size(p->queues);
	for (uint32_t q = 0; q < p->queues; q++) {
		v->queue[q].rx_first = first_chunk(p->queues, q);
		v->queue[q].rx_count = chunks_of(p->queues);
		v->queue[q].tx_first = v->queue[q].rx_first + v->queue[q].rx_count;
		v->queue[q].tx_count = tx_chunks_of(p->queues, q);
	}
}

uint64_t socket_cookie(int sock)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	return getsockopt(sock, SOL_SOCKET, SO_COOKIE, &cookie, &len) ? 0 : cookie;
}

uint64_t socket_netns(int sock)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	return getsockopt(sock, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) ? 0 : cookie;
}

bool socket_sends_anything(int sock, uint64_t netns)
{
	int domain = 0, type = 0;
	socklen_t len = sizeof(domain);

	return !getsockopt(sock, SOL_SOCKET, SO_DOMAIN, &domain, &len) && domain == AF_PACKET &&
	       !getsockopt(sock, SOL_SOCKET, SO_TYPE, &type, &len) && type == SOCK_RAW && socket_netns(sock) == netns;
}
