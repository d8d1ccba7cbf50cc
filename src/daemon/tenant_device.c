/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The devices below a vNIC's interface. See tenant.h.
 *
 * A bond's frames come in by whichever of its devices is active. That may change at any time, and until viaductd heard
 * of it the kernel would answer with resets: so the program is on all of them from the start. What a stack sends leaves
 * by the bond itself, which knows better than we (a stack on a bond is always behind a veth). Then a failover concerns
 * nobody here; only devices that join or leave the bond do.
 */
#include <errno.h>
#include <string.h>

#include "daemon/tenant.h"

static bool is_among(uint32_t device, const uint32_t *list, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (list[i] == device)
			return true;
	return false;
}

static bool iface_used(const struct house *h, const struct tenant *but, uint32_t iface, uint32_t device)
{
	for (uint32_t i = 0; i < STEER_STACKS; i++)
		for (uint32_t v = 0; h->tenant[i] && h->tenant[i] != but && v < TENANT_VNICS; v++) {
			const struct tenant_vnic *n = &h->tenant[i]->vnic[v];

			if (n->ifindex && n->iface == iface && is_among(device, n->below, n->belows))
				return true;
		}
	return false;
}

static void leave(struct tenant *t, struct tenant_vnic *v, uint32_t device)
{
	struct steer *s = t->house->steer;
	struct steer_if_key where = {.ifindex = device, .vlan = steer_untagged(t->number)};

	if (v->where.vlan)
		steer_iface_gone(s, &where);
	where.vlan = v->where.vlan;
	if (!iface_used(t->house, t, v->iface, device))
		steer_iface_gone(s, &where);
	steer_detach(s, device);
}

/* The program on it, and it says whose the frames are. Number of the interface, or -errno. */
static int join(struct tenant *t, const struct tenant_vnic *v, const struct netview_iface *f, uint32_t device,
		bool *native, const char **why)
{
	struct steer *s = t->house->steer;
	struct steer_if_key where = {.ifindex = device, .vlan = v->where.vlan};
	int rc = steer_attach(s, device, native), number;

	*why = rc == -EBUSY ? "another XDP program is on the interface (viaductd's option --share)"
			    : "the kernel attaches no XDP program to this interface";
	if (rc)
		return rc;
	number = steer_iface(s, &where, f->ifindex, f->mac);
	where.vlan = steer_untagged(t->number);
	if (number >= 0 && v->where.vlan)
		number = steer_iface(s, &where, f->ifindex, f->mac);
	*why = "too many interfaces are in use";
	if (number < 0)
		steer_detach(s, device);
	return number;
}

int tenant_devices_open(struct tenant *t, struct tenant_vnic *v, const struct netview_iface *f, bool *native,
			const char **why)
{
	uint32_t below[MIRROR_BELOW], n = mirror_below(t->house->mirror, f, below, &v->sends);
	int rc = -ENODEV;

	*why = "the interface's device is gone";
	*native = true;
	v->belows = 0;
	for (uint32_t i = 0; i < n; i++) {
		bool in_driver;

		rc = join(t, v, f, below[i], &in_driver, why);
		if (rc < 0)
			break;
		*native &= in_driver;
		v->iface = (uint32_t)rc;
		v->below[v->belows++] = below[i];
	}
	if (rc < 0) {
		tenant_devices_close(t, v);
		return rc;
	}
	v->ifindex = f->ifindex;
	return 0;
}

void tenant_devices_close(struct tenant *t, struct tenant_vnic *v)
{
	while (v->belows)
		leave(t, v, v->below[--v->belows]);
}

void tenant_devices_follow(struct tenant *t, struct tenant_vnic *v, const struct netview_iface *f)
{
	uint32_t below[MIRROR_BELOW], sends, n = mirror_below(t->house->mirror, f, below, &sends);
	const char *why;
	bool native;

	for (uint32_t i = 0; i < v->belows; i++) {
		uint32_t device = v->below[i];

		if (is_among(device, below, n))
			continue;
		v->below[i--] = v->below[--v->belows];
		leave(t, v, device);
	}
	for (uint32_t i = 0; i < n; i++)
		if (!is_among(below[i], v->below, v->belows) && v->belows < MIRROR_BELOW &&
		    join(t, v, f, below[i], &native, &why) >= 0)
			v->below[v->belows++] = below[i];
}
