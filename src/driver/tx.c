// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Sending: frames from the tx ring to the interface.
 *
 * A frame is copied once into a packet, and what is checked is the copy: a whole TCP segment or UDP
 * datagram over IPv4 without options or IPv6 without extension headers, no fragment, from an
 * address and port that a filter of this vNIC covers, to one station. The Ethernet source, the
 * IPv4 header's checksum and, if asked for, those of TCP and UDP are ours to fill in, as is the
 * cutting of long TCP segments (or the device's). All else is dropped and counted.
 *
 * A frame to the interface's own station stays here: it goes to the vNIC behind the same interface
 * whose filter covers it, in the caller's context, or nowhere. Taps do not see it.
 *
 * The buffers come back with the copy's end. What is on its way is bounded by the socket's send
 * buffer: beyond it frames stay in the ring, and go when others have left (vd_write_space).
 */
#include <linux/etherdevice.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <linux/uio.h>
#include <linux/virtio_net.h>
#include <net/ip.h>
#include <net/ip6_checksum.h>
#include <net/ipv6.h>
#include <net/tcp.h>

#include "driver.h"

#define LINEAR 128u /* of a frame in pages: all headers */
#define SMALL 3584u /* frames up to this are in one piece */
#define GSO_MIN 48u /* as the kernel's own TCP (TCP_MIN_SND_MSS) */

struct tx_frame {
	struct vnic_desc part[VD_PARTS_MAX];
	u32 parts, len;
	bool good;
};

struct headers {
	struct vd_flow flow;
	u32 l4, l4_len, l4_header; /* the last: with TCP's options */
};

/* --- from the ring --- */

/* The frame at the ring's position. False: none. Descriptors are copied here, once. */
static bool next_frame(struct vd_vnic *v, struct tx_frame *f)
{
	struct vnic_desc d;

	f->parts = 0;
	f->len = 0;
	f->good = true;
	do {
		if (!vd_ring_read(&v->tx, v->tx.at + f->parts, &d)) {
			f->good = false; /* it breaks off */
			return f->parts > 0;
		}
		if (d.type != VNIC_DESC_FRAME || d.buf >= v->tx_count || !d.len ||
		    (u32)d.off + d.len > v->buf_size)
			f->good = false;
		f->len += d.len;
		f->part[f->parts++] = d;
	} while (d.flags & VNIC_F_MORE && f->parts < VD_PARTS_MAX);
	if (d.flags & VNIC_F_MORE || f->len > VD_FRAME_MAX)
		f->good = false;
	return true;
}

/* The frame is out of the ring, its buffers are the program's again. */
static void give_back(struct vd_vnic *v, const struct tx_frame *f)
{
	struct vnic_desc d = {.type = VNIC_DESC_RETURN};

	WRITE_ONCE(v->tx.at, v->tx.at + f->parts);
	spin_lock_bh(&v->lock);
	for (u32 i = 0; i < f->parts; i++) {
		d.buf = f->part[i].buf;
		if (d.buf < v->tx_count)
			vd_events(v, &d, 1);
	}
	spin_unlock_bh(&v->lock);
}

/* Room for a frame of len bytes. */
static struct sk_buff *make_packet(struct vd_vnic *v, u32 len, int *err)
{
	u32 linear = len <= SMALL ? len : LINEAR;
	struct sk_buff *skb = sock_alloc_send_pskb(v->sk, v->headroom + linear, len - linear, 1,
						   err, PAGE_ALLOC_COSTLY_ORDER);

	if (!skb)
		return NULL;
	skb_reserve(skb, v->headroom);
	skb_put(skb, linear);
	skb->data_len = len - linear;
	skb->len += len - linear;
	return skb;
}

static struct sk_buff *copy_frame(struct vd_vnic *v, const struct tx_frame *f, int *err)
{
	struct sk_buff *skb = make_packet(v, f->len, err);
	u32 at = 0;

	if (!skb)
		return NULL;
	for (u32 i = 0; i < f->parts; i++) {
		const struct vnic_desc *d = &f->part[i];

		*err = skb_store_bits(skb, at, v->tx_bufs + (size_t)d->buf * v->buf_size + d->off,
				      d->len);
		if (*err < 0) {
			kfree_skb(skb);
			return NULL;
		}
		at += d->len;
	}
	return skb;
}

/* --- checks, on the copy --- */

static int check_ip4(struct sk_buff *skb, struct headers *h)
{
	struct iphdr *ip = (struct iphdr *)(skb->data + ETH_HLEN);

	if (skb_headlen(skb) < ETH_HLEN + sizeof(*ip) + sizeof(struct udphdr) || ip->version != 4 ||
	    ip->ihl != 5 || ip_is_fragment(ip) || ntohs(ip->tot_len) != skb->len - ETH_HLEN)
		return -EINVAL;
	ip_send_check(ip);
	h->l4 = ETH_HLEN + sizeof(*ip);
	h->flow.proto = ip->protocol;
	h->flow.family = 4;
	vd_map4(&h->flow.local, ip->saddr);
	vd_map4(&h->flow.remote, ip->daddr);
	return 0;
}

static int check_ip6(struct sk_buff *skb, struct headers *h)
{
	const struct ipv6hdr *ip = (struct ipv6hdr *)(skb->data + ETH_HLEN);

	if (skb_headlen(skb) < ETH_HLEN + sizeof(*ip) + sizeof(struct udphdr) || ip->version != 6 ||
	    ntohs(ip->payload_len) != skb->len - ETH_HLEN - sizeof(*ip))
		return -EINVAL;
	h->l4 = ETH_HLEN + sizeof(*ip);
	h->flow.proto = ip->nexthdr;
	h->flow.family = 6;
	h->flow.local = ip->saddr;
	h->flow.remote = ip->daddr;
	return 0;
}

static int check_l4(const struct sk_buff *skb, struct headers *h)
{
	const struct udphdr *udp = (struct udphdr *)(skb->data + h->l4);

	h->l4_len = skb->len - h->l4;
	h->flow.local_port = ntohs(udp->source);
	h->flow.remote_port = ntohs(udp->dest);
	if (h->flow.proto == IPPROTO_UDP) {
		h->l4_header = sizeof(*udp);
		return ntohs(udp->len) == h->l4_len ? 0 : -EINVAL;
	}
	if (h->flow.proto != IPPROTO_TCP || skb_headlen(skb) < h->l4 + sizeof(struct tcphdr))
		return -EINVAL;
	h->l4_header = ((const struct tcphdr *)udp)->doff * 4u;
	if (h->l4_header < sizeof(struct tcphdr) || h->l4 + h->l4_header > skb_headlen(skb))
		return -EINVAL;
	return 0;
}

static int check_headers(struct sk_buff *skb, struct headers *h)
{
	const struct ethhdr *eth = (struct ethhdr *)skb->data;
	int ret = -EINVAL;

	if (skb_headlen(skb) < ETH_HLEN || is_multicast_ether_addr(eth->h_dest))
		return -EINVAL;
	skb->protocol = eth->h_proto;
	if (skb->protocol == htons(ETH_P_IP))
		ret = check_ip4(skb, h);
	else if (skb->protocol == htons(ETH_P_IPV6))
		ret = check_ip6(skb, h);
	return ret == 0 ? check_l4(skb, h) : ret;
}

/* --- what is left to us, or to the device --- */

/* The checksum field gets the pseudo-header's sum; whoever sends the frame does the rest. */
static void leave_checksum(struct sk_buff *skb, const struct headers *h)
{
	u16 at = h->flow.proto == IPPROTO_TCP ? offsetof(struct tcphdr, check)
					      : offsetof(struct udphdr, check);
	__sum16 sum;

	if (h->flow.family == 4)
		sum = csum_tcpudp_magic(h->flow.local.s6_addr32[3], h->flow.remote.s6_addr32[3],
					h->l4_len, h->flow.proto, 0);
	else
		sum = csum_ipv6_magic(&h->flow.local, &h->flow.remote, h->l4_len, h->flow.proto, 0);
	*(__sum16 *)(skb->data + h->l4 + at) = ~sum;
	skb->ip_summed = CHECKSUM_PARTIAL;
	skb->csum_start = skb_headroom(skb) + h->l4;
	skb->csum_offset = at;
}

static int set_segments(struct vd_vnic *v, struct sk_buff *skb, const struct headers *h, u32 gso)
{
	u32 payload = h->l4_len - h->l4_header, headers = h->l4 - ETH_HLEN + h->l4_header;
	struct skb_shared_info *info = skb_shinfo(skb);

	if (!gso || payload <= gso)
		return skb->len - ETH_HLEN <= READ_ONCE(v->dev->mtu) ? 0 : -EMSGSIZE;
	if (gso < GSO_MIN || headers + gso > READ_ONCE(v->dev->mtu) ||
	    h->flow.proto != IPPROTO_TCP || skb->ip_summed != CHECKSUM_PARTIAL)
		return -EINVAL;
	info->gso_size = gso;
	info->gso_segs = DIV_ROUND_UP(payload, gso);
	info->gso_type = h->flow.family == 4 ? SKB_GSO_TCPV4 : SKB_GSO_TCPV6;
	if (((struct tcphdr *)(skb->data + h->l4))->cwr)
		info->gso_type |= SKB_GSO_TCP_ECN;
	return 0;
}

/* What the sender leaves to us. */
struct rest {
	bool csum;
	u32 gso;
};

/* 0, or which counter says why not. */
static enum vd_counter prepare(struct vd_vnic *v, struct sk_buff *skb, struct headers *h,
			       struct rest rest)
{
	bool may;

	if (check_headers(skb, h) < 0)
		return VD_tx_malformed;
	rcu_read_lock();
	may = vd_filter_sends(v, v->dev, &h->flow);
	rcu_read_unlock();
	if (!may)
		return VD_tx_spoofed;
	ether_addr_copy(((struct ethhdr *)skb->data)->h_source, v->dev->dev_addr);
	if (rest.csum)
		leave_checksum(skb, h);
	skb_reset_mac_header(skb);
	skb_set_network_header(skb, ETH_HLEN);
	skb_set_transport_header(skb, h->l4);
	skb->dev = v->dev;
	return set_segments(v, skb, h, rest.gso) < 0 ? VD_tx_malformed : 0;
}

/* --- away with it --- */

/* To the vNIC that has the other end. */
static void cross(struct vd_vnic *v, struct sk_buff *skb, const struct headers *h)
{
	const struct vd_flow back = {.local = h->flow.remote,
				     .remote = h->flow.local,
				     .local_port = h->flow.remote_port,
				     .remote_port = h->flow.local_port,
				     .proto = h->flow.proto,
				     .family = h->flow.family};
	struct vd_vnic *to;

	__skb_pull(skb, ETH_HLEN);
	local_bh_disable();
	rcu_read_lock();
	to = vd_filter_receiver(v->dev, &back);
	vd_count(v->tx_counts, to ? VD_tx_crossed : VD_tx_nobody, 1);
	if (to)
		vd_deliver(to, skb, skb->len);
	else
		kfree_skb(skb);
	rcu_read_unlock();
	local_bh_enable();
}

static void queue(struct vd_vnic *v, struct sk_buff *skb)
{
	int err = dev_queue_xmit(skb);

	if (net_xmit_eval(err))
		vd_count(v->tx_counts, VD_tx_dropped, 1);
}

/* 0: it was sent, or lost on its way. -EINVAL, -EPERM. The packet is gone. */
static int send_packet(struct vd_vnic *v, struct sk_buff *skb, struct rest rest)
{
	struct headers h = {};
	enum vd_counter why = prepare(v, skb, &h, rest);

	if (why) {
		vd_count(v->tx_counts, why, 1);
		kfree_skb(skb);
		return why == VD_tx_spoofed ? -EPERM : -EINVAL;
	}
	vd_count(v->tx_counts, VD_tx_frames, 1);
	vd_count(v->tx_counts, VD_tx_bytes, skb->len);
	if (ether_addr_equal(eth_hdr(skb)->h_dest, v->dev->dev_addr))
		cross(v, skb, &h);
	else
		queue(v, skb);
	return 0;
}

/* 0: the frame is out of our hands. -EAGAIN: not now. */
static int send_frame(struct vd_vnic *v, const struct tx_frame *f)
{
	const struct rest rest = {.csum = f->part[0].flags & VNIC_F_CSUM_TX,
				  .gso = f->part[0].gso_len};
	struct sk_buff *skb;
	int err = 0;

	if (!f->good) {
		vd_count(v->tx_counts, VD_bad_desc, 1);
		return 0;
	}
	skb = copy_frame(v, f, &err);
	if (!skb && err == -EAGAIN)
		return err;
	if (skb)
		send_packet(v, skb, rest);
	else
		vd_count(v->tx_counts, VD_tx_dropped, 1);
	return 0;
}

int vd_transmit(struct vd_vnic *v, enum vd_counter who)
{
	struct tx_frame f;
	int ret = 0;

	mutex_lock(&v->tx_lock);
	vd_count(v->tx_counts, who, 1);
	if (!v->dev)
		ret = -EIO;
	/* one lap at most, so that no producer can keep us here */
	for (u32 left = v->tx.entries; ret == 0 && left && next_frame(v, &f);) {
		ret = send_frame(v, &f);
		if (ret < 0)
			break;
		give_back(v, &f);
		left -= min(left, f.parts);
	}
	if (ret == -EAGAIN) {
		vd_count(v->tx_counts, VD_tx_waits, 1);
		WRITE_ONCE(v->tx_waiting, true);
		/* before the look: who frees the last frame sees tx_waiting, or we that he did */
		smp_mb();
		if (sock_writeable(v->sk))
			schedule_work(&v->tx_work);
	}
	mutex_unlock(&v->tx_lock);
	return ret;
}

void vd_tx_work(struct work_struct *work)
{
	struct vd_vnic *v = container_of(work, struct vd_vnic, tx_work);

	WRITE_ONCE(v->tx_waiting, false);
	vd_transmit(v, VD_tx_resumed);
	vd_wake(v); /* buffers came back while the program may sleep */
	vd_poller_wake(v);
}

/* --- frames that are not in the ring --- */

/* All that may wait for the program's memory is done without a lock. */
static struct sk_buff *packet_from(struct vd_vnic *v, struct iov_iter *from, struct rest *rest,
				   int *err)
{
	size_t len = iov_iter_count(from) - sizeof(struct virtio_net_hdr);
	struct virtio_net_hdr hdr;
	struct sk_buff *skb;

	*err = -EFAULT;
	if (!copy_from_iter_full(&hdr, sizeof(hdr), from))
		return NULL;
	rest->csum = hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
	if (hdr.gso_type != VIRTIO_NET_HDR_GSO_NONE)
		rest->gso = __virtio16_to_cpu(true, hdr.gso_size);
	skb = make_packet(v, len, err);
	if (skb && skb_copy_datagram_from_iter(skb, 0, from, len) < 0) {
		kfree_skb(skb);
		skb = NULL;
		*err = -EFAULT;
	}
	return skb;
}

ssize_t vd_write(struct vd_vnic *v, struct iov_iter *from)
{
	size_t len = iov_iter_count(from);
	struct rest rest = {};
	struct sk_buff *skb;
	int ret = -EIO;

	if (len < sizeof(struct virtio_net_hdr) + ETH_HLEN ||
	    len > sizeof(struct virtio_net_hdr) + VD_FRAME_MAX)
		return -EMSGSIZE;
	if (READ_ONCE(v->gone))
		return -EIO;
	skb = packet_from(v, from, &rest, &ret);
	if (!skb)
		return ret;
	if (vd_ring_full(&v->tx, READ_ONCE(v->tx.at)))
		vd_transmit(v, VD_tx_overtaken);
	mutex_lock(&v->tx_lock);
	if (v->dev) {
		vd_count(v->tx_counts, VD_tx_written, 1);
		ret = send_packet(v, skb, rest);
	} else {
		kfree_skb(skb);
		ret = -EIO;
	}
	mutex_unlock(&v->tx_lock);
	return ret < 0 ? ret : len;
}

/* A frame of ours has left. */
void vd_write_space(struct sock *sk)
{
	struct vd_vnic *v;

	read_lock_bh(&sk->sk_callback_lock);
	v = sk->sk_user_data;
	if (v && READ_ONCE(v->tx_waiting) && sock_writeable(sk)) {
		WRITE_ONCE(v->tx_waiting, false);
		schedule_work(&v->tx_work);
	}
	read_unlock_bh(&sk->sk_callback_lock);
}
