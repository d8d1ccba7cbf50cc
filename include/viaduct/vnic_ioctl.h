/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The kernel char driver's ABI: what a program asks of /dev/viaduct. Usable from user space and
 * from the kernel.
 *
 * A file is a vNIC. open(); VIADUCT_IOC_ABI says what the driver can; VIADUCT_IOC_ALLOC makes
 * the vNIC on an interface of the opener's network namespace; mmap() at offset 0 of region_size
 * bytes, shared, maps it: the layout is that of vnic.h, with one end, and end[1] describing the
 * receive buffers. VIADUCT_IOC_FILTER_ADD says what of the interface's traffic comes here;
 * VIADUCT_IOC_KICK has the driver send what lies in the tx ring. poll(2) says POLLIN while
 * events wait that were not taken (struct vnic_taken), and POLLERR | POLLHUP once the interface
 * is gone. The vNIC goes with the file's last reference, a mapping being one: so it lives on in
 * forked children and wherever the descriptor was passed.
 *
 * write(2) sends one frame that is not in the tx ring, after what lies there: struct virtio_net_hdr (virtio 1.2, 5.1.6;
 * 10 bytes, of which VIRTIO_NET_HDR_F_NEEDS_CSUM and, with a gso_type, gso_size count), then the frame, up to 64 KiB of
 * IP. It obeys the same rules: EPERM no filter covers it, EINVAL no plain packet, EMSGSIZE too short or long, EAGAIN
 * not now, EIO. When write returns the memory is the program's again.
 *
 * Wake-ups: those of vnic.h. A driver that finds `armed` not 0 after it wrote an event exchanges
 * it with 0 and wakes whoever polls the file, and writes to the eventfd if one was given.
 *
 * Versions. The argument of each call but KICK points at a struct that begins with its size, as
 * its caller knows it. A longer one than the driver's is good if what the driver does not know
 * is zero (else E2BIG); a shorter one is taken as followed by zeros, if it is not shorter than
 * in version 1 (else EINVAL). Results are cut to the caller's size. Reserved fields and unknown
 * flags must be 0 (EINVAL).
 *
 * Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d, all zeros for any; ports and numbers are in
 * host order.
 */
#ifndef VIADUCT_VNIC_IOCTL_H
#define VIADUCT_VNIC_IOCTL_H

#include "vnic.h"

#ifdef __KERNEL__
#include <linux/ioctl.h>
#else
#include <sys/ioctl.h>
#endif

#define VIADUCT_DEVICE "/dev/viaduct"
#define VIADUCT_ABI_VERSION 1u

#define VIADUCT_IOC_MAGIC 0xb5
#define VIADUCT_IOC_ABI _IO(VIADUCT_IOC_MAGIC, 0)        /* struct viaduct_abi */
#define VIADUCT_IOC_ALLOC _IO(VIADUCT_IOC_MAGIC, 1)      /* struct viaduct_alloc */
#define VIADUCT_IOC_INFO _IO(VIADUCT_IOC_MAGIC, 2)       /* struct viaduct_info */
#define VIADUCT_IOC_FILTER_ADD _IO(VIADUCT_IOC_MAGIC, 3) /* struct viaduct_filter */
#define VIADUCT_IOC_FILTER_DEL _IO(VIADUCT_IOC_MAGIC, 4) /* struct viaduct_filter; ENOENT */
#define VIADUCT_IOC_KICK _IO(VIADUCT_IOC_MAGIC, 5)       /* argument 0; EAGAIN: the driver goes on by itself */
#define VIADUCT_IOC_STATS _IO(VIADUCT_IOC_MAGIC, 6)      /* struct viaduct_stats */
#define VIADUCT_IOC_EVENTFD _IO(VIADUCT_IOC_MAGIC, 7)    /* struct viaduct_eventfd */

/* Any call on a vNIC: ENXIO before ALLOC, EIO once its interface is gone; ENOTTY: no such call. */

/* viaduct_abi.features */
#define VIADUCT_FEAT_CSUM 0x1ull   /* fills in checksums of frames sent (VNIC_F_CSUM_TX) */
#define VIADUCT_FEAT_TSO 0x2ull    /* cuts TCP segments sent (vnic_desc.gso_len) */
#define VIADUCT_FEAT_LRO 0x4ull    /* may deliver several TCP segments of a flow as one */
#define VIADUCT_FEAT_ICMP 0x8ull   /* delivers ICMP errors about a filter's packets */
#define VIADUCT_FEAT_POLL 0x10ull  /* has a thread that polls the tx ring (VIADUCT_ALLOC_POLL) */
#define VIADUCT_FEAT_WRITE 0x20ull /* sends what is written to the file */

struct viaduct_abi {
	vnic_u32 size;
	vnic_u32 version;   /* out: VIADUCT_ABI_VERSION of the driver */
	vnic_u64 features;  /* out: VIADUCT_FEAT_* */
	vnic_u32 bufs_max;  /* out: most buffers of each kind of a vNIC */
	vnic_u32 vnics_max; /* out: most vNICs of a user */
};

/*
 * viaduct_alloc.flags. POLL: a thread of the driver's looks at the tx ring (vnic_taken.polling), KICK only wakes it;
 * EPERM without CAP_SYS_NICE.
 */
#define VIADUCT_ALLOC_POLL 0x1u

/*
 * Once for a file; the interface may be down. EBUSY: again; ENODEV: no such interface; EOPNOTSUPP:
 * not an Ethernet interface; EUSERS: too many vNICs of this user; ENOBUFS: the limit on locked
 * memory (RLIMIT_MEMLOCK).
 */
struct viaduct_alloc {
	vnic_u32 size;
	vnic_u32 ifindex;
	vnic_u32 tx_bufs, rx_bufs; /* each 16 to bufs_max */
	vnic_u32 buf_size;         /* bytes, 2048 to 16384, a multiple of VNIC_LINE */
	vnic_u32 evq_entries;      /* 0: as needed; or a power of two, up to 16384 */
	vnic_u32 flags;            /* VIADUCT_ALLOC_* */
	vnic_u32 reserved;         /* 0 */
	vnic_u64 features;         /* in: VIADUCT_FEAT_* that the caller can; out: those in use */
	vnic_u64 region_size;      /* out: bytes to map */
};

/* viaduct_info.flags */
#define VIADUCT_LINK_UP 0x1u

struct viaduct_info {
	vnic_u32 size;
	vnic_u32 flags; /* out */
	vnic_u32 ifindex, mtu;
	vnic_u8 mac[6];
	vnic_u16 filters; /* out: how many stand */
	vnic_u32 reserved;
};

/*
 * What comes to the local end (from the remote one; remote port 0: from all) goes to this vNIC,
 * and what it sends must be from one of its filters' local ends, to its remote end if it has
 * one. fd: a socket of the opener's user that is bound to the local port, and to the local
 * address or to any; the driver keeps it open as long as the filter stands, so the port stays
 * taken. With CAP_NET_RAW in the namespace, and for a flow of which this vNIC has the whole
 * port, it may be -1.
 *
 * EADDRINUSE: another vNIC has it, or another user has a socket on that port, too;
 * EADDRNOTAVAIL: the local address is not this machine's; EPERM: the socket does not hold the
 * port; EBADF, ENOTSOCK; ENOSPC: too many. The same filter again: EEXIST.
 */
struct viaduct_filter {
	vnic_u32 size;
	vnic_u32 flags; /* 0 */
	int fd;         /* FILTER_DEL: -1 */
	vnic_u8 proto;  /* IPPROTO_TCP or IPPROTO_UDP */
	vnic_u8 family; /* 4 or 6: of the packets */
	vnic_u16 local_port, remote_port;
	vnic_u16 reserved;
	vnic_u8 local[16], remote[16];
};

struct viaduct_stats {
	vnic_u32 size;
	vnic_u32 reserved;
	vnic_u64 rx_frames, rx_bytes, rx_no_buffer; /* out, as are the rest */
	vnic_u64 tx_frames, tx_bytes, tx_refused, tx_dropped;
	vnic_u64 bad_desc, bad_return, wakeups, kicks;
};

struct viaduct_eventfd {
	vnic_u32 size;
	int fd; /* -1: none any more */
};

_Static_assert(sizeof(struct viaduct_abi) == 24, "viaduct_abi has no hidden padding");
_Static_assert(sizeof(struct viaduct_alloc) == 48, "viaduct_alloc has no hidden padding");
_Static_assert(sizeof(struct viaduct_info) == 28, "viaduct_info has no hidden padding");
_Static_assert(sizeof(struct viaduct_filter) == 52, "viaduct_filter has no hidden padding");
_Static_assert(sizeof(struct viaduct_stats) == 96, "viaduct_stats has no hidden padding");
_Static_assert(sizeof(struct viaduct_eventfd) == 8, "viaduct_eventfd has no hidden padding");

#endif
