/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * After the death of an earlier viaductd: its maps say which stacks had what; the stacks come and show their rings. Who
 * shows the AF_XDP socket of a port owns the port: nobody else can have that socket. See tenant.h and DAEMON_RESUME.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/closer.h"
#include "daemon/own_queue.h"
#include "daemon/tenant.h"
#include "daemon/veth.h"

/* --- the start --- */

/* A number without a port says nothing of whose it was: who gets it next is not to get the filters too, such as one of
 * a stack to which the earlier viaductd did not come to answer. */
static bool known(uint32_t stack, void *house, uint32_t *uid)
{
	const struct house *h = house;

	if (stack >= STEER_STACKS || !h->number[stack].adopted)
		return false;
	*uid = h->number[stack].uid;
	return true;
}

int house_adopt(struct house *h)
{
	struct steer_port port;

	own_queues_adopt(h);
	if (!steer_adopted(h->steer)) {
		own_queues_sweep(h);
		house_queues_left(h); /* by an earlier viaductd's stacks that are dead */
		return 0;
	}
	for (uint32_t iface = 0; iface < STEER_IFACES; iface++)
		for (uint32_t n = 0; n < STEER_STACKS; n++)
			if (!steer_port_get(h->steer, iface, n, &port) && port.mode)
				h->number[n] = (struct house_number){.used = true, .adopted = true, .uid = port.uid};
	return filters_adopt(h->filters, known, h);
}

static void sweep_number(struct house *h, uint32_t number)
{
	struct steer_port port;

	for (uint32_t iface = 0; iface < STEER_IFACES; iface++) {
		if (steer_port_get(h->steer, iface, number, &port) || !port.mode)
			continue;
		steer_port_clear(h->steer, iface, number);
		if (port.mode == DAEMON_MODE_VETH) {
			steer_veth_gone(h->steer, iface, number, port.outer);
			veth_close(h->steer, steer_port_index(iface, number), port.outer);
		}
	}
	steer_table_clear(h->steer, number);
	h->number[number] = (struct house_number){0};
}

void house_sweep(struct house *h)
{
	for (uint32_t n = 0; n < STEER_STACKS; n++)
		if (h->number[n].adopted)
			sweep_number(h, n);
	filters_sweep(h->filters, FILTERS_ALL);
	own_queues_sweep(h);
	steer_settle(h->steer);
}

/* --- stacks that come --- */

static bool is_xsk(int fd)
{
	int domain = 0;
	socklen_t len = sizeof(domain);

	return fd >= 0 && !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) && domain == AF_XDP;
}

static int check_rings(const struct daemon_vnic *about, int umem, const int xsk[DAEMON_QUEUES_MAX])
{
	struct stat st;

	if (about->queues < 1 || about->queues > DAEMON_QUEUES_MAX)
		return -EINVAL;
	for (uint32_t q = 0; q < DAEMON_QUEUES_MAX; q++)
		if (q < about->queues ? !is_xsk(xsk[q]) : xsk[q] >= 0)
			return -EINVAL;
	if (umem < 0 || fcntl(umem, F_GET_SEALS) < 0 || fstat(umem, &st) || (uint64_t)st.st_size != about->umem_size)
		return -EINVAL;
	return 0;
}

/* The number under which the port of this cookie stands. */
static int find_number(struct tenant *t, uint32_t iface, uint64_t cookie, struct steer_port *port)
{
	struct house *h = t->house;

	for (uint32_t n = 0; n < STEER_STACKS; n++) {
		if (n != t->number && !(t->number == TENANT_NO_NUMBER && h->number[n].adopted))
			continue;
		if (!steer_port_get(h->steer, iface, n, port) && port->mode && cookie && port->cookie == cookie &&
		    port->uid == t->uid)
			return (int)n;
	}
	return -ENOENT;
}

int house_adopted_uid(const struct house *h, uint64_t cookie, uint32_t *uid)
{
	struct steer_port port;

	for (uint32_t iface = 0; iface < STEER_IFACES; iface++)
		for (uint32_t n = 0; n < STEER_STACKS; n++)
			if (h->number[n].adopted && !steer_port_get(h->steer, iface, n, &port) && port.mode && cookie &&
			    port.cookie == cookie) {
				*uid = port.uid;
				return 0;
			}
	return -ENOENT;
}

static int take_port(struct tenant *t, struct tenant_vnic *v, const struct netview_iface *f, uint64_t cookie,
		     bool *native, const char **why)
{
	struct house *h = t->house;
	struct steer_port port;
	int iface, number, rc;
	uint32_t was;

	*why = "no earlier viaductd gave these rings to this user";
	iface = steer_iface(h->steer, &v->where, f->ifindex, f->mac);
	number = iface < 0 ? iface : find_number(t, (uint32_t)iface, cookie, &port);
	if (number < 0)
		return number;
	was = t->number;
	t->number = (uint32_t)number;
	rc = tenant_devices_open(t, v, f, native, why);
	if (rc) {
		t->number = was;
		return rc;
	}
	h->number[number].adopted = false;
	v->outer = port.mode == DAEMON_MODE_VETH ? port.outer : 0;
	v->about.mode = port.mode;
	v->port.cookie = cookie;
	v->port.first = port.first;
	/* our program there too, and what it needs to know */
	if (v->outer && !steer_attach_outer(h->steer, v->outer, f->device))
		tenant_veth_set(t, v);
	return 0;
}

static void close_all(uint32_t uid, int umem, const int xsk[DAEMON_QUEUES_MAX])
{
	for (uint32_t q = 0; q < DAEMON_QUEUES_MAX; q++)
		if (xsk[q] >= 0)
			closer_close(uid, xsk[q]);
	closer_close(uid, umem);
}

int tenant_resume(struct tenant *t, const struct daemon_vnic *about, int umem, const int xsk[DAEMON_QUEUES_MAX],
		  struct tenant_vnic **made, const char **why)
{
	const struct netview_iface *f = house_iface(t->house, about->ifindex);
	struct tenant_vnic *v = tenant_vnic_place(t, about->ifindex), new;
	int rc = f && v && about->ifindex ? check_rings(about, umem, xsk) : -ENODEV;
	bool native;

	*why = rc == -ENODEV ? "there is no such interface, or a vNIC on it already" : "these are no rings";
	if (!rc) {
		new = (struct tenant_vnic){.where = {f->device, f->vlan}, .about = *about};
		/* what frames may carry is not the client's to say */
		new.about.vlan = f->vlan;
		memcpy(new.about.mac, f->mac, sizeof(new.about.mac));
		rc = take_port(t, &new, f, socket_cookie(xsk[0]), &native, why);
	}
	if (rc) {
		close_all(t->uid, umem, xsk);
		return rc;
	}
	*v = new;
	v->about.keep_fds = 1;
	v->port.bound = true;
	v->port.umem = umem;
	v->port.queues = about->queues;
	v->port.features = about->features & (DAEMON_VNIC_SCATTER | DAEMON_VNIC_ZEROCOPY);
	memcpy(v->port.xsk, xsk, sizeof(v->port.xsk));
	*made = v;
	return 0;
}
