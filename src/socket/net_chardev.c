/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vNICs of the kernel char driver: see net_chardev.h. One open file per interface of a stack. Its filters are the
 * driver's to check: it gets the backing socket with each (src/driver/owner.c).
 *
 * The file lives as long as a process of the tree has it open or mapped. viaductd does not know of it: what a program
 * leaves unfinished it must finish itself (net_finishes).
 */
#define _GNU_SOURCE
#include "socket/net_chardev.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "host/host.h"
#include "host/knobs.h"
#include "socket/helper.h"
#include "socket/large.h"
#include "socket/raw.h"
#include "socket/wire.h"
#include "viaduct/vnic_ioctl.h"
#include "vnic/chardev.h"

/* Memory of a little more than 4 MiB, within the usual limit on locked memory. The event queue has the length of a
 * wire's, which is what spinning threads expect (process.h). */
#define BUFS 512u
#define BUF_SIZE 4096u

static bool absent; /* asked once: there is no such device, or it is not for us */

static int driver_call(int fd, unsigned long what, void *arg)
{
	return (int)raw_call(SYS_ioctl, fd, (long)what, (long)arg, 0, 0, 0);
}

static int open_device(void)
{
	int fd =
	    absent ? -ENOENT : (int)raw_call(SYS_openat, AT_FDCWD, (long)VIADUCT_DEVICE, O_RDWR | O_CLOEXEC, 0, 0, 0);
	int high;

	absent |= fd == -ENOENT || fd == -EACCES || fd == -EPERM || fd == -ENODEV || fd == -ENXIO;
	if (fd < 0)
		return fd;
	high = host_fd_high(fd);
	if (high < 0)
		host_sys.close(fd);
	else
		vs_publish_fd(high, FD_OWN, VS_NONE, REASON_NONE);
	return high;
}

/* What the driver gave us on an interface. */
struct given {
	void *mem;
	size_t len;
	struct chardev_about about;
};

/* Large segments go by write(2) if the driver can send so, and that interface's driver or the kernel cuts them. */
static bool takes_writes(int fd)
{
	struct viaduct_abi abi = {.size = sizeof(abi)};

	return driver_call(fd, VIADUCT_IOC_ABI, &abi) == 0 && abi.features & VIADUCT_FEAT_WRITE;
}

static int allocate(int fd, uint32_t ifindex, struct given *g)
{
	struct viaduct_alloc alloc = {.size = sizeof(alloc),
				      .ifindex = ifindex,
				      .tx_bufs = BUFS,
				      .rx_bufs = BUFS,
				      .buf_size = BUF_SIZE,
				      .evq_entries = WIRE_RING,
				      .features = VIADUCT_FEAT_CSUM | VIADUCT_FEAT_LRO | VIADUCT_FEAT_ICMP};
	struct viaduct_info info = {.size = sizeof(info)};
	int ret;

	alloc.flags = knob[K_DRIVER_POLL] ? VIADUCT_ALLOC_POLL : 0;
	ret = driver_call(fd, VIADUCT_IOC_ALLOC, &alloc);
	if (ret == -EPERM || ret == -EINVAL) { /* not for us, or too old to know */
		alloc.flags = 0;
		ret = driver_call(fd, VIADUCT_IOC_ALLOC, &alloc);
	}
	if (ret == 0)
		ret = driver_call(fd, VIADUCT_IOC_INFO, &info);
	if (ret < 0)
		return ret;
	g->about = (struct chardev_about){.ifindex = ifindex, .mtu = info.mtu};
	memcpy(g->about.mac, info.mac, sizeof(info.mac));
	g->len = alloc.region_size;
	g->mem = mmap(NULL, g->len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	return g->mem == MAP_FAILED ? -errno : 0;
}

/* With the stack's lock. */
static int attach_locked(struct attached *a, struct net_if *at, int fd, const struct given *g)
{
	int i = engine_vnic_alloc(&a->e), ret;
	struct vnic *v;

	if (i < 0)
		return i;
	v = &a->e.vnic[i];
	v->doorbell_fd[0] = v->doorbell_fd[1] = v->life_fd = -1;
	ret = chardev_attach(v, stack_vnic(a->s, (uint32_t)i), g->mem, g->len, &g->about);
	if (ret < 0) {
		(void)engine_vnic_free(&a->e, (uint32_t)i);
		return ret;
	}
	v->wake_fd = fd + 1;
	process_activate(a, (uint32_t)i);
	at->vnic[0] = (uint16_t)i;
	at->gen[0] = v->gen;
	return 0;
}

int net_chardev_attach(struct attached *a, struct net_if *at, uint32_t ifindex)
{
	struct given g = {0};
	int fd = open_device(), ret;

	if (fd < 0)
		return fd;
	ret = allocate(fd, ifindex, &g);
	if (ret == 0) {
		stack_enter(a);
		ret = attach_locked(a, at, fd, &g);
		stack_leave(a);
		if (ret < 0)
			munmap(g.mem, g.len);
	}
	if (ret == 0) {
		ret = net_wake_add(a, fd);
		if (ret < 0)
			wire_gone(a, at->vnic[0], at->gen[0]);
	}
	if (ret < 0) {
		host_fd_close(fd);
		return ret;
	}
	at->ifindex = ifindex;
	at->queues = 1;
	at->umem_fd = -1;
	at->keep_fds = 0;
	at->xsk_fd[0] = fd;
	at->chardev = true;
	if (takes_writes(fd))
		large_use(a, at->vnic[0], fd);
	net_filters_driver(a);
	wait_wake_all(); /* sleepers don't know the descriptor yet */
	process_helper_kick();
	return 0;
}

/* --- filters --- */

static int one_filter(int device, const struct daemon_filter *f, int fd, uint8_t family, bool add)
{
	struct viaduct_filter want = {.size = sizeof(want),
				      .fd = add ? fd : -1,
				      .proto = f->proto,
				      .family = family,
				      .local_port = f->local_port,
				      .remote_port = f->remote_port};
	int ret;

	memcpy(want.local, f->local, sizeof(want.local));
	memcpy(want.remote, f->remote, sizeof(want.remote));
	ret = driver_call(device, add ? VIADUCT_IOC_FILTER_ADD : VIADUCT_IOC_FILTER_DEL, &want);
	return ret == -EEXIST ? 0 : ret;
}

int net_chardev_filter(const struct net *n, const struct daemon_filter *f, int fd, bool add)
{
	uint32_t done = 0, wanted = 0;
	int ret = 0;

	for (; wanted < NET_IFS && ret == 0; wanted++) {
		const struct net_if *at = &n->ifs[wanted];

		if (!at->ifindex || !at->chardev)
			continue;
		ret = one_filter(at->xsk_fd[0], f, fd, f->family, add);
		if (ret == 0 && f->flags & DAEMON_FILTER_BOTH)
			ret = one_filter(at->xsk_fd[0], f, fd, 4, add);
		done++;
		if (ret == -EIO || !add) /* an interface that is gone needs none */
			ret = 0;
	}
	for (uint32_t i = 0; ret < 0 && i < wanted && done > 1; i++)
		if (n->ifs[i].ifindex && n->ifs[i].chardev)
			(void)one_filter(n->ifs[i].xsk_fd[0], f, -1, f->family, false);
	return ret;
}

bool net_chardev_used(const struct net *n, bool *mixed)
{
	bool used = false;

	*mixed = false;
	for (uint32_t i = 0; i < NET_IFS; i++) {
		used |= n->ifs[i].ifindex && n->ifs[i].chardev;
		*mixed |= n->ifs[i].ifindex && !n->ifs[i].chardev;
	}
	*mixed &= used;
	return used;
}

/* --- */

void net_chardev_kick(const struct vnic *v)
{
	chardev_kicked(v);
	(void)driver_call(v->wake_fd - 1, VIADUCT_IOC_KICK, NULL);
}

void net_chardev_release(const struct vnic *v)
{
	(void)mmap(v->map, v->map_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
		   -1, 0);
}
