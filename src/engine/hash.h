/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The fast hash of endpoints for tables in memory: a multiplicative universal hash, keyed with secret words that
 * nobody outside ever sees the effect of, so a peer can't choose addresses and ports that collide. Where a hash value
 * becomes visible (sequence numbers, cookies) keyed_hash is used instead.
 */
#ifndef VD_HASH_H
#define VD_HASH_H

#include "engine/bytes.h"
#include "engine/sock.h"

static inline uint64_t hash_mul(uint64_t a, uint64_t b)
{
	__uint128_t r = (__uint128_t)a * b;

	return (uint64_t)r ^ (uint64_t)(r >> 64);
}

static inline uint64_t endpoint_hash(const uint64_t key[4], const uint8_t addr[16], uint64_t port)
{
	uint64_t a = hash_mul(get_word(addr) ^ key[0], get_word(addr + 8) ^ key[1]);

	return hash_mul(a ^ key[2], port ^ key[3]);
}

#endif
