// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * /dev/viaduct: the calls of include/viaduct/vnic_ioctl.h. Arguments are copied in once, checked
 * (their size, zeros where nothing is known), and results are copied out no further than asked for.
 */
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "driver.h"

union argument {
	u32 size;
	struct viaduct_abi abi;
	struct viaduct_alloc alloc;
	struct viaduct_info info;
	struct viaduct_filter filter;
	struct viaduct_stats stats;
	struct viaduct_eventfd eventfd;
};

static int vd_open(struct inode *inode, struct file *file)
{
	struct vd_vnic *v;

	if (vd_ports_retired())
		return -ENODEV;
	v = vd_vnic_make(file);
	if (!v)
		return -ENOMEM;
	file->private_data = v;
	return nonseekable_open(inode, file);
}

static int vd_release(struct inode *inode, struct file *file)
{
	vd_vnic_end(file->private_data);
	return 0;
}

/* --- calls --- */

static int call_abi(struct vd_vnic *v, union argument *a)
{
	a->abi.version = VIADUCT_ABI_VERSION;
	a->abi.features = VD_FEATURES;
	a->abi.bufs_max = VD_BUFS_MAX;
	a->abi.vnics_max = VD_VNICS_OF_USER;
	return 0;
}

static int call_alloc(struct vd_vnic *v, union argument *a)
{
	int ret;

	mutex_lock(&v->setup);
	ret = vd_vnic_alloc(v, &a->alloc);
	mutex_unlock(&v->setup);
	return ret;
}

static int call_info(struct vd_vnic *v, union argument *a)
{
	struct viaduct_info *info = &a->info;
	int ret = -EIO;

	mutex_lock(&v->tx_lock);
	if (v->dev) {
		info->flags =
			netif_running(v->dev) && netif_carrier_ok(v->dev) ? VIADUCT_LINK_UP : 0;
		info->ifindex = v->dev->ifindex;
		info->mtu = READ_ONCE(v->dev->mtu);
		memcpy(info->mac, v->dev->dev_addr, sizeof(info->mac));
		info->filters = READ_ONCE(v->filter_count);
		info->reserved = 0;
		ret = 0;
	}
	mutex_unlock(&v->tx_lock);
	return ret;
}

static int call_filter_add(struct vd_vnic *v, union argument *a)
{
	return vd_filter_add(v, &a->filter);
}

static int call_filter_del(struct vd_vnic *v, union argument *a)
{
	return vd_filter_del(v, &a->filter);
}

static int call_stats(struct vd_vnic *v, union argument *a)
{
	struct viaduct_stats *s = &a->stats;

	*s = (struct viaduct_stats){.size = s->size};
	mutex_lock(&v->tx_lock);
	s->tx_frames = v->tx_counts[VD_tx_frames];
	s->tx_bytes = v->tx_counts[VD_tx_bytes];
	s->tx_refused = v->tx_counts[VD_tx_spoofed] + v->tx_counts[VD_tx_malformed];
	s->tx_dropped = v->tx_counts[VD_tx_dropped] + v->tx_counts[VD_tx_nobody];
	s->bad_desc = v->tx_counts[VD_bad_desc];
	s->kicks = v->tx_counts[VD_kicks];
	mutex_unlock(&v->tx_lock);
	spin_lock_bh(&v->lock);
	s->rx_frames = v->rx_counts[VD_rx_frames];
	s->rx_bytes = v->rx_counts[VD_rx_bytes];
	s->rx_no_buffer = v->rx_counts[VD_rx_no_buffer];
	s->bad_return = v->rx_counts[VD_bad_return];
	s->wakeups = v->rx_counts[VD_wakeups];
	spin_unlock_bh(&v->lock);
	return 0;
}

static int call_eventfd(struct vd_vnic *v, union argument *a)
{
	struct eventfd_ctx *ctx = NULL;

	if (a->eventfd.fd < -1)
		return -EBADF;
	if (a->eventfd.fd >= 0)
		ctx = eventfd_ctx_fdget(a->eventfd.fd);
	if (IS_ERR(ctx))
		return PTR_ERR(ctx);
	spin_lock_bh(&v->lock);
	swap(v->eventfd, ctx);
	spin_unlock_bh(&v->lock);
	if (ctx)
		eventfd_ctx_put(ctx);
	return 0;
}

static const struct call {
	int (*run)(struct vd_vnic *v, union argument *a);
	u32 size, size_min; /* the struct's here, and in version 1 */
	bool unallocated, results;
} calls[] = {
	[_IOC_NR(VIADUCT_IOC_ABI)] = {call_abi, sizeof(struct viaduct_abi), 24, true, true},
	[_IOC_NR(VIADUCT_IOC_ALLOC)] = {call_alloc, sizeof(struct viaduct_alloc), 48, true, true},
	[_IOC_NR(VIADUCT_IOC_INFO)] = {call_info, sizeof(struct viaduct_info), 28, false, true},
	[_IOC_NR(VIADUCT_IOC_FILTER_ADD)] = {call_filter_add, sizeof(struct viaduct_filter), 52},
	[_IOC_NR(VIADUCT_IOC_FILTER_DEL)] = {call_filter_del, sizeof(struct viaduct_filter), 52},
	[_IOC_NR(VIADUCT_IOC_STATS)] = {call_stats, sizeof(struct viaduct_stats), 96, false, true},
	[_IOC_NR(VIADUCT_IOC_EVENTFD)] = {call_eventfd, sizeof(struct viaduct_eventfd), 8},
};

/* 0; -EINVAL, -E2BIG, -EFAULT. */
static int copy_in(union argument *a, const struct call *c, void __user *user)
{
	u32 size;
	int ret;

	if (get_user(size, (u32 __user *)user))
		return -EFAULT;
	if (size < c->size_min)
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;
	memset(a, 0, sizeof(*a));
	ret = copy_struct_from_user(a, c->size, user, size);
	if (ret < 0)
		return ret;
	a->size = size; /* it may have changed since */
	return 0;
}

/* Where a thread sends, it alone does: frames of two processors may overtake each other. */
static int kick(struct vd_vnic *v)
{
	if (!v->poller)
		return vd_transmit(v, VD_kicks);
	mutex_lock(&v->tx_lock);
	vd_count(v->tx_counts, VD_kicks, 1);
	mutex_unlock(&v->tx_lock);
	vd_poller_wake(v);
	return READ_ONCE(v->gone) ? -EIO : 0;
}

static long vd_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct vd_vnic *v = file->private_data;
	void __user *user = (void __user *)arg;
	bool allocated = smp_load_acquire(&v->allocated); /* before all that ALLOC made */
	const struct call *c;
	union argument a;
	int ret;

	if (cmd == VIADUCT_IOC_KICK) {
		if (arg)
			return -EINVAL;
		return allocated ? kick(v) : -ENXIO;
	}
	if (_IOC_TYPE(cmd) != VIADUCT_IOC_MAGIC || cmd != _IO(VIADUCT_IOC_MAGIC, _IOC_NR(cmd)) ||
	    _IOC_NR(cmd) >= ARRAY_SIZE(calls) || !calls[_IOC_NR(cmd)].run)
		return -ENOTTY;
	c = &calls[_IOC_NR(cmd)];
	if (!allocated && !c->unallocated)
		return -ENXIO;
	ret = copy_in(&a, c, user);
	if (ret == 0)
		ret = c->run(v, &a);
	if (ret == 0 && c->results && copy_to_user(user, &a, min(a.size, c->size)))
		return -EFAULT;
	return ret;
}

static ssize_t vd_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct vd_vnic *v = iocb->ki_filp->private_data;

	if (!smp_load_acquire(&v->allocated)) /* before all that ALLOC made */
		return -ENXIO;
	return vd_write(v, from);
}

/* --- memory and waiting --- */

static int vd_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct vd_vnic *v = file->private_data;

	if (!smp_load_acquire(&v->allocated)) /* before all that ALLOC made */
		return -ENXIO;
	if (!(vma->vm_flags & VM_SHARED) || vma->vm_flags & VM_EXEC)
		return -EINVAL;
	vd_vm_flags_mod(vma, VM_DONTEXPAND | VM_DONTDUMP, VM_MAYEXEC);
	return vm_map_pages(vma, v->region.pages, v->region.count);
}

static __poll_t vd_poll(struct file *file, poll_table *wait)
{
	struct vd_vnic *v = file->private_data;
	__poll_t events = 0;

	poll_wait(file, &v->wait, wait);
	if (!smp_load_acquire(&v->allocated)) /* before all that ALLOC made */
		return EPOLLERR;
	if (READ_ONCE(v->gone))
		events = EPOLLERR | EPOLLHUP;
	if (READ_ONCE(v->taken->evq) != READ_ONCE(v->evq.at))
		events |= EPOLLIN | EPOLLRDNORM;
	return events;
}

static const struct file_operations fops = {
	.owner = THIS_MODULE,
	.open = vd_open,
	.release = vd_release,
	.unlocked_ioctl = vd_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.write_iter = vd_write_iter,
	.mmap = vd_mmap,
	.poll = vd_poll,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "viaduct",
	.fops = &fops,
	.mode = 0660,
};

/* --- before it is unloaded --- */

static int set_retire(const char *text, const struct kernel_param *kp)
{
	bool on;
	int ret = kstrtobool(text, &on);

	if (ret == 0)
		vd_ports_retire(on);
	return ret;
}

static int get_retire(char *text, const struct kernel_param *kp)
{
	return sysfs_emit(text, "%d\n", vd_ports_retired());
}

static const struct kernel_param_ops retire_ops = {.set = set_retire, .get = get_retire};
module_param_cb(retire, &retire_ops, NULL, 0600);
MODULE_PARM_DESC(retire, "1: take all vNICs from their programs, which lets go of the module");

static int __init vd_init(void)
{
	int ret = vd_proto_start();

	if (ret < 0)
		return ret;
	ret = vd_ports_start();
	if (ret < 0)
		goto no_ports;
	vd_debugfs_make();
	ret = misc_register(&device);
	if (ret == 0)
		return 0;
	vd_debugfs_remove();
	vd_ports_stop();
no_ports:
	vd_proto_stop();
	return ret;
}

static void __exit vd_exit(void)
{
	misc_deregister(&device);
	vd_debugfs_remove();
	vd_ports_stop();
	vd_proto_stop();
}

module_init(vd_init);
module_exit(vd_exit);
MODULE_LICENSE("Dual BSD/GPL");
MODULE_DESCRIPTION("Virtual network interfaces for user-space TCP/IP stacks");
