/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What kernels between 6.1 and today call differently; the only place that looks at the kernel's
 * version. Each function has the newer kernel's meaning, and names the version that changed it.
 */
#ifndef VIADUCT_DRIVER_COMPAT_H
#define VIADUCT_DRIVER_COMPAT_H

#include <linux/eventfd.h>
#include <linux/mm.h>
#include <linux/version.h>
#include <net/inet_hashtables.h>
#include <net/udp.h>

/* Segmentation has a header of its own since 6.5. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
#include <net/gso.h>
#endif

/* A mapping's flags are changed by functions only since 6.3. */
static inline void vd_vm_flags_mod(struct vm_area_struct *vma, vm_flags_t set, vm_flags_t clear)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	vm_flags_mod(vma, set, clear);
#else
	vma->vm_flags = (vma->vm_flags | set) & ~clear;
#endif
}

/* It adds 1, and nothing else, since 6.8. */
static inline void vd_eventfd_signal(struct eventfd_ctx *ctx)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
	eventfd_signal(ctx);
#else
	eventfd_signal(ctx, 1);
#endif
}

/* A network namespace may have a table of its own since 6.2. */
static inline struct udp_table *vd_udp_table(const struct net *net)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
	return net->ipv4.udp_table;
#else
	return &udp_table;
#endif
}

/*
 * True if one of the sockets bound to that port passes the test. With the bucket's lock. They hang
 * on the addresses' buckets alone since 6.8.
 */
static inline bool vd_any_bound(struct inet_bind_bucket *tb, bool (*test)(struct sock *sk, void *),
				void *data)
{
	struct sock *sk;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
	struct inet_bind2_bucket *tb2;

	hlist_for_each_entry(tb2, &tb->bhash2, bhash_node)
		sk_for_each_bound(sk, &tb2->owners)
			if (test(sk, data))
				return true;
#else
	sk_for_each_bound(sk, &tb->owners)
		if (test(sk, data))
			return true;
#endif
	return false;
}

#endif
