// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Receiving: from an interface's ingress hook into the buffers of the program that has the filter.
 *
 * What is not plainly TCP or UDP to this machine's own link address goes on to the kernel, as do
 * fragments, IPv6 extension headers, bad IP headers, and what no filter covers. ICMP errors follow
 * the packet that they quote. What a device or GRO has gathered of one TCP flow stays one frame,
 * if the program can take that (VIADUCT_FEAT_LRO); else it is cut.
 *
 * A frame is copied once, while the vNIC's lock is held; the packet is not changed, as taps may
 * share it. Checksums of TCP and UDP that the device has verified, or that were never made because
 * the packet comes from this machine, are vouched for (VNIC_F_CSUM_OK).
 */
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/if_vlan.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/netfilter.h>
#include <linux/tcp.h>
#include <net/ip.h>
#include <net/ipv6.h>

#include "compat.h"
#include "driver.h"

#define IP_HEADER_MAX 60

/* What a packet says about itself, and where its transport header is. */
struct packet {
	struct vd_flow flow;
	u32 len; /* of the IP packet */
	u32 l4;
	u8 proto;
};

static int ip4_of(const struct sk_buff *skb, int off, bool quoted, struct packet *p)
{
	u8 buf[IP_HEADER_MAX];
	const struct iphdr *ip = skb_header_pointer(skb, off, sizeof(*ip), buf);
	u32 ihl;

	if (!ip || ip->version != 4 || ip->ihl < 5 || ip_is_fragment(ip))
		return -EINVAL;
	ihl = ip->ihl * 4u;
	p->len = ntohs(ip->tot_len);
	if (p->len < ihl)
		return -EINVAL;
	if (!quoted) {
		ip = skb_header_pointer(skb, off, ihl, buf);
		if (!ip || p->len > skb->len - off || ip_fast_csum((u8 *)ip, ihl / 4))
			return -EINVAL;
	}
	p->l4 = off + ihl;
	p->proto = ip->protocol;
	p->flow.family = 4;
	vd_map4(&p->flow.remote, ip->saddr);
	vd_map4(&p->flow.local, ip->daddr);
	return 0;
}

static int ip6_of(const struct sk_buff *skb, int off, bool quoted, struct packet *p)
{
	struct ipv6hdr buf;
	const struct ipv6hdr *ip = skb_header_pointer(skb, off, sizeof(buf), &buf);

	if (!ip || ip->version != 6)
		return -EINVAL;
	p->len = sizeof(*ip) + ntohs(ip->payload_len);
	if (!quoted && p->len > skb->len - off)
		return -EINVAL;
	p->l4 = off + sizeof(*ip);
	p->proto = ip->nexthdr;
	p->flow.family = 6;
	p->flow.remote = ip->saddr;
	p->flow.local = ip->daddr;
	return 0;
}

static int ports_of(const struct sk_buff *skb, struct packet *p)
{
	__be16 buf[2];
	const __be16 *ports = skb_header_pointer(skb, p->l4, sizeof(buf), buf);

	if (!ports || (p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP))
		return -EINVAL;
	p->flow.proto = p->proto;
	p->flow.remote_port = ntohs(ports[0]);
	p->flow.local_port = ntohs(ports[1]);
	return p->flow.remote_port && p->flow.local_port ? 0 : -EINVAL;
}

/* The packet is an ICMP error: its flow is that of the packet quoted, seen from who sent that. */
static int quoted_flow(const struct sk_buff *skb, struct packet *p)
{
	u8 buf;
	const u8 *type = skb_header_pointer(skb, p->l4, sizeof(buf), &buf);
	struct packet inner = {};
	int off = p->l4 + sizeof(struct icmphdr), ret;

	if (!type)
		return -EINVAL;
	if (p->flow.family == 4) {
		if (*type != ICMP_DEST_UNREACH && *type != ICMP_TIME_EXCEEDED &&
		    *type != ICMP_PARAMETERPROB)
			return -EINVAL;
		ret = ip4_of(skb, off, true, &inner);
	} else {
		if (*type < ICMPV6_DEST_UNREACH || *type > ICMPV6_PARAMPROB)
			return -EINVAL;
		ret = ip6_of(skb, off, true, &inner);
	}
	if (ret < 0 || ports_of(skb, &inner) < 0)
		return -EINVAL;
	p->flow = inner.flow;
	swap(p->flow.local, p->flow.remote);
	swap(p->flow.local_port, p->flow.remote_port);
	return 0;
}

static int packet_of(const struct sk_buff *skb, struct packet *p)
{
	int ret = -EINVAL;

	if (skb->protocol == htons(ETH_P_IP))
		ret = ip4_of(skb, 0, false, p);
	else if (skb->protocol == htons(ETH_P_IPV6))
		ret = ip6_of(skb, 0, false, p);
	if (ret < 0)
		return ret;
	if (p->proto == (p->flow.family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return quoted_flow(skb, p);
	return ports_of(skb, p);
}

/* --- buffers --- */

/* What the program has given back; one lap of the ring at most. With v->lock. */
static void take_returns(struct vd_vnic *v)
{
	struct vnic_desc d;

	for (u32 i = 0; i < v->rx.entries && vd_ring_read(&v->rx, v->rx.at, &d); i++) {
		v->rx.at++;
		if (d.type != VNIC_DESC_RETURN || d.buf >= v->rx_count ||
		    !__test_and_clear_bit(d.buf, v->rx_out)) {
			vd_count(v->rx_counts, VD_bad_return, 1);
			continue;
		}
		v->rx_free[v->rx_free_count++] = d.buf;
	}
}

static bool have_buffers(struct vd_vnic *v, u32 n)
{
	if (v->rx_free_count < n)
		take_returns(v);
	return v->rx_free_count >= n;
}

static void copy_in(const struct sk_buff *skb, u32 at, u8 *to, u32 len)
{
	/* from the Ethernet header on, which lies before skb->data */
	if (skb_copy_bits(skb, (int)at - ETH_HLEN, to, len) < 0)
		memset(to, 0, len);
}

/* With v->lock: the frame's len bytes into n buffers, and its events. */
static void fill(struct vd_vnic *v, const struct sk_buff *skb, u32 len, u32 n, u8 flags)
{
	struct vnic_desc d[VD_PARTS_MAX];

	for (u32 i = 0; i < n; i++) {
		u32 buf = v->rx_free[--v->rx_free_count], at = i * v->buf_size;
		u32 part = min(len - at, v->buf_size);

		__set_bit(buf, v->rx_out);
		copy_in(skb, at, v->rx_bufs + (size_t)buf * v->buf_size, part);
		d[i] = (struct vnic_desc){.buf = buf,
					  .len = part,
					  .type = VNIC_DESC_FRAME,
					  .flags = flags | (i + 1 < n ? VNIC_F_MORE : 0)};
	}
	vd_events(v, d, n);
	vd_count(v->rx_counts, VD_rx_frames, 1);
	vd_count(v->rx_counts, VD_rx_bytes, len);
}

/* skb->data is at the IP header, whose packet has len bytes. */
static void deliver(struct vd_vnic *v, const struct sk_buff *skb, u32 len)
{
	u32 frame = ETH_HLEN + len, n = DIV_ROUND_UP(frame, v->buf_size);
	u8 flags = skb->ip_summed == CHECKSUM_UNNECESSARY || skb->ip_summed == CHECKSUM_PARTIAL
			   ? VNIC_F_CSUM_OK
			   : 0;

	spin_lock(&v->lock);
	if (n > VD_PARTS_MAX)
		vd_count(v->rx_counts, VD_rx_too_long, 1);
	else if (have_buffers(v, n))
		fill(v, skb, frame, n, flags);
	else
		vd_count(v->rx_counts, VD_rx_no_buffer, 1);
	spin_unlock(&v->lock);
}

/* Several segments or datagrams in one, and the program wants them single. */
static void deliver_cut(struct vd_vnic *v, struct sk_buff *skb)
{
	struct sk_buff *parts, *part, *next;
	struct packet p = {};

	skb = skb_share_check(skb, GFP_ATOMIC);
	if (!skb)
		return;
	__skb_push(skb, ETH_HLEN);
	skb_reset_mac_len(skb);
	parts = skb_gso_segment(skb, 0);
	this_cpu_inc(vd_total.n[VD_rx_split]);
	if (!IS_ERR_OR_NULL(parts)) {
		skb_list_walk_safe(parts, part, next)
		{
			skb_mark_not_on_list(part);
			skb_reset_mac_header(part);
			__skb_pull(part, ETH_HLEN);
			if (packet_of(part, &p) == 0)
				deliver(v, part, p.len);
			consume_skb(part);
		}
	}
	kfree_skb(skb);
}

static bool takes_whole(const struct vd_vnic *v, const struct sk_buff *skb)
{
	return !skb_is_gso(skb) || (v->features & VIADUCT_FEAT_LRO && skb_is_gso_tcp(skb));
}

void vd_deliver(struct vd_vnic *v, struct sk_buff *skb, u32 len)
{
	if (takes_whole(v, skb)) {
		deliver(v, skb, len);
		consume_skb(skb);
	} else {
		deliver_cut(v, skb);
	}
	vd_wake(v);
}

unsigned int vd_ingress(void *priv, struct sk_buff *skb, const struct nf_hook_state *state)
{
	struct net_device *dev = priv;
	struct packet p = {};
	struct vd_vnic *v;

	if (skb->pkt_type != PACKET_HOST || skb_vlan_tag_present(skb) ||
	    !skb_mac_header_was_set(skb) || skb->data - skb_mac_header(skb) != ETH_HLEN)
		return NF_ACCEPT;
	if (packet_of(skb, &p) < 0)
		return NF_ACCEPT;
	v = vd_filter_receiver(dev, &p.flow);
	if (!v)
		return NF_ACCEPT;
	vd_deliver(v, skb, p.len);
	return NF_STOLEN;
}
