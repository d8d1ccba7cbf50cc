/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ethernet II and 802.1Q: which protocol a frame carries. Called by engine_poll and engine_input with frame.hdr filled.
 *
 * A wire gets only what its peer sends us, so addresses there say nothing. From a network comes what the device was
 * told to steer here: its destination must be one of our interfaces' addresses, its source a station's, its VLAN tag
 * that of one of our interfaces. A frame without a tag is good everywhere: devices take tags off, and whoever steers
 * has seen them. Of frames to a group's address those of the network go on: UDP may have members of the group, and ip.c
 * drops what is to no group (RFC 1122, 3.3.6 wants no answer to such).
 */
#include "engine/bytes.h"
#include "engine/engine.h"
#include "engine/inet.h"

#define GROUP_BIT 0x01u
#define VLAN_ID 0x0fffu

static bool mac_equal(const uint8_t a[6], const uint8_t b[6])
{
	return !((get_be32(a) ^ get_be32(b)) | (uint32_t)(get_be16(a + 4) ^ get_be16(b + 4)));
}

/* Is this the address (mac, or NULL), or the tag, of any of our interfaces? */
static bool any_interface(const struct engine *e, const uint8_t *mac, uint16_t vlan)
{
	for (uint32_t w = 0; w < VNIC_WORDS; w++) {
		for (uint64_t bits = e->s->vnic_used[w]; bits; bits &= bits - 1) {
			const struct vnic_state *st = stack_vnic(e->s, w * 64 + (uint32_t)__builtin_ctzll(bits));

			if (vnic_is_network(st) && (mac ? mac_equal(mac, st->mac) : st->vlan == vlan))
				return true;
		}
	}
	return false;
}

/* Addresses and tag of a frame from the network. False: dropped. *type: behind the tag. */
static bool network_frame(struct engine *e, struct frame *f, const struct vnic_state *st, uint16_t *type)
{
	const uint8_t *h = f->hdr;
	uint16_t vlan;

	if (h[6] & GROUP_BIT || (!f->group && !mac_equal(h, st->mac) && !any_interface(e, h, 0))) {
		count(e->s, C_eth_other);
		return false;
	}
	if (*type != ETH_VLAN)
		return true;
	if (f->hdr_len < ETH_HEADER + VLAN_TAG) {
		count(e->s, C_frame_truncated);
		return false;
	}
	vlan = get_be16(h + ETH_HEADER) & VLAN_ID;
	if (vlan && vlan != st->vlan && !any_interface(e, NULL, vlan)) {
		count(e->s, C_eth_vlan);
		return false;
	}
	*type = get_be16(h + ETH_HEADER + 2);
	f->l3 += VLAN_TAG;
	return true;
}

void frame_input(struct engine *e, struct frame *f)
{
	const struct vnic_state *st = stack_vnic(e->s, f->vnic);
	uint16_t type;

	if (__builtin_expect(f->hdr_len < ETH_HEADER, 0)) {
		count(e->s, C_frame_truncated);
		return;
	}
	f->network = vnic_is_network(st);
	f->group = f->hdr[0] & GROUP_BIT;
	if (__builtin_expect(f->group && !f->network, 0)) {
		count(e->s, C_eth_group);
		return;
	}
	type = get_be16(f->hdr + 12);
	f->l3 = ETH_HEADER;
	f->csum_partial = f->network && st->features & VNIC_FEAT_CSUM_PARTIAL;
	if (f->network && !network_frame(e, f, st, &type))
		return;
	if (type == ETH_IPV4)
		f->family = 4;
	else if (type == ETH_IPV6)
		f->family = 6;
	else {
		count(e->s, C_eth_unknown);
		return;
	}
	f->off = f->l3;
	ip_input(e, f);
}
