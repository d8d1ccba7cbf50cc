/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The Internet checksum (RFC 1071). Sums are kept in memory order: 16-bit words are added as the machine reads them,
 * and the folded sum is copied into the packet as it is (RFC 1071, 2(B): byte order independence).
 */
#include "engine/bytes.h"
#include "engine/engine.h"

static inline uint32_t fold64(uint64_t sum)
{
	sum = (sum & 0xffffffffu) + (sum >> 32);
	return (uint32_t)((sum & 0xffffffffu) + (sum >> 32));
}

uint32_t csum_add(const void *data, size_t len, uint32_t sum)
{
	const uint8_t *p = data;
	uint64_t s = sum;
	uint32_t w;

	/* 32-bit words into a 64-bit sum: carries can't be lost below 16 GiB. */
	for (; len >= 4; len -= 4, p += 4) {
		memcpy(&w, p, 4);
		s += w;
	}
	if (len & 2) {
		uint16_t h;

		memcpy(&h, p, 2);
		s += h;
		p += 2;
	}
	if (len & 1) { /* padded with a zero byte behind it */
		uint8_t pair[2] = {*p, 0};
		uint16_t h;

		memcpy(&h, pair, 2);
		s += h;
	}
	return fold64(s);
}

uint16_t csum_fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

uint32_t csum_pseudo(int family, const uint8_t src[16], const uint8_t dst[16], uint8_t proto, uint32_t len)
{
	uint8_t tail[8] = {0};
	uint32_t sum;

	put_be32(tail, len);
	tail[7] = proto;
	/* The IPv4 form has a 16-bit length and no other bytes: the same sum, as the rest is zero. */
	sum = csum_add(tail, sizeof(tail), 0);
	if (family == 4) {
		sum = csum_add(src + 12, 4, sum);
		return csum_add(dst + 12, 4, sum);
	}
	sum = csum_add(src, 16, sum);
	return csum_add(dst, 16, sum);
}
