/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The system calls of AF_XDP sockets (Documentation/networking/af_xdp.rst): see xsk.h.
 *
 * Offsets come from the kernel that runs (XDP_MMAP_OFFSETS), but for an implausible answer, which is refused. In copy
 * mode a sendto sends at most 32 frames, with the sender's time, and says EAGAIN while more wait; the calls are counted
 * so that nobody stays here while another process of the tree keeps posting.
 */
#define _GNU_SOURCE
#include "host/xsk.h"

#include <errno.h>
#include <linux/if_xdp.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host/host.h"
#include "viaduct/daemon.h"

#ifndef SOL_XDP
#define SOL_XDP 283
#endif

#define FIRST_BYTES 65536u /* the descriptors begin before this, whatever kernel */
#define ENTRIES_MAX 65536u
#define KICKS_MAX 80u /* 2048 buffers, 32 a call, and some */

static int map_ring(int fd, const struct xdp_ring_offset *off, uint32_t entries, size_t desc_size, off_t pgoff,
		    struct xdp_ring *r)
{
	size_t len = (size_t)off->desc + entries * desc_size;
	uint8_t *map;

	if (off->desc >= FIRST_BYTES || off->producer > off->desc - 4 || off->consumer > off->desc - 4 ||
	    off->flags > off->desc - 4 || (off->producer | off->consumer | off->flags) & 3 || off->desc & 7)
		return -EPROTO;
	map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, pgoff);
	if (map == MAP_FAILED)
		return -errno;
	*r = (struct xdp_ring){.producer = (uint32_t *)(void *)(map + off->producer),
			       .consumer = (uint32_t *)(void *)(map + off->consumer),
			       .flags = (uint32_t *)(void *)(map + off->flags),
			       .desc = map + off->desc,
			       .entries = entries,
			       .map = map,
			       .map_len = len};
	return 0;
}

static int map_rings(int fd, const struct xdp_mmap_offsets *off, uint32_t n, struct xdp_port *p)
{
	int ret = map_ring(fd, &off->rx, n, sizeof(struct xdp_desc), XDP_PGOFF_RX_RING, &p->rx);

	if (ret == 0)
		ret = map_ring(fd, &off->tx, n, sizeof(struct xdp_desc), XDP_PGOFF_TX_RING, &p->tx);
	if (ret == 0)
		ret = map_ring(fd, &off->fr, n, sizeof(uint64_t), (off_t)XDP_UMEM_PGOFF_FILL_RING, &p->fill);
	if (ret == 0)
		ret = map_ring(fd, &off->cr, n, sizeof(uint64_t), (off_t)XDP_UMEM_PGOFF_COMPLETION_RING, &p->comp);
	return ret;
}

/* The queue's chunks, and where in the umem's memory they begin; chunks of a umem of its own are counted from there. */
static int place_chunks(const struct daemon_vnic *d, uint32_t q, struct xdp_port *port, uint64_t *from)
{
	uint32_t rx = d->queue[q].rx_first, tx = d->queue[q].tx_first, base = 0;

	*port = (struct xdp_port){.chunk_size = d->chunk_size,
				  .rx_count = d->queue[q].rx_count,
				  .tx_count = d->queue[q].tx_count,
				  .umem_len = d->umem_size};
	if (d->features & DAEMON_VNIC_APART) {
		base = rx < tx ? rx : tx;
		port->umem_len = ((size_t)port->rx_count + port->tx_count) * d->chunk_size;
	}
	port->rx_first = rx - base;
	port->tx_first = tx - base;
	*from = (uint64_t)base * d->chunk_size;
	return *from <= d->umem_size && port->umem_len <= d->umem_size - *from && port->umem_len ? 0 : -EINVAL;
}

int xsk_map(int xsk_fd, int umem_fd, const struct daemon_vnic *d, uint32_t q, struct xdp_port *port)
{
	struct xdp_mmap_offsets off;
	socklen_t len = sizeof(off);
	uint32_t ring_size = d->ring_size;
	uint64_t from;
	int ret = place_chunks(d, q, port, &from);

	if (ret < 0 || !ring_size || ring_size > ENTRIES_MAX || ring_size & (ring_size - 1))
		return -EINVAL;
	if (host_sys.getsockopt(xsk_fd, SOL_XDP, XDP_MMAP_OFFSETS, &off, &len) < 0)
		return -errno;
	if (len != sizeof(off))
		return -EPROTO;
	ret = map_rings(xsk_fd, &off, ring_size, port);
	if (ret == 0) {
		void *umem = mmap(NULL, port->umem_len, PROT_READ | PROT_WRITE, MAP_SHARED, umem_fd, (off_t)from);

		port->umem = umem == MAP_FAILED ? NULL : umem;
		ret = umem == MAP_FAILED ? -errno : 0;
	}
	if (ret < 0)
		xsk_unmap(port);
	return ret;
}

static void unmap_ring(struct xdp_ring *r)
{
	if (r->map)
		munmap(r->map, r->map_len);
	*r = (struct xdp_ring){0};
}

void xsk_unmap(struct xdp_port *port)
{
	unmap_ring(&port->rx);
	unmap_ring(&port->tx);
	unmap_ring(&port->fill);
	unmap_ring(&port->comp);
	if (port->umem)
		munmap(port->umem, port->umem_len);
	port->umem = NULL;
}

static bool tx_waits(const struct xdp_port *p)
{
	return __atomic_load_n(p->tx.producer, __ATOMIC_RELAXED) != __atomic_load_n(p->tx.consumer, __ATOMIC_RELAXED);
}

int xsk_kick(int xsk_fd, const struct xdp_port *port)
{
	struct msghdr m = {0};
	int ret = 0;

	if (__atomic_load_n(port->fill.flags, __ATOMIC_RELAXED) & XDP_RING_NEED_WAKEUP)
		(void)host_sys.recvmsg(xsk_fd, &m, MSG_DONTWAIT);
	for (uint32_t i = 0; i < KICKS_MAX && tx_waits(port); i++) {
		uint32_t before = __atomic_load_n(port->tx.consumer, __ATOMIC_RELAXED);

		ret = host_sys.sendto(xsk_fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 ? -errno : 0;
		if (ret == 0 || (ret != -EAGAIN && ret != -EBUSY && ret != -ENOBUFS && ret != -EINTR))
			return ret;
		if (__atomic_load_n(port->tx.consumer, __ATOMIC_RELAXED) == before)
			return ret; /* nothing moves just now: the next kick tries again */
	}
	return tx_waits(port) ? ret : 0;
}
