/* SPDX-License-Identifier: BSD-2-Clause */
/* Header fields in network order at any alignment, and IPv4 addresses in their v4-mapped form. */
#ifndef VD_BYTES_H
#define VD_BYTES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/*
 * An address that no program has memory at: in the first page, or the kernel's half. A program that passes one gets
 * EFAULT, as from the kernel. Whether any other address is mapped can't be told without a system call, or a handler of
 * SIGSEGV, which is the program's: one that is not gives a SIGSEGV in the library.
 */
static inline bool bad_address(const void *p)
{
	return (intptr_t)p < 4096;
}

static inline uint16_t get_be16(const void *p)
{
	uint16_t v;

	memcpy(&v, p, 2);
	return __builtin_bswap16(v);
}

static inline uint32_t get_be32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return __builtin_bswap32(v);
}

static inline void put_be16(void *p, uint32_t v)
{
	uint16_t b = __builtin_bswap16((uint16_t)v);

	memcpy(p, &b, 2);
}

static inline void put_be32(void *p, uint32_t v)
{
	uint32_t b = __builtin_bswap32(v);

	memcpy(p, &b, 4);
}

static inline uint64_t get_word(const void *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return v;
}

/* addr = ::ffff:v4 */
static inline void map_v4(uint8_t addr[16], const void *v4)
{
	static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};

	memcpy(addr, prefix, 12);
	memcpy(addr + 12, v4, 4);
}

static inline bool is_v4(const uint8_t addr[16])
{
	return get_word(addr) == 0 && get_be32(addr + 8) == 0xffff;
}

/* :: or ::ffff:0.0.0.0 */
static inline bool is_any(const uint8_t addr[16])
{
	uint64_t low = get_word(addr + 8);

	return get_word(addr) == 0 && (low == 0 || low == 0xffff0000u);
}

static inline bool addr_equal(const uint8_t a[16], const uint8_t b[16])
{
	return !((get_word(a) ^ get_word(b)) | (get_word(a + 8) ^ get_word(b + 8)));
}

#endif
