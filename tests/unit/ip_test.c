/* SPDX-License-Identifier: BSD-2-Clause */
/* Ethernet, IPv4 and IPv6: what is let in, what is dropped and counted, and the headers that go out. */
#include "engine_pair.h"

#define IP ETH_HEADER

static uint8_t f[4096];

/* Give a frame to stack 1; true if its datagram reached socket k (which is emptied). */
static bool reaches(struct pair *t, struct sock *k, uint32_t len, bool csum_ok)
{
	uint8_t buf[64];

	engine_input(t->e[1], 0, f, len, csum_ok, t->now);
	return recv_bytes(t->e[1], k, buf, sizeof(buf), NULL) >= 0;
}

static uint64_t drops(const struct engine *e)
{
	return COUNTED(e, frame_truncated) + COUNTED(e, eth_unknown) + COUNTED(e, eth_group) +
	       COUNTED(e, ip_bad_header) + COUNTED(e, ip_bad_checksum) + COUNTED(e, ip_bad_address) +
	       COUNTED(e, ip_fragment) + COUNTED(e, ip_options) + COUNTED(e, ip_unknown_proto);
}

/* Nothing was sent by stack 1. */
static void assert_silent(struct pair *t)
{
	assert_int_equal(t->e[1]->vnic[0].st->stats.tx_frames, 0);
}

static void every_truncation_of_an_ipv4_frame_is_dropped(void **state)
{
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v4(2, 2000), NULL);
	uint32_t len = make_udp4(f, "0123456789", 10);

	for (uint32_t cut = 0; cut < len; cut++) {
		uint8_t *exact = malloc(cut + 1); /* so that a sanitizer sees a byte too far */

		memcpy(exact, f, cut);
		engine_input(t->e[1], 0, exact, cut, true, t->now);
		free(exact);
		assert_int_equal(COUNTED(t->e[1], frame_truncated), cut + 1);
	}
	assert_true(reaches(t, k, len, false));
	assert_silent(t);
	assert_quiet(t);
}

static void every_truncation_of_an_ipv6_frame_is_dropped(void **state)
{
	static const uint8_t ext[16] = {PROTO_DSTOPTS, 0, 1, 4, 0, 0, 0, 0, PROTO_UDP, 0, 1, 4};
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v6(2, 2000), NULL);
	uint32_t len = make_udp6(f, PROTO_HOPOPTS, ext, 16, 10);

	for (uint32_t cut = 0; cut < len; cut++) {
		uint8_t *exact = malloc(cut + 1);

		memcpy(exact, f, cut);
		engine_input(t->e[1], 0, exact, cut, true, t->now);
		if (cut >= ETH_HEADER + IPV6_HEADER) { /* and once more with a payload length that agrees */
			put_be16(exact + IP + 4, cut - ETH_HEADER - IPV6_HEADER);
			engine_input(t->e[1], 0, exact, cut, true, t->now);
		}
		free(exact);
	}
	assert_int_equal(k->rxq.count, 0);
	assert_true(reaches(t, k, len, false));
	assert_silent(t);
	assert_quiet(t);
}

static void ipv4_lengths_that_lie_are_dropped(void **state)
{
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v4(2, 2000), NULL);
	uint32_t len = make_udp4(f, "0123456789", 10);

	for (uint32_t ihl = 0; ihl < 16; ihl++) {
		f[IP] = (uint8_t)(0x40 | ihl);
		assert_int_equal(reaches(t, k, len, true), ihl == 5);
	}
	for (uint32_t version = 0; version < 16; version++) {
		f[IP] = (uint8_t)(version << 4 | 5);
		assert_int_equal(reaches(t, k, len, true), version == 4);
	}
	f[IP] = 0x45;
	for (uint32_t total = 0; total <= 0xffff; total++) {
		put_be16(f + IP + 2, total);
		assert_int_equal(reaches(t, k, len, true), total == len - ETH_HEADER);
	}
	assert_silent(t);
	assert_quiet(t);
}

static void padding_behind_the_packet_is_cut_off(void **state)
{
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v4(2, 2000), NULL);
	uint8_t buf[64];

	make_udp4(f, "abc", 3);
	memset(f + ETH_HEADER + IPV4_HEADER + UDP_HEADER + 3, 0xaa, 15);
	engine_input(t->e[1], 0, f, 60, false, t->now);
	assert_int_equal(recv_bytes(t->e[1], k, buf, sizeof(buf), NULL), 3);
	assert_memory_equal(buf, "abc", 3);
	assert_quiet(t);
}

static void ipv4_options_are_skipped(void **state)
{
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v4(2, 2000), NULL);
	uint32_t len = make_udp4(f, "0123456789", 10), n = 12;

	memmove(f + IP + IPV4_HEADER + n, f + IP + IPV4_HEADER, len - IP - IPV4_HEADER);
	memset(f + IP + IPV4_HEADER, 0x83, n); /* a source route, full of junk */
	f[IP] = 0x48;
	put_be16(f + IP + 2, len - ETH_HEADER + n);
	fix_ip_checksum(f);
	assert_true(reaches(t, k, len + n, false));
	assert_quiet(t);
}

static void a_wrong_header_checksum_is_never_trusted(void **state)
{
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v4(2, 2000), NULL);
	uint32_t len = make_udp4(f, "0123456789", 10);

	for (uint32_t i = 0; i < IPV4_HEADER; i++)
		for (int bit = 0; bit < 8; bit++) {
			f[IP + i] ^= (uint8_t)(1 << bit);
			assert_false(reaches(t, k, len, false));
			f[IP + i] ^= (uint8_t)(1 << bit);
		}
	assert_true(COUNTED(t->e[1], ip_bad_checksum) > 100);
	assert_true(reaches(t, k, len, false));
	assert_silent(t);
	assert_quiet(t);
}

static void ipv4_fragments_are_left_to_the_kernel(void **state)
{
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v4(2, 2000), NULL);
	uint32_t len = make_udp4(f, "0123456789", 10);
	const uint16_t frag[] = {0x2000, 0x0001, 0x1fff, 0x3fff, 0x2001};

	for (size_t i = 0; i < sizeof(frag) / sizeof(frag[0]); i++) {
		put_be16(f + IP + 6, frag[i]);
		assert_false(reaches(t, k, len, true));
		assert_int_equal(COUNTED(t->e[1], ip_fragment), i + 1);
	}
	put_be16(f + IP + 6, 0x4000); /* don't fragment */
	assert_true(reaches(t, k, len, true));
	assert_quiet(t);
}

static void odd_ipv4_addresses_are_dropped_in_silence(void **state)
{
	static const uint8_t odd[][4] = {{0, 0, 0, 0},   {0, 1, 2, 3},         {224, 0, 0, 1}, {239, 255, 255, 255},
					 {240, 0, 0, 1}, {255, 255, 255, 255}, {254, 1, 1, 1}};
	struct pair *t = *state;
	struct endpoint any = {.addr = {[10] = 0xff, [11] = 0xff}, .port = 2000};
	struct sock *k = udp_socket(t->e[1], any, NULL);
	uint32_t len = make_udp4(f, "0123456789", 10);

	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
		for (uint32_t at = 12; at <= 16; at += 4) {
			make_udp4(f, "0123456789", 10);
			memcpy(f + IP + at, odd[i], 4);
			assert_false(reaches(t, k, len, true));
			put_be16(f + IP + IPV4_HEADER + 2, 9); /* also where no socket would answer */
			assert_false(reaches(t, k, len, true));
		}
	assert_int_equal(COUNTED(t->e[1], ip_bad_address), 2 * 2 * sizeof(odd) / sizeof(odd[0]));
	assert_silent(t);
	assert_quiet(t);
}

static void odd_ipv6_addresses_are_dropped_in_silence(void **state)
{
	static const uint8_t odd[][16] = {
	    {0}, {0xff, 2, [15] = 1}, {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 2}, {[10] = 0xff, [11] = 0xff}};
	struct pair *t = *state;
	struct sock *any = udp_socket(t->e[1], (struct endpoint){.port = 2000}, NULL);
	struct sock *four = udp_socket(t->e[1], v4(2, 2000), NULL);
	uint32_t len;

	any->family = 6;
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
		for (uint32_t at = 8; at <= 24; at += 16) {
			len = make_udp6(f, PROTO_UDP, NULL, 0, 10);
			memcpy(f + IP + at, odd[i], 16);
			assert_false(reaches(t, any, len, true));
			assert_int_equal(four->rxq.count, 0);
		}
	assert_int_equal(COUNTED(t->e[1], ip_bad_address), 8);
	len = make_udp6(f, PROTO_UDP, NULL, 0, 10);
	assert_true(reaches(t, any, len, true));
	assert_silent(t);
	assert_quiet(t);
}

static void a_packet_from_itself_needs_a_socket_connected_to_itself(void **state)
{
	struct pair *t = *state;
	struct endpoint self = v4(2, 2000);
	struct sock *k = udp_socket(t->e[1], self, NULL), *loop;
	uint32_t len = make_udp4(f, "0123456789", 10);

	memcpy(f + IP + 12, self.addr + 12, 4);
	assert_true(reaches(t, k, len, true)); /* the same address with another port is an ordinary peer */
	put_be16(f + IP + IPV4_HEADER, 2000);
	assert_false(reaches(t, k, len, true));
	assert_int_equal(COUNTED(t->e[1], ip_bad_address), 1);
	put_be16(f + IP + IPV4_HEADER, 7); /* and where there is no socket: no answer either */
	put_be16(f + IP + IPV4_HEADER + 2, 7);
	assert_false(reaches(t, k, len, true));
	assert_int_equal(COUNTED(t->e[1], ip_bad_address), 2);
	f[IP + 9] = PROTO_TCP; /* the classic: SYN with source and destination the same */
	assert_false(reaches(t, k, len, true));
	assert_int_equal(COUNTED(t->e[1], ip_bad_address), 3);
	f[IP + 9] = PROTO_UDP;
	put_be16(f + IP + IPV4_HEADER, 2000);
	put_be16(f + IP + IPV4_HEADER + 2, 2000);
	loop = udp_socket(t->e[1], self, &self);
	assert_true(reaches(t, loop, len, true));
	assert_silent(t);
	assert_quiet(t);
}

static void ipv6_extension_headers_are_skipped_within_bounds(void **state)
{
	uint8_t ext[64] = {PROTO_DSTOPTS, 1, 1, 12}; /* hop by hop: one PadN; then destination options: Pad1s */
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v6(2, 2000), NULL);
	uint32_t len;

	ext[16] = PROTO_UDP;
	assert_true(reaches(t, k, make_udp6(f, PROTO_HOPOPTS, ext, 24, 10), false));
	for (uint32_t n = 0; n < 256; n++) { /* header lengths that lie */
		len = make_udp6(f, PROTO_HOPOPTS, ext, 24, 10);
		f[IP + IPV6_HEADER + 1] = (uint8_t)n;
		assert_int_equal(reaches(t, k, len, true), n == 1);
	}
	for (uint32_t n = 0; n < 256; n++) { /* option lengths that lie */
		len = make_udp6(f, PROTO_HOPOPTS, ext, 24, 10);
		f[IP + IPV6_HEADER + 3] = (uint8_t)n;
		assert_int_equal(reaches(t, k, len, true), n <= 12);
	}
	for (uint32_t type = 1; type < 256; type++) { /* unknown options say themselves whether they may be skipped */
		len = make_udp6(f, PROTO_HOPOPTS, ext, 24, 10);
		f[IP + IPV6_HEADER + 2] = (uint8_t)type;
		assert_int_equal(reaches(t, k, len, true), type < 64);
	}
	assert_silent(t);
	assert_quiet(t);
}

static void ipv6_routing_fragments_and_misplaced_headers_are_dropped(void **state)
{
	uint8_t ext[24] = {PROTO_UDP, 0, 1, 4};
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v6(2, 2000), NULL);

	assert_false(reaches(t, k, make_udp6(f, PROTO_ROUTING, ext, 8, 10), true));
	assert_int_equal(COUNTED(t->e[1], ip_options), 1);
	assert_false(reaches(t, k, make_udp6(f, PROTO_FRAGMENT, ext, 8, 10), true));
	assert_int_equal(COUNTED(t->e[1], ip_fragment), 1);
	ext[0] = PROTO_HOPOPTS; /* hop-by-hop options anywhere but first */
	ext[8] = PROTO_UDP;
	ext[10] = 1;
	ext[11] = 4;
	assert_false(reaches(t, k, make_udp6(f, PROTO_DSTOPTS, ext, 16, 10), true));
	assert_int_equal(COUNTED(t->e[1], ip_options), 2);
	assert_false(reaches(t, k, make_udp6(f, 59, ext, 8, 10), true));         /* no next header */
	assert_false(reaches(t, k, make_udp6(f, PROTO_ICMP, ext, 8, 10), true)); /* IPv4's ICMP in IPv6 */
	assert_int_equal(COUNTED(t->e[1], ip_unknown_proto), 2);
	assert_silent(t);
	assert_quiet(t);
}

static void long_chains_of_extensions_end_at_what_was_read(void **state)
{
	uint8_t ext[2040];
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v6(2, 2000), NULL);

	for (uint32_t i = 0; i < sizeof(ext); i += 8)
		memcpy(ext + i, (uint8_t[8]){PROTO_DSTOPTS, 0, 1, 4}, 8);
	ext[sizeof(ext) - 8] = PROTO_UDP;
	assert_false(reaches(t, k, make_udp6(f, PROTO_DSTOPTS, ext, sizeof(ext), 10), true));
	assert_int_equal(COUNTED(t->e[1], frame_truncated), 1);
	assert_quiet(t);
}

static void foreign_frames_are_counted_and_dropped(void **state)
{
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v4(2, 2000), NULL);
	uint32_t len = make_udp4(f, "0123456789", 10);

	put_be16(f + 12, 0x0806); /* ARP */
	assert_false(reaches(t, k, len, true));
	assert_int_equal(COUNTED(t->e[1], eth_unknown), 1);
	put_be16(f + 12, ETH_IPV6); /* the type contradicts the version */
	assert_false(reaches(t, k, len, true));
	put_be16(f + 12, ETH_IPV4);
	memset(f, 0xff, 6);
	assert_false(reaches(t, k, len, true));
	assert_int_equal(COUNTED(t->e[1], eth_group), 1);
	f[0] = 2;
	f[IP + 9] = 132; /* SCTP */
	assert_false(reaches(t, k, len, true));
	assert_int_equal(COUNTED(t->e[1], ip_unknown_proto), 1);
	assert_silent(t);
	assert_quiet(t);
}

/* Frames made of a good one with some bytes changed: whatever happens, it is counted and nothing is lost. */
static void random_damage_never_does_harm(void **state)
{
	struct pair *t = *state;
	uint64_t seed = test_seed();
	struct sock *k = udp_socket(t->e[1], v4(2, 2000), NULL), *k6 = udp_socket(t->e[1], v6(2, 2000), NULL);
	static const uint8_t ext[8] = {PROTO_UDP, 0, 1, 4};
	uint8_t buf[64];

	for (uint32_t i = 0; i < 60000; i++) {
		uint32_t len = i & 1 ? make_udp4(f, "0123456789", 10) : make_udp6(f, PROTO_DSTOPTS, ext, 8, 10), cut;
		uint8_t *exact;

		for (uint32_t n = random_below(&seed, 4); n; n--)
			f[12 + random_below(&seed, len - 12)] = (uint8_t)random_below(&seed, 256);
		cut = random_below(&seed, 8) ? len : random_below(&seed, len + 1);
		exact = malloc(cut + 1);
		memcpy(exact, f, cut);
		t->now += 1000;
		engine_input(t->e[1], 0, exact, cut, random_below(&seed, 2), t->now);
		free(exact);
		while (recv_bytes(t->e[1], k, buf, sizeof(buf), NULL) >= 0 ||
		       recv_bytes(t->e[1], k6, buf, sizeof(buf), NULL) >= 0)
			;
		pair_poll(t, 0);
		if (i % 1000 == 0)
			assert_int_equal(stack_audit(t->e[1]), 0);
	}
	assert_true(drops(t->e[1]) > 10000);
	assert_quiet(t);
}

/* --- out --- */

static const struct ip_out *out4(struct ip_out *o, const struct endpoint *src, const struct endpoint *dst)
{
	*o = (struct ip_out){.family = is_v4(dst->addr) ? 4 : 6,
			     .proto = PROTO_UDP,
			     .ttl = 9,
			     .tos = 0x28,
			     .src = src->addr,
			     .dst = dst->addr,
			     .df = true};
	return o;
}

/* Send `len` bytes of payload from stack 0 and return the frame as it lies on the wire. */
static const uint8_t *sent(struct pair *t, struct endpoint src, struct endpoint dst, uint32_t len, uint32_t *total)
{
	struct vnic_desc ev[VNIC_BURST];
	struct sock *k = udp_socket(t->e[0], src, NULL);
	uint8_t payload[4096];
	int n;

	for (uint32_t i = 0; i < len; i++)
		payload[i] = (uint8_t)(i * 7);
	k->ttl = 9;
	k->tos = 0x28;
	assert_int_equal(send_bytes(t, 0, k, dst, payload, len), len);
	udp_close(t->e[0], k);
	n = t->e[1]->vnic[0].ops->poll(&t->e[1]->vnic[0], ev, VNIC_BURST);
	assert_int_equal(n, 1);
	t->e[1]->vnic[0].ops->release(&t->e[1]->vnic[0], ev[0].buf);
	*total = ev[0].len;
	return vnic_rx_buf(&t->e[1]->vnic[0], ev[0].buf) + ev[0].off;
}

static void outgoing_headers_are_right_bit_by_bit(void **state)
{
	struct pair *t = *state;
	uint32_t len;
	const uint8_t *h = sent(t, v4(1, 1000), v4(2, 2000), 11, &len);

	assert_int_equal(len, ETH_HEADER + IPV4_HEADER + UDP_HEADER + 11);
	assert_memory_equal(h, t->e[0]->vnic[0].st->peer_mac, 6);
	assert_memory_equal(h + 6, t->e[0]->vnic[0].st->mac, 6);
	assert_int_equal(get_be16(h + 12), ETH_IPV4);
	assert_int_equal(h[IP], 0x45);
	assert_int_equal(h[IP + 1], 0x28);
	assert_int_equal(get_be16(h + IP + 2), len - ETH_HEADER);
	assert_int_equal(get_be16(h + IP + 6), 0x4000);
	assert_int_equal(h[IP + 8], 9);
	assert_int_equal(h[IP + 9], PROTO_UDP);
	assert_memory_equal(h + IP + 12, v4(1, 0).addr + 12, 4);
	assert_memory_equal(h + IP + 16, v4(2, 0).addr + 12, 4);
	h = sent(t, v6(1, 1000), v6(2, 2000), 11, &len);
	assert_int_equal(len, ETH_HEADER + IPV6_HEADER + UDP_HEADER + 11);
	assert_int_equal(get_be16(h + 12), ETH_IPV6);
	assert_int_equal(get_be32(h + IP), 0x62800000u);
	assert_int_equal(get_be16(h + IP + 4), UDP_HEADER + 11);
	assert_int_equal(h[IP + 6], PROTO_UDP);
	assert_int_equal(h[IP + 7], 9);
	assert_memory_equal(h + IP + 8, v6(1, 0).addr, 16);
	assert_memory_equal(h + IP + 24, v6(2, 0).addr, 16);
	assert_quiet(t);
}

static void checksums_are_filled_in_where_the_vnic_wants_them(void **state)
{
	struct pair *t = *state;
	struct sock *k = udp_socket(t->e[1], v4(2, 2000), NULL), *k6 = udp_socket(t->e[1], v6(2, 2000), NULL);

	t->e[0]->vnic[0].st->features &= ~VNIC_FEAT_CSUM_TX;
	for (uint32_t n = 0; n < 50; n++) {
		uint32_t len;

		memcpy(f, sent(t, v4(1, 1000), v4(2, 2000), n, &len), 256);
		assert_true(get_be16(f + IP + IPV4_HEADER + 6) != 0);
		assert_true(reaches(t, k, len, false));
		memcpy(f, sent(t, v6(1, 1000), v6(2, 2000), n, &len), 256);
		assert_true(reaches(t, k6, len, false));
	}
	assert_quiet(t);
}

/* Several buffers, some with an odd number of bytes: the sum over the parts must be that over the whole. */
static void a_checksum_over_several_buffers_is_that_of_the_whole(void **state)
{
	struct pair *t = *state;
	struct vnic *v = &t->e[0]->vnic[0];
	struct endpoint src = v4(1, 1000), dst = v4(2, 2000);
	struct sock *k = udp_socket(t->e[1], dst, NULL);
	struct vnic_desc part[5], ev[VNIC_BURST];
	uint32_t lens[5] = {UDP_HEADER + 3, 5, 1, 8, 7}, len = 0;
	struct ip_out o;

	v->st->features &= ~VNIC_FEAT_CSUM_TX;
	for (int i = 0; i < 5; i++) {
		int buf = vnic_tx_alloc(v);

		part[i] = (struct vnic_desc){.buf = (uint32_t)buf, .off = PKT_HEADROOM, .len = (uint16_t)lens[i]};
		memset(vnic_tx_buf(v, part[i].buf) + PKT_HEADROOM, 0x91 + i, lens[i]);
		len += lens[i];
	}
	put_be16(vnic_tx_buf(v, part[0].buf) + PKT_HEADROOM, 1000);
	put_be16(vnic_tx_buf(v, part[0].buf) + PKT_HEADROOM + 2, 2000);
	put_be16(vnic_tx_buf(v, part[0].buf) + PKT_HEADROOM + 4, len);
	ip_output(t->e[0], out4(&o, &src, &dst), part, 5, 6);
	for (int i = 0; i < 5; i++)
		vnic_tx_free(v, part[i].buf);
	assert_int_equal(t->e[1]->vnic[0].ops->poll(&t->e[1]->vnic[0], ev, VNIC_BURST), 5);
	len = 0;
	for (int i = 0; i < 5; i++) {
		memcpy(f + len, vnic_rx_buf(&t->e[1]->vnic[0], ev[i].buf) + ev[i].off, ev[i].len);
		len += ev[i].len;
		t->e[1]->vnic[0].ops->release(&t->e[1]->vnic[0], ev[i].buf);
	}
	assert_true(reaches(t, k, len, false));
	assert_int_equal(COUNTED(t->e[1], udp_bad_checksum), 0);
	assert_quiet(t);
}

/* The receiver sums over parts of odd length as well. */
static void a_checksum_is_verified_across_odd_parts(void **state)
{
	struct pair *t = *state;
	struct vnic *v = &t->e[0]->vnic[0];
	struct sock *k = udp_socket(t->e[1], v4(2, 2000), NULL);
	uint8_t payload[900];
	uint64_t seed = test_seed();

	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)random_below(&seed, 256);
	for (int round = 0; round < 300; round++) {
		uint32_t len = make_udp4(f, payload, random_below(&seed, sizeof(payload) + 1)), at = 0;
		struct frame fr = {.vnic = 0, .family = 4, .total = len, .hdr_len = 43 + random_below(&seed, 2)};
		struct endpoint src = v4(1, 0), dst = v4(2, 0);

		if (fr.hdr_len > len)
			fr.hdr_len = len;
		memcpy(fr.hdr, f, fr.hdr_len);
		while (at < len) {
			uint32_t n = fr.parts ? 1 + random_below(&seed, 200) : fr.hdr_len;
			int buf = vnic_tx_alloc(v);

			n = n > len - at ? len - at : n;
			memcpy(vnic_tx_buf(v, (uint32_t)buf), f + at, n);
			if (fr.parts == FRAME_PARTS - 1)
				n = len - at, memcpy(vnic_tx_buf(v, (uint32_t)buf), f + at, n);
			fr.part[fr.parts++] = (struct vnic_desc){.buf = (uint32_t)buf, .len = (uint16_t)n};
			at += n;
		}
		assert_int_equal(
		    csum_fold(frame_sum(t->e[1], &fr, ETH_HEADER + IPV4_HEADER, len,
					csum_pseudo(4, src.addr, dst.addr, PROTO_UDP, len - ETH_HEADER - IPV4_HEADER))),
		    0);
		for (uint32_t i = 0; i < fr.parts; i++)
			vnic_tx_free(v, fr.part[i].buf);
	}
	assert_int_equal(k->rxq.count, 0);
}

static void nothing_larger_than_the_mtu_goes_out(void **state)
{
	struct pair *t = *state;
	struct vnic *v = &t->e[0]->vnic[0];
	struct endpoint src = v4(1, 1000), dst = v4(2, 2000);
	struct vnic_desc part;
	struct ip_out o;
	int buf = vnic_tx_alloc(v);

	v->st->mtu = 1000;
	assert_int_equal(ip_mtu_payload(t->e[0], 0, 4), 980);
	assert_int_equal(ip_mtu_payload(t->e[0], 0, 6), 960);
	part = (struct vnic_desc){.buf = (uint32_t)buf, .off = PKT_HEADROOM, .len = 981};
	ip_output(t->e[0], out4(&o, &src, &dst), &part, 1, 6);
	assert_int_equal(COUNTED(t->e[0], ip_too_big), 1);
	part = (struct vnic_desc){.buf = (uint32_t)buf, .off = 20, .len = 10}; /* no room for headers */
	ip_output(t->e[0], &o, &part, 1, 6);
	assert_int_equal(COUNTED(t->e[0], ip_too_big), 2);
	assert_int_equal(v->st->stats.tx_frames, 0);
	vnic_tx_free(v, (uint32_t)buf);
	o.vnic = 5;
	ip_output(t->e[0], &o, &part, 1, 6);
	o.vnic = VNIC_NONE;
	ip_output(t->e[0], &o, &part, 1, 6);
	assert_int_equal(COUNTED(t->e[0], ip_no_vnic), 2);
	assert_quiet(t);
}

int main(void)
{
#define ON_PAIR(test) cmocka_unit_test_setup_teardown(test, pair_setup, pair_teardown)
	const struct CMUnitTest tests[] = {
	    ON_PAIR(every_truncation_of_an_ipv4_frame_is_dropped),
	    ON_PAIR(every_truncation_of_an_ipv6_frame_is_dropped),
	    ON_PAIR(ipv4_lengths_that_lie_are_dropped),
	    ON_PAIR(padding_behind_the_packet_is_cut_off),
	    ON_PAIR(ipv4_options_are_skipped),
	    ON_PAIR(a_wrong_header_checksum_is_never_trusted),
	    ON_PAIR(ipv4_fragments_are_left_to_the_kernel),
	    ON_PAIR(odd_ipv4_addresses_are_dropped_in_silence),
	    ON_PAIR(odd_ipv6_addresses_are_dropped_in_silence),
	    ON_PAIR(a_packet_from_itself_needs_a_socket_connected_to_itself),
	    ON_PAIR(ipv6_extension_headers_are_skipped_within_bounds),
	    ON_PAIR(ipv6_routing_fragments_and_misplaced_headers_are_dropped),
	    ON_PAIR(long_chains_of_extensions_end_at_what_was_read),
	    ON_PAIR(foreign_frames_are_counted_and_dropped),
	    ON_PAIR(random_damage_never_does_harm),
	    ON_PAIR(outgoing_headers_are_right_bit_by_bit),
	    ON_PAIR(checksums_are_filled_in_where_the_vnic_wants_them),
	    ON_PAIR(a_checksum_over_several_buffers_is_that_of_the_whole),
	    ON_PAIR(a_checksum_is_verified_across_odd_parts),
	    ON_PAIR(nothing_larger_than_the_mtu_goes_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
