/* SPDX-License-Identifier: BSD-2-Clause */
/* See tenant.h. Filters are in tenant_filter.c. */
#include "daemon/tenant.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "daemon/closer.h"
#include "daemon/orphan.h"
#include "daemon/own_queue.h"
#include "daemon/rings.h"
#include "daemon/veth.h"

/* The kernel frees the queue of a closed AF_XDP socket a little later: two grace periods of RCU and a work item, which
 * take the longer the busier the machine is. Who is not waited for is behind a veth for the rest of his life. */
#define ROOM_MS 1000
#define ROOM_WAIT_US 1000

/* --- life --- */

int tenant_number(struct tenant *t)
{
	struct house *h = t->house;

	for (uint32_t i = 0; t->number == TENANT_NO_NUMBER && i < STEER_STACKS; i++)
		if (!h->number[i].used) {
			h->number[i] = (struct house_number){.used = true};
			t->number = i;
		}
	return t->number == TENANT_NO_NUMBER ? -ENOSPC : 0;
}

struct tenant *tenant_new(struct house *h, uint32_t uid, pid_t pid)
{
	struct tenant *t;
	uint32_t seat = 0;

	while (seat < STEER_STACKS && h->tenant[seat])
		seat++;
	t = seat < STEER_STACKS ? calloc(1, sizeof(*t)) : NULL;
	if (!t)
		return NULL;
	*t =
	    (struct tenant){.house = h, .seat = seat, .number = TENANT_NO_NUMBER, .uid = uid, .pid = pid, .memory = -1};
	memset(t->process, -1, sizeof(t->process));
	h->tenant[seat] = t;
	return t;
}

uint32_t tenants_of(const struct house *h, uint32_t uid)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < STEER_STACKS; i++)
		n += h->tenant[i] && h->tenant[i]->uid == uid;
	return n;
}

struct tenant *tenant_of_memory(const struct house *h, uint32_t uid, int memory)
{
	struct stat is, has;

	if (memory < 0 || fstat(memory, &is))
		return NULL;
	for (uint32_t i = 0; i < STEER_STACKS; i++) {
		struct tenant *t = h->tenant[i];

		if (t && t->uid == uid && t->memory >= 0 && !t->orphan && !fstat(t->memory, &has) &&
		    has.st_ino == is.st_ino && has.st_dev == is.st_dev)
			return t;
	}
	return NULL;
}

void tenant_client_gone(struct tenant *t, uint32_t asker)
{
	t->clients--;
	for (uint32_t i = 0; i < t->filter_high; i++)
		if (t->filter[i].asker == asker)
			t->filter[i].asker = 0;
}

static int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void house_queues_left(struct house *h)
{
	h->queues_left = now();
}

static void close_vnic(struct tenant *t, struct tenant_vnic *v)
{
	struct steer *s = t->house->steer;

	steer_port_clear(s, v->iface, t->number);
	if (v->outer) {
		steer_veth_gone(s, v->iface, t->number, v->outer);
		veth_close(s, steer_port_index(v->iface, t->number), v->outer);
	}
	own_queue_gone(t, v);
	rings_forget(v->rings, v->about.queues);
	port_close(&v->port);
	if (v->about.mode == DAEMON_MODE_DIRECT)
		house_queues_left(t->house);
	tenant_devices_close(t, v);
	v->ifindex = 0;
}

void tenant_free(struct tenant *t)
{
	orphan_end(t);
	for (uint32_t id = 1; id <= t->filter_high; id++)
		tenant_filter_del(t, id);
	if (t->number != TENANT_NO_NUMBER) {
		filters_sweep(t->house->filters, t->number);
		steer_table_clear(t->house->steer, t->number);
	}
	for (uint32_t i = 0; i < TENANT_VNICS; i++)
		if (t->vnic[i].ifindex)
			close_vnic(t, &t->vnic[i]);
	for (uint32_t i = 0; i < TENANT_PROCESSES; i++)
		tenant_process_gone(t, i);
	if (t->memory >= 0)
		close(t->memory);
	if (t->number != TENANT_NO_NUMBER)
		t->house->number[t->number].used = false;
	t->house->tenant[t->seat] = NULL;
	free(t->hold);
	free(t->filter);
	free(t);
}

/* A signal that does nothing can be sent to a pidfd, or is forbidden; to all else it can't. */
static bool is_pidfd(int fd)
{
	return !syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) || errno == EPERM || errno == ESRCH;
}

/* Whose pidfd it is; 0: not to be seen from here. */
static pid_t pid_of(int pidfd)
{
	char path[40], text[512] = {0};
	const char *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	at = n > 0 ? strstr(text, "\nPid:") : NULL;
	n = at ? strtol(at + 5, NULL, 10) : 0;
	return n > 0 ? (pid_t)n : 0;
}

/* The process has been told of before, and lives. */
static bool is_known(const struct tenant *t, pid_t pid)
{
	for (uint32_t i = 0; pid && i < TENANT_PROCESSES; i++) {
		struct pollfd p = {.fd = t->process[i], .events = POLLIN};

		if (t->process[i] >= 0 && t->process_pid[i] == pid && !poll(&p, 1, 0))
			return true;
	}
	return false;
}

static int place_process(struct tenant *t, int pidfd)
{
	pid_t pid = pid_of(pidfd);

	if (is_known(t, pid))
		return -EEXIST;
	for (uint32_t i = 0; i < TENANT_PROCESSES; i++)
		if (t->process[i] < 0) {
			t->process[i] = pidfd;
			t->process_pid[i] = pid;
			return (int)i;
		}
	return -ENOSPC;
}

int tenant_process(struct tenant *t, int pidfd, const char **why)
{
	int rc = -EINVAL;

	*why = "the descriptor is no pidfd";
	if (pidfd >= 0 && is_pidfd(pidfd)) {
		*why = "too many processes share the stack";
		rc = place_process(t, pidfd);
		if (rc >= 0)
			return rc;
	}
	if (pidfd >= 0)
		closer_close(t->uid, pidfd);
	return rc;
}

void tenant_process_gone(struct tenant *t, uint32_t at)
{
	if (t->process[at] < 0)
		return;
	epoll_ctl(t->house->epoll, EPOLL_CTL_DEL, t->process[at], NULL);
	close(t->process[at]);
	t->process[at] = -1;
}

/* --- vNICs --- */

const struct netview_iface *house_iface(const struct house *h, uint32_t ifindex)
{
	const struct netview *view = mirror_view(h->mirror);
	const struct netview_copy *c = &view->copy[view->version & 1];

	for (uint32_t i = 0; i < c->ifaces; i++)
		if (c->iface[i].ifindex == ifindex)
			return &c->iface[i];
	return NULL;
}

struct tenant_vnic *tenant_vnic_place(struct tenant *t, uint32_t ifindex)
{
	struct tenant_vnic *found = NULL;

	for (uint32_t i = 0; i < TENANT_VNICS; i++) {
		if (t->vnic[i].ifindex == ifindex)
			return NULL;
		if (!t->vnic[i].ifindex)
			found = &t->vnic[i];
	}
	return found;
}

struct tenant_vnic *tenant_has_rings(struct tenant *t, const struct daemon_vnic *about, int xsk)
{
	uint64_t cookie = xsk < 0 ? 0 : socket_cookie(xsk);

	for (uint32_t i = 0; about->ifindex && i < TENANT_VNICS; i++)
		if (t->vnic[i].ifindex == about->ifindex && cookie && t->vnic[i].port.cookie == cookie)
			return &t->vnic[i];
	return NULL;
}

static int check_iface(struct tenant *t, const struct netview_iface *f, struct port_device *d, const char **why)
{
	*why = "there is no such interface";
	if (!f)
		return -ENODEV;
	*why = "loopback is the kernel's";
	if (f->flags & NETVIEW_IF_LOOPBACK)
		return -EOPNOTSUPP;
	*why = "viaductd may not attach to this interface (its option --interface)";
	if (!(f->flags & NETVIEW_IF_ALLOWED))
		return -EPERM;
	*why = "the interface's device is gone";
	return port_device(t->house->sock, f->device, d);
}

/* Who comes when another has just left waits for the kernel: what he gets now he has as long as he lives. All others
 * wait with him, so if that was in vain the next does not try it again. */
static int bind_port(struct house *h, struct tenant_vnic *v, const char **why)
{
	bool direct = v->about.mode == DAEMON_MODE_DIRECT;
	int rc = port_bind(&v->port);

	while (rc == -EBUSY && direct && h->queues_left && now() - h->queues_left < ROOM_MS) {
		usleep(ROOM_WAIT_US);
		rc = port_bind(&v->port);
	}
	if (rc == -EBUSY && direct)
		h->queues_left = 0;
	*why = rc == -EBUSY        ? "another process has the interface's queues"
	       : rc == -ENETDOWN   ? "the interface is down"
	       : rc == -EOPNOTSUPP ? "frames of this MTU need Linux 6.6"
				   : "the kernel binds no AF_XDP socket to this interface";
	return rc;
}

/* AF_XDP sockets on the device's own queues. */
static int open_direct(struct tenant_vnic *v, const struct port_device *d, uint32_t first, uint32_t queues,
		       const char **why)
{
	int rc = port_open(d->ifindex, queues, d->mtu, &v->port);

	*why = "the kernel makes no AF_XDP socket for this interface";
	v->about.mode = DAEMON_MODE_DIRECT;
	v->port.first = first;
	return rc;
}

int tenant_veth_set(struct tenant *t, struct tenant_vnic *v)
{
	struct steer_outer o = {.stack = t->number, .device = v->sends, .vlan = (uint16_t)v->where.vlan};

	memcpy(o.mac, v->about.mac, sizeof(o.mac));
	return steer_veth(t->house->steer, v->iface, t->number, v->outer, &o);
}

/* A socket on a veth of its own. */
static int open_behind(struct tenant *t, struct tenant_vnic *v, const struct port_device *d, const char **why)
{
	struct house *h = t->house;
	int rc = veth_open(h->steer, h->cellar, steer_port_index(v->iface, t->number), d, &v->outer, &v->port);

	v->about.mode = DAEMON_MODE_VETH;
	*why = "the kernel makes no veth for the process";
	if (rc) {
		v->outer = 0;
		return rc;
	}
	return tenant_veth_set(t, v);
}

/* A stack has the device's queues: the kernel would say so too, after much work. */
static bool queues_taken(const struct house *h, uint32_t device)
{
	for (uint32_t i = 0; i < STEER_STACKS; i++)
		for (uint32_t v = 0; h->tenant[i] && v < TENANT_VNICS; v++) {
			const struct tenant_vnic *n = &h->tenant[i]->vnic[v];

			if (n->ifindex && n->where.ifindex == device && n->about.mode == DAEMON_MODE_DIRECT &&
			    n->port.umem >= 0 && !own_queue_is(n))
				return true;
		}
	return false;
}

/* A client of an older version has room for fewer. */
static uint32_t queues_asked(const struct daemon_open *o)
{
	if (!o->queues)
		return DAEMON_QUEUES_LEAST;
	return o->queues < DAEMON_QUEUES_MAX ? o->queues : DAEMON_QUEUES_MAX;
}

/* most: queues that the client can take. */
static int try_direct(struct tenant *t, struct tenant_vnic *v, const struct port_device *d, uint32_t most,
		      const char **why)
{
	struct house *h = t->house;
	uint32_t rss = own_queues_rss(h, d->ifindex, d->queues);
	bool taken = queues_taken(h, d->ifindex);
	int own = taken ? own_queue_free(h, d->ifindex, rss, d->queues) : -EBUSY;

	if (own >= 0)
		return open_direct(v, d, (uint32_t)own, 1, why);
	if (rss > most)
		return -EBUSY;
	if (taken && !orphan_make_room(h, d->ifindex))
		return -EBUSY;
	return open_direct(v, d, 0, rss, why);
}

/* Frames go to the rings from now on: the maps say so, last the port, which lets them in. */
static int let_in(struct tenant *t, struct tenant_vnic *v, const char **why)
{
	struct steer_port port = {
	    .mode = v->about.mode, .outer = v->outer, .cookie = v->port.cookie, .uid = t->uid, .first = v->port.first};
	int rc;

	if (!t->house->kernel.maps_bound)
		v->rings = rings_keep(&v->port, &v->about);
	rc = bind_port(t->house, v, why);
	for (uint32_t q = 0; !rc && q < v->port.queues; q++)
		rc = steer_xsk(t->house->steer, v->iface, t->number, v->port.first + q, v->port.xsk[q]);
	if (!rc && own_queue_is(v) && own_queue_steer(t, v)) {
		*why = "the NIC takes no flow rules for what the process has";
		rc = -EBUSY;
	}
	if (!rc)
		rc = steer_port_set(t->house->steer, v->iface, t->number, &port);
	v->about.features = (v->about.features & ~DAEMON_VNIC_UNBOUND) | v->port.features;
	return rc;
}

/* Say what they are; now or later they are let in. */
static int offer(struct tenant *t, struct tenant_vnic *v, bool later, const char **why)
{
	port_describe(&v->port, &v->about);
	v->about.features |= later ? DAEMON_VNIC_UNBOUND : 0;
	return later ? 0 : let_in(t, v, why);
}

/*
 * Rings of one kind or the other, bound at once or when their owner has mapped them. Where the kernel does not keep a
 * socket to its device, nobody gets one that is not bound: he could bind it to another's veth.
 */
static int open_rings(struct tenant *t, struct tenant_vnic *v, const struct port_device *d, const struct daemon_open *o,
		      bool direct, const char **why)
{
	bool later = o->flags & DAEMON_OPEN_BINDS && t->house->kernel.keeps_device;
	bool behind = !direct || o->flags & DAEMON_OPEN_BEHIND || v->sends != d->ifindex;
	int rc = behind ? -EBUSY : try_direct(t, v, d, queues_asked(o), why);

	if (!rc)
		rc = offer(t, v, later, why);
	if (rc == -EBUSY) {
		rings_forget(v->rings, v->about.queues);
		v->rings = NULL;
		port_close(&v->port);
		rc = open_behind(t, v, d, why);
		if (!rc)
			rc = offer(t, v, later, why);
	}
	return rc;
}

static void describe(struct tenant_vnic *v, const struct netview_iface *f, const struct port_device *d, bool native)
{
	v->about = (struct daemon_vnic){.ifindex = f->ifindex, .mtu = f->mtu, .keep_fds = 1, .vlan = f->vlan};
	memcpy(v->about.mac, f->mac, sizeof(v->about.mac));
	if (d->partial || (!native && d->partial_generic))
		v->about.features |= DAEMON_VNIC_PARTIAL_CSUM;
	if (native)
		v->about.features |= DAEMON_VNIC_NATIVE;
}

/* Each takes 16 MiB and more. */
static uint32_t vnics_of(const struct house *h, uint32_t uid)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < STEER_STACKS; i++)
		for (uint32_t v = 0; h->tenant[i] && h->tenant[i]->uid == uid && v < TENANT_VNICS; v++)
			n += h->tenant[i]->vnic[v].ifindex != 0;
	return n;
}

int tenant_open(struct tenant *t, const struct daemon_open *o, bool licence, struct tenant_vnic **made,
		const char **why)
{
	const struct netview_iface *f = house_iface(t->house, o->ifindex);
	struct tenant_vnic *v = tenant_vnic_place(t, o->ifindex);
	struct port_device d;
	bool native;
	int rc = check_iface(t, f, &d, why);

	if (rc)
		return rc;
	*why = "the process has a vNIC there, or too many";
	if (!v)
		return -EEXIST;
	*why = "this user has as many vNICs as viaductd allows (its option --stacks)";
	if (vnics_of(t->house, t->uid) >= t->house->policy.stacks)
		return -EUSERS;
	*why = "viaductd has no room for another stack";
	rc = tenant_number(t);
	if (rc)
		return rc;
	*v = (struct tenant_vnic){.where = {.ifindex = f->device, .vlan = f->vlan}, .port = {.umem = -1}};
	memset(v->port.xsk, -1, sizeof(v->port.xsk));
	rc = tenant_devices_open(t, v, f, &native, why);
	if (rc)
		return rc;
	describe(v, f, &d, native);
	rc = open_rings(t, v, &d, o, policy_direct(&t->house->policy, t->uid, licence), why);
	if (rc)
		close_vnic(t, v);
	*made = v;
	return rc;
}

int tenant_bind(struct tenant *t, uint32_t ifindex, struct tenant_vnic **made, const char **why)
{
	struct tenant_vnic *v = NULL;
	int rc;

	for (uint32_t i = 0; i < TENANT_VNICS; i++)
		if (ifindex && t->vnic[i].ifindex == ifindex && !t->vnic[i].port.bound)
			v = &t->vnic[i];
	*why = "the process has no vNIC there that is to be bound";
	if (!v)
		return -ENOENT;
	rc = let_in(t, v, why);
	if (rc)
		close_vnic(t, v);
	*made = v;
	return rc;
}

/* --- changes --- */

static void follow_iface(struct tenant *t, struct tenant_vnic *v)
{
	const struct netview_iface *f = house_iface(t->house, v->ifindex);

	if (!f) {
		close_vnic(t, v);
		return;
	}
	tenant_devices_follow(t, v, f);
	if (memcmp(f->mac, v->about.mac, sizeof(f->mac)) != 0) {
		memcpy(v->about.mac, f->mac, sizeof(f->mac));
		if (v->outer)
			tenant_veth_set(t, v);
	}
}

void house_view(struct house *h)
{
	steer_view(h->steer, mirror_view(h->mirror));
	for (uint32_t i = 0; i < STEER_STACKS; i++)
		for (uint32_t v = 0; h->tenant[i] && v < TENANT_VNICS; v++)
			if (h->tenant[i]->vnic[v].ifindex)
				follow_iface(h->tenant[i], &h->tenant[i]->vnic[v]);
}
