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

static inline uint64_t word32(const uint8_t *p)
{
	uint32_t w;

	memcpy(&w, p, 4);
	return w;
}

uint32_t csum_pseudo(int family, const uint8_t src[16], const uint8_t dst[16], uint8_t proto, uint32_t len)
{
	/* The IPv4 form has a 16-bit length and no other bytes: the same sum, as the rest is zero. */
	uint64_t sum = (uint64_t)__builtin_bswap32(len) + ((uint64_t)proto << 24) + word32(src + 12) + word32(dst + 12);

	if (family != 4)
		for (int i = 0; i < 12; i += 4)
			sum += word32(src + i) + word32(dst + i);
	return fold64(sum);
}
