// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Which vNIC a packet belongs to: one hash table for all interfaces. A filter names an interface, a
 * protocol, the local end and maybe the remote one. The flow's own filter comes first, then that of
 * the port at the packet's address, then that of the port at any address. Kinds of which there are
 * none are not looked up.
 *
 * Whatever a filter says, a packet is taken only if its local address is this machine's: nobody
 * gets what is merely forwarded. And of a port's packets those of connections that the kernel has
 * stay the kernel's: they were there before, or are those of the backing socket itself.
 */
#include <linux/hashtable.h>
#include <linux/inetdevice.h>
#include <linux/jhash.h>
#include <linux/net.h>
#include <linux/slab.h>
#include <net/inet_sock.h>
#include <net/ipv6.h>

#include "driver.h"

#define BITS 14

static DEFINE_HASHTABLE(table, BITS);
static DEFINE_MUTEX(filter_lock);
static u32 seed __read_mostly;

enum kind { FLOW, PORT, ANY, KINDS };
static u32 kinds[KINDS]; /* how many there are; filter_lock, read without */

static u32 hash_of(const struct net_device *dev, const struct vd_flow *f)
{
	u32 h = jhash(&f->local, sizeof(f->local), seed);

	h = jhash(&f->remote, sizeof(f->remote), h);
	return jhash_3words(f->local_port << 16 | f->remote_port, f->proto << 8 | f->family,
			    hash32_ptr(dev), h);
}

static bool same(const struct vd_flow *a, const struct vd_flow *b)
{
	return a->local_port == b->local_port && a->remote_port == b->remote_port &&
	       a->proto == b->proto && a->family == b->family &&
	       ipv6_addr_equal(&a->local, &b->local) && ipv6_addr_equal(&a->remote, &b->remote);
}

static struct vd_filter *find(const struct net_device *dev, const struct vd_flow *flow)
{
	struct vd_filter *f;

	hash_for_each_possible_rcu(table, f, node, hash_of(dev, flow),
				   lockdep_is_held(&filter_lock))
		if (f->dev == dev && same(&f->flow, flow))
			return f;
	return NULL;
}

static enum kind kind_of(const struct vd_flow *f)
{
	if (f->remote_port)
		return FLOW;
	return ipv6_addr_any(&f->local) ? ANY : PORT;
}

/* The filter of that kind that covers the flow. */
static struct vd_filter *covering(const struct net_device *dev, const struct vd_flow *flow,
				  enum kind kind)
{
	struct vd_flow key = *flow;

	if (!READ_ONCE(kinds[kind]))
		return NULL;
	if (kind != FLOW) {
		key.remote = in6addr_any;
		key.remote_port = 0;
	}
	if (kind == ANY)
		key.local = in6addr_any;
	return find(dev, &key);
}

/* The backing socket may have given the port up (a connect to AF_UNSPEC does). */
static bool stands(const struct vd_filter *f)
{
	return !f->sock || READ_ONCE(inet_sk(f->sock->sk)->inet_num) == f->flow.local_port;
}

struct vd_vnic *vd_filter_receiver(const struct net_device *dev, const struct vd_flow *flow)
{
	for (enum kind kind = FLOW; kind < KINDS; kind++) {
		const struct vd_filter *f = covering(dev, flow, kind);

		if (!f || !stands(f))
			continue;
		if (!vd_address_is_local(dev, flow))
			return NULL;
		if (kind != FLOW && flow->proto == IPPROTO_TCP && vd_kernel_has(dev, flow)) {
			this_cpu_inc(vd_total.n[VD_rx_kernels]);
			return NULL;
		}
		return f->vnic;
	}
	return NULL;
}

bool vd_filter_sends(const struct vd_vnic *v, const struct net_device *dev,
		     const struct vd_flow *flow)
{
	for (enum kind kind = FLOW; kind < KINDS; kind++) {
		const struct vd_filter *f = covering(dev, flow, kind);

		if (f && f->vnic == v && stands(f))
			return vd_address_is_local(dev, flow);
	}
	return false;
}

/* --- making and ending them --- */

static bool is_v4(const struct vd_flow *f)
{
	return f->family == 4;
}

static int flow_of(const struct viaduct_filter *want, struct vd_flow *f)
{
	memcpy(&f->local, want->local, sizeof(f->local));
	memcpy(&f->remote, want->remote, sizeof(f->remote));
	f->local_port = want->local_port;
	f->remote_port = want->remote_port;
	f->proto = want->proto;
	f->family = want->family;
	if (want->flags || want->reserved || !f->local_port ||
	    (f->proto != IPPROTO_TCP && f->proto != IPPROTO_UDP) ||
	    (f->family != 4 && f->family != 6))
		return -EINVAL;
	if (!f->remote_port != ipv6_addr_any(&f->remote))
		return -EINVAL;
	if (!ipv6_addr_any(&f->local) && ipv6_addr_v4mapped(&f->local) != is_v4(f))
		return -EINVAL;
	if (f->remote_port &&
	    (ipv6_addr_any(&f->local) || ipv6_addr_v4mapped(&f->remote) != is_v4(f)))
		return -EINVAL;
	if (ipv6_addr_is_multicast(&f->local) ||
	    (f->family == 4 && ipv4_is_multicast(f->local.s6_addr32[3])))
		return -EOPNOTSUPP;
	return 0;
}

/* With filter_lock. The vNIC has that whole port: a flow of it needs no socket. */
static bool has_port(const struct vd_vnic *v, const struct net_device *dev,
		     const struct vd_flow *flow)
{
	const struct vd_filter *f = covering(dev, flow, PORT);

	if (!f || f->vnic != v)
		f = covering(dev, flow, ANY);
	return f && f->vnic == v && stands(f);
}

/* With filter_lock: *sock is looked up, or stays NULL if none is needed. */
static int check_right(struct vd_vnic *v, const struct net_device *dev, int fd,
		       const struct vd_flow *flow, struct socket **sock)
{
	int ret;

	if (fd < 0 && flow->remote_port && has_port(v, dev, flow))
		return 0;
	if (fd < 0)
		return file_ns_capable(v->file, sock_net(v->sk)->user_ns, CAP_NET_RAW) ? 0 : -EPERM;
	*sock = sockfd_lookup(fd, &ret);
	return *sock ? vd_owner_check(v, *sock, flow) : ret;
}

/* Another vNIC has that very filter, or the port that the flow is of. */
static bool conflicts(const struct vd_vnic *v, const struct net_device *dev,
		      const struct vd_flow *flow)
{
	const struct vd_filter *f = find(dev, flow);

	for (enum kind kind = PORT; !f && flow->remote_port && kind < KINDS; kind++)
		f = covering(dev, flow, kind);
	return f && f->vnic != v;
}

static int add_locked(struct vd_vnic *v, const struct vd_flow *flow, int fd)
{
	const struct net_device *dev = v->dev;
	struct vd_filter *f;
	int ret;

	if (!dev)
		return -EIO;
	if (v->filter_count >= VD_FILTERS_MAX)
		return -ENOSPC;
	if (!ipv6_addr_any(&flow->local) && !vd_address_is_local(dev, flow))
		return -EADDRNOTAVAIL;
	f = kzalloc(sizeof(*f), GFP_KERNEL_ACCOUNT);
	if (!f)
		return -ENOMEM;
	ret = check_right(v, dev, fd, flow, &f->sock);
	if (ret == 0 && conflicts(v, dev, flow))
		ret = -EADDRINUSE;
	if (ret == 0 && find(dev, flow))
		ret = -EEXIST;
	if (ret < 0) {
		if (f->sock)
			sockfd_put(f->sock);
		kfree(f);
		return ret;
	}
	f->vnic = v;
	f->dev = dev;
	f->flow = *flow;
	list_add(&f->of_vnic, &v->filters);
	WRITE_ONCE(v->filter_count, v->filter_count + 1);
	hash_add_rcu(table, &f->node, hash_of(dev, flow));
	WRITE_ONCE(kinds[kind_of(flow)], kinds[kind_of(flow)] + 1);
	return 0;
}

int vd_filter_add(struct vd_vnic *v, const struct viaduct_filter *want)
{
	struct vd_flow flow;
	int ret = flow_of(want, &flow);

	if (ret < 0)
		return ret;
	get_random_once(&seed, sizeof(seed));
	mutex_lock(&v->tx_lock); /* its interface stays */
	mutex_lock(&filter_lock);
	ret = add_locked(v, &flow, want->fd);
	mutex_unlock(&filter_lock);
	mutex_unlock(&v->tx_lock);
	return ret;
}

/* With filter_lock. The socket is closed behind the grace period's back: stands() may look at it.
 */
static void remove(struct vd_filter *f, struct list_head *ended)
{
	hash_del_rcu(&f->node);
	WRITE_ONCE(kinds[kind_of(&f->flow)], kinds[kind_of(&f->flow)] - 1);
	WRITE_ONCE(f->vnic->filter_count, f->vnic->filter_count - 1);
	list_move(&f->of_vnic, ended);
}

static void free_all(struct list_head *ended)
{
	struct vd_filter *f, *next;

	if (list_empty(ended))
		return;
	synchronize_net();
	list_for_each_entry_safe(f, next, ended, of_vnic) {
		if (f->sock)
			sockfd_put(f->sock);
		kfree(f);
	}
}

int vd_filter_del(struct vd_vnic *v, const struct viaduct_filter *want)
{
	struct vd_filter *f = NULL;
	struct vd_flow flow;
	LIST_HEAD(ended);
	int ret = flow_of(want, &flow);

	if (ret < 0)
		return ret;
	mutex_lock(&v->tx_lock);
	mutex_lock(&filter_lock);
	if (v->dev)
		f = find(v->dev, &flow);
	if (f && f->vnic == v)
		remove(f, &ended);
	ret = !v->dev ? -EIO : list_empty(&ended) ? -ENOENT : 0;
	mutex_unlock(&filter_lock);
	mutex_unlock(&v->tx_lock);
	free_all(&ended);
	return ret;
}

void vd_filters_end(struct vd_vnic *v)
{
	struct vd_filter *f, *next;
	LIST_HEAD(ended);

	mutex_lock(&filter_lock);
	list_for_each_entry_safe(f, next, &v->filters, of_vnic)
		remove(f, &ended);
	mutex_unlock(&filter_lock);
	free_all(&ended);
}
