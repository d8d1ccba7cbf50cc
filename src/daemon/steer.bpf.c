/* SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause) */
/*
 * The programs in the kernel. Compiled by clang for BPF, embedded in viaductd, loaded by steer.c.
 *
 *   steer       XDP on an interface: a frame of a flow that a stack has goes to the stack's AF_XDP socket, or to its
 *               veth; all else (also fragments, options before the transport header, unknown tags) to the kernel.
 *   inner       XDP on the inner end of a stack's veth: every frame goes to the stack's AF_XDP socket.
 *   outer       tc on the outer end: what the stack sends leaves by the interface if a filter of the stack covers its
 *               source, else it is dropped and counted. tc rather than XDP: it hands skbs over, so any device can send
 *               them (XDP's redirect needs a driver that takes raw frames: a veth, for one, only when its peer polls).
 *   outerskb    the same as generic XDP, which hands skbs over, too, for an interface that is a veth: a frame that tc
 * has redirected is passed over by generic XDP at the other end of it (skb_is_redirected).
 *
 * Both licences, because the kernel lends bpf_probe_read_kernel to no other program (uncut).
 *
 * ICMP errors follow the packet that they quote. A socket that is gone has left its map by itself: its frames go to the
 * kernel. Documentation/networking/af_xdp.rst, Documentation/bpf/redirect.rst.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "daemon/steer_parse.h"
#include "viaduct/daemon.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STEER_FILTERS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct steer_key);
	__type(value, struct steer_target);
} vd_filters SEC(".maps");

/* Flows that stacks steer to themselves (DAEMON_FLOWS): what is read there anybody of those may have written. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DAEMON_FLOW_SETS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct daemon_flow_set);
} vd_table SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct steer_kinds);
} vd_kinds SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, STEER_FLOWS);
	__type(key, struct steer_key);
	__type(value, __u32);
} vd_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STEER_GROUPS);
	__type(key, __u32);
	__type(value, struct steer_group);
} vd_groups SEC(".maps");

/* Addresses of this machine. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u8[16]);
	__type(value, __u32);
} vd_addrs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STEER_WAYS);
	__type(key, struct steer_if_key);
	__type(value, struct steer_if);
} vd_ifaces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STEER_IFACES *STEER_STACKS);
	__type(key, __u32);
	__type(value, struct steer_port);
} vd_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, STEER_IFACES *STEER_STACKS *STEER_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} vd_xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, STEER_STACKS * 4);
	__type(key, __u32);
	__type(value, __u32);
} vd_veths SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STEER_STACKS * 4);
	__type(key, __u32);
	__type(value, struct steer_outer);
} vd_outers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, STEER_STATS);
	__type(key, __u32);
	__type(value, __u64);
} vd_stats SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&vd_stats, &which);

	if (n)
		++*n;
}

static __always_inline __u32 mix(__u32 h, __u32 word)
{
	h = (h ^ word) * 0x9e3779b1u;
	return h ^ h >> 15;
}

static __always_inline __u32 key_hash(const struct steer_key *k)
{
	const __u32 *word = (const __u32 *)k;
	__u32 h = 0x811c9dc5u;

#pragma unroll
	for (int i = 0; i < 9; i++)
		h = mix(h, word[i]);
	/* bits of the last word have to reach the lowest ones */
	h ^= h >> 16;
	h *= 0x85ebca6bu;
	return h ^ h >> 13;
}

static __always_inline int is_member(const struct steer_group *g, __u32 stack)
{
	for (__u32 i = 0; i < STEER_MEMBERS && i < g->count; i++)
		if (g->stack[i] == stack)
			return 1;
	return 0;
}

/*
 * The stack of a shared port that has, or gets, the flow. Remembered when it opens, so that it stays where it is when
 * stacks come and go; what was forgotten is found again by its hash. A SYN that comes again goes where the first one
 * went, if that stack still listens.
 */
static __always_inline __u32 shared_stack(const struct steer_key *flow, __u32 group, __u8 opens)
{
	const struct steer_group *g;
	__u32 *known, stack, at, members;

	known = bpf_map_lookup_elem(&vd_flows, flow);
	if (known && !opens)
		return *known;
	group--;
	g = bpf_map_lookup_elem(&vd_groups, &group);
	if (!g)
		return STEER_KERNEL;
	if (known && is_member(g, *known))
		return *known;
	members = g->count;
	if (!members || members > STEER_MEMBERS)
		return STEER_KERNEL;
	at = key_hash(flow) % members;
	/* for the verifier, where the compiler would prove it superfluous */
	asm volatile("" : "+r"(at));
	if (at >= STEER_MEMBERS)
		return STEER_KERNEL;
	stack = g->stack[at];
	if (opens)
		bpf_map_update_elem(&vd_flows, flow, &stack, BPF_ANY);
	return stack;
}

/* The stack that has entered the flow itself; STEER_KERNEL: none has. */
static __always_inline __u32 table_stack(const struct steer_key *key)
{
	const struct daemon_flow_set *set;
	__u32 k[DAEMON_FLOW_WORDS], hash, at;

	__builtin_memcpy(k, key, sizeof(k));
	hash = daemon_flow_hash(k);
	at = daemon_flow_set_of(hash);
	set = bpf_map_lookup_elem(&vd_table, &at);
	if (!set)
		return STEER_KERNEL;
	for (__u32 i = 0; i < DAEMON_FLOW_WAYS; i++) {
		const __u32 *word = (const __u32 *)&set->flow[i];
		__u32 differs = 0;

		if (set->tag[i] != (hash | 1))
			continue;
		for (__u32 j = 0; j < DAEMON_FLOW_WORDS; j++)
			differs |= word[j] ^ k[j];
		if (!differs)
			return set->stack[i];
	}
	return STEER_KERNEL;
}

/* The filter for the whole port that covers the flow; key is changed on the way. */
static __always_inline const struct steer_target *find_port(const struct steer_kinds *kinds, struct steer_key *k)
{
	const struct steer_target *t = NULL;

	__builtin_memset(k->remote, 0, 16);
	k->remote_port = 0;
	if (kinds->addresses)
		t = bpf_map_lookup_elem(&vd_filters, k);
	if (t || !kinds->anys || !bpf_map_lookup_elem(&vd_addrs, k->local))
		return t;
	__builtin_memset(k->local, 0, 16);
	return bpf_map_lookup_elem(&vd_filters, k);
}

static __always_inline __u32 stack_of(const struct parsed *f)
{
	struct steer_key key = f->key;
	const struct steer_target *t = NULL;
	const struct steer_kinds *kinds;
	__u32 zero = 0, stack;

	kinds = bpf_map_lookup_elem(&vd_kinds, &zero);
	if (!kinds)
		return STEER_KERNEL;
	if (kinds->flows)
		t = bpf_map_lookup_elem(&vd_filters, &key);
	if (!t && kinds->table) {
		stack = table_stack(&key);
		if (stack < STEER_STACKS)
			return stack;
	}
	if (!t)
		t = find_port(kinds, &key);
	if (!t)
		return STEER_KERNEL;
	return t->stack == STEER_SHARED ? shared_stack(&f->key, t->group, f->opens) : t->stack;
}

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	const __u16 *x = (const __u16 *)a, *y = (const __u16 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2];
}

/* The kernel's own (CO-RE): what of them is read here. */
struct xdp_buff {
	void *data_hard_start;
	__u32 frame_sz;
} __attribute__((preserve_access_index));

struct skb_shared_info {
	unsigned short gso_size;
} __attribute__((preserve_access_index));

#define CACHE_LINE 64u /* SMP_CACHE_BYTES: skb_shared_info begins at a multiple from the end */

/*
 * Several datagrams in one, which the kernel at the other end of a veth has left to us to cut (UDP_SEGMENT). Where is
 * said in the skb alone, and only the kernel goes by it. In generic XDP the frame's room ends with the skb's own
 * skb_shared_info (bpf_prog_run_generic_xdp, xdp_get_shared_info_from_buff).
 */
static __always_inline int uncut(struct xdp_md *ctx)
{
	const struct xdp_buff *x = (const void *)ctx;
	__u32 size = 0, info_size = bpf_core_type_size(struct skb_shared_info);
	unsigned short gso_size = 0;
	void *start = NULL;
	const struct skb_shared_info *info;

	info_size = (info_size + CACHE_LINE - 1) & ~(CACHE_LINE - 1);
	if (bpf_core_read(&start, sizeof(start), &x->data_hard_start) ||
	    bpf_core_read(&size, sizeof(size), &x->frame_sz))
		return 1;
	info = start + size - info_size;
	return bpf_core_read(&gso_size, sizeof(gso_size), &info->gso_size) || gso_size;
}

/* What the stack has on the interface that frames come in by like this; *at: its index. */
static __always_inline const struct steer_port *port_of(const struct steer_if_key *where, const struct ethhdr *eth,
							__u32 stack, __u8 proto, struct xdp_md *ctx, __u32 *at)
{
	const struct steer_if *iface = bpf_map_lookup_elem(&vd_ifaces, where);
	const struct steer_port *port;

	/* a group's address, or ours: what promiscuous interfaces see besides is nobody's here */
	if (!iface || iface->number >= STEER_IFACES || (!(eth->h_dest[0] & 1) && !same_mac(eth->h_dest, iface->mac)))
		return NULL;
	if (proto == IPPROTO_UDP && iface->skbs && uncut(ctx))
		return NULL;
	*at = steer_port_index(iface->number, stack);
	port = bpf_map_lookup_elem(&vd_ports, at);
	return port && port->mode ? port : NULL;
}

SEC("xdp.frags")
int vd_steer2(struct xdp_md *ctx)
{
	struct bytes b = {(void *)(long)ctx->data, (void *)(long)ctx->data_end};
	const struct ethhdr *eth = b.at;
	struct steer_if_key where = {.ifindex = ctx->ingress_ifindex};
	const struct steer_port *port;
	struct parsed f = {};
	__u32 stack, at = 0, first;

	if (take_frame(b, &f) || b.at + sizeof(*eth) > b.end)
		goto kernel;
	stack = stack_of(&f);
	if (stack >= STEER_STACKS)
		goto kernel;
	where.vlan = f.vlan;
	port = port_of(&where, eth, stack, f.key.proto, ctx, &at);
	if (!port && !f.vlan) {
		where.vlan = steer_untagged(stack);
		port = port_of(&where, eth, stack, f.key.proto, ctx, &at);
	}
	if (!port)
		goto kernel;
	first = at * STEER_QUEUES;
	/* a veth may outlive its stack's socket, as long as others live whose inner ends are in the same namespace */
	if (port->mode == DAEMON_MODE_VETH && !bpf_map_lookup_elem(&vd_xsks, &first))
		goto kernel;
	count(STEER_STAT_TO_STACK);
	if (port->mode == DAEMON_MODE_VETH)
		return bpf_redirect_map(&vd_veths, at, XDP_PASS);
	if (ctx->rx_queue_index < STEER_QUEUES)
		return bpf_redirect_map(&vd_xsks, first + ctx->rx_queue_index, XDP_PASS);
kernel:
	count(STEER_STAT_TO_KERNEL);
	return XDP_PASS;
}

SEC("xdp.frags")
int vd_inner2(struct xdp_md *ctx)
{
	return bpf_redirect_map(&vd_xsks, (ctx->ingress_ifindex - STEER_INNER) * STEER_QUEUES, XDP_DROP);
}

/* May the stack send this? Its filter must be the one that frames in the other direction find. */
static __always_inline int may_send(struct bytes b, __u32 vlan, const struct steer_outer *o)
{
	const struct ethhdr *eth = b.at;
	struct steer_key k;
	struct parsed f = {.vlan = vlan};

	if (b.at + sizeof(*eth) > b.end || !same_mac(eth->h_source, o->mac))
		return 0;
	if (take_frame(b, &f) || f.quoted || f.vlan != o->vlan)
		return 0;
	__builtin_memcpy(k.local, f.key.remote, 16);
	__builtin_memcpy(k.remote, f.key.local, 16);
	k.local_port = f.key.remote_port;
	k.remote_port = f.key.local_port;
	k.proto = f.key.proto;
	k.family = f.key.family;
	k.zero = 0;
	f.key = k;
	f.opens = 0;
	return stack_of(&f) == o->stack;
}

static __always_inline void count_leaving(struct steer_outer *o, int may)
{
	if (o)
		__sync_fetch_and_add(may ? &o->sent : &o->refused, 1);
	count(may ? STEER_STAT_SENT : STEER_STAT_REFUSED);
}

SEC("tc")
int vd_outer2(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	struct steer_outer *o = bpf_map_lookup_elem(&vd_outers, &ifindex);
	int may = 0;

	/* Ethernet, IP and TCP headers must lie in the part that can be read directly. */
	if (o && !bpf_skb_pull_data(skb, skb->len < 128 ? skb->len : 128)) {
		struct bytes b = {(void *)(long)skb->data, (void *)(long)skb->data_end};

		/* the kernel has taken the tag out by now */
		may = may_send(b, skb->vlan_present ? skb->vlan_tci & VLAN_ID : 0, o);
	}
	count_leaving(o, may);
	return o && may ? bpf_redirect(o->device, 0) : TC_ACT_SHOT;
}

/* The pair's MTU is larger than the interface's here: the kernel's redirect looks at that itself. */
SEC("xdp.frags")
int vd_outerskb2(struct xdp_md *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex;
	struct steer_outer *o = bpf_map_lookup_elem(&vd_outers, &ifindex);
	struct bytes b = {(void *)(long)ctx->data, (void *)(long)ctx->data_end};
	int may = o && may_send(b, 0, o);

	count_leaving(o, may);
	return o && may ? bpf_redirect(o->device, 0) : XDP_DROP;
}

/* Into a stack's veth go only frames that `steer` redirects: what a program here would send by that device is stopped.
 */
SEC("tc")
int vd_shut2(struct __sk_buff *skb)
{
	(void)skb;
	return TC_ACT_SHOT;
}

char vd_license[] SEC("license") = "Dual BSD/GPL";
