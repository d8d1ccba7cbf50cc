// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * A vNIC from open to release, its events, and how it wakes its program (include/viaduct/vnic.h,
 * "Sleeping and doorbells").
 *
 * It ends when its file does: filters go first, then its interface's hook, then, after a grace
 * period in which the last packets have left rx.c, its memory. When its interface goes before, it
 * is only marked: the program sees LINK 0, POLLHUP, and EIO.
 */
#include <linux/if_arp.h>
#include <linux/log2.h>
#include <linux/poll.h>
#include <linux/rtnetlink.h>
#include <linux/slab.h>
#include <linux/nsproxy.h>

#include "compat.h"
#include "driver.h"

LIST_HEAD(vd_vnics);
DEFINE_MUTEX(vd_vnics_lock); /* vd_vnics */

static struct proto vd_proto = {
	.name = "viaduct",
	.owner = THIS_MODULE,
	.obj_size = sizeof(struct sock),
};

int vd_proto_start(void)
{
	return proto_register(&vd_proto, 0);
}

void vd_proto_stop(void)
{
	proto_unregister(&vd_proto);
}

struct vd_vnic *vd_vnic_make(struct file *file)
{
	struct vd_vnic *v = kzalloc(sizeof(*v), GFP_KERNEL_ACCOUNT);

	if (!v)
		return NULL;
	v->sk = sk_alloc(current->nsproxy->net_ns, AF_UNSPEC, GFP_KERNEL, &vd_proto, 0);
	if (!v->sk) {
		kfree(v);
		return NULL;
	}
	sock_init_data(NULL, v->sk);
	v->sk->sk_user_data = v;
	v->sk->sk_write_space = vd_write_space;
	v->cred = get_cred(file->f_cred);
	v->file = file;
	INIT_LIST_HEAD(&v->all);
	INIT_LIST_HEAD(&v->on_port);
	INIT_LIST_HEAD(&v->filters);
	mutex_init(&v->setup);
	mutex_init(&v->tx_lock);
	spin_lock_init(&v->lock);
	init_waitqueue_head(&v->wait);
	INIT_WORK(&v->tx_work, vd_tx_work);
	return v;
}

/* Nobody can call in any more. */
void vd_vnic_end(struct vd_vnic *v)
{
	vd_poller_end(v);
	write_lock_bh(&v->sk->sk_callback_lock);
	v->sk->sk_user_data = NULL;
	write_unlock_bh(&v->sk->sk_callback_lock);
	cancel_work_sync(&v->tx_work);
	mutex_lock(&vd_vnics_lock);
	list_del(&v->all);
	mutex_unlock(&vd_vnics_lock);
	rtnl_lock();
	vd_vnic_detach(v);
	rtnl_unlock();
	synchronize_net();
	if (v->eventfd)
		eventfd_ctx_put(v->eventfd);
	vd_region_free(v);
	sock_orphan(v->sk);
	sock_put(v->sk); /* frames on their way keep it */
	put_cred(v->cred);
	kfree(v);
}

/* --- making it a network interface --- */

static bool alloc_valid(const struct viaduct_alloc *a)
{
	return !(a->flags & ~VIADUCT_ALLOC_POLL) && !a->reserved && a->tx_bufs >= VD_BUFS_MIN &&
	       a->tx_bufs <= VD_BUFS_MAX && a->rx_bufs >= VD_BUFS_MIN &&
	       a->rx_bufs <= VD_BUFS_MAX && a->buf_size >= VD_BUF_SIZE_MIN &&
	       a->buf_size <= VD_BUF_SIZE_MAX && a->buf_size % VNIC_LINE == 0 &&
	       (!a->evq_entries || (is_power_of_2(a->evq_entries) && a->evq_entries <= VD_EVQ_MAX));
}

/* Into the list, if the user has not too many. */
static int enlist(struct vd_vnic *v)
{
	const struct vd_vnic *other;
	u32 n = 0;

	mutex_lock(&vd_vnics_lock);
	list_for_each_entry(other, &vd_vnics, all)
		n += uid_eq(other->cred->euid, v->cred->euid);
	if (n < VD_VNICS_OF_USER)
		list_add_tail(&v->all, &vd_vnics);
	mutex_unlock(&vd_vnics_lock);
	return n < VD_VNICS_OF_USER ? 0 : -EUSERS;
}

static void unlist(struct vd_vnic *v)
{
	mutex_lock(&vd_vnics_lock);
	list_del_init(&v->all);
	mutex_unlock(&vd_vnics_lock);
}

static int bind_to_device(struct vd_vnic *v, struct viaduct_alloc *want)
{
	struct net_device *dev = __dev_get_by_index(sock_net(v->sk), want->ifindex);
	int ret;

	if (!dev)
		return -ENODEV;
	if (dev->type != ARPHRD_ETHER || dev->flags & IFF_LOOPBACK)
		return -EOPNOTSUPP;
	v->headroom = LL_RESERVED_SPACE(dev);
	ret = vd_region_make(v, want, dev->mtu);
	if (ret == 0) {
		ret = vd_port_add(v, dev);
		if (ret < 0)
			vd_region_free(v);
	}
	return ret;
}

int vd_vnic_alloc(struct vd_vnic *v, struct viaduct_alloc *want)
{
	int ret;

	if (!alloc_valid(want))
		return -EINVAL;
	if (v->allocated)
		return -EBUSY;
	ret = enlist(v);
	if (ret < 0)
		return ret;
	v->features = want->features & VD_FEATURES;
	if (want->flags & VIADUCT_ALLOC_POLL)
		ret = vd_poller_make(v);
	if (ret == 0) {
		rtnl_lock();
		ret = bind_to_device(v, want);
		rtnl_unlock();
	}
	if (ret < 0) {
		vd_poller_end(v);
		unlist(v);
		return ret;
	}
	v->sk->sk_sndbuf = max_t(u32, SOCK_MIN_SNDBUF, 2 * v->tx_count * v->buf_size);
	want->features = v->features;
	want->region_size = v->region.count << PAGE_SHIFT;
	smp_store_release(&v->allocated, true); /* after all that was made */
	vd_poller_wake(v);
	return 0;
}

/* --- events --- */

void vd_events(struct vd_vnic *v, const struct vnic_desc *d, u32 n)
{
	for (u32 i = n; i-- > 0;)
		vd_ring_write(&v->evq, v->evq.at + i, &d[i]);
	WRITE_ONCE(v->evq.at, v->evq.at + n);
}

void vd_wake(struct vd_vnic *v)
{
	/* events before armed: pairs with the program's, between armed and its last look */
	smp_mb();
	if (!READ_ONCE(v->ctrl->armed) || !xchg(&v->ctrl->armed, VNIC_ARMED_NO))
		return;
	this_cpu_inc(vd_total.n[VD_wakeups]);
	wake_up_interruptible_poll(&v->wait, EPOLLIN | EPOLLRDNORM);
	spin_lock_bh(&v->lock);
	v->rx_counts[VD_wakeups]++;
	if (v->eventfd)
		vd_eventfd_signal(v->eventfd);
	spin_unlock_bh(&v->lock);
}

void vd_link(struct vd_vnic *v, bool up)
{
	const struct vnic_desc d = {.type = VNIC_DESC_LINK, .len = up};

	spin_lock_bh(&v->lock);
	vd_events(v, &d, 1);
	spin_unlock_bh(&v->lock);
	vd_wake(v);
}

void vd_vnic_detach(struct vd_vnic *v)
{
	ASSERT_RTNL();
	if (!v->dev)
		return;
	vd_port_remove(v); /* no filter comes any more */
	vd_filters_end(v);
	WRITE_ONCE(v->gone, true);
	vd_link(v, false);
	wake_up_poll(&v->wait, EPOLLERR | EPOLLHUP);
}
