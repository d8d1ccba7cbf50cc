/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See large.h. packet(7), PACKET_VNET_HDR. The char driver's file takes the same (include/viaduct/vnic_ioctl.h);
 * neither ever blocks.
 *
 * A stack has two areas (struct large): one that the engine fills under the lock, and one that the thread which has
 * left the lock sends. While both are on their way, or in a child that was forked meanwhile, segments go over the
 * rings.
 */
#define _GNU_SOURCE
#include "socket/large.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "host/host.h"
#include "socket/process.h"
#include "socket/sockets.h"

#ifndef SO_ATTACH_FILTER
#define SO_ATTACH_FILTER 26
#endif

_Thread_local struct large *large_mine;

/* It is for sending: nothing is received, whatever becomes of it. */
static int packet_socket(uint32_t ifindex)
{
	struct sock_filter none = {.code = BPF_RET | BPF_K};
	struct sock_fprog nothing = {.len = 1, .filter = &none};
	struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_ifindex = (int)ifindex};
	int on = 1, sndbuf = 4 << 20, fd = host_sys.socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	fd = host_fd_high(fd);
	if (fd < 0)
		return fd;
	host_sys.setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &sndbuf, sizeof(sndbuf));
	if (host_sys.setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &nothing, sizeof(nothing)) < 0 ||
	    host_sys.setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) < 0 ||
	    host_sys.bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0) {
		int err = errno;

		host_fd_close(fd);
		return -err;
	}
	vs_publish_fd(fd, FD_OWN, VS_NONE, REASON_NONE);
	return fd;
}

static struct large *area(struct attached *a)
{
	struct large *mem =
	    mmap(NULL, sizeof(struct large), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED)
		return NULL;
	mem->owner = a;
	return mem;
}

int large_open(struct attached *a, uint32_t vnic, uint32_t ifindex)
{
	int fd = packet_socket(ifindex);

	if (fd >= 0)
		large_use(a, vnic, fd);
	return fd;
}

void large_use(struct attached *a, uint32_t vnic, int fd)
{
	stack_enter(a);
	if (!a->large_used) {
		a->large_used = true;
		a->e.large = area(a);
		atomic_store(&a->large_spare[0], area(a));
	}
	a->e.large_fd[vnic] = fd + 1;
	stack_leave(a);
}

uint32_t large_take(struct attached *a)
{
	uint32_t any = a->e.large && a->e.large->frames;

	if (any) {
		/* a signal handler of the program's runs in the release: what we had taken then is not sent yet */
		a->e.large->older = large_mine;
		large_mine = a->e.large;
		a->e.large = NULL;
	}
	for (int i = 0; !a->e.large && i < 2; i++)
		a->e.large = atomic_exchange(&a->large_spare[i], NULL);
	return any;
}

static void put_back(struct attached *a, struct large *g)
{
	for (int i = 0;; i = !i) {
		struct large *none = NULL;

		if (atomic_compare_exchange_strong(&a->large_spare[i], &none, g))
			return; /* there are two of both */
	}
}

static void send_all(struct large *g)
{
	struct attached *a = g->owner;

	if (g->older)
		send_all(g->older);
	for (uint32_t i = 0; i < g->frames; i++) {
		const struct large_frame *f = &g->frame[i];

		large_finish(g, i);
		/* what the kernel does not take is lost, as on any network */
		(void)!host_sys.write(a->e.large_fd[f->vnic] - 1, g->bytes + f->at, f->len);
	}
	g->frames = g->used = 0;
	g->full = false;
	g->older = NULL;
	put_back(a, g);
}

void large_send(void)
{
	struct large *g = large_mine;

	large_mine = NULL;
	send_all(g);
}
