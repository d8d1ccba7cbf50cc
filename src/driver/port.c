// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Interfaces that have vNICs. Each has one hook in netfilter's ingress (NF_NETDEV_INGRESS), last of
 * all, from its first vNIC to its last.
 *
 * Why that hook: it runs after packet taps (tcpdump sees everything), after tc and after the
 * administrator's own rules at ingress, and before IP. It can take a packet, which a packet_type
 * can't, and unlike the rx_handler an interface has more than one, so bridges, bonds and macvlans
 * are not in the way. Frames with a VLAN tag pass by it on the lower device, and come again on the
 * VLAN's own.
 */
#include <linux/netfilter.h>
#include <linux/netfilter_netdev.h>
#include <linux/rtnetlink.h>
#include <linux/slab.h>

#include "driver.h"

struct vd_port {
	struct list_head all; /* rtnl */
	struct net_device *dev;
	struct net *net; /* the device's when the hook was made */
	struct list_head vnics;
	struct nf_hook_ops hook;
	struct rcu_head rcu;
};

static LIST_HEAD(ports); /* rtnl */
static bool retired;	 /* rtnl, read without */

static struct vd_port *find(const struct net_device *dev)
{
	struct vd_port *p;

	list_for_each_entry(p, &ports, all)
		if (p->dev == dev)
			return p;
	return NULL;
}

static struct vd_port *make(struct net_device *dev)
{
	struct vd_port *p = kzalloc(sizeof(*p), GFP_KERNEL);
	int ret;

	if (!p)
		return ERR_PTR(-ENOMEM);
	INIT_LIST_HEAD(&p->vnics);
	p->dev = dev;
	p->net = dev_net(dev);
	p->hook = (struct nf_hook_ops){.hook = vd_ingress,
				       .dev = dev,
				       .priv = dev,
				       .pf = NFPROTO_NETDEV,
				       .hooknum = NF_NETDEV_INGRESS,
				       .priority = INT_MAX};
	ret = nf_register_net_hook(p->net, &p->hook);
	if (ret < 0) {
		kfree(p);
		return ERR_PTR(ret);
	}
	list_add(&p->all, &ports);
	return p;
}

int vd_port_add(struct vd_vnic *v, struct net_device *dev)
{
	struct vd_port *p = find(dev);

	ASSERT_RTNL();
	if (retired)
		return -ENODEV;
	if (!p)
		p = make(dev);
	if (IS_ERR(p))
		return PTR_ERR(p);
	list_add(&v->on_port, &p->vnics);
	dev_hold(dev);
	mutex_lock(&v->tx_lock);
	v->dev = dev;
	mutex_unlock(&v->tx_lock);
	return 0;
}

void vd_port_remove(struct vd_vnic *v)
{
	struct net_device *dev = v->dev;
	struct vd_port *p = find(dev);

	ASSERT_RTNL();
	mutex_lock(&v->tx_lock);
	v->dev = NULL;
	mutex_unlock(&v->tx_lock);
	list_del_init(&v->on_port);
	if (list_empty(&p->vnics)) {
		nf_unregister_net_hook(p->net, &p->hook);
		list_del(&p->all);
		kfree_rcu(p, rcu);
	}
	dev_put(dev);
}

/* The last vNIC that goes takes p with it, and the list's end. */
static void detach_all(struct vd_port *p)
{
	struct net_device *dev = p->dev;

	for (; p; p = find(dev))
		vd_vnic_detach(list_first_entry(&p->vnics, struct vd_vnic, on_port));
}

void vd_ports_retire(bool on)
{
	rtnl_lock();
	WRITE_ONCE(retired, on);
	while (on && !list_empty(&ports))
		detach_all(list_first_entry(&ports, struct vd_port, all));
	rtnl_unlock();
}

bool vd_ports_retired(void)
{
	return READ_ONCE(retired);
}

static int on_event(struct notifier_block *nb, unsigned long event, void *data)
{
	struct net_device *dev = netdev_notifier_info_to_dev(data);
	struct vd_port *p = find(dev);
	struct vd_vnic *v, *next;

	if (!p)
		return NOTIFY_DONE;
	switch (event) {
	case NETDEV_UNREGISTER:
		detach_all(p);
		break;
	case NETDEV_UP:
	case NETDEV_DOWN:
		list_for_each_entry_safe(v, next, &p->vnics, on_port)
			vd_link(v, event == NETDEV_UP);
		break;
	}
	return NOTIFY_DONE;
}

static struct notifier_block notifier = {.notifier_call = on_event};

int vd_ports_start(void)
{
	return register_netdevice_notifier(&notifier);
}

void vd_ports_stop(void)
{
	unregister_netdevice_notifier(&notifier);
}
